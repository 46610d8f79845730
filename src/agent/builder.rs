//! Configures and starts an agent.

use super::{Agent, ServiceSet, TcpForward, hello, state::AgentState};
#[cfg(feature = "forward")]
use super::{HttpForward, McpForward};
#[cfg(feature = "tunnel")]
use crate::path::PathSettings;
use crate::{
    audit::Audit,
    drain::{Signal, Tasks},
    limits::Limits,
    link::{Dialler, KeeperSignals},
    memory::MessageMemory,
    name::{CallIds, NameError, NodeAddress, Role},
    net::{self, SharedNet},
    observe::{Event, Observer},
    policy::AgentPolicy,
    serve::Service,
    shared_value::SharedValue,
    start_error::StartError,
    tls::Credentials,
    trace::Traces,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

/// Configures an agent. Made by [`Agent::builder`].
#[must_use = "an agent dials once it is started"]
pub struct AgentBuilder {
    credentials: Credentials,
    nodes: Vec<Result<NodeAddress, NameError>>,
    policy: AgentPolicy,
    limits: Limits,
    services: ServiceSet,
    audit: Audit,
    net: SharedNet,
    #[cfg(feature = "tunnel")]
    paths: PathSettings,
    traces: Option<Traces>,
}

impl AgentBuilder {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            nodes: Vec::new(),
            policy: AgentPolicy::default(),
            limits: Limits::default(),
            services: ServiceSet::new(),
            audit: Audit::default(),
            net: net::system(),
            #[cfg(feature = "tunnel")]
            paths: PathSettings::udp(),
            traces: None,
        }
    }

    /// Adds a node to dial: `"edge-1.example.com:4433"`. The agent is attached to all at once.
    pub fn node(mut self, address: impl AsRef<str>) -> Self {
        self.nodes.push(address.as_ref().parse());
        self
    }

    /// Adds a service to host.
    pub fn serve(self, service: Service) -> Self {
        self.services(ServiceSet::new().serve(service))
    }

    /// Adds a TCP forward to host: callers reach its upstream as `tcp:NAME`, if rules allow it.
    pub fn tcp(self, forward: TcpForward) -> Self {
        self.services(ServiceSet::new().tcp(forward))
    }

    /// Adds an HTTP forward to host: callers reach its upstream as `http:NAME`, if rules allow it.
    #[cfg(feature = "forward")]
    pub fn http(self, forward: HttpForward) -> Self {
        self.services(ServiceSet::new().http(forward))
    }

    /// Adds an MCP server to host: callers reach its tools as `mcp:NAME/TOOL`, if rules allow it.
    #[cfg(feature = "forward")]
    pub fn mcp(self, forward: McpForward) -> Self {
        self.services(ServiceSet::new().mcp(forward))
    }

    /// Adds all services and forwards of a set.
    pub fn services(mut self, set: ServiceSet) -> Self {
        self.services = self.services.and(set);
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
        let nodes = self.nodes.into_iter().collect::<Result<BTreeSet<_>, _>>()?;
        if nodes.is_empty() {
            return Err(StartError::NoNode);
        }
        let (limits, instance) = (Arc::new(self.limits), self.net.random_bytes());
        let hello = hello(instance, &limits);
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
            hosted: watch::Sender::default(),
            nodes: Mutex::default(),
            policy: Arc::new(SharedValue::new(self.policy)),
            observer: Observer::new(&self.audit, peer.clone()).traced_by(tracer),
            memory: MessageMemory::new(&limits),
            limits: SharedValue::of(limits),
            call_ids: Arc::new(CallIds::new(self.net.random_bytes())),
            attached: watch::Sender::new(Vec::new()),
            keeper: KeeperSignals::default(),
            drain: Arc::default(),
            goodbye: Signal::default(),
            abort: Signal::default(),
            links: Tasks::default(),
            calls: Tasks::default(),
        });
        let hosted = state.hosted_next(self.services, &state.limits.get())?;
        state.host(hosted);
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
        state.dial(nodes);
        Ok(Agent { state, instance, config_version: Mutex::new(1) })
    }
}
