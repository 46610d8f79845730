//! Encoding and decoding of typed messages, with the status of a failure.

use super::body::Body;
use crate::{
    status::{Code, Status},
    wire::{decode_value, encode_value},
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

pub(super) fn encode_request<T: Serialize + ?Sized>(message: &T) -> Result<Bytes, Status> {
    encode_value(message).map_err(|fault| invalid(format!("the message does not encode: {fault}")))
}

pub(super) fn invalid(text: String) -> Status {
    Status::not_executed(Code::InvalidArgument, text)
}

/// Decodes a request's message. A message that does not decode has the outcome not executed.
pub(crate) fn decode_request<T: DeserializeOwned>(body: Body) -> Result<T, Status> {
    let Body::Message(message) = body else {
        return Err(Status::not_executed(
            Code::Internal,
            "a stream of messages came to a method that takes one",
        ));
    };
    decode_value(&message).map_err(|fault| {
        Status::not_executed(
            Code::InvalidArgument,
            format!("the message does not decode into what the method takes: {fault}"),
        )
    })
}

/// Decodes a reply's message. The handler has run, so a failure has the outcome unknown.
pub(super) fn decode_reply<T: DeserializeOwned>(message: &[u8]) -> Result<T, Status> {
    decode_value(message).map_err(|fault| {
        Status::unknown(
            Code::Internal,
            format!("the reply does not decode into what was expected: {fault}"),
        )
    })
}

pub(super) fn encode_reply<R: Serialize>(value: &R) -> Result<Bytes, Status> {
    encode_value(value).map_err(|fault| {
        Status::unknown(Code::Internal, format!("the reply does not encode: {fault}"))
    })
}
