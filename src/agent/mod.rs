//! The agent: dials its nodes, keeps a link to each, and answers calls. It opens no listening port.

mod acceptor;
mod calls;
#[cfg(feature = "cli")]
pub mod demo;
pub(crate) mod forward;
mod probes;
mod readiness;
mod registration;
mod state;

#[cfg(feature = "forward")]
pub use forward::{
    Forward, ForwardFormat, ForwardHandle, HttpForward, McpForward, UpstreamAddress, UpstreamError,
};
pub use forward::{TcpForward, Upstream, UpstreamCheck, UpstreamCheckError};

#[cfg(feature = "tunnel")]
use crate::path::PathSettings;
use crate::{
    audit::Audit,
    call::{CallOrigin, Callee, SharedHandler, Target},
    config_update::{Applied, Changed, ConfigUpdate},
    drain::{Signal, Tasks},
    limits::{self, Limits},
    link::{BindError, Dialler, HelloInfo, KeeperSignals, keep},
    memory::MessageMemory,
    name::{CallIds, Name, NameError, NodeAddress, Role},
    net::{self, SharedNet},
    observe::{AgentEvent, Event, Events, Observer},
    policy::AgentPolicy,
    readiness::Readiness,
    serve::{Service, Services},
    shared_value::SharedValue,
    start_error::StartError,
    tls::Credentials,
    trace::Traces,
    wire::CloseCode,
};
use registration::NodeRegistration;
use state::{AgentState, in_use};
use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Configures an agent. Made by [`Agent::builder`].
#[must_use = "an agent dials once it is started"]
pub struct AgentBuilder {
    credentials: Credentials,
    nodes: Vec<Result<NodeAddress, NameError>>,
    #[cfg(feature = "forward")]
    mcp: Vec<McpForward>,
    policy: AgentPolicy,
    limits: Limits,
    services: Vec<Service>,
    audit: Audit,
    net: SharedNet,
    #[cfg(feature = "tunnel")]
    paths: PathSettings,
    traces: Option<Traces>,
}

impl AgentBuilder {
    /// Adds a node to dial: `"edge-1.example.com:4433"`. The agent is attached to all at once.
    pub fn node(mut self, address: impl AsRef<str>) -> Self {
        self.nodes.push(address.as_ref().parse());
        self
    }

