//! One message in parts, which is passed on while it comes.

use super::{
    messages::{Messages, Next, Source},
    stall::{Stall, write_steadily},
};
use crate::{
    link::{FrameSender, SendFault},
    metadata::Metadata,
    status::Status,
    trace::Span,
    wire::Chunks,
};
use bytes::Bytes;
use std::{
    any::Any,
    fmt,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep, sleep_until};

/// One message that a node passes on while it comes. Handlers do not receive it. Dropping it before
/// its end stops its sender.
pub struct MessageParts(Box<PartsState>);

/// Boxed: few messages are this large, and the others do not carry its size.
struct PartsState {
    /// Length of the message.
    bytes: usize,
    source: Messages,
    /// Parts that have come. Kept, because another attempt sends them again.
    come: Vec<Bytes>,
    end: Option<Result<Metadata, Status>>,
    /// Time by which it must be whole while it is passed on.
    until: Option<Instant>,
    is_late: bool,
    /// Deadline of the call as the check of the end has found it.
    deadline: Arc<OnceLock<Instant>>,
}

/// Future of a check that precedes the end of a message. Returns the deadline that the call has.
pub(crate) type LastCheck = Pin<Box<dyn Future<Output = Result<Instant, Status>> + Send>>;

/// Reason why a message was not passed on to its end.
pub(super) enum NotPassedOn {
    /// The receiver stopped the stream or reads too slowly, or its link is lost.
    Sending(Stall<SendFault>),
    /// The message does not come to its end.
    Source(Status),
    /// All of the message was passed on, and a failure comes instead of its end.
    End(Status),
    /// The message does not come in time. The rest of it may come later.
    Late,
}

impl MessageParts {
    /// A message of this length. Its source ends only when it is complete.
    pub(crate) fn new(bytes: usize, source: impl Source + 'static) -> Self {
        let (source, come) = (Messages::new(source), Vec::new());
        let (end, until, is_late, deadline) = (None, None, false, Arc::default());
        Self(Box::new(PartsState { bytes, source, come, end, until, is_late, deadline }))
    }

    /// Makes the end of the message wait for a check.
    pub(crate) fn check_end(&mut self, check: LastCheck) {
        let deadline = self.0.deadline.clone();
        self.0.source.wrap(|source| Checked { source, check, deadline, end: None });
    }

    /// Lowers the deadline of its call to the one that the check of the end has found, if any.
    pub(crate) fn lower(&self, deadline: &mut Instant) {
        *deadline = self.0.deadline.get().map_or(*deadline, |checked| *checked.min(deadline));
    }

