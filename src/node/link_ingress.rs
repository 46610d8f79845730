//! Calls that come over a link: from callers towards agents, and from anybody towards the node
//! itself.

use super::{
    Shared,
    authorise::{self, Authorised},
    dispatch::{Answered, Dispatch},
    reset_limiter::ResetLimiter,
    routes::Links,
};
use crate::{
    audit::CallNote,
    call::{CallAcceptor, Head, Pending, Permits, Reply, Requester, Target},
    limits::{Limits, RELAY_PATIENCE, REPLY_FIN_WAIT_MAX},
    link::Link,
    name::{PeerName, Role},
    policy,
    status::{Code, Status},
    suspend_guard::{Entered, SuspendGuard},
    wire::CloseCode,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Receives the calls of one link. Who asks is who is at its other end.
pub(super) struct LinkIngress {
    shared: Arc<Shared>,
    dispatch: Dispatch<Links>,
    requester: PeerName,
    permits: Permits,
    fence: SuspendGuard,
    link: Link,
    /// Those of when it was made.
    limits: Arc<Limits>,
    breaks: Mutex<ResetLimiter>,
}

impl LinkIngress {
    pub(super) fn new(
        shared: Arc<Shared>,
        link: Link,
        calls_in_flight_max: usize,
        limits: Arc<Limits>,
    ) -> Self {
        let requester = link.peer().clone();
        let breaks = Mutex::new(ResetLimiter::new(limits.resets_max));
        let permits = Permits::new(calls_in_flight_max, limits.queue_max);
        let dispatch = shared.dispatch();
        let fence = SuspendGuard::new(link.clone(), "node");
        Self { dispatch, shared, requester, permits, fence, link, limits, breaks }
    }

    /// Does what is owed to calls after this process stood still, until the link ends.
    pub(super) async fn watch_suspends(&self) {
        self.fence.mind().await;
    }

    /// A call of a service that the node itself hosts. The directory is open to every admitted
    /// peer, and filters by policy itself.
    async fn here(
        &self,
        mut head: Box<Head>,
        pending: Pending<'_>,
        entered: Entered,
    ) -> Result<Reply, Status> {
        let (mut bytes_max, mut held) = (None, None);
        let directory =
            self.shared.directory.get().filter(|_| head.meta.method.service() == super::DIRECTORY);
        if directory.is_none() {
            let target = policy::Target::Node(&self.shared.name);
            let authorised =
                authorise::authorise(&self.shared, &self.requester, target, &head.meta.method)?;
            bytes_max = authorised.granted.message_bytes_max;
            held = authorised.held;
        }
        let handler = directory
            .unwrap_or(&self.shared.services)
            .find(&head.meta.method, head.meta.kind)?
            .clone();
        let body = pending.body(bytes_max).await?;
        head.meta.deadline = self.fence.pass(entered, head.meta.deadline).await?;
        let reply = handler
            .call_boxed(head.into_request(Requester::Verified(self.requester.clone()), body))
            .await?;
        Ok(reply.holding_some(held))
    }
}

impl CallAcceptor for LinkIngress {
    async fn receive(&self, mut head: Box<Head>, pending: Pending<'_>) -> Result<Reply, Status> {
        let entered = self.fence.enter();
        // The agent's link is everybody's: who asks from outside may step back, but not ahead of
        // others.
        head.meta.priority = head.meta.priority.min(0);
        // Attempts are counted by the node: the claim of a peer would use up its retries.
        head.meta.attempt = 1;
        if self.shared.calls.is_draining() {
            return Err(Status::not_executed(Code::Unavailable, "the node is stopping"));
        }
        let permit = self.permits.acquire(head.meta.deadline, self.limits.queue_wait_max).await?;
        let pending = pending.counted_in(self.shared.memory.account(&self.requester));
        let Authorised { granted, held } = match &head.meta.target {
            Target::Here => return Ok(self.here(head, pending, entered).await?.holding(permit)),
            Target::Agent(name) => {
                let target = policy::Target::Agent(name);
                authorise::authorise(&self.shared, &self.requester, target, &head.meta.method)?
            }
            Target::Service => {
                authorise::authorise_any(&self.shared, &self.requester, &head.meta.method)?
            }
        };
        // A rule's bound on messages is told by dispatch where the message is in hand.
        let stream_max = granted.message_bytes_max.filter(|_| head.meta.kind.streams_requests());
        let body = pending.body(stream_max).await?;
        head.meta.deadline = self.fence.pass(entered, head.meta.deadline).await?;
        let picked = head.picked.take();
        let mut request = head.into_request(Requester::Verified(self.requester.clone()), body);
        let Answered { reply, route } = self.dispatch.forward(&mut request, granted).await;
        if let (Some(picked), Some(route)) = (picked, route) {
            drop(picked.set(route.link.peer().clone()));
        }
        Ok(reply?.holding_some(held).holding(permit))
    }

    fn note(&self, head: &mut Head, began: Instant) -> Option<Box<CallNote>> {
        let facts =
            || head.meta.facts(self.requester.to_string(), Some(&self.shared.peer), None, began);
        let note = self.shared.journal.call(facts)?;
        if head.meta.target == Target::Service {
            head.picked = Some(note.agent());
        }
        Some(note)
    }

    /// Counted for callers only: an agent's link is that of all who call it, and one bad caller
    /// would cut off the others.
    fn broken_off(&self, began: Instant, deadline: Instant) {
        // Right after a pause of this node a call seems to have begun when it was read, and its
        // caller may have had good reason long before.
        if self.shared.net.suspend().is_settled() {
            self.count_break(|breaks, now| breaks.is_too_many(began, deadline, now));
        }
    }

    /// Counted whatever time the call had left: a short timeout would hide it.
    fn misbehaved(&self) {
        self.count_break(ResetLimiter::is_one_too_many);
    }

    fn patience(&self, head: &Head) -> Duration {
        match head.meta.target {
            Target::Here => Duration::ZERO,
            _ => RELAY_PATIENCE + REPLY_FIN_WAIT_MAX,
        }
    }

    fn is_leaving(&self) -> bool {
        self.shared.calls.is_draining()
    }
}

impl LinkIngress {
    fn count_break(&self, is_too_many: impl FnOnce(&mut ResetLimiter, Instant) -> bool) {
        if self.requester.role != Role::Caller {
            return;
        }
        let mut breaks = self.breaks.lock().unwrap_or_else(PoisonError::into_inner);
        if is_too_many(&mut breaks, Instant::now()) && !self.link.is_closed() {
            let most = self.limits.resets_max;
            let text = format!("more than {most} calls were broken off in 10 s (resets_max)");
            tracing::warn!("closed the link of {}: {text}", self.requester);
            self.link.close(CloseCode::ExcessiveLoad, &text);
        }
    }
}
