//! Reaching agents through a node from anywhere else. A caller comes back by itself when its link
//! is lost.

use crate::{
    call::{
        CallOrigin, Callee, Handler, IntoMethod, Reply, Request, SharedHandler, Target, ToMany,
        ask, is_for_the_next_link,
    },
    drain::Tasks,
    limits::{CLOSE_WAIT_MAX, DIAL_WAIT_MAX, Limits},
    link::{
        ActiveLink, BindError, CloseSequence, ControlStream, Dialler, EndReason, HelloWords,
        KeeperHooks, KeeperSignals, Link, LinkFault, REPLACED, keep,
    },
    name::{CallIds, MethodPath, Name, NameError, NodeAddress, PeerName, Role},
    net::{self, SharedNet},
    node::{AgentInfo, DIRECTORY, ListedService, StartError},
    status::{Code, Status},
    tls::Credentials,
    wire::{CloseCode, Control, ServiceInfo},
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, time::Instant};

/// Whether there is a link.
#[derive(Clone)]
enum State {
    /// Dialling; why the last attempt failed, if there was one.
    Down(Option<LinkFault>),
    /// Linked.
    Up(Link),
}

struct Shared {
    peer: PeerName,
    /// One run of this caller. It stays the same when the certificate is renewed: by it the node
    /// knows the next link for one of ours.
    instance: [u8; 16],
    address: NodeAddress,
    dialler: Dialler,
    limits: Arc<Limits>,
    call_ids: Arc<CallIds>,
    state: watch::Sender<State>,
    /// Its `stop` is not used: a caller that ends closes its link.
    keeper: KeeperSignals,
    tasks: Tasks,
}

/// Why there is no caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing was tried.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node does not answer or has refused.
    #[error("{0}")]
    Link(LinkFault),
}

impl ConnectError {
    /// The failure as a call would have it: `UNAUTHENTICATED`, `RESOURCE_EXHAUSTED` or
    /// `UNAVAILABLE`, not executed.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Start(error) => Status::not_executed(Code::FailedPrecondition, error.to_string()),
            Self::Link(fault) => no_link(Some(fault)),
        }
    }
}

/// How a caller is to be. Made by [`Caller::builder`].
#[must_use = "a caller dials once it is told to connect"]
pub struct CallerBuilder {
    credentials: Credentials,
    node: Option<Result<NodeAddress, NameError>>,
    limits: Limits,
    connect_timeout: Duration,
    net: SharedNet,
}

impl CallerBuilder {
    /// Sets the node to dial: `"edge-1.example.com:4433"`.
    pub fn node(mut self, address: impl AsRef<str>) -> Self {
        self.node = Some(address.as_ref().parse());
        self
    }

    /// Sets the bounds.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long [`CallerBuilder::connect`] may take. Default 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the network. Default: the system's.
    #[cfg(test)]
    pub(crate) fn net(mut self, net: SharedNet) -> Self {
        self.net = net;
        self
    }

    /// Dials, and returns once the node has welcomed this caller.
    ///
    /// # Errors
    /// A certificate that is not a caller's, an address that is none; at once a refusal, a name
    /// that does not resolve, a port that nobody listens on, and a network without a way there; a
    /// node that does not answer in time.
    pub async fn connect(self) -> Result<Caller, ConnectError> {
        let (caller, timeout) = self.start()?;
        caller.linked(timeout).await.map_err(ConnectError::Link)?;
        Ok(caller)
    }

    fn start(self) -> Result<(Caller, Duration), StartError> {
        self.credentials.expect_role(Role::Caller)?;
        let address = self.node.ok_or(StartError::NoNode)??;
        let limits = Arc::new(self.limits);
        let instance = self.net.random_bytes();
        let words = words(instance);
        let shared = Arc::new(Shared {
            peer: self.credentials.peer_name().clone(),
            instance,
            address,
            dialler: Dialler::new(&self.net, &self.credentials, words, limits.clone())?,
            limits,
            call_ids: Arc::new(CallIds::new(self.net.random_bytes())),
            state: watch::Sender::new(State::Down(None)),
            keeper: KeeperSignals::default(),
            tasks: Tasks::default(),
        });
        shared.tasks.spawn_until_stopped(keep(NodeLink(shared.clone())));
        shared.tasks.spawn_until_stopped(shared.dialler.clone().roam());
        let trust = shared.dialler.trust().clone();
        shared.tasks.spawn_until_stopped(async move {
            trust.watch_expiry(|text| tracing::warn!("{text}")).await;
        });
        let _alive = Arc::new(Alive(shared.clone()));
        Ok((Caller { shared, _alive }, self.connect_timeout))
    }
}

