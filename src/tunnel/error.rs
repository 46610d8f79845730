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
    #[error("cannot listen on TCP {address}: {source}{}", hint(.source))]
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

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there, stop it or choose another address with --tunnel"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        _ => system::remedy(error),
    }
}
