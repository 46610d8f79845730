//! What an admin listener reads of an agent.

use super::{Agent, state::AgentState};
use crate::{
    drain::Tasks,
    link::TrustedLinks,
    observe::{ObservedCounts, RecentEvents},
    readiness::Readiness,
};
use std::sync::Arc;

/// What an admin listener reads of an agent, also while that shuts down.
#[derive(Clone)]
pub(crate) struct AgentView(Arc<AgentState>);

impl Agent {
    pub(crate) fn view(&self) -> AgentView {
        AgentView(self.state.clone())
    }
}

impl AgentView {
    pub(crate) fn counts(&self) -> Arc<ObservedCounts> {
        self.0.observer.counts()
    }

    pub(crate) fn audit_lines_lost(&self) -> u64 {
        self.0.observer.audit_lines_lost()
    }

    pub(crate) fn spans(&self) -> Option<[u64; 2]> {
        self.0.observer.tracer().counts()
    }

    pub(crate) fn recent(&self) -> Arc<RecentEvents> {
        self.0.observer.recent()
    }

    pub(crate) fn trust(&self) -> Arc<TrustedLinks> {
        self.0.dialler.trust().clone()
    }

    pub(crate) fn tasks(&self) -> Tasks {
        self.0.links.clone()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.is_draining()
    }

    pub(crate) async fn readiness(&self) -> Readiness {
        self.0.readiness().await
    }
}
