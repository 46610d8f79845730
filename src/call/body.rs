//! Body of a request or a reply: one message, or a stream of messages.

use super::messages::Messages;
use crate::status::{Code, Status};
use bytes::Bytes;

/// Body of a request or a reply.
#[derive(Debug)]
pub enum Body {
    /// One message, in hand.
    Message(Bytes),
    /// A stream of messages.
    Messages(Messages),
}

impl Body {
    /// The message of a body that has exactly one.
    pub(super) fn only(&self, of: &str) -> Result<&Bytes, Status> {
        match self {
            Self::Message(message) => Ok(message),
            Self::Messages(_) => {
                let text =
                    format!("the {of} is a stream of messages where one message was expected");
                Err(Status::unknown(Code::Internal, text))
            }
        }
    }
}

impl Body {
    /// True if another attempt can send it: it is not a stream.
    pub(crate) const fn can_be_sent_again(&self) -> bool {
        matches!(self, Self::Message(_))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Message(Bytes::new())
    }
}
