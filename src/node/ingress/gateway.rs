//! Calls that arrive over the HTTP gateway, which has authenticated the caller.

use super::{
    accounts::{CallerAccount, CallerAccounts, ResetGuard},
    steps::{Arrival, Ingress},
};
#[cfg(feature = "tunnel")]
use crate::path::Tunnels;
use crate::{
    call::{Body, CallMeta, Permit, Reply, Request, Requester, Target},
    directory::Directory,
    drain::{SignalListener, Tasks},
    limits::{Limits, TIMEOUT_CEILING},
    link::TrustedLinks,
    memory::MemoryAccount,
    name::{CallId, MethodPath, Name, PeerName},
    net::Entered,
    node::{
        authorise::authorise, dispatch::Routes, routes::LinkRoutes, running::Node, snapshot,
        state::NodeState,
    },
    observe::{CallRecord, NodeEvent, Observer, RecordedCaller},
    policy::PolicyTarget,
    status::{Code, Status},
    suspend_guard,
    tls::Credentials,
    trace::{SpanKind, SpanOrigin},
    wire::CallKind,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// A call of a gateway's client, before its body is read.
#[derive(Debug)]
pub(crate) struct GatewayCall {
    pub(crate) caller: PeerName,
    pub(crate) meta: CallMeta,
    /// Least size of the message, as far as the head of the request states it.
    pub(crate) bytes_min: usize,
}

/// The reply of a call that has not failed so far.
#[derive(Debug)]
pub(crate) struct AnsweredCall {
    pub(crate) reply: Reply,
    /// The agent that answers; `None` for services of the node.
    pub(crate) agent: Option<Name>,
}

/// Entry point of a node for calls that do not arrive over a link.
pub(crate) struct GatewayIngress {
    shared: Arc<NodeState>,
    trust: Arc<TrustedLinks>,
    #[cfg(feature = "tunnel")]
    tunnels: Option<Arc<Tunnels>>,
    ingress: Ingress<LinkRoutes>,
    accounts: Mutex<CallerAccounts>,
}

impl Node {
    /// Opens the node to a gateway.
    pub(crate) fn gateway_ingress(&self) -> GatewayIngress {
        let (shared, trust) = (self.shared.clone(), self.listener.trust().clone());
        let (ingress, counts) = (Ingress::over_links(&shared), shared.observer.counts());
        GatewayIngress {
            ingress,
            shared,
            trust,
            #[cfg(feature = "tunnel")]
            tunnels: self.listener.tunnels(),
            accounts: Mutex::new(CallerAccounts::counted(counts)),
        }
    }
}

impl GatewayIngress {
    pub(crate) fn credentials(&self) -> Credentials {
        self.trust.credentials()
    }

    /// The tunnels into the node.
    #[cfg(feature = "tunnel")]
    pub(crate) fn tunnels(&self) -> Option<&Arc<Tunnels>> {
        self.tunnels.as_ref()
    }

    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.shared.limits.get()
    }

    /// Counts the memory that is held for replies to a caller.
    pub(crate) fn reply_memory(&self, caller: &PeerName) -> MemoryAccount {
        self.shared.memory.reply_account(caller)
    }

    /// Counts the memory that is held for a caller.
    pub(crate) fn memory(&self, caller: &PeerName) -> MemoryAccount {
        self.shared.memory.account(caller)
    }

    pub(crate) fn observer(&self) -> &Observer<NodeEvent> {
        &self.shared.observer
    }

    /// Agents and services that a caller may see.
    pub(crate) fn directory_for(&self, caller: &PeerName) -> Directory {
        snapshot::directory_for(&self.shared, caller)
    }

    /// Metadata of a call that begins now. Without a timeout it has the default of its kind.
    pub(crate) fn next_call(
        &self,
        call_id: CallId,
        method: MethodPath,
        kind: CallKind,
        target: Target,
        timeout: Option<Duration>,
    ) -> CallMeta {
        let limits = self.limits();
        let default = match kind {
            CallKind::Unary => limits.timeout_default,
            _ => limits.stream_timeout_default,
        };
        let deadline = Instant::now() + timeout.unwrap_or(default).min(TIMEOUT_CEILING);
        CallMeta::new(method, kind, target, call_id, deadline)
    }

    pub(crate) fn next_call_id(&self) -> CallId {
        self.shared.call_ids.next_id()
    }

    /// Tasks that end with the node.
    pub(crate) fn tasks(&self) -> Tasks {
        self.shared.links.clone()
    }

    /// True if the node refuses new calls.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.drain.is_notified() || self.shared.calls.is_draining()
    }

    /// Signals of a graceful close: new calls are refused; no call is left.
    pub(crate) fn drain_signals(&self) -> [SignalListener; 2] {
        [self.shared.drain.listen(), self.shared.goodbye.listen()]
    }

    /// Calls an agent. The body is read, within the call's time, after all checks that do not need
    /// it. Dropping the future, or the stream of the reply, cancels the call.
    pub(crate) async fn call(
        &self,
        call: GatewayCall,
        body: impl Future<Output = Result<Body, Status>> + Send,
    ) -> Result<AnsweredCall, Status> {
        let counted = self.shared.calls.counted();
        let GatewayCall { caller, meta, bytes_min } = call;
        let request =
            Request { meta, requester: Requester::Verified(caller), body: Body::default() };
        let entered = self.shared.net.suspend().enter();
        let arrival = ClientCall {
            gateway: self,
            began: Instant::now(),
            entered,
            bytes_min,
            limits: self.limits(),
            guard: None,
            body: Some(body),
            bytes_in: None,
        };
        let answered = Box::pin(self.ingress.answer(request, arrival)).await;
        let agent = answered.route.as_ref();
        let agent = agent.map(|route| self.ingress.dispatch.routes.agent_of(route).name);
        Ok(AnsweredCall { reply: answered.reply?.holding(counted), agent })
    }

    /// Authorises, and charges, what a call needs besides its method.
    pub(crate) fn authorise(
        &self,
        caller: &PeerName,
        target: &Target,
        method: &MethodPath,
    ) -> Result<(), Status> {
        let target = self.policy_target(target);
        authorise(&self.shared, caller, target, method, None).map(drop)
    }

    /// True if the rules, as they are now, allow a caller this method.
    pub(crate) fn allows(&self, caller: &PeerName, target: &Target, method: &MethodPath) -> bool {
        let policy = self.shared.policy.get();
        match self.policy_target(target) {
            Some(target) => policy.decide(caller, target, method, None).is_allowed(),
            None => policy.grant_anywhere(caller, method, None).is_some(),
        }
    }

    /// True if an agent may answer calls that name only this service.
    pub(crate) fn may_host(&self, agent: &Name, method: &MethodPath) -> bool {
        self.shared.policy.get().may_host(agent, method.hosted())
    }

    /// `None` is any agent.
    fn policy_target<'a>(&'a self, target: &'a Target) -> Option<PolicyTarget<'a>> {
        match target {
            Target::Here => Some(PolicyTarget::Node(&self.shared.name)),
            Target::Agent(name) => Some(PolicyTarget::Agent(name)),
            Target::Service => None,
        }
    }

    fn account_of(&self, caller: &PeerName, limits: &Limits) -> Result<Arc<CallerAccount>, Status> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.of(caller, limits, Instant::now())
    }
}

