//! The owner's rules, for the messages of one request.

use crate::{
    mcp::Needs,
    name::{MethodPath, Name, PeerName},
    policy::AgentPolicy,
    rate_limit::LogLimits,
    shared_value::SharedValue,
};
use std::sync::Arc;
use tokio::time::Instant;

/// What the client of one request may call and get, by the rules as they are now.
#[derive(Clone)]
pub(super) struct CallerRules {
    pub(super) policy: Arc<SharedValue<AgentPolicy>>,
    pub(super) node: Name,
    pub(super) caller: PeerName,
    pub(super) server: Name,
    /// True if the node lets the client have requests of the server.
    pub(super) serves_client: bool,
    /// Limits the log lines about requests to the client that are refused.
    pub(super) refusals: Arc<LogLimits<PeerName>>,
}

impl CallerRules {
    pub(super) fn allow(&self, needs: &Needs) -> bool {
        let path = needs.path(&self.server);
        if *needs == Needs::Client && !self.serves_client {
            self.log_refusal(&path, "of the node");
            return false;
        }
        let policy = self.policy.get();
        let is_allowed = policy.decide(&self.node, &self.caller, &path, None).is_allowed();
        if *needs == Needs::Client && !is_allowed {
            self.log_refusal(&path, "of this agent");
        }
        is_allowed
    }

    fn log_refusal(&self, path: &MethodPath, whose: &str) {
        if let Some(suppressed) = self.refusals.admit(self.caller.clone(), Instant::now()) {
            let Self { caller, server, .. } = self;
            tracing::warn!(
                %caller,
                method = %path,
                "refused a request of mcp:{server} to {caller}: no [[allow]] rule {whose} permits {path}{suppressed}"
            );
        }
    }
}
