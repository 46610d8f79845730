//! Body of a request or a reply: one message, in hand or in parts, or a stream of messages.

use super::{messages::Messages, parts::MessageParts};
use crate::status::{Code, Status};
use bytes::Bytes;

/// Body of a request or a reply.
#[derive(Debug)]
pub enum Body {
    /// One message, in hand.
    Message(Bytes),
    /// One message that a node passes on while it comes. Handlers do not receive it.
    Parts(MessageParts),
    /// A stream of messages.
    Messages(Messages),
}

impl Body {
    /// The message of a body that has exactly one.
    pub(super) fn only(&self, of: &str) -> Result<&Bytes, Status> {
        match self {
            Self::Message(message) => Ok(message),
            Self::Messages(_) | Self::Parts(_) => {
                let text =
                    format!("the {of} is a stream of messages where one message was expected");
                Err(Status::unknown(Code::Internal, text))
            }
        }
    }

    /// Length of a single message, which may still be coming; zero for a stream.
    pub(crate) const fn message_bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.len(),
            Self::Parts(parts) => parts.bytes(),
            Self::Messages(_) => 0,
        }
    }

    /// The message, if it is still coming.
    pub(crate) fn coming(&mut self) -> Option<&mut MessageParts> {
        match self {
            Self::Parts(parts) if !parts.is_whole() => Some(parts),
            _ => None,
        }
    }

    /// True if another attempt can send it: not a stream, and not a message that will never come.
    pub(crate) fn can_be_sent_again(&self) -> bool {
        match self {
            Self::Message(_) => true,
            Self::Parts(parts) => !parts.has_failed(),
            Self::Messages(_) => false,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Message(Bytes::new())
    }
}
