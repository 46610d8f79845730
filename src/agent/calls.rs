//! Sends the calls of an agent over its newest link.

use super::state::{AgentState, newest};
use crate::{
    call::{Handler, Reply, Request, ask, is_retryable_on_next_link},
    link::Link,
    status::{Code, Status},
};
use std::sync::Arc;
use tokio::time::Instant;

/// Sends calls over the newest link.
pub(super) struct AgentHandler {
    pub(super) state: Arc<AgentState>,
}

impl Handler for AgentHandler {
    async fn call(&self, mut request: Request) -> Result<Reply, Status> {
        loop {
            let link = self.link_by(request.meta.deadline).await?;
            let limits = self.state.limits.get();
            let reply = ask(&link, &mut request, (&*limits).into(), None, None).await;
            if !is_retryable_on_next_link(&reply, &link) || request.is_spent() {
                return reply;
            }
        }
    }
}

impl AgentHandler {
    async fn link_by(&self, deadline: Instant) -> Result<Link, Status> {
        let mut attached = self.state.attached.subscribe();
        let some = attached.wait_for(|attached| newest(attached).is_some());
        // In time or not: a link that is there now counts.
        tokio::select! {
            () = self.state.links.stopped() => {}
            some = tokio::time::timeout_at(deadline, some) => drop(some),
        }
        newest(&self.state.attached.borrow()).ok_or_else(|| {
            Status::not_executed(Code::Unavailable, "this agent is registered on no node")
        })
    }
}
