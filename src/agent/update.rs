//! Changes of a running agent.

use super::{Agent, ServiceSet, hello};
use crate::{
    config_update::{Applied, Changed, ConfigUpdate},
    name::NodeAddress,
    observe::Event,
    policy::AgentPolicy,
    start_error::StartError,
};
use std::sync::{Arc, PoisonError};

/// Update of a running agent. What is `None` stays as it is.
#[derive(Debug, Default)]
pub struct AgentUpdate {
    /// Credentials, policy and limits.
    pub config: ConfigUpdate<AgentPolicy>,
    /// All that it hosts from now on.
    pub services: Option<ServiceSet>,
    /// The nodes that it dials from now on.
    pub nodes: Option<Vec<NodeAddress>>,
}

impl From<ConfigUpdate<AgentPolicy>> for AgentUpdate {
    fn from(config: ConfigUpdate<AgentPolicy>) -> Self {
        Self { config, ..Self::default() }
    }
}

impl Agent {
    /// Updates certificate, trust, policy, limits, services or nodes of a running agent; nothing if
    /// any is invalid.
    ///
    /// Every link is verified with the new credentials before this returns, and closed if a
    /// handshake would now refuse its node. With another own certificate, or other limits, each
    /// link is then replaced: the old one closes once the node has registered the new one and its
    /// own calls have ended. Three such links to a node may be up; then the next one waits for the
    /// drain time and closes the oldest. A refused agent dials again at once.
    ///
    /// New services answer at once, and each node registers them. Those that are left out answer
    /// the calls that nodes had sent by then, as far as the rules of before and of now allow them:
    /// [`Agent::services_registered`]. Calls in flight continue with what they began with.
    ///
    /// New nodes are dialled. The links to others are left when those to the new ones are up, or
    /// after 5 s, and close once their calls have ended.
    ///
    /// # Errors
    /// Credentials of another peer, or none that make a TLS configuration; services that could not
    /// be registered; an empty set of nodes.
    pub async fn apply(&self, next: impl Into<AgentUpdate>) -> Result<Applied, StartError> {
        let next = next.into();
        let has_credentials = next.config.credentials.is_some();
        let (config_version, changed) = self.update(next)?;
        let trust = self.state.dialler.trust();
        let closed = if has_credentials { trust.verify_all().await } else { 0 };
        self.state.observer.report(Event::ConfigApplied {
            config_version,
            changed: &changed,
            closed,
        });
        Ok(Applied { generation: config_version, closed })
    }

    /// Waits until every node has registered what is hosted now, and what was hosted before answers
    /// no more: some round trips after [`Agent::apply`], or 7 s if a node does not answer.
    pub async fn services_registered(&self) {
        self.state.previous_ended().await;
    }

    fn update(&self, next: AgentUpdate) -> Result<(u64, Changed), StartError> {
        let mut config_version = self.config_version.lock().unwrap_or_else(PoisonError::into_inner);
        let AgentUpdate { config, services, nodes } = next;
        let ConfigUpdate { credentials, policy, limits } = config;
        let (state, now) = (&self.state, self.credentials());
        if let Some(credentials) = &credentials {
            now.expect_successor(credentials)?;
        }
        if nodes.as_ref().is_some_and(Vec::is_empty) {
            return Err(StartError::NoNode);
        }
        let limits = limits.map_or_else(|| state.limits.get(), Arc::new);
        let hosted = services.map(|set| state.hosted_next(set, &limits)).transpose()?;
        let mut changed = Changed::between(&now, credentials.as_ref());
        changed.limits = limits != state.limits.get();
        if credentials.is_some() || changed.limits {
            let hello = hello(self.instance, &limits);
            state.dialler.replace(credentials.as_ref().unwrap_or(&now), hello, limits.clone())?;
            state.memory.apply(&limits);
            state.limits.set_shared(limits);
        }
        if let Some(policy) = policy {
            changed.rules = policy != *state.policy.get();
            state.policy.set(policy);
        }
        // After the policy: what is new may be open to nobody under the rules of before.
        if let Some(hosted) = hosted {
            changed.services = true;
            state.host(hosted);
        }
        if let Some(nodes) = nodes {
            changed.nodes = state.dial(nodes.into_iter().collect());
        }
        if changed.certificate || changed.limits {
            state.keeper.request_replacement();
        }
        if credentials.is_some() {
            state.keeper.request_reconnect();
        }
        *config_version += 1;
        Ok((*config_version, changed))
    }
}
