//! Sends the calls of a caller over its current link.

use super::state::CloseOnDrop;
use crate::{
    call::{Handler, Reply, Request, ask, end_span, is_retryable_on_next_link},
    status::Status,
    trace::{SpanKind, SpanOrigin},
};

impl Handler for CloseOnDrop {
    async fn call(&self, mut request: Request) -> Result<Reply, Status> {
        let mut span =
            request.meta.first_span(&self.0.tracer, SpanKind::Client, SpanOrigin::Program);
        if span.is_recorded() {
            span.text("server.address", self.0.address.host());
            span.number("server.port", self.0.address.port());
        }
        loop {
            let link = match self.0.link_by(request.meta.deadline).await {
                Ok(link) => link,
                Err(status) => return end_span(span, Err(status)),
            };
            let limits = (&*self.0.limits).into();
            let reply = ask(&link, &mut request, limits, None, None).await;
            if !is_retryable_on_next_link(&reply, &link) || request.is_spent() {
                return end_span(span, reply);
            }
        }
    }
}
