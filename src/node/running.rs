//! A running node, as the program that started it holds it.

use super::{
    handle::{AgentRef, Arrivals},
    ingress::callee,
    snapshot,
    state::{NodeState, STOPS},
};
use crate::{
    call::{Callee, IntoMethod, Target, ToMany},
    config_update::{Applied, Changed, ConfigUpdate},
    directory::{AgentInfo, Directory},
    limits,
    link::LinkListener,
    name::{Name, PeerName},
    observe::{Event, Events, NodeEvent},
    policy::NodePolicy,
    start_error::StartError,
    status::Status,
    tls::Credentials,
    wire::CloseCode,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A running node. Dropping it closes every link at once; [`Node::shutdown`] lets work in hand
/// finish.
pub struct Node {
    pub(super) shared: Arc<NodeState>,
    pub(super) listener: Arc<LinkListener>,
    /// Which one is in force.
    pub(super) config_version: Mutex<u64>,
}

impl Node {
    /// The node's name, from its certificate.
    pub fn name(&self) -> &Name {
        &self.shared.name
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Every agent as it attaches, beginning with those that are attached now. An agent that comes
    /// back comes again.
    ///
    /// A program that takes none for long loses the oldest of them.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals::new(&self.shared)
    }

    /// The agent of this name, attached or not.
    ///
    /// # Errors
    /// The text is no name.
    pub fn agent(&self, name: impl AsRef<str>) -> AgentRef {
        AgentRef::new(&self.shared, name.as_ref().parse())
    }

    /// Any agent that may answer for the method's service, the less loaded of two: a `[[host]]`
    /// rule says which may.
    pub fn any(&self) -> Callee {
        callee(&self.shared, Target::Service)
    }

    /// Calls every agent that may answer for the method's service, 16 at once, and gives an outcome
    /// for each, by name.
    ///
    /// # Errors
    /// The method is no method's name. What became of a call stands with its agent.
    pub async fn call_all<R: DeserializeOwned + Send + 'static>(
        &self,
        method: impl IntoMethod,
        message: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Vec<(Name, Result<R, Status>)>, Status> {
        let call = ToMany::new(method, message, timeout)?;
        let hosts = snapshot::hosts(&self.shared, &self.shared.peer, &call.method);
        Ok(call.call(hosts, |host| callee(&self.shared, Target::Agent(host.clone()))).await)
    }

    /// What is known of the agents that are attached or were, by name.
    pub fn agents(&self) -> Vec<AgentInfo> {
        snapshot::agents(&self.shared, |_| true)
    }

    /// What a caller may see of agents and services, by the policy of now: what `dialback agents`
    /// and `dialback services` show it, and the pages of the HTTP door. For the node itself,
    /// `node/NAME`, that is everything.
    ///
    /// Costs, for each agent, a look at the rules that speak of the caller, and for each of its
    /// methods one at those of them that speak of the agent. It holds no lock meanwhile: the
    /// registry is copied first.
    pub fn directory_for(&self, requester: &PeerName) -> Directory {
        snapshot::directory_for(&self.shared, requester)
    }

    /// What happens to links from now on: who attached, who was lost and why, who drains, who took
    /// over.
    pub fn events(&self) -> Events<NodeEvent> {
        self.shared.observer.events(&self.shared.links)
    }

    /// Puts another generation in force while the node runs: certificate, trust, policy, bounds.
    /// Nothing changes if it does not fit.
    ///
    /// Every link is judged by the new credentials before this returns, and closed if a handshake
    /// would now refuse it: with REVOKED, EXPIRED or TRUST_CHANGED. All others, and their calls, go
    /// on untouched. Costs a verified chain a link.
    ///
    /// # Errors
    /// Credentials of another party, or none that make a TLS configuration.
    pub async fn apply(&self, next: ConfigUpdate<NodePolicy>) -> Result<Applied, StartError> {
        let has_credentials = next.credentials.is_some();
        let (version, changed) = self.apply_update(next)?;
        let closed = if has_credentials { self.listener.trust().verify_all().await } else { 0 };
        self.shared.observer.report(Event::ConfigApplied { version, changed: &changed, closed });
        Ok(Applied { generation: version, closed })
    }

    /// All of it at one moment, as far as anybody can see who reads it.
    fn apply_update(&self, next: ConfigUpdate<NodePolicy>) -> Result<(u64, Changed), StartError> {
        let mut version = self.config_version.lock().unwrap_or_else(PoisonError::into_inner);
        let ConfigUpdate { credentials, policy, limits } = next;
        let limits = limits.filter(|limits| *limits != *self.shared.limits.get());
        let now = self.listener.trust().credentials();
        if let Some(credentials) = &credentials {
            now.expect_successor(credentials)?;
        }
        let mut changed = Changed::between(&now, credentials.as_ref());
        changed.limits = limits.is_some();
        if credentials.is_some() || limits.is_some() {
            let limits = limits.clone().unwrap_or_else(|| (*self.shared.limits.get()).clone());
            self.listener.replace(credentials.as_ref().unwrap_or(&now), &limits)?;
        }
        if let Some(policy) = policy {
            changed.rules = policy != *self.shared.policy.get();
            self.shared.policy.set(policy);
            // Who waits for a service may be answered by other agents now.
            self.shared.waiters.wake_all();
        }
        if let Some(limits) = limits {
            self.shared.memory.apply(&limits);
            self.shared.limits.set(limits);
        }
        *version += 1;
        Ok((*version, changed))
    }

    /// The certificate, key and trust that are in force.
    pub fn credentials(&self) -> Credentials {
        self.listener.trust().credentials()
    }

    /// Leaves in good order. Tells every agent and caller first, so that they go elsewhere, and
    /// takes nothing new; lets calls in flight finish within the drain time; then closes every link
    /// and waits until the peers know, 3 s at most.
    pub async fn shutdown(self) {
        self.close_gracefully().await;
    }

    /// As [`Node::shutdown`], until `abort` ends. Then every link is closed at once with DRAINED,
    /// calls in flight end with unknown outcome, and this returns when the peers were told, after
    /// 100 ms at most.
    pub async fn shutdown_or_abort(self, abort: impl Future<Output = ()>) {
        tokio::select! {
            () = self.close_gracefully() => {}
            () = abort => self.abort().await,
        }
    }

    async fn abort(&self) {
        let Self { shared, listener, .. } = self;
        shared.calls.begin_drain();
        listener.close(CloseCode::Drained, STOPS);
        // The tasks go on meanwhile: the gateway's clients have an answer too.
        listener.wait_idle(limits::ABORT_WAIT_MAX).await;
    }

    async fn close_gracefully(&self) {
        let Self { shared, listener, .. } = self;
        let drain_max = shared.limits.get().drain_max;
        let finish_by = Instant::now() + drain_max;
        shared.drain.notify();
        shared.drain.done(limits::GOODBYE_WAIT_MAX).await;
        shared.calls.begin_drain();
        shared.waiters.wake_all();
        let have_finished = shared.calls.wait(left_until(finish_by)).await;
        let close_by = Instant::now() + limits::CLOSE_WAIT_MAX;
        if have_finished {
            // Whoever still has to receive a reply closes the link, so that none is cut short.
            shared.goodbye.notify();
            shared.goodbye.done(limits::GOODBYE_WAIT_MAX).await;
        } else {
            shared.observer.report(Event::CallsCutOff { after: drain_max });
            shared.cut.notify();
            shared.cut.done(limits::GOODBYE_WAIT_MAX).await;
        }
        listener.close(CloseCode::Drained, STOPS);
        shared.links.stop();
        shared.calls.stop();
        shared.links.wait(left_until(close_by)).await;
        listener.wait_idle(left_until(close_by)).await;
    }
}

fn left_until(moment: Instant) -> Duration {
    moment.saturating_duration_since(Instant::now())
}

impl Drop for Node {
    fn drop(&mut self) {
        self.listener.close(CloseCode::Goodbye, STOPS);
        self.shared.links.stop();
        self.shared.calls.stop();
    }
}
