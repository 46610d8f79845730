//! Rust values in and out of messages: typed methods on the hosting side, and the decoding of replies.

use super::{
    DynHandler, ReplyFuture,
    message::{Context, Reply, Request},
};
use crate::{
    status::{Code, Status},
    wire::{decode_value, encode_value},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, marker::PhantomData, sync::Arc};

/// Decodes a request's message. A message that does not decode was not executed.
fn decode_request<T: DeserializeOwned>(message: &[u8]) -> Result<T, Status> {
    decode_value(message).map_err(|fault| {
        Status::not_executed(
            Code::InvalidArgument,
            format!("the message does not decode into what the method takes: {fault}"),
        )
    })
}

/// Decodes a reply's message. The handler ran and answered, so what failed is only our reading of it.
pub(super) fn decode_reply<T: DeserializeOwned>(message: &[u8]) -> Result<T, Status> {
    decode_value(message).map_err(|fault| {
        Status::unknown(
            Code::Internal,
            format!("the reply does not decode into what was expected: {fault}"),
        )
    })
}

/// A method as a function of a value and its context.
///
/// Whatever error the function returns is the handler's own answer (outcome `app_error`), even a status that it got from elsewhere.
pub(crate) struct TypedMethod<F, T, R> {
    function: F,
    _types: PhantomData<fn(T) -> R>,
}

impl<F, T, R, Fut> TypedMethod<F, T, R>
where
    F: Fn(T, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Status>> + Send + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    /// Wraps a function or closure.
    pub(crate) fn new(function: F) -> Self {
        Self { function, _types: PhantomData }
    }
}

impl<F, T, R, Fut> DynHandler for TypedMethod<F, T, R>
where
    F: Fn(T, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Status>> + Send + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    fn call_boxed(self: Arc<Self>, request: Request) -> ReplyFuture {
        Box::pin(async move {
            let (context, message, guard) = Context::split(request);
            let value = decode_request(&message)?;
            drop(message);
            let result = (self.function)(value, context).await;
            guard.disarm();
            let value = result.map_err(Status::into_app_error)?;
            let message = encode_value(&value).map_err(|fault| {
                Status::unknown(Code::Internal, format!("the reply does not encode: {fault}"))
            })?;
            Ok(Reply::new(message))
        })
    }
}
