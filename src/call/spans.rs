//! Spans of calls, with attributes by OpenTelemetry's conventions for RPC
//! (<https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/>).

use super::{
    body::Body,
    message::{CallMeta, Reply, Target},
};
use crate::{
    name::is_of_nodes,
    status::{Code, Outcome, Status},
    trace::{NewSpan, Span, SpanKind, SpanOrigin, Tracer},
};

impl CallMeta {
    /// Starts the first span of the call in this process. What comes next is below it.
    pub(crate) fn first_span(
        &mut self,
        tracer: &Tracer,
        kind: SpanKind,
        origin: SpanOrigin,
    ) -> Span {
        if !tracer.is_on() || self.is_of_dialback() {
            return Span::default();
        }
        let (name, deadline) = (self.method.as_str(), self.deadline);
        let new = || NewSpan { kind, name, deadline };
        let mut span = tracer.first(&mut self.traceparent, origin, new);
        if let (SpanKind::Client, Target::Agent(agent)) = (kind, &self.target) {
            span.text("dialback.agent", agent);
        }
        self.described(span)
    }

    /// Starts a span for an attempt of the call, below the one of this process.
    pub(crate) fn attempt_span(&mut self, tracer: &Tracer) -> Span {
        if !tracer.is_on() || self.is_of_dialback() {
            return Span::default();
        }
        let (kind, name, deadline) = (SpanKind::Client, self.method.as_str(), self.deadline);
        let span = tracer.next(&mut self.traceparent, || NewSpan { kind, name, deadline });
        self.described(span)
    }

    /// Starts the span of the handler, which starts those of what it forwards.
    pub(crate) fn handler_span(&mut self, tracer: &Tracer) -> Span {
        if !tracer.is_on() || self.is_of_dialback() {
            return Span::default();
        }
        self.tracer = tracer.clone();
        let (kind, deadline) = (SpanKind::Internal, self.deadline);
        tracer.next(&mut self.traceparent, || NewSpan { kind, name: "handler", deadline })
    }

    /// Starts a span for what a handler forwards to an upstream.
    pub(crate) fn forward_span(&mut self, name: &str) -> Span {
        let (kind, deadline) = (SpanKind::Client, self.deadline);
        self.tracer.next(&mut self.traceparent, || NewSpan { kind, name, deadline })
    }

    /// True for the services of nodes and for probes, which would hide the calls among them.
    fn is_of_dialback(&self) -> bool {
        is_of_nodes(self.method.service())
    }

    fn described(&self, mut span: Span) -> Span {
        if span.is_recorded() {
            span.text("rpc.system.name", "dialback");
            span.text("rpc.method", &self.method);
            span.text("dialback.call_id", self.call_id);
            span.text("dialback.kind", self.kind);
            if self.attempt > 1 {
                span.number("dialback.attempt", self.attempt);
            }
            if let Some(http) = &self.http {
                span.text("http.request.method", http.verb());
                span.text("url.path", http.path());
            }
        }
        span
    }
}

/// Ends the span of a call with its reply; for a streamed one, when that ends.
pub(crate) fn end_span(span: Span, mut reply: Result<Reply, Status>) -> Result<Reply, Status> {
    if span.is_recorded() {
        match &mut reply {
            Ok(Reply { body: Body::Messages(messages), .. }) => messages.trace(span),
            Ok(Reply { body: Body::Parts(parts), .. }) => parts.trace(span),
            Ok(_) => span.ended((Code::Ok, Outcome::Ok), ""),
            Err(status) => span.ended((status.code(), status.outcome()), status.message()),
        }
    }
    reply
}
