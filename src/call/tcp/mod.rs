//! Connections of TCP through a call: the asking side's end, as a stream of bytes.
//!
//! How they travel: `docs/protocol.md`, "TCP". A request begins with an empty message, because a
//! handler starts with the first one and the other side may be the one that speaks first; a reply
//! begins with an empty message when the upstream is connected, and a second one says that its last
//! byte has come.

mod relay;
mod socket;
mod stream;
mod socket_writer;

pub use socket::Socket;
pub(crate) use socket_writer::{EndMark, SocketWriter, broken};
pub use stream::ByteStream;
