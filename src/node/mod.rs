//! The node: listens, admits agents and callers, and calls agents.

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
pub use running::Node;
#[cfg(feature = "admin")]
pub(crate) use running::NodeView;
