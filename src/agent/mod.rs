//! The party inside: dials out to its nodes, stays linked, and answers calls. It listens on
//! nothing.

mod attach;
#[cfg(feature = "cli")]
pub mod demo;
pub(crate) mod forward;
mod acceptor;

#[cfg(feature = "forward")]
pub use forward::{Forward, ForwardFormat, ForwardHandle, UpstreamAddress, UpstreamError};
pub use forward::{TcpForward, Upstream};

use crate::{
    audit::Audit,
    call::{
        CallOrigin, Callee, Handler, Reply, Request, SharedHandler, Target, ask,
        is_for_the_next_link,
    },
    config_update::{Applied, Changed, ConfigUpdate},
    drain::{Signal, Tasks},
    limits::{self, Limits},
    link::{BindError, Dialler, HelloWords, KeeperSignals, Link},
    memory::MessageMemory,
    name::{CallIds, Name, NameError, NodeAddress, PeerName, Role},
    net::{self, SharedNet},
    node::StartError,
    observe::{AgentEvent, Event, Events, Observer},
    policy::AgentPolicy,
    serve::{Service, Services},
    shared_value::SharedValue,
    status::{Code, Status},
    tls::Credentials,
    wire::CloseCode,
};
use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// A link on which this agent is registered.
#[derive(Clone)]
pub(crate) struct Attached {
    node: Name,
    link: Link,
    /// Nothing more is asked over it: the node is leaving, or another link has taken its place.
    is_being_left: bool,
}

/// What the parts of an agent share.
pub(crate) struct Shared {
    net: SharedNet,
    peer: PeerName,
    dialler: Dialler,
    services: Services,
    policy: SharedValue<AgentPolicy>,
    /// What it says of calls that it refuses, by who asks.
    observer: Observer<AgentEvent>,
    /// What callers have held for them.
    memory: MessageMemory,
    limits: SharedValue<Limits>,
    call_ids: Arc<CallIds>,
    /// The links on which it is registered, oldest first.
    attached: watch::Sender<Vec<Attached>>,
    /// Its `stop` also asks every node for no more calls.
    keeper: KeeperSignals,
    /// On this one every link says that it takes no more calls.
    drain: Signal,
    /// On this one that nothing is left to do: the node is to close it.
    goodbye: Signal,
    /// And on this one that the time is over: it is closed, and its calls break off.
    abort: Signal,
    /// One task a node address.
    links: Tasks,
    /// One task a call.
    calls: Tasks,
}

/// How an agent is to be. Made by [`Agent::builder`].
#[must_use = "an agent dials once it is started"]
pub struct AgentBuilder {
    credentials: Credentials,
    nodes: Vec<Result<NodeAddress, NameError>>,
    policy: AgentPolicy,
    limits: Limits,
    services: Vec<Service>,
    audit: Audit,
    net: SharedNet,
}

impl AgentBuilder {
    /// Adds a node to dial: `"edge-1.example.com:4433"`. With several, the agent is attached to all
    /// of them at once.
    pub fn node(mut self, address: impl AsRef<str>) -> Self {
        self.nodes.push(address.as_ref().parse());
        self
    }

    /// Adds a service to host.
    pub fn serve(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Adds a forward of TCP connections to host: callers reach its upstream as `tcp:NAME`, if
    /// rules open that to them.
    pub fn tcp(self, forward: TcpForward) -> Self {
        self.serve(forward.into_service())
    }

    /// Sets the owner's say over who may call what. Default: verified nodes may call what is
    /// hosted.
    pub fn policy(mut self, policy: AgentPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the bounds.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets where links, refusals and, with [`Audit::with_calls`], the calls that it answers are
    /// written down. Default: nowhere.
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
        let words = words(instance, &limits);
        let services = Services::new(self.services)?;
        services.expect_registrable()?;
        let shared = Arc::new(Shared {
            net: self.net.clone(),
            peer: self.credentials.peer_name().clone(),
            dialler: Dialler::new(&self.net, &self.credentials, words, limits.clone())?,
            services,
            policy: SharedValue::new(self.policy),
            observer: Observer::new(&self.audit, self.credentials.peer_name().clone()),
            memory: MessageMemory::new(&limits),
            limits: SharedValue::of(limits),
            call_ids: Arc::new(CallIds::new(self.net.random_bytes())),
            attached: watch::Sender::new(Vec::new()),
            keeper: KeeperSignals::default(),
            drain: Signal::default(),
            goodbye: Signal::default(),
            abort: Signal::default(),
            links: Tasks::default(),
            calls: Tasks::default(),
        });
        let net = shared.net.clone();
        shared.links.spawn_until_stopped(async move { net.suspend().tick().await });
        shared.links.spawn_until_stopped(shared.dialler.clone().roam());
        let trust = shared.dialler.trust().clone();
        let watching = shared.clone();
        shared.links.spawn_until_stopped(async move {
            let warn = |text: &str| watching.observer.tell(Event::CredentialsWarning { text });
            trust.watch_expiry(warn).await;
        });
        for node in nodes {
            shared.links.spawn_until_stopped(attach::attach(shared.clone(), node));
        }
        Ok(Agent { shared, instance, generation: Mutex::new(1) })
    }
}

/// A running agent. Dropping it closes its links at once; [`Agent::shutdown`] lets work in hand
/// finish.
pub struct Agent {
    shared: Arc<Shared>,
    instance: [u8; 16],
    /// Which one is in force.
    generation: Mutex<u64>,
}

fn words(instance: [u8; 16], limits: &Limits) -> HelloWords {
    HelloWords { instance, calls_in_flight_max: limits.calls_in_flight_max }
}

impl Agent {
    /// Starts to describe an agent that has this certificate.
    pub fn builder(credentials: Credentials) -> AgentBuilder {
        AgentBuilder {
            credentials,
            nodes: Vec::new(),
            policy: AgentPolicy::default(),
            limits: Limits::default(),
            services: Vec::new(),
            audit: Audit::default(),
            net: net::system(),
        }
    }

