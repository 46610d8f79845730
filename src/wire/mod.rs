//! Wire format: frames, heads, control frames and codes. No sockets, no clock. The only module that
//! uses serde_cbor. Specified in `docs/protocol.md`.

mod cbor;
#[macro_use]
mod code;
mod control;
mod describe;
mod error;
mod frame;
mod head;
#[cfg(any(feature = "forward", feature = "gateway"))]
#[cfg_attr(
    not(all(feature = "forward", feature = "gateway")),
    allow(dead_code, reason = "each end writes what the other reads")
)]
mod http;
#[cfg(feature = "certs")]
mod join;
#[cfg(feature = "json")]
pub mod json;
mod kind;
mod scan;
mod status;

pub(crate) use cbor::{decode_value, encode_value};
pub use code::{CloseCode, Reaction, StreamCode};
pub(crate) use control::{
    Control, Drain, Goodbye, Hello, Ping, Register, Registered, Welcome, Window,
};
pub use control::{MethodInfo, ServiceInfo};
pub use describe::ANY_METHOD;
pub(crate) use describe::expect_registrable;
pub(crate) use error::WireError;
pub(crate) use frame::{
    Batch, Chunks, Header, Kind, end_chunk, head_chunk, reply_chunks, reply_start, request_chunks,
    request_start, status_chunk,
};
pub(crate) use head::{ReplyHead, RequestHead, RouteKind, metadata_fault, pairs};
#[cfg(any(feature = "forward", feature = "gateway"))]
pub(crate) use http::{HeaderPairs, HttpRequestHead, HttpResponseHead, HttpTrailers};
#[cfg(feature = "certs")]
pub(crate) use join::{Ask, JoinReply, JoinRequest};
#[cfg(feature = "certs")]
pub use join::{JOIN_ALPN, JoinRefusal};
pub use kind::CallKind;
pub(crate) use status::StatusHead;

/// The application protocol that TLS agrees on, and the version in it.
pub const ALPN: &[u8] = b"dialback/1";

/// The same of links with WINDOW frames. Peers that know it offer and prefer it.
pub(crate) const ALPN_WITH_WINDOWS: &[u8] = b"dialback/1.1";

/// The protocol version that HELLO offers and WELCOME confirms.
pub const PROTOCOL_VERSION: u16 = 1;
