//! The node or agent that an admin listener shows.

use crate::{
    agent::AgentView,
    drain::Tasks,
    link::TrustedLinks,
    name::PeerName,
    node::NodeView,
    observe::{ObservedCounts, RecentEvents},
    readiness::Readiness,
    tls::Credentials,
};
use std::sync::Arc;

/// A node or an agent, as far as its admin listener shows it.
#[derive(Clone)]
pub(super) enum Observed {
    Node(NodeView),
    Agent(AgentView),
}

impl Observed {
    pub(super) const fn role(&self) -> &'static str {
        match self {
            Self::Node(_) => "node",
            Self::Agent(_) => "agent",
        }
    }

    pub(super) fn peer(&self) -> PeerName {
        self.credentials().peer_name().clone()
    }

    pub(super) fn counts(&self) -> Arc<ObservedCounts> {
        match self {
            Self::Node(node) => node.counts(),
            Self::Agent(agent) => agent.counts(),
        }
    }

    pub(super) fn audit_lines_lost(&self) -> u64 {
        match self {
            Self::Node(node) => node.audit_lines_lost(),
            Self::Agent(agent) => agent.audit_lines_lost(),
        }
    }

    /// Spans that were exported and that were lost, if traces are on.
    pub(super) fn spans(&self) -> Option<[u64; 2]> {
        match self {
            Self::Node(node) => node.spans(),
            Self::Agent(agent) => agent.spans(),
        }
    }

    /// Attempts of a node after the first.
    pub(super) fn retried(&self) -> Option<u64> {
        match self {
            Self::Node(node) => Some(node.retried()),
            Self::Agent(_) => None,
        }
    }

    pub(super) fn recent(&self) -> Arc<RecentEvents> {
        match self {
            Self::Node(node) => node.recent(),
            Self::Agent(agent) => agent.recent(),
        }
    }

    pub(super) fn trust(&self) -> Arc<TrustedLinks> {
        match self {
            Self::Node(node) => node.trust(),
            Self::Agent(agent) => agent.trust(),
        }
    }

    pub(super) fn credentials(&self) -> Credentials {
        self.trust().credentials()
    }

    pub(super) fn tasks(&self) -> Tasks {
        match self {
            Self::Node(node) => node.tasks(),
            Self::Agent(agent) => agent.tasks(),
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        match self {
            Self::Node(node) => node.is_draining(),
            Self::Agent(agent) => agent.is_draining(),
        }
    }

    pub(super) async fn readiness(&self) -> Readiness {
        match self {
            Self::Node(node) => node.readiness(),
            Self::Agent(agent) => agent.readiness().await,
        }
    }
}