    /// The agent's name, from its certificate.
    pub fn name(&self) -> &Name {
        &self.shared.peer.name
    }

    /// The nodes on which it is registered now.
    pub fn nodes(&self) -> Vec<Name> {
        let attached = self.shared.attached.borrow();
        in_use(&attached).map(|attached| attached.node.clone()).collect()
    }

    /// Links whose place another one has taken and that are still up, because calls are on them.
    pub fn former_links(&self) -> usize {
        let attached = self.shared.attached.borrow();
        attached.len() - in_use(&attached).count()
    }

    /// Waits until it is registered on at least `count` links, not counting those whose place
    /// another one has taken.
    pub async fn registered(&self, count: usize) {
        let mut attached = self.shared.attached.subscribe();
        // The sender lives in `shared`, so this ends only when it is true.
        drop(attached.wait_for(|attached| in_use(attached).count() >= count).await);
    }

    /// The services of the node that it is registered on; with several, of the one that it
    /// registered on last. Calls wait for a link within their deadline.
    pub fn node(&self) -> Callee {
        self.callee(Target::Here)
    }

    /// Another agent, through that node. The node's policy names this one `agent/NAME` as the
    /// requester.
    ///
    /// # Errors
    /// The text is no name.
    pub fn agent(&self, name: impl AsRef<str>) -> Result<Callee, NameError> {
        Ok(self.callee(Target::Agent(name.as_ref().parse()?)))
    }

    fn callee(&self, target: Target) -> Callee {
        let handler: SharedHandler = Arc::new(Asks { shared: self.shared.clone() });
        let Shared { peer, call_ids, calls: tasks, .. } = &*self.shared;
        let limits = &self.shared.limits.get();
        Callee::new(CallOrigin { handler, peer, call_ids, limits, tasks }, target)
    }

    /// Sends from a new socket from now on: to be called by a program that knows that the network
    /// has changed. Links and calls in flight stay. By itself the agent notices within some
    /// seconds.
    ///
    /// # Errors
    /// The system gives no socket.
    pub fn rebind(&self) -> Result<(), BindError> {
        self.shared.dialler.rebind()
    }

    /// Puts another generation in force while the agent runs: certificate, trust, policy, bounds.
    /// Nothing changes if it does not fit.
    ///
    /// Every link is judged by the new credentials before this returns, and closed if a handshake
    /// would now refuse its node. With another certificate of its own, or other bounds, the agent
    /// then makes each link once more, and leaves the former one only when the node has registered
    /// it on the new one and the calls that were on it have ended, however long they take: three
    /// such links to a node may be up, and with so many the next one waits for the drain time and
    /// then ends the oldest. It dials again at once where it was refused.
    ///
    /// # Errors
    /// Credentials of another party, or none that make a TLS configuration.
    pub async fn apply(&self, next: ConfigUpdate<AgentPolicy>) -> Result<Applied, StartError> {
        let has_credentials = next.credentials.is_some();
        let (generation, changed) = self.put_in_force(next)?;
        let trust = self.shared.dialler.trust();
        let closed = if has_credentials { trust.judge_all().await } else { 0 };
        self.shared.observer.tell(Event::ConfigApplied { generation, changed: &changed, closed });
        Ok(Applied { generation, closed })
    }

    fn put_in_force(&self, next: ConfigUpdate<AgentPolicy>) -> Result<(u64, Changed), StartError> {
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        let ConfigUpdate { credentials, policy, limits } = next;
        let (shared, now) = (&self.shared, self.credentials());
        let limits = limits.filter(|limits| *limits != *shared.limits.get());
        if let Some(credentials) = &credentials {
            now.expect_successor(credentials)?;
        }
        let mut changed = Changed::between(&now, credentials.as_ref());
        changed.bounds = limits.is_some();
        let (is_tried_anew, is_renewed) =
            (credentials.is_some(), changed.certificate || changed.bounds);
        if credentials.is_some() || limits.is_some() {
            let limits = limits.map_or_else(|| shared.limits.get(), Arc::new);
            let words = words(self.instance, &limits);
            shared.dialler.replace(credentials.as_ref().unwrap_or(&now), words, limits.clone())?;
            shared.memory.apply(&limits);
            shared.limits.set_shared(limits);
        }
        if let Some(policy) = policy {
            changed.rules = policy != *shared.policy.get();
            shared.policy.set(policy);
        }
        if is_renewed {
            shared.keeper.request_replacement();
        }
        if is_tried_anew {
            shared.keeper.request_reconnect();
        }
        *generation += 1;
        Ok((*generation, changed))
    }

