//! The public party: listens, admits agents and callers, and calls agents.

mod admit;
mod reset_limiter;
mod admitted;
mod candidates;
mod authorise;
mod dispatch;
mod events;
mod ingress;
mod handle;
mod service_index;
mod log_limits;
mod listing;
mod quotas;
mod registry;
mod flap_detector;
mod routes;
mod snapshot;
mod state;
mod waiters;

pub use events::NodeEvent;
#[cfg(feature = "gateway")]
pub(crate) use ingress::{GatewayCall, GatewayIngress};
pub use handle::{AgentHandle, AgentRef, Arrivals, NotConnected};
pub use listing::{ListedMethod, ListedService};
pub use snapshot::{AgentInfo, DIRECTORY, Directory};
pub use state::StateError;

use crate::{
    audit::{Audit, Journal},
    call::{CallOrigin, Callee, IntoMethod, Permits, RetryBudget, SharedHandler, Target, ToMany},
    config_update::{Applied, Changed, ConfigUpdate},
    drain::{Signal, Tasks},
    events::{EventSender, Events},
    handshake_limiter::{Accept, HandshakeLimiter, Incoming},
    limits::{self, Limits},
    link::{BindError, Knock, Leave, Link, Listener},
    memory::MessageMemory,
    name::{CallIds, Name, NameError, PeerName, Role},
    net::{self, SharedNet},
    policy::NodePolicy,
    rate_limit::Pace,
    serve::{Service, ServiceError, Services},
    shared_value::SharedValue,
    status::Status,
    tls::{Credentials, CredentialsError},
    wire::{CloseCode, ServiceInfo},
};
use candidates::Candidates;
use dispatch::Dispatch;
use ingress::InProcess;
use log_limits::NodeLogLimits;
use quotas::Quotas;
use registry::{Line, Now, Registry};
use routes::Links;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::broadcast, time::Instant};
use waiters::Waiters;

/// One registered link of an agent, as calls need it.
#[derive(Clone)]
pub(crate) struct AgentLink {
    link: Link,
    permits: Permits,
    services: Vec<ServiceInfo>,
    software: String,
    /// Those of when it was made.
    limits: Arc<Limits>,
}

type SharedAgentLink = Arc<AgentLink>;

/// What the parts of a node share. The program holds it through [`Node`] and [`AgentHandle`], tasks
/// through their own clones.
pub(crate) struct Shared {
    net: SharedNet,
    name: Name,
    peer: PeerName,
    limits: SharedValue<Limits>,
    policy: SharedValue<NodePolicy>,
    /// What callers have held for them.
    memory: MessageMemory,
    /// What callers have used up of rules that count calls. Beside the policy: it goes on when the
    /// policy is read anew.
    quotas: Quotas,
    lines: NodeLogLimits,
    journal: Journal,
    services: Services,
    directory: std::sync::OnceLock<Services>,
    registry: Mutex<Registry<SharedAgentLink>>,
    /// Which hosts callers may call, where those are few.
    candidates: Candidates,
    /// Those who wait for an agent.
    waiters: Waiters,
    /// Each with its number.
    arrivals: broadcast::Sender<(u64, Name)>,
    events: EventSender<NodeEvent>,
    /// On this word every link says that it takes no more calls.
    drain: Signal,
    /// On this one that nothing is left to do: the other side is to close it.
    goodbye: Signal,
    /// And on this one that the time is over: it is closed, and its calls break off.
    cut: Signal,
    call_ids: Arc<CallIds>,
    /// How many more calls may be tried again.
    retries: Arc<RetryBudget>,
    /// One task a link, until the link ends.
    links: Tasks,
    /// One task a call that came over a link.
    calls: Tasks,
}

impl Shared {
    /// What sends calls to agents.
    fn dispatch(self: &Arc<Self>) -> Dispatch<Links> {
        Dispatch::new(Links::new(self.clone()), self.retries.clone())
    }