/// What a caller says of itself: it answers nothing.
const fn words(instance: [u8; 16]) -> HelloWords {
    HelloWords { instance, calls_in_flight_max: 0 }
}

/// The link of a caller to its node.
struct NodeLink(Arc<Shared>);

impl KeeperHooks for NodeLink {
    type Dialled = Held;
    type Active = Held;

    fn address(&self) -> &NodeAddress {
        &self.0.address
    }

    fn signals(&self) -> &KeeperSignals {
        &self.0.keeper
    }

    fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    fn chance(&self) -> f64 {
        self.0.dialler.net().chance()
    }

    fn drain_max(&self) -> Duration {
        self.0.limits.drain_max
    }

    async fn dial(&self, newer_than: Option<SystemTime>) -> Result<Held, LinkFault> {
        let (link, control, _welcome) = self.0.dialler.dial(&self.0.address, newer_than).await?;
        Ok(Held::new(link, control))
    }

    /// A caller registers nothing: no peer uses its link before it does.
    async fn establish(&self, held: Held) -> Result<Held, LinkFault> {
        Ok(held)
    }

    fn publish(&self, held: &mut Held) {
        self.0.state.send_replace(State::Up(held.link.clone()));
    }

    fn down(&self, fault: &LinkFault) {
        self.0.state.send_replace(State::Down(Some(fault.clone())));
    }

    fn log_retry(&self, line: fmt::Arguments<'_>) {
        tracing::debug!("{line}");
    }
}

/// A link that is kept up. Dropping it closes it.
struct Held {
    link: Link,
    control: ControlStream,
}

impl Held {
    fn new(link: Link, mut control: ControlStream) -> Self {
        control.close_by(CloseSequence::passive(link.clone()));
        Self { link, control }
    }
}

impl ActiveLink for Held {
    type Link = Link;

    fn link(&self) -> &Link {
        &self.link
    }

    async fn maintain(&mut self) -> EndReason {
        loop {
            let fault = match self.control.next().await {
                Ok(Control::Drain(words)) if !self.link.is_closed() => {
                    return EndReason::Draining(LinkFault::leaving(&words.reason));
                }
                Ok(Control::Drain(words)) => {
                    return EndReason::Ended(LinkFault::leaving(&words.reason));
                }
                // Without a DRAIN before it. New calls wait for the next link; this one ends when
                // the last reply is here.
                Ok(Control::Goodbye(_)) => continue,
                Ok(_) => LinkFault::Broken("a control frame that a caller has no use for".into()),
                Err(fault) => fault,
            };
            return EndReason::Ended(self.link.end(fault));
        }
    }

    /// Closes the link when this side waits for no reply on it.
    async fn drain_and_close(mut self) {
        let link = self.link.clone();
        tokio::select! {
            () = link.quiet() => {}
            _fault = self.maintain_to_end() => {}
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let text = if self.link.is_replaced() { REPLACED } else { "the caller has ended" };
        self.link.close(CloseCode::Goodbye, text);
    }
}

/// A program that asks for calls, linked to a node. Cloning shares the link; the last one dropped
/// closes it.
#[derive(Clone)]
pub struct Caller {
    shared: Arc<Shared>,
    _alive: Arc<Alive>,
}

/// Held by every clone of a caller and by what it can call; the task that keeps the link holds
/// none.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Caller {
    /// Dials a node and returns once it has welcomed this caller.
    ///
    /// # Errors
    /// As [`CallerBuilder::connect`].
    pub async fn connect(
        node: impl AsRef<str>,
        credentials: Credentials,
    ) -> Result<Self, ConnectError> {
        Self::builder(credentials).node(node).connect().await
    }

    /// Starts to describe a caller that has this certificate.
    pub fn builder(credentials: Credentials) -> CallerBuilder {
        CallerBuilder {
            credentials,
            node: None,
            limits: Limits::default(),
            connect_timeout: DIAL_WAIT_MAX + Duration::from_secs(1),
            net: net::system(),
        }
    }