    /// The certificate, key and trust that are in force.
    pub fn credentials(&self) -> Credentials {
        self.shared.dialler.trust().credentials()
    }

    /// Runs until the future ends, then stops as [`Agent::shutdown`] does.
    pub async fn run_until(self, end: impl Future<Output = ()>) {
        end.await;
        self.shutdown().await;
    }

    /// What happens to links from now on: who registered this agent, who was lost and why, who
    /// drains.
    pub fn events(&self) -> Events<AgentEvent> {
        self.shared.observer.events(&self.shared.links)
    }

    /// Leaves in good order. Asks its nodes for no more calls and waits until they know; refuses
    /// those that come all the same; lets those in flight finish within the drain time; then the
    /// nodes, which are the last to receive, close the links, within 3 s.
    pub async fn shutdown(self) {
        self.close_gracefully().await;
    }

    /// As [`Agent::shutdown`], until `abort` ends. Then every link is closed at once with DRAINED,
    /// calls in flight end with unknown outcome, and this returns when the nodes were told, after
    /// 100 ms at most.
    pub async fn shutdown_or_abort(self, abort: impl Future<Output = ()>) {
        tokio::select! {
            () = self.close_gracefully() => {}
            () = abort => self.abort().await,
        }
    }

    async fn abort(&self) {
        let Shared { calls, links, dialler, .. } = &*self.shared;
        let was_linked = dialler.trust().is_any_up();
        self.close(CloseCode::Drained);
        links.stop();
        calls.stop();
        if was_linked {
            dialler.wait_idle(limits::ABORT_WAIT_MAX).await;
        }
    }

    async fn close_gracefully(&self) {
        let Shared { keeper, drain, goodbye, abort, calls, links, dialler, .. } = &*self.shared;
        let limits = self.shared.limits.get();
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
            self.shared.observer.tell(Event::CallsCutOff { after: limits.drain_max });
            abort.notify();
            abort.done(limits::GOODBYE_WAIT_MAX).await;
        }
        self.close(CloseCode::Goodbye);
        links.stop();
        calls.stop();
        links.wait(left_until(close_by)).await;
        // A dial that was given up needs no goodbye, and QUIC would take seconds over it.
        if was_linked {
            dialler.wait_idle(left_until(close_by)).await;
        }
    }

    /// Closes what links there still are.
    fn close(&self, code: CloseCode) {
        self.shared.attached.borrow().iter().for_each(|attached| attached.link.close(code, STOPS));
    }
}

/// Why an agent leaves.
const STOPS: &str = "the agent stops";

fn left_until(moment: Instant) -> Duration {
    moment.saturating_duration_since(Instant::now())
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.close(CloseCode::Goodbye);
        self.shared.links.stop();
        self.shared.calls.stop();
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("name", self.name()).field("nodes", &self.nodes()).finish()
    }
}

/// What this agent asks of others, over its newest link.
struct Asks {
    shared: Arc<Shared>,
}

impl Handler for Asks {
    async fn call(&self, mut request: Request) -> Result<Reply, Status> {
        loop {
            let link = self.link_by(request.meta.deadline).await?;
            let limits = self.shared.limits.get();
            let reply = ask(&link, &mut request, (&*limits).into(), None, None).await;
            if !is_for_the_next_link(&reply, &link) || request.is_spent() {
                return reply;
            }
        }
    }
}

impl Asks {
    async fn link_by(&self, deadline: Instant) -> Result<Link, Status> {
        let mut attached = self.shared.attached.subscribe();
        let some = attached.wait_for(|attached| newest(attached).is_some());
        // In time or not: what counts is whether there is one now.
        tokio::select! {
            () = self.shared.links.stopped() => {}
            some = tokio::time::timeout_at(deadline, some) => drop(some),
        }
        newest(&self.shared.attached.borrow()).ok_or_else(|| {
            Status::not_executed(Code::Unavailable, "this agent is registered on no node")
        })
    }
}

/// Those whose place no other link has taken.
fn in_use(attached: &[Attached]) -> impl Iterator<Item = &Attached> {
    attached.iter().filter(|attached| !attached.link.is_replaced())
}

/// The link over which to ask. A node that is leaving would only refuse.
fn newest(attached: &[Attached]) -> Option<Link> {
    attached.iter().rfind(|attached| !attached.is_being_left).map(|attached| attached.link.clone())
}
