//! Keeps idle WebSockets open: the gateway sends pings to the client between the frames of the
//! upstream, and takes their pongs out, so that they do not count as bytes of the client.
//!
//! RFC 6455, sections 5.2 and 5.5: a control frame may come between any two frames, and a pong has
//! the bytes of its ping.

mod frames;
mod pings;
mod pongs;

pub(super) use pings::PingSource;
pub(super) use pongs::WithoutPongs;

/// Bytes by which the pong to a ping of the gateway is known.
const PING_BYTES: &[u8] = b"dialback";
