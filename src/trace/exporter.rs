//! Exports spans in the background, in batches.

use super::{
    collector::{ExportFault, post},
    endpoint::OtlpEndpoint,
    otlp,
    queue::{SpanCounts, ToExport},
    span_data::{AttributeValue, SpanData},
};
use crate::limits::{OTLP_ATTEMPTS_MAX, OTLP_BATCH_MAX, OTLP_BATCH_WAIT_MAX, OTLP_RETRY_WAIT};
use std::sync::{Arc, atomic::Ordering::Relaxed};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout_at},
};

/// Sends what comes through the queue, until its other end is gone.
pub(super) struct Exporter {
    pub(super) endpoint: OtlpEndpoint,
    /// Attributes of the process, which all its spans share.
    pub(super) resource: Vec<(&'static str, AttributeValue)>,
    pub(super) queue: mpsc::Receiver<ToExport>,
    pub(super) counts: Arc<SpanCounts>,
}

/// Spans for one request, and what waits for them.
#[derive(Default)]
struct SpanBatch {
    spans: Vec<SpanData>,
    flushed: Option<oneshot::Sender<()>>,
}

impl Exporter {
    pub(super) async fn run(mut self) {
        let mut losses = Losses::default();
        while let Some(SpanBatch { spans, flushed }) = self.next_batch().await {
            if !spans.is_empty() {
                // What waits for the last spans does not wait for a collector to return.
                let attempts_max = if flushed.is_some() { 1 } else { OTLP_ATTEMPTS_MAX };
                let sent = self.send(&spans, attempts_max, &mut losses).await;
                let count = if sent { &self.counts.exported } else { &self.counts.lost };
                count.fetch_add(spans.len() as u64, Relaxed);
                losses.note(self.counts.lost.load(Relaxed), sent, &self.endpoint);
            }
            if let Some(flushed) = flushed {
                // It may have given up.
                flushed.send(()).unwrap_or_default();
            }
        }
    }

    /// Waits for a span, and for more of them for a short time. `None` at the end.
    async fn next_batch(&mut self) -> Option<SpanBatch> {
        let mut batch = SpanBatch::default();
        let mut next = self.queue.recv().await;
        let until = Instant::now() + OTLP_BATCH_WAIT_MAX;
        loop {
            match next {
                Some(ToExport::Span(span)) => batch.spans.push(*span),
                Some(ToExport::Flush(flushed)) => {
                    batch.flushed = Some(flushed);
                    return Some(batch);
                }
                None => return (!batch.spans.is_empty()).then_some(batch),
            }
            if batch.spans.len() >= OTLP_BATCH_MAX {
                return Some(batch);
            }
            next = match timeout_at(until, self.queue.recv()).await {
                Ok(next) => next,
                Err(_elapsed) => return Some(batch),
            };
        }
    }

    /// Sends spans, again where that may help. False if they are lost.
    async fn send(&self, spans: &[SpanData], attempts_max: u32, losses: &mut Losses) -> bool {
        let body = otlp::request(&self.resource, spans);
        for attempt in 1..=attempts_max {
            let fault = match post(&self.endpoint, body.clone()).await {
                Ok(()) => return true,
                Err(fault) => fault,
            };
            losses.failed(&self.endpoint, &fault);
            if !fault.is_temporary() || attempt == attempts_max || self.queue.is_closed() {
                break;
            }
            sleep(OTLP_RETRY_WAIT * 2_u32.pow(attempt - 1)).await;
        }
        false
    }
}

/// What the log was told of lost spans: once when it begins and once when it is over.
#[derive(Default)]
struct Losses {
    /// True while the collector takes nothing.
    is_failing: bool,
    /// True if spans had no room, and the log was told.
    is_full: bool,
    lost: u64,
}

impl Losses {
    fn failed(&mut self, endpoint: &OtlpEndpoint, fault: &ExportFault) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                address = %endpoint,
                reason = %fault,
                "spans cannot be exported to {endpoint}: {fault}; calls are not affected, and spans are lost while this lasts"
            );
        }
    }

    fn note(&mut self, lost: u64, sent: bool, endpoint: &OtlpEndpoint) {
        let more = lost - std::mem::replace(&mut self.lost, lost);
        if sent && std::mem::take(&mut self.is_failing) {
            tracing::info!(
                address = %endpoint,
                lost,
                "spans are exported to {endpoint} again; {lost} were lost since the start"
            );
        } else if more > 0 && !self.is_failing && !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!(
                address = %endpoint,
                lost = more,
                "{more} spans were lost: more end than the collector at {endpoint} takes; sample fewer calls. This is said once; dialback_spans_lost_total counts on"
            );
        }
    }
}
