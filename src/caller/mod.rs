//! The caller: reaches agents through a node from anywhere else. It reconnects by itself when its
//! link is lost.

mod calls;
mod link;
mod state;

#[cfg(feature = "tunnel")]
use crate::path::PathSettings;
use crate::{
    call::{CallOrigin, Callee, IntoMethod, Reply, SharedHandler, Target, ToMany},
    directory::{AgentInfo, DIRECTORY, ListedService},
    drain::Tasks,
    limits::{CLOSE_WAIT_MAX, DIAL_WAIT_MAX, Limits, SPANS_FLUSH_WAIT_MAX},
    link::{BindError, Dialler, HelloInfo, KeeperSignals, LinkFault, keep},
    name::{CallIds, MethodPath, Name, NameError, NodeAddress, Role},
    net::{self, SharedNet},
    observe::log_path_change,
    start_error::StartError,
    status::{Code, Status},
    tls::Credentials,
    trace::Traces,
    wire::ServiceInfo,
};
use bytes::Bytes;
use link::CallerHooks;
use serde::{Serialize, de::DeserializeOwned};
use state::{CallerState, CloseOnDrop, LinkState, no_link};
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::watch;

/// An error of a caller that does not connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The settings are not valid; nothing was dialled.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node does not answer or has refused.
    #[error("{0}")]
    Link(LinkFault),
}

impl ConnectError {
    /// Returns the failure as the status of a call: `UNAUTHENTICATED`, `RESOURCE_EXHAUSTED` or
    /// `UNAVAILABLE`, not executed.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Start(error) => Status::not_executed(Code::FailedPrecondition, error.to_string()),
            Self::Link(fault) => no_link(Some(fault)),
        }
    }
}

/// Configures a caller. Made by [`Caller::builder`].
#[must_use = "a caller dials when `connect` is called"]
pub struct CallerBuilder {
    credentials: Credentials,
    node: Option<Result<NodeAddress, NameError>>,
    limits: Limits,
    connect_timeout: Duration,
    net: SharedNet,
    #[cfg(feature = "tunnel")]
    paths: PathSettings,
    traces: Option<Traces>,
}

impl CallerBuilder {
    /// Sets the node to dial: `"edge-1.example.com:4433"`.
    pub fn node(mut self, address: impl AsRef<str>) -> Self {
        self.node = Some(address.as_ref().parse());
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long [`CallerBuilder::connect`] may take. Default 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
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

    /// Dials, and returns once the node has welcomed this caller.
    ///
    /// # Errors
    /// A certificate that is not a caller's, an invalid address; at once a refusal, an unknown
    /// name, a closed port, an unreachable network; a node that does not answer in time.
    pub async fn connect(self) -> Result<Caller, ConnectError> {
        let (caller, timeout) = self.start()?;
        caller.state.first_link(timeout).await.map_err(ConnectError::Link)?;
        Ok(caller)
    }

    fn start(self) -> Result<(Caller, Duration), StartError> {
        self.credentials.expect_role(Role::Caller)?;
        let address = self.node.ok_or(StartError::NoNode)??;
        let limits = Arc::new(self.limits);
        let instance = self.net.random_bytes();
        let hello = hello(instance);
        #[cfg(feature = "tunnel")]
        let dialler = Dialler::new(&self.net, &self.credentials, hello, limits.clone())?
            .with_paths(self.paths);
        #[cfg(not(feature = "tunnel"))]
        let dialler = Dialler::new(&self.net, &self.credentials, hello, limits.clone())?;
        let peer = self.credentials.peer_name();
        let tracer = self.traces.map(|traces| traces.start(peer)).unwrap_or_default();
        let state = Arc::new(CallerState {
            peer: peer.clone(),
            instance,
            address,
            dialler,
            limits,
            call_ids: Arc::new(CallIds::new(self.net.random_bytes())),
            link: watch::Sender::new(LinkState::Down(None)),
            keeper: KeeperSignals::default(),
            tasks: Tasks::default(),
            tracer,
        });
        state.tasks.spawn_until_stopped(keep(CallerHooks(state.clone())));
        state.tasks.spawn_until_stopped(state.dialler.clone().watch_paths(log_path_change));
        let trust = state.dialler.trust().clone();
        state.tasks.spawn_until_stopped(async move {
            trust.watch_expiry(|text| tracing::warn!("{text}")).await;
        });
        let guard = Arc::new(CloseOnDrop(state.clone()));
        Ok((Caller { state, guard }, self.connect_timeout))
    }
}

/// The HELLO of a caller, which answers no calls.
const fn hello(instance: [u8; 16]) -> HelloInfo {
    HelloInfo { instance, calls_in_flight_max: 0 }
}

/// A program that makes calls over a link to a node. The last clone that is dropped closes it.
#[derive(Clone)]
pub struct Caller {
    state: Arc<CallerState>,
    guard: Arc<CloseOnDrop>,
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

    /// Returns a builder of a caller with this certificate.
    pub fn builder(credentials: Credentials) -> CallerBuilder {
        CallerBuilder {
            credentials,
            node: None,
            limits: Limits::default(),
            connect_timeout: DIAL_WAIT_MAX + Duration::from_secs(1),
            net: net::system(),
            #[cfg(feature = "tunnel")]
            paths: PathSettings::udp(),
            traces: None,
        }
    }

