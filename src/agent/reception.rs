//! Calls that come to the agent: the owner's rules, a permit, and then the handler.

use super::Shared;
use crate::{
    audit::{CallFacts, CallNote, Refused},
    call::{Head, Pending, Permits, Reception, Reply, Target},
    fence::Fence,
    limits::Limits,
    link::Link,
    name::{Name, PeerName, Role},
    status::{Code, Status},
};
use std::sync::Arc;
use tokio::time::Instant;

/// Receives the calls of one link.
pub(super) struct AgentReception {
    shared: Arc<Shared>,
    /// Who is at the other end, by its certificate.
    node: Name,
    permits: Permits,
    fence: Fence,
    /// Those of when its link was made.
    limits: Arc<Limits>,
}

impl AgentReception {
    pub(super) fn new(shared: Arc<Shared>, link: Link, limits: Arc<Limits>) -> Self {
        let permits = Permits::new(limits.calls_in_flight_max, limits.queue_max);
        Self {
            shared,
            node: link.peer().name.clone(),
            permits,
            fence: Fence::new(link, "agent"),
            limits,
        }
    }

    /// Does what is owed to calls after this process stood still, until the link ends.
    pub(super) async fn mind_pauses(&self) {
        self.fence.mind().await;
    }

    /// Who asks: the node's word. A call without one is the node's own.
    fn asker(&self, claimed: Option<&str>) -> Result<PeerName, Status> {
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

    fn authorise(&self, asker: &PeerName, head: &Head) -> Result<(), Status> {
        let policy = self.shared.policy.get();
        let decision = policy.decide(&self.node, asker, &head.method);
        if decision.is_allowed() {
            return Ok(());
        }
        let (node, method) = (&self.node, &head.method);
        if let Some(left_out) = self.shared.refusals.say(asker.clone(), Instant::now()) {
            tracing::warn!("refused {asker} by way of node {node}: {method}: {decision}{left_out}");
        }
        let (agent, via) = (Some(&self.shared.peer), Some(node));
        let refused = Refused { caller: asker, agent, via, method };
        self.shared.journal.call_refused(refused, Code::PermissionDenied, &decision);
        let text = format!(
            "{asker} may not call {} on this agent; an [[allow]] rule of the agent would have to say so",
            head.method
        );
        Err(Status::not_executed(Code::PermissionDenied, text))
    }
}

impl Reception for AgentReception {
    async fn receive(&self, mut head: Box<Head>, pending: Pending<'_>) -> Result<Reply, Status> {
        let entered = self.fence.enter();
        if self.shared.calls.is_draining() {
            return Err(Status::not_executed(Code::Unavailable, "the agent is stopping"));
        }
        if head.target != Target::Here {
            return Err(Status::not_executed(
                Code::InvalidArgument,
                "an agent does not pass calls on",
            ));
        }
        let asker = self.asker(head.caller.as_deref())?;
        self.authorise(&asker, &head)?;
        let handler = self.shared.services.find(&head.method, head.kind)?.clone();
        let permit = self.permits.acquire(head.deadline, self.limits.queue_wait_max).await?;
        let pending = pending.counted_in(self.shared.memory.account(&asker));
        let body = pending.body(None).await?;
        head.deadline = self.fence.pass(entered, head.deadline).await?;
        let mut request = head.into_request(asker, body);
        request.via = Some(self.node.clone());
        let reply = handler.call_boxed(request).await?;
        Ok(reply.holding(permit))
    }

    fn note(&self, head: &mut Head, began: Instant) -> Option<Box<CallNote>> {
        self.shared.journal.call(|| CallFacts {
            // What is no name was said by the node all the same.
            caller: head
                .caller
                .as_deref()
                .map_or_else(|| format!("node/{}", self.node), str::to_owned),
            agent: Some(self.shared.peer.clone()),
            via: Some(self.node.clone()),
            method: head.method.clone(),
            call_id: head.call_id,
            kind: head.kind,
            attempt: head.attempt,
            began,
            deadline: head.deadline,
        })
    }

    fn is_leaving(&self) -> bool {
        self.shared.calls.is_draining()
    }
}
