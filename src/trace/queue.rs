//! The queue between spans that end and the exporter.

use super::span_data::SpanData;
use crate::drain::Tasks;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// What the exporter receives.
#[derive(Debug)]
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "read by the exporter"))]
pub(super) enum ToExport {
    Span(Box<SpanData>),
    /// Everything before it is to be exported now.
    Flush(oneshot::Sender<()>),
}

/// Spans since the start.
#[derive(Debug, Default)]
pub(super) struct SpanCounts {
    pub(super) exported: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// The end of the queue that takes spans. The exporter ends when the last one is dropped.
#[derive(Debug)]
pub(super) struct SpanQueue {
    pub(super) sender: mpsc::Sender<ToExport>,
    pub(super) counts: Arc<SpanCounts>,
    /// The task of the exporter.
    pub(super) tasks: Tasks,
}

impl SpanQueue {
    /// Hands a span that has ended to the exporter. Never waits: a span without room is lost.
    pub(super) fn export(&self, span: SpanData) {
        if self.sender.try_send(ToExport::Span(Box::new(span))).is_err() {
            self.counts.lost.fetch_add(1, Relaxed);
        }
    }

    /// Spans that were exported and that were lost.
    #[cfg(feature = "admin")]
    pub(super) fn counts(&self) -> [u64; 2] {
        let SpanCounts { exported, lost } = &*self.counts;
        [exported, lost].map(|count| count.load(Relaxed))
    }

    /// Exports what has ended, for at most this time, and ends the exporter.
    pub(super) async fn close(&self, wait_max: Duration) {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            if self.sender.send(ToExport::Flush(done)).await.is_ok() {
                drop(flushed.await);
            }
        };
        if timeout(wait_max, flush).await.is_err() {
            tracing::warn!("the last spans were not exported: the collector does not answer");
        }
        self.tasks.stop();
    }
}
