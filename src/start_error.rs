//! Errors of starting a node, an agent or a caller.

use crate::{link::BindError, name::NameError, serve::ServiceError, tls::CredentialsError};
use std::{io, path::PathBuf};

/// Why a node or an agent did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The certificate is not for this.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A name or an address.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An agent or a caller without a node.
    #[error("no node is named; name one with `.node(\"HOST:PORT\")`")]
    NoNode,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The system refuses.
    #[error("the state directory: {path} cannot be {what}: {source}", path = .path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Others can get at the keys, and could end links with them.
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
    /// It is not what a node wrote.
    #[error(
        "{path} is damaged, or not written by dialback; remove it, and the node makes a new one (agents then notice this one restart later)",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}