    /// Adds a service to host.
    pub fn serve(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Adds a TCP forward to host: callers reach its upstream as `tcp:NAME`, if rules allow it.
    pub fn tcp(self, forward: TcpForward) -> Self {
        self.serve(forward.into_service())
    }

    /// Adds an HTTP forward to host: callers reach its upstream as `http:NAME`, if rules allow it.
    #[cfg(feature = "forward")]
    pub fn http(self, forward: HttpForward) -> Self {
        self.serve(forward.into_service())
    }

    /// Adds an MCP server to host: callers reach its tools as `mcp:NAME/TOOL`, if rules allow it.
    #[cfg(feature = "forward")]
    pub fn mcp(mut self, forward: McpForward) -> Self {
        self.mcp.push(forward);
        self
    }

    /// Sets the owner's rules for calls. Default: verified nodes may call every hosted service.
    pub fn policy(mut self, policy: AgentPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the audit log of links, refusals and, with [`Audit::with_calls`], calls. Default: none.
    pub fn audit(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }

    /// Exports spans of calls to a collector. Default: traces are off.
    #[cfg(feature = "otel")]
    pub fn traces(mut self, traces: Traces) -> Self {
        self.traces = Some(traces);
        self
    }

    /// Sets the paths that links may take. Default: UDP only.
    #[cfg(feature = "tunnel")]
    pub fn paths(mut self, paths: PathSettings) -> Self {
        self.paths = paths;
        self
    }

    /// Sets the network. Default: the system's.
    #[cfg(test)]
    pub(crate) fn net(mut self, net: SharedNet) -> Self {
        self.net = net;
        self
    }

    /// Starts to dial and returns at once; the agent dials until it gets through, and again
    /// whenever a link is lost. Needs a tokio runtime.
    ///
    /// # Errors
    /// A certificate that is not an agent's, no node, an address or service name that breaks the
    /// grammar, no socket.
    pub fn start(self) -> Result<Agent, StartError> {
        self.credentials.expect_role(Role::Agent)?;
        let mut nodes = self.nodes.into_iter().collect::<Result<Vec<_>, _>>()?;
        nodes.sort();
        nodes.dedup();
        if nodes.is_empty() {
            return Err(StartError::NoNode);
        }
        let (limits, instance) = (Arc::new(self.limits), self.net.random_bytes());
        let hello = hello(instance, &limits);
        let (memory, drain) = (MessageMemory::new(&limits), Arc::new(Signal::default()));
        let (policy, links) = (Arc::new(SharedValue::new(self.policy)), Tasks::default());
        #[cfg(feature = "forward")]
        let services = {
            let host = |forward: McpForward| {
                let held = (limits.message_bytes_max, memory.clone());
                forward.into_service(policy.clone(), held, (links.clone(), drain.clone()))
            };
            self.services.into_iter().chain(self.mcp.into_iter().map(host)).collect()
        };
        #[cfg(not(feature = "forward"))]
        let services = self.services;
        let services = Services::new(services)?;
        services.expect_registrable()?;
        #[cfg(feature = "tunnel")]
        let dialler = Dialler::new(&self.net, &self.credentials, hello, limits.clone())?
            .with_paths(self.paths);
        #[cfg(not(feature = "tunnel"))]
        let dialler = Dialler::new(&self.net, &self.credentials, hello, limits.clone())?;
        let peer = self.credentials.peer_name();
        let tracer = self.traces.map(|traces| traces.start(peer)).unwrap_or_default();
        let state = Arc::new(AgentState {
            net: self.net.clone(),
            peer: peer.clone(),
            dialler,
            services,
            policy,
            observer: Observer::new(&self.audit, peer.clone()).traced_by(tracer),
            memory,
            limits: SharedValue::of(limits),
            call_ids: Arc::new(CallIds::new(self.net.random_bytes())),
            attached: watch::Sender::new(Vec::new()),
            keeper: KeeperSignals::default(),
            drain,
            goodbye: Signal::default(),
            abort: Signal::default(),
            links,
            calls: Tasks::default(),
        });
        let net = state.net.clone();
        state.links.spawn_until_stopped(async move { net.suspend().tick().await });
        let watching = state.clone();
        state.links.spawn_until_stopped(async move {
            let report = |change: &_| watching.observer.report(Event::PathChanged(change));
            watching.dialler.clone().watch_paths(report).await;
        });
        let trust = state.dialler.trust().clone();
        let watching = state.clone();
        state.links.spawn_until_stopped(async move {
            let warn = |text: &str| watching.observer.report(Event::CredentialsWarning { text });
            trust.watch_expiry(warn).await;
        });
        for node in nodes {
            state.links.spawn_until_stopped(keep(NodeRegistration {
                state: state.clone(),
                address: node,
            }));
        }
        Ok(Agent { state, instance, config_version: Mutex::new(1) })
    }
}

/// A running agent. Dropping it closes its links at once; [`Agent::shutdown`] lets calls finish.
pub struct Agent {
    state: Arc<AgentState>,
    instance: [u8; 16],
    config_version: Mutex<u64>,
}

fn hello(instance: [u8; 16], limits: &Limits) -> HelloInfo {
    HelloInfo { instance, calls_in_flight_max: limits.calls_in_flight_max }
}

impl Agent {
    /// Returns a builder of an agent with this certificate.
    pub fn builder(credentials: Credentials) -> AgentBuilder {
        AgentBuilder {
            credentials,
            nodes: Vec::new(),
            #[cfg(feature = "forward")]
            mcp: Vec::new(),
            policy: AgentPolicy::default(),
            limits: Limits::default(),
            services: Vec::new(),
            audit: Audit::default(),
            net: net::system(),
            #[cfg(feature = "tunnel")]
            paths: PathSettings::udp(),
            traces: None,
        }
    }

    /// The agent's name, from its certificate.
    pub fn name(&self) -> &Name {
        &self.state.peer.name
    }

    /// The nodes on which it is registered now.
    pub fn nodes(&self) -> Vec<Name> {
        let attached = self.state.attached.borrow();
        in_use(&attached).map(|attached| attached.node.clone()).collect()
    }

    /// The number of links that were replaced and are still up, because calls are on them.
    pub fn retiring_links(&self) -> usize {
        let attached = self.state.attached.borrow();
        attached.len() - in_use(&attached).count()
    }

    /// Readiness for calls: a link answers a probe of its node, and each service is assessed by its
    /// last calls and its check. Probes and checks are at most two seconds old; a new one takes up
    /// to two seconds.
    pub async fn readiness(&self) -> Readiness {
        self.state.readiness().await
    }

    /// Waits until it is registered on at least `count` links. Replaced links do not count.
    pub async fn registered(&self, count: usize) {
        let mut attached = self.state.attached.subscribe();
        // The sender is in `state`, so this ends only when it is true.
        drop(attached.wait_for(|attached| in_use(attached).count() >= count).await);
    }

    /// Services of the node on which it registered last. Calls wait for a link by their deadline.
    pub fn node(&self) -> Callee {
        self.callee(Target::Here)
    }

    /// Another agent, through that node. The node's policy names this one `agent/NAME` as the
    /// requester.
    ///
    /// # Errors
    /// The text is not a name.
    pub fn agent(&self, name: impl AsRef<str>) -> Result<Callee, NameError> {
        Ok(self.callee(Target::Agent(name.as_ref().parse()?)))
    }

    fn callee(&self, target: Target) -> Callee {
        let handler: SharedHandler = self.state.clone();
        let AgentState { peer, call_ids, calls: tasks, .. } = &*self.state;
        let limits = &self.state.limits.get();
        Callee::new(CallOrigin { handler, peer, call_ids, limits, tasks }, target)
    }

    /// Sends from a new socket from now on. For programs that know that the network has changed:
    /// the agent itself notices within some seconds. Links and calls in flight stay.
    ///
    /// # Errors
    /// The system gives no socket.
    pub fn rebind(&self) -> Result<(), BindError> {
        self.state.dialler.rebind()
    }

    /// Updates certificate, trust, policy or limits of a running agent; nothing if any is invalid.
    ///
    /// Every link is verified with the new credentials before this returns, and closed if a
    /// handshake would now refuse its node. With another own certificate, or other limits, each
    /// link is then replaced: the old one closes once the node has registered the new one and its
    /// own calls have ended. Three such links to a node may be up; then the next one waits for the
    /// drain time and closes the oldest. A refused agent dials again at once.
    ///
    /// # Errors
    /// Credentials of another peer, or none that make a TLS configuration.
    pub async fn apply(&self, next: ConfigUpdate<AgentPolicy>) -> Result<Applied, StartError> {
        let has_credentials = next.credentials.is_some();
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

    fn update(&self, next: ConfigUpdate<AgentPolicy>) -> Result<(u64, Changed), StartError> {
        let mut config_version = self.config_version.lock().unwrap_or_else(PoisonError::into_inner);
        let ConfigUpdate { credentials, policy, limits } = next;
        let (state, now) = (&self.state, self.credentials());
        let limits = limits.filter(|limits| *limits != *state.limits.get());
        if let Some(credentials) = &credentials {
            now.expect_successor(credentials)?;
        }
        let mut changed = Changed::between(&now, credentials.as_ref());
        changed.limits = limits.is_some();
        if credentials.is_some() || limits.is_some() {
            let limits = limits.map_or_else(|| state.limits.get(), Arc::new);
            let hello = hello(self.instance, &limits);
            state.dialler.replace(credentials.as_ref().unwrap_or(&now), hello, limits.clone())?;
            state.memory.apply(&limits);
            state.limits.set_shared(limits);
        }
        if let Some(policy) = policy {
            changed.rules = policy != *state.policy.get();
            state.policy.set(policy);
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

    /// The present certificate, key and trust.
    pub fn credentials(&self) -> Credentials {
        self.state.dialler.trust().credentials()
    }

    /// Runs until the future ends, then stops as [`Agent::shutdown`] does.
    pub async fn run_until(self, end: impl Future<Output = ()>) {
        end.await;
        self.shutdown().await;
    }

    /// Returns the events of links from now on: nodes that registered this agent, that were lost
    /// and why, and that drain, and changes of the paths of links and why.
    pub fn events(&self) -> Events<AgentEvent> {
        self.state.observer.events(&self.state.links)
    }

    /// Closes its links gracefully. Requests no more calls from its nodes and waits for their
    /// confirmation; refuses those that still come; lets those in flight finish within the drain
    /// time; then the nodes, which are the last to receive, close the links, within 3 s.
    pub async fn shutdown(self) {
        self.close_gracefully().await;
    }

    /// As [`Agent::shutdown`], until `abort` ends. Then every link is closed at once with DRAINED,
    /// calls in flight end with unknown outcome, and this returns within 100 ms.
    pub async fn shutdown_or_abort(self, abort: impl Future<Output = ()>) {
        tokio::select! {
            () = self.close_gracefully() => {}
            () = abort => self.abort().await,
        }
    }

    async fn abort(&self) {
        let dialler = &self.state.dialler;
        let was_linked = dialler.trust().is_any_up();
        self.state.close(CloseCode::Drained);
        let idle = async {
            if was_linked {
                dialler.wait_idle(limits::ABORT_WAIT_MAX).await;
            }
        };
        tokio::join!(idle, self.state.observer.tracer().close(limits::ABORT_WAIT_MAX));
    }

    async fn close_gracefully(&self) {
        let AgentState { keeper, drain, goodbye, abort, calls, links, dialler, .. } = &*self.state;
        let limits = self.state.limits.get();
        let finish_by = Instant::now() + limits.drain_max;
        keeper.stop.notify();
        keeper.stop.done(limits.drain_max.min(limits::GOODBYE_WAIT_MAX)).await;
        calls.begin_drain();
        drain.notify();
        let have_finished = calls.wait(left_until(finish_by)).await;
        let close_by = Instant::now() + limits::CLOSE_WAIT_MAX;
        let was_linked = dialler.trust().is_any_up();
        if have_finished {
            goodbye.notify();
            goodbye.done(limits::GOODBYE_WAIT_MAX).await;
        } else {
            self.state.observer.report(Event::CallsAborted { after: limits.drain_max });
            abort.notify();
            abort.done(limits::GOODBYE_WAIT_MAX).await;
        }
        self.state.close(CloseCode::Goodbye);
        links.wait(left_until(close_by)).await;
        // A dial that was given up needs no goodbye, and QUIC would take seconds over it.
        if was_linked {
            dialler.wait_idle(left_until(close_by)).await;
        }
        self.state.observer.tracer().close(limits::SPANS_FLUSH_WAIT_MAX).await;
    }
}

fn left_until(moment: Instant) -> Duration {
    moment.saturating_duration_since(Instant::now())
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.state.close(CloseCode::Goodbye);
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("name", self.name()).field("nodes", &self.nodes()).finish()
    }
}

/// What an admin listener reads of an agent, also while that shuts down.
#[cfg(feature = "admin")]
#[derive(Clone)]
pub(crate) struct AgentView(Arc<AgentState>);

#[cfg(feature = "admin")]
impl Agent {
    pub(crate) fn view(&self) -> AgentView {
        AgentView(self.state.clone())
    }
}

#[cfg(feature = "admin")]
impl AgentView {
    pub(crate) fn counts(&self) -> Arc<crate::observe::ObservedCounts> {
        self.0.observer.counts()
    }

    pub(crate) fn audit_lines_lost(&self) -> u64 {
        self.0.observer.audit_lines_lost()
    }

    pub(crate) fn spans(&self) -> Option<[u64; 2]> {
        self.0.observer.tracer().counts()
    }

    pub(crate) fn recent(&self) -> Arc<crate::observe::RecentEvents> {
        self.0.observer.recent()
    }

    pub(crate) fn trust(&self) -> Arc<crate::link::TrustedLinks> {
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