/// A call whose body is still with the client.
struct ClientCall<'a, B> {
    gateway: &'a GatewayIngress,
    began: Instant,
    entered: Entered,
    bytes_min: usize,
    limits: Arc<Limits>,
    /// Set once the caller has an account.
    guard: Option<ResetGuard>,
    /// Taken when it is read.
    body: Option<B>,
    /// Size of the message, once it is read.
    bytes_in: Option<u64>,
}

impl<B: Future<Output = Result<Body, Status>> + Send> Arrival for ClientCall<'_, B> {
    /// A body may be large and need conversion: it is read only for a call that an agent takes.
    const PICKS_BEFORE_BODY: bool = true;

    fn note(&self, request: &mut Request) -> Option<Box<CallRecord>> {
        let requester = RecordedCaller::Peer(request.requester.peer().clone());
        let info = request.meta.info(requester, None, None);
        let observer = &self.gateway.shared.observer;
        let mut note = observer.call(request.meta.start(self.began), info);
        note.traced(request.meta.first_span(observer.tracer(), SpanKind::Server, SpanOrigin::Peer));
        Some(note)
    }

    async fn permit(&mut self, request: &Request) -> Result<Option<Permit>, Status> {
        // A link learns by DRAIN that it takes no new calls; a client has nothing but this.
        if self.gateway.is_draining() {
            return Err(Status::not_executed(Code::Unavailable, "the node is stopping"));
        }
        let (caller, deadline) = (request.requester.peer(), request.meta.deadline);
        let account = self.gateway.account_of(caller, &self.limits)?;
        // A client that hung up while this node was suspended did nothing wrong.
        let is_armed = !self.entered.is_owed();
        let began = self.began;
        self.guard = Some(ResetGuard { account: account.clone(), began, deadline, is_armed });
        account.expect_few_resets(self.limits.resets_max)?;
        account.permits.acquire(deadline, self.limits.queue_wait_max).await.map(Some)
    }

    fn bytes_min(&self) -> usize {
        self.bytes_min
    }

    async fn read_body(
        &mut self,
        request: &mut Request,
        _bytes_max: Option<usize>,
    ) -> Result<(), Status> {
        let deadline = request.meta.deadline;
        if let Some(body) = self.body.take() {
            let body = timeout_at(deadline, Box::pin(body)).await.map_err(|_elapsed| {
                let text = "the deadline passed before the body was read";
                Status::not_executed(Code::DeadlineExceeded, text)
            })??;
            self.bytes_in = Some(body.message_bytes() as u64);
            request.body = body;
        }
        let left = self.gateway.shared.net.suspend().pass(self.entered, deadline).await;
        request.meta.deadline = left.ok_or_else(|| suspend_guard::too_late("node"))?;
        Ok(())
    }

    fn bytes_in(&self, _request: &Request) -> Option<u64> {
        self.bytes_in
    }

    fn ended(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.is_armed = false;
        }
    }
}
