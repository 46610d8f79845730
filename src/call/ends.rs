//! [`Outbound`] and [`Inbound`]: typed sender and receiver of a stream of messages.

use super::{
    codec::decode_reply,
    messages::{MessageSender, Messages},
};
use crate::{
    metadata::Metadata,
    status::{Code, Status},
    wire::{decode_value, encode_value},
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, marker::PhantomData};

/// Sender of a stream: messages of type `T` to the peer.
///
/// Back-pressure: a slow receiver delays it. On the initiator it is half of a call:
/// [`Outbound::finish`] closes this half only; dropping it before that resets the call, because an
/// abandoned stream must differ from a finished one. In a handler, its return ends the reply.
pub struct Outbound<T> {
    sender: MessageSender,
    _message: PhantomData<fn(T)>,
}

impl<T> Outbound<T> {
    pub(super) const fn new(sender: MessageSender) -> Self {
        Self { sender, _message: PhantomData }
    }

    /// Waits until there is room, and sends a message. May be dropped: then nothing was sent.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it does not encode; `CANCELLED` if the peer accepts no more: the end
    /// of the call has the reason.
    pub async fn send(&mut self, message: &T) -> Result<(), Status>
    where
        T: Serialize,
    {
        let encoded = encode_value(message).map_err(|fault| {
            let text = format!("a message does not encode: {fault}");
            Status::unknown(Code::InvalidArgument, text)
        })?;
        self.send_encoded(encoded).await
    }

    /// The same for a message that is CBOR already.
    ///
    /// # Errors
    /// As [`Outbound::send`].
    pub async fn send_encoded(&mut self, message: Bytes) -> Result<(), Status> {
        self.sender.send(message).await
    }

    /// Closes this direction after the last message, and keeps the other open.
    ///
    /// # Errors
    /// The peer accepts no more.
    pub async fn finish(self) -> Result<(), Status> {
        self.sender.finish().await
    }

    /// Completes when the peer accepts no more.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

impl<T> fmt::Debug for Outbound<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").finish_non_exhaustive()
    }
}

/// Side that receives the messages. Decides the outcome of a message that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Replies, at the initiator.
    Initiator,
    /// Requests, at a handler.
    Responder,
}

/// Receiver of a stream of `T` from the peer. Dropping it before its end resets the call.
///
/// Back-pressure: a slow reader delays the writer.
pub struct Inbound<T> {
    messages: Messages,
    side: Side,
    _message: PhantomData<fn() -> T>,
}

impl<T> Inbound<T> {
    pub(super) const fn new(messages: Messages, side: Side) -> Self {
        Self { messages, side, _message: PhantomData }
    }

    /// The next message; `None` once all have come. A reply without its status is an error.
    ///
    /// # Errors
    /// The reset, with code and outcome, or a message that does not decode. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<T, Status>>
    where
        T: DeserializeOwned,
    {
        let message = match self.messages.next().await? {
            Ok(message) => message,
            Err(status) => return Some(Err(status)),
        };
        Some(match self.side {
            Side::Initiator => decode_reply(&message),
            Side::Responder => decode_value(&message).map_err(|fault| {
                let text = format!("a message does not decode into what the method takes: {fault}");
                Status::new(Code::InvalidArgument, text)
            }),
        })
    }

    /// The next message as it came, CBOR.
    ///
    /// # Errors
    /// As [`Inbound::next`].
    pub async fn next_encoded(&mut self) -> Option<Result<Bytes, Status>> {
        self.messages.next().await
    }

    /// The pairs that travelled before the messages. They are here with the first message.
    pub fn metadata(&self) -> &Metadata {
        self.messages.metadata()
    }

    /// The pairs that travelled after the messages, once all have come.
    pub fn trailing(&self) -> &Metadata {
        self.messages.trailing()
    }
}

impl<T> fmt::Debug for Inbound<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").finish_non_exhaustive()
    }
}
