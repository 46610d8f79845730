//! The public party: listens, admits agents and callers, and calls agents.

mod accept;
mod admit;
mod admitted;
mod authorise;
mod builder;
mod candidates;
mod dispatch;
mod flap_detector;
mod handle;
mod ingress;
mod listing;
mod quotas;
mod registry;
mod reset_limiter;
mod routes;
mod running;
mod service_index;
mod snapshot;
mod state;
mod state_dir;
mod waiters;

pub use builder::NodeBuilder;
pub use handle::{AgentHandle, AgentRef, Arrivals, NotConnected};
#[cfg(feature = "gateway")]
pub(crate) use ingress::{GatewayCall, GatewayIngress};
pub use listing::{ListedMethod, ListedService};
pub use running::Node;
pub use snapshot::{AgentInfo, DIRECTORY, Directory};
pub use state_dir::StateError;

use crate::{link::BindError, name::NameError, serve::ServiceError, tls::CredentialsError};

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
