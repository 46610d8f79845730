//! Errors of listening for tunnels.

use crate::{name::NameError, system};
use std::{io, net::SocketAddr};

/// Error of listening for tunnels.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelListenError {
    /// The address.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The TCP address cannot be listened on.
    #[error("cannot listen on TCP {address}: {source}{}", system::listen_remedy(.source, "--tunnel"))]
    Socket {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// Tunnels without TLS would be accepted from other machines.
    #[error(
        "the tunnel listener on {address} would take plain HTTP from other machines; listen on loopback (127.0.0.1), or keep TLS, or name in trusted_proxy who stands in front"
    )]
    Plain {
        /// The address.
        address: SocketAddr,
    },
}