    /// The registry, for a moment. Its map is whole after every call, so a panic elsewhere does not
    /// spoil it.
    fn registry(&self) -> MutexGuard<'_, Registry<SharedAgentLink>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies something of every agent that is attached or was, by name. Some at a time, so that no
    /// call waits for the whole of it; who comes or goes meanwhile may be in it or not.
    fn copied<T>(&self, copy: impl Fn(Line<'_, SharedAgentLink>) -> Option<T>) -> Vec<T> {
        let (mut copied, mut after) = (Vec::new(), None);
        loop {
            let registry = self.registry();
            let (mut count, mut last) = (0, None);
            let lines = registry.lines_after(after.as_ref(), Now::read());
            for line in lines.take(limits::AGENTS_COPIED_AT_ONCE) {
                count += 1;
                last = Some(line.name);
                copied.extend(copy(line));
            }
            if count < limits::AGENTS_COPIED_AT_ONCE {
                return copied;
            }
            after = last.cloned();
        }
    }

    /// How one of this node's links is left.
    fn leave(&self, link: &Link) -> Leave {
        let words = [self.drain.listen(), self.goodbye.listen(), self.cut.listen()];
        Leave::on(link.clone(), words, CloseCode::Drained, STOPS)
            .within(self.limits.get().drain_max)
    }
}

/// Why a node leaves.
const STOPS: &str = "the node stops";

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

/// How a node is to be. Made by [`Node::builder`].
#[must_use = "a node listens once it is started"]
pub struct NodeBuilder {
    credentials: Credentials,
    listen: Result<SocketAddr, String>,
    policy: NodePolicy,
    limits: Limits,
    services: Vec<Service>,
    state_dir: Option<PathBuf>,
    audit: Audit,
    net: SharedNet,
}

impl NodeBuilder {
    /// Sets where to listen, as `"[::]:4433"` (the default: IPv4 and IPv6) or `"127.0.0.1:0"` (any
    /// free port).
    pub fn listen(mut self, address: impl ToString) -> Self {
        let text = address.to_string();
        self.listen = text.parse().map_err(|_| text);
        self
    }

    /// Sets who may call what from outside. Default: nobody anything.
    pub fn policy(mut self, policy: NodePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the bounds.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Adds a service that the node itself hosts, for its agents and callers. The policy names it
    /// `agent = "node/NAME"`.
    pub fn serve(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Sets the directory for what has to outlast a restart; it is made if it is missing, and each
    /// node needs one of its own.
    ///
    /// In it are the keys with which a node that was killed and started again tells its former
    /// peers so: they notice at their next packet (within a heartbeat, 5 s), and not by the silence
    /// (12 s). Default: none.
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(dir.into());
        self
    }

    /// Sets where links, refusals and, with [`Audit::with_calls`], calls are written down. Default:
    /// nowhere.
    pub fn audit(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }

    /// Sets the network. Default: the system's.
    #[cfg(test)]
    pub(crate) fn net(mut self, net: SharedNet) -> Self {
        self.net = net;
        self
    }

    /// Listens. Needs a tokio runtime; returns once the socket is bound.
    ///
    /// # Errors
    /// A certificate that is not a node's, an address in use, a service name that breaks the
    /// grammar, a state directory that cannot be used.
    pub async fn start(self) -> Result<Node, StartError> {
        self.credentials.expect_role(Role::Node)?;
        let address = self.listen.map_err(|text| NameError::of_listen(&text))?;
        let services = Services::new(self.services)?;
        let keys = self.state_dir.as_deref().map(state::reset_keys).transpose()?;
        let listener =
            Listener::bind(&self.net, address, &self.credentials, &self.limits, keys.as_ref())?;
        let listener = Arc::new(listener);
        let peer = self.credentials.peer_name().clone();
        let shared = Arc::new(Shared {
            net: self.net.clone(),
            name: peer.name.clone(),
            memory: MessageMemory::new(&self.limits),
            limits: SharedValue::new(self.limits),
            policy: SharedValue::new(self.policy),
            quotas: Quotas::default(),
            lines: NodeLogLimits::default(),
            journal: self.audit.of(peer.clone()),
            peer,
            services,
            directory: std::sync::OnceLock::new(),
            registry: Mutex::default(),
            candidates: Candidates::default(),
            waiters: Waiters::default(),
            arrivals: broadcast::Sender::new(limits::ARRIVALS_WAITING_MAX),
            events: EventSender::default(),
            drain: Signal::default(),
            goodbye: Signal::default(),
            cut: Signal::default(),
            call_ids: Arc::new(CallIds::new(self.net.random_bytes())),
            retries: Arc::default(),
            links: Tasks::default(),
            calls: Tasks::default(),
        });
        let directory = Services::with_reserved(vec![snapshot::directory(&shared)])?;
        drop(shared.directory.set(directory));
        let handshakes = Handshakes { shared: shared.clone(), listener: listener.clone() };
        shared.links.spawn_until_stopped(accept_loop(handshakes));
        let net = shared.net.clone();
        shared.links.spawn_until_stopped(async move { net.suspend().tick().await });
        let trust = listener.trust().clone();
        shared.links.spawn_until_stopped(async move { trust.watch_expiry().await });
        tracing::info!("node {} listens on {}", shared.name, listener.local_addr());
        Ok(Node { shared, listener, generation: Mutex::new(1) })
    }
}

/// The node's socket, as handshakes begin on it.
struct Handshakes {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
}

impl Handshakes {
    fn is_leaving(&self) -> bool {
        self.shared.drain.is_notified() || self.shared.calls.is_draining()
    }
}

impl Accept for Handshakes {
    type Incoming = Knock;

