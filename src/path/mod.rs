//! Paths of links: the datagrams of a QUIC connection travel by UDP, or in a tunnel over TCP.
//!
//! A tunnel is a WebSocket (RFC 6455) over TLS, which passes where only HTTPS does. It lies below
//! QUIC, which encrypts and authenticates what it carries.

/// The methods of a socket that are those of its field `udp`.
macro_rules! as_its_udp_socket {
    () => {
        fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
            self.udp.local_addr()
        }

        fn may_fragment(&self) -> bool {
            self.udp.may_fragment()
        }

        fn max_transmit_segments(&self) -> usize {
            self.udp.max_transmit_segments()
        }

        fn max_receive_segments(&self) -> usize {
            self.udp.max_receive_segments()
        }
    };
}
use as_its_udp_socket;

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
pub(crate) use dial::Tunnel;
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
