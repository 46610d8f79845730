//! Why an admin listener did not start.

use crate::{name::NameError, system};
use std::{io, net::SocketAddr};

/// Error of starting an admin listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The address is invalid.
    #[error(transparent)]
    Address(#[from] NameError),
    /// Other machines would reach it, without any credential.
    #[error(
        "the admin listener on {address} would be open to other machines; listen on loopback (127.0.0.1), and let a proxy that authenticates stand in front"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on TCP {address}: {source}{}", system::listen_remedy(.source, "--admin"))]
    Socket {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
}
