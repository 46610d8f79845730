//! Paths of links: the datagrams of a QUIC connection travel by UDP, or in a tunnel over TCP.
//!
//! A tunnel is a WebSocket (RFC 6455) over TLS, which passes where only HTTPS does. It lies below
//! QUIC, which encrypts and authenticates what it carries.

mod accepting;
mod carry;
mod dial;
mod dialling;
mod fault;
mod inbox;
mod message;
mod policy;
mod proxy;
mod proxy_password;
mod queue;
mod tunnels;
mod url;

pub(crate) use accepting::AcceptingSocket;
pub use dial::{PathChoice, PathChoiceError, PathSettings};
pub(crate) use dialling::{CurrentPath, DiallingSocket, OldTunnel};
pub use fault::TunnelFault;
pub(crate) use policy::{PathAction, PathPolicy, Traffic, TunnelReason};
pub use proxy::{HttpProxy, HttpProxyError};
pub use proxy_password::ProxyPasswordError;
pub(crate) use tunnels::{TunnelPeer, TunnelUse, Tunnels, is_tunnel};
pub use url::{TunnelUrl, TunnelUrlError};

/// The WebSocket subprotocol of a tunnel.
pub(crate) const SUBPROTOCOL: &str = "dialback.tunnel.v1";

/// The path of a node's tunnel, unless its configuration names another.
pub const TUNNEL_PATH: &str = "/dialback/tunnel";