    /// Length of the message.
    pub(crate) const fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// True once all parts and the end have come.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.0.end, Some(Ok(_)))
    }

    /// True if the end will never come.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.0.end, Some(Err(_)))
    }

    /// Sets the time by which it must be whole if it is passed on.
    pub(crate) fn expect_by(&mut self, until: Instant) {
        self.0.until = Some(until);
    }

    /// True if it was not whole at its time, and was passed on no further.
    pub(crate) const fn is_late(&self) -> bool {
        self.0.is_late
    }

    #[cfg(test)]
    pub(crate) fn set_late(&mut self) {
        self.0.is_late = true;
    }

    /// Holds a guard until the end has come, or the message is dropped.
    pub(crate) fn hold(&mut self, guard: impl Any + Send + Sync) {
        self.0.source.hold(guard);
    }

    /// Ends a span when the end has come.
    pub(crate) fn trace(&mut self, span: Span) {
        self.0.source.trace(span);
    }

    /// Waits until the whole message has come. May be dropped and called again.
    pub(crate) async fn become_whole(&mut self) -> Result<(), Status> {
        std::future::poll_fn(|cx| self.poll_whole(cx)).await;
        match &self.0.end {
            Some(Err(status)) => Err(status.clone()),
            _ => Ok(()),
        }
    }

    /// Writes `first` and the parts as they come, from the start; takes further parts while the
    /// receiver takes none. Returns, with the pairs that follow the message, when all parts were
    /// handed to the transport and the end has come.
    pub(super) async fn pass_on(
        &mut self,
        first: Chunks,
        sender: &mut FrameSender,
    ) -> Result<Metadata, NotPassedOn> {
        let mut timer = self.0.until.map(|until| Box::pin(sleep_until(until)));
        let mut stopped = pin!(sender.stopped());
        let (mut chunks, mut count, mut left) = (first, 0, self.bytes());
        loop {
            self.write(sender, &mut chunks, &mut timer).await?;
            let part = std::future::poll_fn(|cx| {
                if let Poll::Ready(part) = self.poll_part(count, cx) {
                    return Poll::Ready(Ok(part));
                }
                if stopped.as_mut().poll(cx).is_ready() {
                    let stopped = Stall::Fault(SendFault::Stopped);
                    return Poll::Ready(Err(NotPassedOn::Sending(stopped)));
                }
                self.poll_late(&mut timer, cx).map(Err)
            });
            match part.await? {
                Next::Message(part) => {
                    left = left.saturating_sub(part.len());
                    chunks = Chunks::one(part);
                }
                Next::Failed(status) if left == 0 => return Err(NotPassedOn::End(status)),
                Next::Failed(status) => return Err(NotPassedOn::Source(status)),
                Next::Head(trailing) | Next::End(trailing) => return Ok(trailing),
            }
            count += 1;
        }
    }

    /// Writes chunks, and takes further parts meanwhile.
    async fn write(
        &mut self,
        sender: &mut FrameSender,
        chunks: &mut Chunks,
        timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> Result<(), NotPassedOn> {
        let mut write = pin!(write_steadily(sender, chunks));
        std::future::poll_fn(|cx| match write.as_mut().poll(cx) {
            Poll::Ready(written) => Poll::Ready(written.map_err(NotPassedOn::Sending)),
            Poll::Pending => self.poll_meanwhile(timer, cx).map(Err),
        })
        .await
    }

    /// Takes all parts that have come. Ready once the end has come.
    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.0.end.is_none() {
            ready!(self.poll_more(cx));
        }
        Poll::Ready(())
    }

    /// Takes one part or the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.0.source.poll_event(cx)) {
            Next::Head(_) => {}
            Next::Message(part) => self.0.come.push(part),
            Next::End(trailing) => self.0.end = Some(Ok(trailing)),
            Next::Failed(status) => self.0.end = Some(Err(status)),
        }
        Poll::Ready(())
    }

    /// The part after `count` others; after the last, the end. A failure comes first.
    fn poll_part(&mut self, count: usize, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            return Poll::Ready(match (&self.0.end, self.0.come.get(count)) {
                (Some(Err(status)), _) => Next::Failed(status.clone()),
                (_, Some(part)) => Next::Message(part.clone()),
                (Some(Ok(trailing)), None) => Next::End(trailing.clone()),
                (None, None) => {
                    ready!(self.poll_more(cx));
                    continue;
                }
            });
        }
    }

    /// Takes what comes while the receiver takes nothing. Ready when nothing more is to be written.
    fn poll_meanwhile(
        &mut self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<NotPassedOn> {
        let is_ended = self.poll_whole(cx).is_ready();
        match &self.0.end {
            Some(Err(status)) => Poll::Ready(NotPassedOn::Source(status.clone())),
            _ if is_ended => Poll::Pending,
            _ => self.poll_late(timer, cx),
        }
    }

    /// Ready at the time of a message whose end has not come.
    fn poll_late(
        &mut self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<NotPassedOn> {
        let Some(timer) = timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        self.0.is_late = true;
        Poll::Ready(NotPassedOn::Late)
    }
}

impl fmt::Debug for MessageParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageParts").field("bytes", &self.0.bytes).finish_non_exhaustive()
    }
}

/// Source whose end waits for a check.
struct Checked {
    source: Box<dyn Source>,
    check: LastCheck,
    deadline: Arc<OnceLock<Instant>>,
    end: Option<Metadata>,
}

impl Source for Checked {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.end.is_none() {
            match ready!(self.source.poll_next(cx)) {
                Next::End(trailing) => self.end = Some(trailing),
                next => return Poll::Ready(next),
            }
        }
        let checked = ready!(self.check.as_mut().poll(cx));
        Poll::Ready(match checked {
            Ok(deadline) => {
                self.deadline.get_or_init(|| deadline);
                Next::End(self.end.take().unwrap_or_default())
            }
            Err(status) => Next::Failed(status),
        })
    }
}
