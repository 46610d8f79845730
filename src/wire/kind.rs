//! Kind of a call, in lists and on the wire.

use crate::limits::{HTTP_MESSAGE_BYTES_MAX, TCP_READ_BYTES_MAX};
use serde::{Deserialize, Serialize};

codes! {
    /// The shape of a call: how many messages go each way.
    #[derive(Serialize, Deserialize)]
    #[serde(into = "u8", try_from = "u8")]
    pub(crate) CallKind: u8 {
        /// One message each way.
        Unary = 0, "unary";
        /// One message in, any number out.
        ServerStream = 1, "server_stream";
        /// Any number in, one out.
        ClientStream = 2, "client_stream";
        /// Any number each way.
        Bidirectional = 3, "bidirectional";
        /// A forwarded HTTP exchange.
        Http = 4, "http";
        /// A forwarded byte stream.
        Tcp = 5, "tcp";
    }
}

impl CallKind {
    /// Returns `true` if it is a forward and not RPC: only such a call names a forward, `tcp:db`.
    pub const fn is_forward(self) -> bool {
        matches!(self, Self::Http | Self::Tcp)
    }

    /// Maximum message size, given the limit of RPC. That of forwards is fixed and known to all.
    pub(crate) const fn message_bytes_max(self, of_rpc: usize) -> usize {
        match self {
            Self::Tcp => TCP_READ_BYTES_MAX,
            Self::Http => HTTP_MESSAGE_BYTES_MAX,
            _ => of_rpc,
        }
    }

    /// Content type of the messages; `None` is CBOR, one value each.
    pub(crate) const fn content_type(self) -> Option<&'static str> {
        match self {
            Self::Tcp | Self::Http => Some("application/octet-stream"),
            _ => None,
        }
    }

    /// Returns `true` if the forwards of this service are called as this kind: `tcp` as TCP, `http`
    /// and `mcp` as HTTP.
    pub(crate) fn calls_forwards_of(self, service: &str) -> bool {
        match self {
            Self::Tcp => service == "tcp",
            Self::Http => matches!(service, "http" | "mcp"),
            _ => false,
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

impl From<CallKind> for u8 {
    fn from(kind: CallKind) -> Self {
        kind.number()
    }
}

impl TryFrom<u8> for CallKind {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::from_number(number).ok_or("unknown call kind")
    }
}
