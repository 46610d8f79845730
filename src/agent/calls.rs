//! Sends the calls of an agent over its newest link.

use super::state::{AgentState, newest};
use crate::{
    call::{Handler, Reply, Request, ask, end_span, is_retryable_on_next_link},
    link::Link,
    status::{Code, Status},
    trace::{SpanKind, SpanOrigin},
};
use tokio::time::Instant;

impl Handler for AgentState {
    async fn call(&self, mut request: Request) -> Result<Reply, Status> {
        let tracer = self.observer.tracer();
        let span = request.meta.first_span(tracer, SpanKind::Client, SpanOrigin::Program);
        loop {
            let link = match self.link_by(request.meta.deadline).await {
                Ok(link) => link,
                Err(status) => return end_span(span, Err(status)),
            };
            let limits = self.limits.get();
            let reply = ask(&link, &mut request, (&*limits).into(), None, None).await;
            if !is_retryable_on_next_link(&reply, &link) || request.is_spent() {
                return end_span(span, reply);
            }
        }
    }
}

impl AgentState {
    async fn link_by(&self, deadline: Instant) -> Result<Link, Status> {
        let mut attached = self.attached.subscribe();
        let some = attached.wait_for(|attached| newest(attached).is_some());
        // In time or not: a link that is there now counts.
        tokio::select! {
            () = self.links.stopped() => {}
            some = tokio::time::timeout_at(deadline, some) => drop(some),
        }
        newest(&self.attached.borrow()).ok_or_else(|| {
            Status::not_executed(Code::Unavailable, "this agent is registered on no node")
        })
    }
}
