//! Calls that arrive over a link: to agents from callers and agents, to the node from all peers.

use super::steps::{Arrival, Ingress, RoutedReply};
use crate::{
    call::{
        Body, CallAcceptor, Head, PendingRequest, Permit, Permits, Reply, Request, Requester,
        Target,
    },
    limits::{Limits, RELAY_STATUS_GRACE, REPLY_FIN_WAIT_MAX},
    link::Link,
    name::{PeerName, Role},
    node::{reset_limiter::ResetLimiter, routes::LinkRoutes, state::NodeState},
    observe::{CallRecord, Event, RecordedCaller},
    probe::is_of_node,
    status::{Code, Status},
    suspend_guard::{Entered, SuspendGuard},
    trace::{SpanKind, SpanOrigin},
    wire::CloseCode,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Receives the calls of one link, as calls of its peer.
pub(in crate::node) struct LinkIngress {
    shared: Arc<NodeState>,
    ingress: Ingress<LinkRoutes>,
    requester: PeerName,
    permits: Permits,
    /// Watched until the link ends.
    pub(in crate::node) guard: Arc<SuspendGuard>,
    link: Link,
    /// Limits at the time when the link was made.
    limits: Arc<Limits>,
    resets: Mutex<ResetLimiter>,
}

impl LinkIngress {
    pub(in crate::node) fn new(
        shared: Arc<NodeState>,
        link: Link,
        calls_in_flight_max: usize,
        limits: Arc<Limits>,
    ) -> Self {
        let requester = link.peer().clone();
        let resets = Mutex::new(ResetLimiter::new(limits.resets_max));
        let permits =
            Permits::counted(calls_in_flight_max, limits.queue_max, shared.observer.counts());
        let ingress = Ingress::over_links(&shared);
        let guard = Arc::new(SuspendGuard::new(link.clone(), "node"));
        Self { shared, ingress, requester, permits, guard, link, limits, resets }
    }
}

/// A call whose head has been read.
struct LinkCall<'a> {
    link: &'a LinkIngress,
    /// Taken when the body is read.
    pending: Option<PendingRequest<'a>>,
    entered: Entered,
}

impl Arrival for LinkCall<'_> {
    const TAKES_PARTS: bool = true;

    async fn permit(&mut self, request: &Request) -> Result<Option<Permit>, Status> {
        let wait_max = self.link.limits.queue_wait_max;
        self.link.permits.acquire(request.meta.deadline, wait_max).await.map(Some)
    }

    async fn read_body(
        &mut self,
        request: &mut Request,
        bytes_max: Option<usize>,
    ) -> Result<(), Status> {
        let LinkIngress { shared, requester, guard, .. } = self.link;
        if let Some(pending) = self.pending.take() {
            let pending = pending.counted_in(shared.memory.account(requester));
            // A handler of the node's own needs the whole message.
            let is_passed_on = request.meta.target != Target::Here;
            let pending = if is_passed_on { pending.passed_on() } else { pending };
            request.body = pending.body(bytes_max).await?;
        }
        let (entered, deadline) = (self.entered, request.meta.deadline);
        request.meta.deadline = guard.pass(entered, deadline).await?;
        if let Body::Parts(parts) = &mut request.body {
            // The node may be suspended while the rest of the message comes.
            let guard = guard.clone();
            parts.check_end(Box::pin(async move { guard.pass(entered, deadline).await }));
        }
        Ok(())
    }
}

impl CallAcceptor for LinkIngress {
    async fn receive(
        &self,
        mut head: Box<Head>,
        pending: PendingRequest<'_>,
    ) -> Result<Reply, Status> {
        let entered = self.guard.enter();
        if head.meta.method.server().is_some() {
            // It checks what the messages need besides the method of the call.
            let text = format!("{} is called over the HTTP gateway of a node", head.meta.method);
            return Err(Status::not_executed(Code::Unimplemented, text));
        }
        // Peers share the agent's link: one may lower the priority of its calls, but not raise it.
        head.meta.priority = head.meta.priority.min(0);
        // The node counts attempts: a peer that claims some would only use up its own retries.
        head.meta.attempt = 1;
        let picked = head.picked.take();
        let request =
            head.into_request(Requester::Verified(self.requester.clone()), Body::default());
        let call = LinkCall { link: self, pending: Some(pending), entered };
        let RoutedReply { reply, route } = self.ingress.answer(request, call).await;
        if let (Some(picked), Some(route)) = (picked, route) {
            drop(picked.set(route.link.peer().clone()));
        }
        reply
    }

    fn note(&self, head: &mut Head, began: Instant) -> Option<Box<CallRecord>> {
        if is_of_node(&head.meta.method) && head.meta.target == Target::Here {
            return None;
        }
        let requester = RecordedCaller::Peer(self.requester.clone());
        let info = head.meta.info(requester, Some(&self.shared.peer), None);
        let mut note = self.shared.observer.call(head.meta.start(began), info);
        let tracer = self.shared.observer.tracer();
        if tracer.is_on() {
            let mut span = head.meta.first_span(tracer, SpanKind::Server, SpanOrigin::Peer);
            span.peer_address(self.link.remote_address());
            note.traced(span);
        }
        if head.meta.target == Target::Service {
            head.picked = Some(note.picked_agent());
        }
        Some(note)
    }

    /// Counts resets of callers only: all callers of an agent share its link, and one bad caller
    /// would disconnect the others.
    fn was_reset(&self, began: Instant, deadline: Instant) {
        // Right after a suspend of this node a call seems to have begun when it was read, and its
        // caller may have had a good reason earlier.
        if self.shared.net.suspend().is_settled() {
            self.count_reset(|resets, now| resets.count_reset(began, deadline, now));
        }
    }

    /// Counted whatever time the call had left: a short timeout would hide it.
    fn misbehaved(&self) {
        self.count_reset(ResetLimiter::count_violation);
    }

    fn grace(&self, head: &Head) -> Duration {
        match head.meta.target {
            Target::Here => Duration::ZERO,
            _ => RELAY_STATUS_GRACE + REPLY_FIN_WAIT_MAX,
        }
    }

    fn is_draining(&self) -> bool {
        self.shared.calls.is_draining()
    }
}

impl LinkIngress {
    fn count_reset(&self, exceeds: impl FnOnce(&mut ResetLimiter, Instant) -> bool) {
        if self.requester.role != Role::Caller {
            return;
        }
        let mut resets = self.resets.lock().unwrap_or_else(PoisonError::into_inner);
        if exceeds(&mut resets, Instant::now()) && !self.link.is_closed() {
            let resets_max = self.limits.resets_max;
            let peer = &self.requester;
            self.shared.observer.report(Event::ResetsExceeded { peer, resets_max });
            let text = format!("more than {resets_max} calls were reset in 10 s (resets_max)");
            self.link.close(CloseCode::ExcessiveLoad, &text);
        }
    }
}
