//! Tunnels into a node: a listener of its own, or one path of the HTTP gateway.

mod listener;
mod request;

pub use listener::TunnelListen;
pub(crate) use listener::{ListeningTunnels, listen};
#[cfg(feature = "gateway")]
pub(crate) use request::answer;
