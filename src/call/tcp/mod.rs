//! Initiator side of a forwarded TCP connection, as a byte stream.
//!
//! Wire format: `docs/protocol.md`, "TCP". A request begins with an empty message, because a
//! handler starts with the first one, and the upstream may send first; a reply begins with an empty
//! message when the upstream is connected, and a second one marks its end.

mod relay;
mod socket;
mod stream;
mod socket_writer;

pub use socket::Socket;
pub(crate) use socket_writer::{EndMark, SocketWriter, broken};
pub use stream::ByteStream;