    /// Returns the agent of this name, through the node. Calls made while the link is down wait for
    /// it within their deadline, or end not executed.
    ///
    /// # Errors
    /// The text is not a name.
    pub fn agent(&self, name: impl AsRef<str>) -> Result<Callee, NameError> {
        Ok(self.callee(Target::Agent(name.as_ref().parse()?)))
    }

    /// Returns any agent for the method's service, by `[[host]]` rules: the less loaded of two.
    pub fn any(&self) -> Callee {
        self.callee(Target::Service)
    }

    /// Calls every agent that may answer for the method's service, 16 at once, and returns an
    /// outcome for each, by name.
    ///
    /// # Errors
    /// The agents could not be listed. The outcome of each call stands with its agent.
    pub async fn call_all<R: DeserializeOwned + Send + 'static>(
        &self,
        method: impl IntoMethod,
        message: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Vec<(Name, Result<R, Status>)>, Status> {
        let call = ToMany::new(method, message, timeout)?;
        let hosts = self.hosts(&call.method).await?;
        Ok(call.call(hosts, |target| self.callee(target)).await)
    }

    /// As [`Caller::call_all`] with a message in CBOR, and replies as they came.
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
        Ok(call.call_raw(hosts, |target| self.callee(target)).await)
    }

    /// Lists the attached agents that may answer for the method's service to this caller, by name.
    ///
    /// # Errors
    /// As any call.
    pub async fn hosts(&self, method: &MethodPath) -> Result<Vec<Name>, Status> {
        let hosts: Vec<String> =
            self.node().call(format!("{DIRECTORY}/Hosts").as_str(), method.as_str()).await?;
        Ok(hosts.iter().filter_map(|host| host.parse().ok()).collect())
    }

    /// Returns the node itself, for its own services.
    pub fn node(&self) -> Callee {
        self.callee(Target::Here)
    }

    /// Lists the agents that this caller may see, attached or not, by name.
    ///
    /// # Errors
    /// As any call.
    pub async fn agents(&self) -> Result<Vec<AgentInfo>, Status> {
        self.node().call(format!("{DIRECTORY}/Agents").as_str(), &()).await
    }

    /// Lists the services of an agent that this caller may see, with the methods that it may call.
    ///
    /// # Errors
    /// As any call.
    pub async fn services(&self, agent: &str) -> Result<Vec<ServiceInfo>, Status> {
        self.node().call(format!("{DIRECTORY}/Services").as_str(), agent).await
    }

    /// Lists the services that this caller may call, each method with its agents that take calls.
    ///
    /// # Errors
    /// As any call; `UNIMPLEMENTED` from a node that is older than this method.
    pub async fn all_services(&self) -> Result<Vec<ListedService>, Status> {
        self.node().call(format!("{DIRECTORY}/AllServices").as_str(), &()).await
    }

    fn callee(&self, target: Target) -> Callee {
        let handler: SharedHandler = self.guard.clone();
        let CallerState { peer, call_ids, limits, tasks, .. } = &*self.state;
        Callee::new(CallOrigin { handler, peer, call_ids, limits, tasks }, target)
    }

    /// Sends from a new socket from now on. For programs that know that the network has changed:
    /// the caller itself notices within some seconds. The link and calls in flight stay.
    ///
    /// # Errors
    /// The system gives no socket.
    pub fn rebind(&self) -> Result<(), BindError> {
        self.state.dialler.rebind()
    }

    /// Applies other credentials while the caller runs: certificate, key and trust.
    ///
    /// The link is verified with them before this returns, and closed if a handshake would now
    /// refuse the node. With another own certificate the link is then replaced, and the old one
    /// closes once all its replies have come. Three such links may be up; then the next one waits
    /// for the drain time and closes the oldest. A refused caller dials again at once.
    ///
    /// # Errors
    /// Credentials of another peer, or unfit for TLS. Nothing has changed then.
    pub async fn apply(&self, credentials: Credentials) -> Result<(), StartError> {
        let state = &self.state;
        let now = self.credentials();
        now.expect_successor(&credentials)?;
        state.dialler.replace(&credentials, hello(state.instance), state.limits.clone())?;
        if !credentials.shows_the_same(&now) {
            state.keeper.request_replacement();
        }
        state.keeper.request_reconnect();
        state.dialler.trust().verify_all().await;
        Ok(())
    }

    /// Returns the present certificate, key and trust.
    pub fn credentials(&self) -> Credentials {
        self.state.dialler.trust().credentials()
    }

    /// Closes the link and waits until the node knows, and exports the last spans, within 3 s.
    pub async fn close(self) {
        self.state.close();
        let idle = self.state.dialler.wait_idle(CLOSE_WAIT_MAX);
        tokio::join!(idle, self.state.tracer.close(SPANS_FLUSH_WAIT_MAX));
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("name", &self.state.peer.name)
            .field("node", &self.state.address)
            .finish()
    }
}
