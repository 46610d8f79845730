//! Tunnels into a node or an enroller: a listener of its own, or one path of the HTTP gateway.

mod error;
mod listener;
mod request;

pub use error::TunnelListenError;
pub use listener::TunnelListen;
pub(crate) use listener::{ListeningTunnels, listen};
#[cfg(feature = "gateway")]
pub(crate) use request::{TOO_MANY_UNUSED, answer};
