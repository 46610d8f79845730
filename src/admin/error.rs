//! Why an admin listener did not start.

use crate::{name::AdminAddress, system};
use std::{io, net::SocketAddr};

/// Error of starting an admin listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Other machines would reach it, without any credential.
    #[error(
        "the admin listener on {address} would be open to other machines; listen on loopback (127.0.0.1) or a Unix socket, or name the callers whose certificates it asks for: callers = [\"ops\"] in [admin]"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", system::listen_remedy(.source, "--admin"))]
    Socket {
        /// The address.
        address: AdminAddress,
        /// The error of the system.
        source: io::Error,
    },
}
