//! Kind of a call, in lists and on the wire.

use crate::limits::TCP_READ_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The shape of a call: how many messages go each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum CallKind {
    /// One message each way.
    Unary,
    /// One message in, any number out.
    ServerStream,
    /// Any number in, one out.
    ClientStream,
    /// Any number each way.
    Bidirectional,
    /// A forwarded HTTP exchange.
    Http,
    /// A forwarded byte stream.
    Tcp,
}

impl CallKind {
    const ALL: [Self; 6] = [
        Self::Unary,
        Self::ServerStream,
        Self::ClientStream,
        Self::Bidirectional,
        Self::Http,
        Self::Tcp,
    ];

    /// Name in lists: `unary`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::ClientStream => "client_stream",
            Self::Bidirectional => "bidirectional",
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }

    /// Returns `true` if it is a forward and not RPC: only such a call names a forward, `tcp:db`.
    pub const fn is_forward(self) -> bool {
        matches!(self, Self::Http | Self::Tcp)
    }

    /// Maximum message size for this kind, given the limit of other kinds. TCP chunks have a fixed
    /// limit that all peers know.
    pub(crate) const fn message_bytes_max(self, of_others: usize) -> usize {
        match self {
            Self::Tcp => TCP_READ_BYTES_MAX,
            _ => of_others,
        }
    }

    /// Content type of the messages; `None` is CBOR, one value each.
    pub(crate) const fn content_type(self) -> Option<&'static str> {
        match self {
            Self::Tcp => Some("application/octet-stream"),
            _ => None,
        }
    }

    /// Path of a method of this kind: `HelloService/Hello`, of a forward `tcp:db`.
    pub(crate) fn path(self, service: &str, method: &str) -> String {
        let split = if self.is_forward() { ':' } else { '/' };
        format!("{service}{split}{method}")
    }

    /// Returns `true` if the initiator sends a stream of messages, not exactly one.
    pub const fn streams_requests(self) -> bool {
        matches!(self, Self::ClientStream | Self::Bidirectional | Self::Http | Self::Tcp)
    }

    /// Returns `true` if the responder sends a stream of messages, not exactly one.
    pub const fn streams_replies(self) -> bool {
        matches!(self, Self::ServerStream | Self::Bidirectional | Self::Http | Self::Tcp)
    }
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<CallKind> for u8 {
    fn from(kind: CallKind) -> Self {
        kind as Self
    }
}

impl TryFrom<u8> for CallKind {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::ALL.get(usize::from(number)).copied().ok_or("unknown call kind")
    }
}
