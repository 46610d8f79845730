//! Starts the spans of one node, agent or caller.

use super::{
    context::TraceContext,
    queue::SpanQueue,
    sampler::{Sampler, SpanOrigin},
    span::{NewSpan, Span},
    span_data::SpanParent,
};
use crate::tls::random_bytes;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Starts spans, if traces are on. Off, it is a null pointer: calls test it, and nothing else.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracer(Option<Arc<TracerState>>);

#[derive(Debug)]
pub(super) struct TracerState {
    pub(super) sampler: Sampler,
    pub(super) queue: Arc<SpanQueue>,
}

impl Tracer {
    #[cfg(feature = "otel")]
    pub(super) fn new(state: TracerState) -> Self {
        Self(Some(Arc::new(state)))
    }

    /// True if traces are on.
    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Starts the first span of a call in this process, below the context that came with it, and
    /// replaces that by its own. A call that is not sampled tells what comes next.
    pub(crate) fn first<'a>(
        &self,
        traceparent: &mut Option<Box<str>>,
        origin: SpanOrigin,
        new: impl FnOnce() -> NewSpan<'a>,
    ) -> Span {
        let Some(state) = &self.0 else { return Span::default() };
        let parent = traceparent.as_deref().and_then(TraceContext::parse);
        let chance = u64::from_ne_bytes(random_bytes());
        if !state.sampler.samples(parent, origin, chance, Instant::now()) {
            let unsampled = match parent {
                Some(parent) => parent.unsampled(),
                None => TraceContext::new(random_bytes(), random_bytes(), false),
            };
            *traceparent = Some(unsampled.to_text());
            return Span::default();
        }
        let span_id = random_bytes();
        let context = match parent {
            Some(parent) => parent.child(span_id),
            None => TraceContext::new(random_bytes(), span_id, true),
        };
        *traceparent = Some(context.to_text());
        let is_remote = origin == SpanOrigin::Peer;
        let parent = parent.map(|parent| SpanParent { span_id: parent.span_id, is_remote });
        Span::begin(&state.queue, context, parent, &new())
    }

    /// Starts a span below another of this process, and replaces its context by its own.
    pub(crate) fn next<'a>(
        &self,
        traceparent: &mut Option<Box<str>>,
        new: impl FnOnce() -> NewSpan<'a>,
    ) -> Span {
        let Some(state) = &self.0 else { return Span::default() };
        let parent = traceparent.as_deref().and_then(TraceContext::parse);
        let Some(parent) = parent.filter(|parent| parent.is_sampled()) else {
            return Span::default();
        };
        let context = parent.child(random_bytes());
        *traceparent = Some(context.to_text());
        let parent = SpanParent { span_id: parent.span_id, is_remote: false };
        Span::begin(&state.queue, context, Some(parent), &new())
    }

    /// Spans that were exported and that were lost, if traces are on.
    #[cfg(feature = "admin")]
    pub(crate) fn counts(&self) -> Option<[u64; 2]> {
        Some(self.0.as_ref()?.queue.counts())
    }

    /// Exports what has ended, for at most this time, and ends the exporter.
    pub(crate) async fn close(&self, wait_max: Duration) {
        if let Some(state) = &self.0 {
            state.queue.close(wait_max).await;
        }
    }
}
