//! Source of the messages of a request that is a stream.

use super::{
    messages::{Next, Source},
    request_faults::{Counts, RequestFault, expect_end, message_or_end, read_failed, stalled},
    stall::StallTimer,
};
use crate::{
    link::{Frame, FrameReader},
    metadata::Metadata,
    status::Status,
};
use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

/// Source of the messages of a request. Its handler runs, so the outcome of a failure is unknown.
pub(super) struct RequestSource {
    pub(super) reader: FrameReader,
    pub(super) stall_timer: StallTimer,
    pub(super) counts: Arc<Counts>,
    /// True if the method has a message limit below that of this side.
    pub(super) has_own_bound: bool,
    /// END has arrived, the end of the stream has not.
    pub(super) has_ended: bool,
}

impl RequestSource {
    /// Next message. Cancel safe.
    async fn next(&mut self) -> Next {
        if self.has_ended {
            return self.end().await;
        }
        let frame = match self.stall_timer.next(&mut self.reader).await {
            Ok(frame) => frame,
            Err(stall) => {
                let fault = stalled(stall, &mut self.reader);
                return self.ended_by(fault);
            }
        };
        self.counts.activity.fetch_add(1, Ordering::Relaxed);
        match message_or_end(frame) {
            Ok(Some(Frame { payload, .. })) => {
                self.counts.add_message(&payload);
                Next::Message(payload)
            }
            Ok(None) => {
                self.has_ended = true;
                self.end().await
            }
            Err(fault) => self.ended_by(fault),
        }
    }

    /// Reads the end of the stream after END.
    async fn end(&mut self) -> Next {
        match self.reader.next().await.map_err(read_failed).and_then(expect_end) {
            Ok(()) => Next::End(Metadata::default()),
            Err(fault) => self.ended_by(fault),
        }
    }

    /// Stops the stream; the handler runs, so the outcome is unknown.
    fn ended_by(&mut self, fault: RequestFault) -> Next {
        let status = fault.end(&mut self.reader, &self.counts.initiator_fault, self.has_own_bound);
        Next::Failed(Status::unknown(status.code(), status.message()))
    }
}

impl Source for RequestSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        pin!(self.next()).poll(cx)
    }
}
