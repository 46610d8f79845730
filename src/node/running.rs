//! A running node, as its program holds it.

use super::{
    handle::{AgentRef, Arrivals},
    ingress::callee,
    snapshot,
    state::{NodeState, STOPS},
};
#[cfg(feature = "tunnel")]
use crate::tls::ServerCertificate;
use crate::{
    call::{Callee, IntoMethod, Target, ToMany},
    config_update::{Applied, Changed, ConfigUpdate},
    directory::{AgentInfo, Directory},
    limits,
    link::LinkListener,
    name::{Name, PeerName},
    observe::{Event, Events, NodeEvent},
    policy::NodePolicy,
    readiness::Readiness,
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

/// A running node. Dropping it closes every link at once; [`Node::shutdown`] lets calls finish.
pub struct Node {
    pub(super) shared: Arc<NodeState>,
    pub(super) listener: Arc<LinkListener>,
    pub(super) config_version: Mutex<u64>,
    #[cfg(feature = "tunnel")]
    pub(super) tunnel: Option<crate::tunnel::ListeningTunnels>,
}

impl Node {
    /// Name of the node, from its certificate.
    pub fn name(&self) -> &Name {
        &self.shared.name
    }

    /// Address that it listens on, with the actual port.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// TCP address that it listens on for tunnels, with the actual port.
    #[cfg(feature = "tunnel")]
    pub fn tunnel_addr(&self) -> Option<SocketAddr> {
        self.tunnel.as_ref().map(|tunnel| tunnel.address)
    }

    /// Replaces the certificate that later tunnels see. `None`: the node's own.
    #[cfg(feature = "tunnel")]
    pub fn set_tunnel_certificate(&self, certificate: Option<ServerCertificate>) {
        if let Some(tunnel) = &self.tunnel {
            tunnel.set_certificate(certificate);
        }
    }

    /// Stream of agents as they attach, first those that are attached now. An agent that reconnects
    /// is returned again. A program that falls behind loses the oldest arrivals.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals::new(&self.shared)
    }

    /// Reference to the agent of this name, attached or not.
    ///
    /// # Errors
    /// The text is not a name; [`AgentRef`] returns the error.
    pub fn agent(&self, name: impl AsRef<str>) -> AgentRef {
        AgentRef::new(&self.shared, name.as_ref().parse())
    }

    /// Callee for any agent for the method's service, by `[[host]]` rules: the less loaded of two.
    pub fn any(&self) -> Callee {
        callee(&self.shared, Target::Service)
    }

    /// Calls every agent for the method's service, 16 at once; returns a result for each, by name.
    ///
    /// # Errors
    /// The method's name is invalid. The failure of a single call is returned with its agent.
    pub async fn call_all<R: DeserializeOwned + Send + 'static>(
        &self,
        method: impl IntoMethod,
        message: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Vec<(Name, Result<R, Status>)>, Status> {
        let call = ToMany::new(method, message, timeout)?;
        let hosts = snapshot::hosts(&self.shared, &self.shared.peer, &call.method);
        Ok(call.call(hosts, |target| callee(&self.shared, target)).await)
    }

    /// Information about agents that are attached or remembered, by name.
    pub fn agents(&self) -> Vec<AgentInfo> {
        snapshot::agents(&self.shared, |_| true)
    }

    /// Agents and services that a caller may see by the current policy, as shown by `dialback
    /// agents`, `dialback services` and the pages of the HTTP gateway. For the node itself,
    /// `node/NAME`, that is everything.
    ///
    /// Costs one evaluation of the caller's rules per agent, and one of the rules about the agent
    /// per method. No lock is held meanwhile: the registry is copied first.
    pub fn directory_for(&self, requester: &PeerName) -> Directory {
        snapshot::directory_for(&self.shared, requester)
    }

    /// Readiness for calls: it listens, its certificate and its revocation list are good, and it
    /// does not stop.
    pub fn readiness(&self) -> Readiness {
        self.shared.readiness(&self.credentials())
    }

    /// Subscribes to events of links from now on: attached, lost, draining, taken over, moved to
    /// another address or path.
    pub fn events(&self) -> Events<NodeEvent> {
        self.shared.observer.events(&self.shared.links)
    }

    /// Applies a configuration update while the node runs: certificate, trust, policy, limits.
    /// Nothing changes if any part is invalid.
    ///
    /// Every link is verified against the new credentials before this returns, and closed if a
    /// handshake would now refuse it: with REVOKED, EXPIRED or TRUST_CHANGED. Other links and their
    /// calls are not affected. Costs one chain verification per link.
    ///
    /// # Errors
    /// Credentials of another peer, or credentials that make no TLS configuration.
    pub async fn apply(&self, next: ConfigUpdate<NodePolicy>) -> Result<Applied, StartError> {
        let has_credentials = next.credentials.is_some();
        let (config_version, changed) = self.apply_update(next)?;
        let closed = if has_credentials { self.listener.trust().verify_all().await } else { 0 };
        self.shared.observer.report(Event::ConfigApplied {
            config_version,
            changed: &changed,
            closed,
        });
        Ok(Applied { generation: config_version, closed })
    }

    /// Replaces all parts in one step for concurrent readers.
    fn apply_update(&self, next: ConfigUpdate<NodePolicy>) -> Result<(u64, Changed), StartError> {
        let mut config_version = self.config_version.lock().unwrap_or_else(PoisonError::into_inner);
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
            // Other agents may now answer calls that wait for a service.
            self.shared.waiters.wake_all();
        }
        if let Some(limits) = limits {
            self.shared.memory.apply(&limits);
            self.shared.limits.set(limits);
        }
        *config_version += 1;
        Ok((*config_version, changed))
    }

    /// Current certificate, key and trusted CAs.
    pub fn credentials(&self) -> Credentials {
        self.listener.trust().credentials()
    }

    /// Shuts down gracefully. Tells every agent and caller first, so that they use other nodes, and
    /// takes no new calls; lets calls in flight finish within the drain time; then closes every
    /// link and waits until the peers are notified, at most 3 s.
    pub async fn shutdown(self) {
        self.close_gracefully().await;
    }

    /// As [`Node::shutdown`], until `abort` ends. Then every link is closed at once with DRAINED,
    /// calls in flight end with unknown outcome, and this returns within 100 ms.
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
        // The tasks continue meanwhile, so that the gateway's clients get an answer too.
        let tracer = shared.observer.tracer();
        tokio::join!(
            listener.wait_idle(limits::ABORT_WAIT_MAX),
            tracer.close(limits::ABORT_WAIT_MAX)
        );
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
            // The side that still has to receive a reply closes the link: no reply is cut short.
            shared.goodbye.notify();
            shared.goodbye.done(limits::GOODBYE_WAIT_MAX).await;
        } else {
            shared.observer.report(Event::CallsAborted { after: drain_max });
            shared.abort.notify();
            shared.abort.done(limits::GOODBYE_WAIT_MAX).await;
        }
        listener.close(CloseCode::Drained, STOPS);
        listener.leave_tunnels(limits::ABORT_WAIT_MAX).await;
        shared.links.stop();
        shared.calls.stop();
        shared.links.wait(left_until(close_by)).await;
        listener.wait_idle(left_until(close_by)).await;
        shared.observer.tracer().close(limits::SPANS_FLUSH_WAIT_MAX).await;
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