    async fn accept(&self) -> Option<Knock> {
        loop {
            let incoming = self.listener.knock().await?;
            if !self.is_leaving() {
                return Some(incoming);
            }
            incoming.ignore();
        }
    }

    fn ignored(&self, last: SocketAddr, count: u64) {
        self.shared.journal.handshakes_ignored(last, count);
        tracing::warn!(
            "ignored {count} handshakes, the last from {last}: too many waited for their turn (at most {} a second from one address, handshakes_per_address)",
            self.shared.limits.get().handshakes_per_address
        );
    }
}

/// The pace at which one address may begin handshakes.
fn handshake_pace(limits: &Limits) -> Pace {
    let bounded = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let every = Duration::from_secs(1) / bounded(limits.handshakes_per_address);
    Pace::new(bounded(limits.handshakes_burst), every)
}

/// Takes peers that nothing is known of yet, and only that: each is greeted in a task of its own,
/// with a limit on time and on how many at once.
async fn accept_loop(handshakes: Handshakes) {
    let shared = &handshakes.shared;
    let mut limits = shared.limits.get();
    let mut limiter =
        HandshakeLimiter::new(limits::HANDSHAKES_AT_ONCE_MAX, handshake_pace(&limits));
    while let Some((incoming, permit)) = limiter.next(&handshakes).await {
        if handshakes.is_leaving() {
            incoming.ignore();
            continue;
        }
        shared.links.spawn(admit::admit(shared.clone(), incoming, permit));
        let limits_now = shared.limits.get();
        if !Arc::ptr_eq(&limits, &limits_now) {
            limits = limits_now;
            limiter.set_pace(handshake_pace(&limits));
        }
    }
}

/// A running node. Dropping it closes every link at once; [`Node::shutdown`] lets work in hand
/// finish.
pub struct Node {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    /// Which one is in force.
    generation: Mutex<u64>,
}

impl Node {
    /// Starts to describe a node that has this certificate.
    pub fn builder(credentials: Credentials) -> NodeBuilder {
        NodeBuilder {
            credentials,
            listen: Ok((std::net::Ipv6Addr::UNSPECIFIED, 4433).into()),
            policy: NodePolicy::default(),
            limits: Limits::default(),
            services: Vec::new(),
            state_dir: None,
            audit: Audit::default(),
            net: net::system(),
        }
    }

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
        self.shared.events.listen(&self.shared.links)
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
        let (generation, changed) = self.put_in_force(next)?;
        let closed = if has_credentials { self.listener.trust().judge_all().await } else { 0 };
        Ok(changed.tell(Applied { generation, closed }))
    }

    /// All of it at one moment, as far as anybody can see who reads it.
    fn put_in_force(&self, next: ConfigUpdate<NodePolicy>) -> Result<(u64, Changed), StartError> {
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        let ConfigUpdate { credentials, policy, limits } = next;
        let limits = limits.filter(|limits| *limits != *self.shared.limits.get());
        let now = self.listener.trust().credentials();
        if let Some(credentials) = &credentials {
            now.expect_successor(credentials)?;
        }
        let mut changed = Changed::between(&now, credentials.as_ref());
        changed.bounds = limits.is_some();
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
        *generation += 1;
        Ok((*generation, changed))
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
            tracing::warn!("calls in flight were cut off after {drain_max:?}");
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

/// Who can be called through this node's dispatch.
fn callee(shared: &Arc<Shared>, target: Target) -> Callee {
    let handler: SharedHandler = Arc::new(InProcess::new(shared.clone()));
    let Shared { peer, call_ids, calls: tasks, .. } = &**shared;
    let limits = &shared.limits.get();
    Callee::new(CallOrigin { handler, peer, call_ids, limits, tasks }, target)
}
