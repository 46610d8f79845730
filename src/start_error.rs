//! Errors of starting a node, an agent or a caller.

#[cfg(feature = "tunnel")]
use crate::tunnel::TunnelListenError;
use crate::{link::BindError, name::NameError, serve::ServiceError, tls::CredentialsError};
use std::{io, path::PathBuf};

/// Error of starting a node, an agent or a caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The socket cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A name or an address.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Tunnels cannot be listened for.
    #[cfg(feature = "tunnel")]
    #[error(transparent)]
    Tunnel(#[from] TunnelListenError),
    /// An agent or a caller without a node.
    #[error("no node is named; name one with `.node(\"HOST:PORT\")`")]
    NoNode,
}

/// Error of opening a state directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The system refuses access.
    #[error("the state directory: {path} cannot be {what}: {source}", path = .path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// Other users can read the keys, and could end links with them.
    #[error(
        "{path} has mode {mode:04o}, so that others can get at the keys; run `chmod 600 {path}`",
        path = .path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is damaged or was not written by a node.
    #[error(
        "{path} is damaged, or not written by dialback; remove it, and the node makes a new one (agents then notice this one restart later)",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}