/// What an admin listener reads of a node, also while that shuts down.
#[cfg(feature = "admin")]
#[derive(Clone)]
pub(crate) struct NodeView {
    shared: Arc<NodeState>,
    trust: Arc<crate::link::TrustedLinks>,
}

#[cfg(feature = "admin")]
impl Node {
    pub(crate) fn view(&self) -> NodeView {
        NodeView { shared: self.shared.clone(), trust: self.listener.trust().clone() }
    }
}

#[cfg(feature = "admin")]
impl NodeView {
    pub(crate) fn counts(&self) -> Arc<crate::observe::ObservedCounts> {
        self.shared.observer.counts()
    }

    pub(crate) fn audit_lines_lost(&self) -> u64 {
        self.shared.observer.audit_lines_lost()
    }

    pub(crate) fn spans(&self) -> Option<[u64; 2]> {
        self.shared.observer.tracer().counts()
    }

    pub(crate) fn recent(&self) -> Arc<crate::observe::RecentEvents> {
        self.shared.observer.recent()
    }

    pub(crate) fn trust(&self) -> Arc<crate::link::TrustedLinks> {
        self.trust.clone()
    }

    pub(crate) fn tasks(&self) -> crate::drain::Tasks {
        self.shared.links.clone()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    pub(crate) fn retried(&self) -> u64 {
        self.shared.retries.spent()
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.shared.readiness(&self.trust.credentials())
    }
}
