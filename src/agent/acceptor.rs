//! Accepts calls on an agent: checks the owner's rules, takes a permit, and runs the handler.

use super::{hosted_services::FoundHandler, state::AgentState};
use crate::{
    call::{CallAcceptor, Head, PendingRequest, Permits, Reply, Requester, Target, end_span},
    limits::Limits,
    link::Link,
    name::{HttpSuffix, HttpTarget, Name, PeerName, Role},
    observe::{CallRecord, Event, ObservedCounts, RecordedCaller},
    policy::AgentPolicy,
    probe,
    status::{Code, Status},
    suspend_guard::SuspendGuard,
    trace::{SpanKind, SpanOrigin},
};
use std::sync::Arc;
use tokio::time::Instant;

/// Receives the calls of one link.
pub(super) struct AgentAcceptor {
    state: Arc<AgentState>,
    /// The node at the other end, by its certificate.
    node: Name,
    pub(super) permits: Permits,
    counts: Arc<ObservedCounts>,
    /// Watched until the link ends.
    pub(super) suspend_guard: SuspendGuard,
    /// The limits at the time when the link was made.
    limits: Arc<Limits>,
}

impl AgentAcceptor {
    pub(super) fn new(state: Arc<AgentState>, link: Link, limits: Arc<Limits>) -> Self {
        let counts = state.observer.counts();
        let permits =
            Permits::counted(limits.calls_in_flight_max, limits.queue_max, counts.clone());
        Self {
            state,
            node: link.peer().name.clone(),
            permits,
            counts,
            suspend_guard: SuspendGuard::new(link, "agent"),
            limits,
        }
    }

    /// Returns the requester, which the node asserts. A call without one is the node's own.
    fn requester(&self, claimed: Option<&str>) -> Result<PeerName, Status> {
        match claimed {
            Some(text) => text.parse().map_err(|fault: crate::name::NameError| {
                Status::not_executed(
                    Code::InvalidArgument,
                    format!("the caller in the head: {fault}"),
                )
            }),
            None => Ok(PeerName::new(Role::Node, self.node.clone())),
        }
    }

    /// Authorises a call by the owner's rules. Calls of HTTP forwards have an HTTP target.
    fn authorise(
        &self,
        requester: &PeerName,
        head: &Head,
        http: Option<&HttpTarget>,
        policy: &AgentPolicy,
    ) -> Result<(), Status> {
        // Calls of MCP servers always have the same: their methods name what they are about.
        let http = http.filter(|_| head.meta.method.is_http());
        let decision = policy.decide(&self.node, requester, &head.meta.method, http);
        if decision.is_allowed() {
            return Ok(());
        }
        let http = HttpSuffix(http);
        self.state.observer.report(Event::CallRefused {
            caller: requester,
            target: Some(&self.state.peer),
            via: Some(&self.node),
            method: &head.meta.method,
            code: Code::PermissionDenied,
            reason: &format_args!("{decision}{http}"),
        });
        let text = format!(
            "{requester} may not call {}{http} on this agent; an [[allow]] rule of the agent would have to say so",
            head.meta.method
        );
        Err(Status::not_executed(Code::PermissionDenied, text))
    }
}

/// True for a probe by the node itself: it needs no rule.
fn is_probe(head: &Head) -> bool {
    head.claimed.is_none() && probe::is_of_agent(&head.meta.method)
}

impl CallAcceptor for AgentAcceptor {
    async fn receive(
        &self,
        mut head: Box<Head>,
        pending: PendingRequest<'_>,
    ) -> Result<Reply, Status> {
        let entered = self.suspend_guard.enter();
        if self.state.calls.is_draining() {
            return Err(Status::not_executed(Code::Unavailable, "the agent is stopping"));
        }
        if head.meta.target != Target::Here {
            return Err(Status::not_executed(
                Code::InvalidArgument,
                "an agent does not pass calls on",
            ));
        }
        if is_probe(&head) {
            pending.body(None).await?;
            return Ok(probe::answer());
        }
        let requester = self.requester(head.claimed.as_deref())?;
        // Before the rules are read: what is hosted later is open under later rules only.
        let found = self.state.hosted.borrow().find(&head.meta.method, head.meta.kind);
        let http = head.meta.http.as_ref();
        self.authorise(&requester, &head, http, &self.state.policy.get())?;
        let FoundHandler { handler, previous_rules } = found?;
        if let Some(rules) = previous_rules {
            self.authorise(&requester, &head, http, &rules)?;
        }
        let permit = self.permits.acquire(head.meta.deadline, self.limits.queue_wait_max).await?;
        let pending = pending.counted_in(self.state.memory.account(&requester));
        let body = pending.body(None).await?;
        head.meta.deadline = self.suspend_guard.pass(entered, head.meta.deadline).await?;
        let requester = Requester::AssertedBy { node: self.node.clone(), peer: requester };
        let began = Instant::now();
        let span = head.meta.handler_span(self.state.observer.tracer());
        let reply = handler.call_boxed(head.into_request(requester, body)).await;
        self.counts.handled(began.elapsed());
        Ok(end_span(span, reply)?.holding(permit))
    }

    fn note(&self, head: &mut Head, began: Instant) -> Option<Box<CallRecord>> {
        if is_probe(head) {
            return None;
        }
        // A text that is not a name comes from the node all the same.
        let caller = match &head.claimed {
            Some(text) => RecordedCaller::Claimed(text.clone()),
            None => RecordedCaller::Peer(PeerName::new(Role::Node, self.node.clone())),
        };
        let info = head.meta.info(caller, Some(&self.state.peer), Some(self.node.clone()));
        let mut note = self.state.observer.call(head.meta.start(began), info);
        let tracer = self.state.observer.tracer();
        note.traced(head.meta.first_span(tracer, SpanKind::Server, SpanOrigin::Peer));
        note.counts_for(self.state.hosted.borrow().services.health_of(&head.meta.method));
        Some(note)
    }

    fn is_draining(&self) -> bool {
        self.state.calls.is_draining()
    }
}