    /// The agent of this name, through the node. Calls made while the link is down wait for it
    /// within their deadline, or end not executed.
    ///
    /// # Errors
    /// The text is no name.
    pub fn agent(&self, name: impl AsRef<str>) -> Result<Callee, NameError> {
        Ok(self.callee(Target::Agent(name.as_ref().parse()?)))
    }

    /// Any agent that may answer for the method's service, the less loaded of two: a `[[host]]`
    /// rule of the node says which may.
    pub fn any(&self) -> Callee {
        self.callee(Target::Service)
    }

    /// Calls every agent that may answer for the method's service, 16 at once, and gives an outcome
    /// for each, by name.
    ///
    /// # Errors
    /// The agents could not be listed. What became of a call stands with its agent.
    pub async fn call_all<R: DeserializeOwned + Send + 'static>(
        &self,
        method: impl IntoMethod,
        message: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Vec<(Name, Result<R, Status>)>, Status> {
        let call = ToMany::new(method, message, timeout)?;
        let hosts = self.hosts(&call.method).await?;
        Ok(call.call(hosts, |host| self.callee(Target::Agent(host.clone()))).await)
    }

    /// The same with a message that is CBOR already, and replies as they came.
    ///
    /// # Errors
    /// As [`Caller::call_all`].
    pub async fn call_all_encoded(
        &self,
        method: impl IntoMethod,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Vec<(Name, Result<Reply, Status>)>, Status> {
        let call = ToMany::encoded(method, message, timeout)?;
        let hosts = self.hosts(&call.method).await?;
        Ok(call.call_raw(hosts, |host| self.callee(Target::Agent(host.clone()))).await)
    }

    /// The agents that may answer for the method's service and that this caller may call, attached
    /// now, by name.
    ///
    /// # Errors
    /// As any call.
    pub async fn hosts(&self, method: &MethodPath) -> Result<Vec<Name>, Status> {
        let hosts: Vec<String> =
            self.node().call(format!("{DIRECTORY}/Hosts").as_str(), method.as_str()).await?;
        Ok(hosts.iter().filter_map(|host| host.parse().ok()).collect())
    }

    /// The node's own services.
    pub fn node(&self) -> Callee {
        self.callee(Target::Here)
    }

    /// The agents that this caller may see, attached or not, by name.
    ///
    /// # Errors
    /// As any call.
    pub async fn agents(&self) -> Result<Vec<AgentInfo>, Status> {
        self.node().call(format!("{DIRECTORY}/Agents").as_str(), &()).await
    }

    /// The services of an agent that this caller may see, with the methods that it may call.
    ///
    /// # Errors
    /// As any call.
    pub async fn services(&self, agent: &str) -> Result<Vec<ServiceInfo>, Status> {
        self.node().call(format!("{DIRECTORY}/Services").as_str(), agent).await
    }

    /// The services that this caller may call, each method with the agents on which: of those that
    /// are attached and take calls.
    ///
    /// # Errors
    /// As any call; `UNIMPLEMENTED` from a node that is older than this method.
    pub async fn all_services(&self) -> Result<Vec<ListedService>, Status> {
        self.node().call(format!("{DIRECTORY}/AllServices").as_str(), &()).await
    }

    fn callee(&self, target: Target) -> Callee {
        let handler: SharedHandler = Arc::new(Asks { caller: self.clone() });
        let Shared { peer, call_ids, limits, tasks, .. } = &*self.shared;
        Callee::new(CallOrigin { handler, peer, call_ids, limits, tasks }, target)
    }

    /// Sends from a new socket from now on: to be called by a program that knows that the network
    /// has changed. The link and calls in flight stay. By itself the caller notices within some
    /// seconds.
    ///
    /// # Errors
    /// The system gives no socket.
    pub fn rebind(&self) -> Result<(), BindError> {
        self.shared.dialler.rebind()
    }

    /// Shows other credentials from now on, or trusts others, while the caller runs.
    ///
    /// The link is judged by them before this returns, and closed if a handshake would now refuse
    /// the node. With another certificate of its own the caller then dials once more, and leaves
    /// the former link when all replies have come over it, however long that takes: three such
    /// links may be up, and with so many the next one waits for the drain time and then ends the
    /// oldest. It dials again at once if it was refused.
    ///
    /// # Errors
    /// Credentials of another party, or none that make a TLS configuration. Nothing has changed
    /// then.
    pub async fn apply(&self, credentials: Credentials) -> Result<(), StartError> {
        let shared = &self.shared;
        let now = self.credentials();
        now.expect_successor(&credentials)?;
        shared.dialler.replace(&credentials, words(shared.instance), shared.limits.clone())?;
        if !credentials.shows_the_same(&now) {
            shared.keeper.request_replacement();
        }
        shared.keeper.request_reconnect();
        shared.dialler.trust().judge_all().await;
        Ok(())
    }

    /// The certificate, key and trust that are in force.
    pub fn credentials(&self) -> Credentials {
        self.shared.dialler.trust().credentials()
    }

    /// Closes the link and waits until the node knows.
    pub async fn close(self) {
        self.shared.close();
        self.shared.dialler.wait_idle(CLOSE_WAIT_MAX).await;
    }

    async fn linked(&self, timeout: Duration) -> Result<(), LinkFault> {
        let mut state = self.shared.state.subscribe();
        let settled = state.wait_for(|state| match state {
            State::Up(_) => true,
            State::Down(fault) => {
                fault.as_ref().is_some_and(|fault| fault.is_refusal() || fault.is_unreachable())
            }
        });
        let settled = tokio::time::timeout(timeout, settled)
            .await
            .ok()
            .and_then(Result::ok)
            .map(|state| state.clone());
        match settled.unwrap_or_else(|| self.shared.state.borrow().clone()) {
            State::Up(_) => Ok(()),
            State::Down(Some(fault)) => Err(fault),
            State::Down(None) => Err(LinkFault::NoAnswer { address: self.shared.address.clone() }),
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("name", &self.shared.peer.name)
            .field("node", &self.shared.address)
            .finish()
    }
}

/// What this caller asks, over its link of the moment.
struct Asks {
    caller: Caller,
}

impl Handler for Asks {
    async fn call(&self, mut request: Request) -> Result<Reply, Status> {
        let shared = &self.caller.shared;
        loop {
            let link = link_by(shared, request.meta.deadline).await?;
            let reply = ask(&link, &mut request, (&*shared.limits).into(), None, None).await;
            if !is_for_the_next_link(&reply, &link) || request.is_spent() {
                return reply;
            }
        }
    }
}

/// The link, now or by the deadline. A refusal ends the wait: waiting longer would not help.
async fn link_by(shared: &Shared, deadline: Instant) -> Result<Link, Status> {
    if let State::Up(link) = &*shared.state.borrow()
        && is_usable(link)
    {
        return Ok(link.clone());
    }
    let mut state = shared.state.subscribe();
    let settled = state.wait_for(|state| match state {
        State::Up(link) => is_usable(link),
        State::Down(fault) => fault.as_ref().is_some_and(LinkFault::is_refusal),
    });
    let settled = tokio::select! {
        () = shared.tasks.stopped() => {
            return Err(Status::not_executed(Code::Unavailable, "this caller was closed"));
        }
        settled = tokio::time::timeout_at(deadline, settled) => settled,
    };
    match settled {
        Ok(Ok(state)) => match &*state {
            State::Up(link) => Ok(link.clone()),
            State::Down(fault) => Err(no_link(fault.as_ref())),
        },
        _ => match &*shared.state.borrow() {
            State::Down(fault) => Err(no_link(fault.as_ref())),
            State::Up(_) => Err(no_link(None)),
        },
    }
}

fn is_usable(link: &Link) -> bool {
    !link.is_closed() && !link.is_peer_leaving()
}

fn no_link(fault: Option<&LinkFault>) -> Status {
    let code = match fault {
        Some(fault) if fault.is_about_identity() => Code::Unauthenticated,
        Some(LinkFault::Closed { code: CloseCode::ExcessiveLoad, .. }) => Code::ResourceExhausted,
        _ => Code::Unavailable,
    };
    let text = fault.map_or_else(|| "there is no link to the node".into(), ToString::to_string);
    Status::not_executed(code, text)
}

impl Shared {
    fn close(&self) {
        self.tasks.stop();
        if let State::Up(link) = &*self.state.borrow() {
            link.close(CloseCode::Goodbye, "the caller has ended");
        }
    }
}
