//! Initiator of a streaming call: sends the request's messages and receives the reply's.
//!
//! The line between `not_executed` and `unknown` is the first message: the responder starts a
//! handler when it has received one, or END, and not before.

use super::{
    batch::{End, Gathered, Gatherer},
    body::Body,
    exchange::{
        InitiatorLimits, Progress, begin, broken, end_unseen, expect_end, read_failed,
        send_request, too_slow, unavailable,
    },
    message::{Reply, Request},
    messages::{Messages, Next, Source},
    stall::{Stall, StallPolicy, StallTimer, write_at},
};
use crate::{
    limits::REPLY_FIN_WAIT_MAX,
    link::{Frame, FrameReader, FrameSender, Link, LinkFault, SendFault},
    memory::MemoryAccount,
    name::PeerName,
    status::{Code, Status},
    wire::{Batch, CallKind, Kind, ReplyHead, StatusHead, StreamCode},
};
use bytes::Bytes;
use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// True if a frame was sent on which a handler may have started.
#[derive(Debug, Clone, Default)]
struct SentState(Arc<AtomicBool>);

impl SentState {
    fn progress(&self) -> Progress {
        if self.0.load(Ordering::Acquire) { Progress::AfterEnd } else { Progress::BeforeEnd }
    }

    fn over(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Makes a streaming call over a link. Returns the reply with its first frame; dropping the future
/// or the reply's stream cancels the call.
pub(super) async fn initiate_stream(
    link: &Link,
    request: &mut Request,
    limits: InitiatorLimits,
    name_caller: Option<&PeerName>,
    memory: Option<MemoryAccount>,
) -> Result<Reply, Status> {
    let mut stream = begin(link, request, limits).await?;
    // Pieces of a forward are few and small, and a refusal would break the connection.
    if let Some(memory) = memory.filter(|_| !request.meta.kind.is_forward()) {
        stream.reader.count_in(memory);
    }
    let message_bytes_max = request.meta.kind.message_bytes_max(limits.message_bytes_max);
    stream.reader.allow_messages(message_bytes_max);
    let sent = tokio::time::timeout_at(
        request.meta.deadline,
        send_request(link, &mut stream, request, name_caller),
    );
    let is_sent = sent.await.map_err(|_elapsed| {
        stream.set_code_on_drop(StreamCode::Deadline);
        Progress::BeforeEnd.failed(Code::DeadlineExceeded, "the deadline passed")
    })??;
    let sent = SentState::default();
    let stall_policy = StallPolicy::of(request.meta.kind, limits.stream_idle_max);
    let mut sender = stream.sender;
    let pump: Option<Pump> = match std::mem::take(&mut request.body) {
        Body::Messages(messages) if is_sent => {
            let bytes_max = request.meta.kind.message_bytes_max(limits.request_bytes_max(link));
            let gatherer = Gatherer::new(messages, bytes_max);
            Some(Box::pin(pump(sender, gatherer, sent.clone(), stall_policy)))
        }
        Body::Messages(_) => None,
        message => {
            // The stream is still here for another attempt.
            request.body = message;
            if is_sent {
                sent.over();
                sender.finish();
            }
            None
        }
    };
    let mut replies = ReplySource {
        link: link.clone(),
        reader: stream.reader,
        pump,
        sent,
        stall_timer: StallTimer::default(),
        stall_policy,
        link_lost: None,
        kind: request.meta.kind,
        is_stopped: false,
        deadline: Box::pin(tokio::time::sleep_until(request.meta.deadline)),
        grace: limits.grace,
        is_started: false,
        last: None,
        pump_failure: None,
    };
    if request.meta.kind == CallKind::ClientStream {
        one(replies).await
    } else {
        let first = std::future::poll_fn(|cx| replies.poll_next(cx)).await;
        Ok(match first {
            Next::Failed(status) => return Err(status),
            Next::Head(metadata) => Reply { metadata, ..Reply::stream(Messages::new(replies)) },
            next => Reply::stream(Messages::new(replies).starting_with(next)),
        })
    }
}

/// Reads the reply of a call with a single reply message.
async fn one(mut replies: ReplySource) -> Result<Reply, Status> {
    let mut reply = Reply::default();
    let mut only: Option<Bytes> = None;
    loop {
        match std::future::poll_fn(|cx| replies.poll_next(cx)).await {
            Next::Head(metadata) => reply.metadata = metadata,
            Next::Message(message) if only.is_none() => only = Some(message),
            Next::Message(_) => {
                return Err(broken(replies.progress(), "the reply has a second message"));
            }
            Next::End(trailing) => {
                let message =
                    only.ok_or_else(|| broken(replies.progress(), "the reply has no message"))?;
                return Ok(Reply { body: Body::Message(message), trailing, ..reply });
            }
            Next::Failed(status) => return Err(status),
        }
    }
}

/// Error that stopped the messages of the request.
enum Stopped {
    /// The peer stopped the stream or reads too slowly, or the link is lost.
    Sending(Stall<SendFault>),
    Source(Status),
}

/// Future that sends the messages of the request.
type Pump = Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send>>;

/// Sends the messages of a request and then END. Dropped or failed before, it resets the stream.
async fn pump(
    mut sender: FrameSender,
    mut gatherer: Gatherer,
    sent: SentState,
    stall_policy: StallPolicy,
) -> Result<(), Stopped> {
    let mut stopped = pin!(sender.stopped());
    loop {
        // The first frame is written alone: whether it was sent completely decides the outcome.
        let is_first = sent.progress() == Progress::BeforeEnd;
        let gathered = tokio::select! {
            biased;
            gathered = gatherer.gather(Batch::default(), is_first) => gathered,
            // Otherwise the next write or the reply reports it.
            () = stopped.as_mut(), if stall_policy != StallPolicy::Reset => {
                return Err(Stopped::Sending(Stall::Fault(SendFault::Stopped)));
            }
        };
        let Gathered { mut batch, end } = gathered;
        let is_last = matches!(end, Some(End::Complete(_)));
        if is_last {
            batch.push_end();
        }
        if !batch.is_empty() {
            let written = write_at(stall_policy, &mut sender, &mut batch.into_chunks()).await;
            written.map_err(Stopped::Sending)?;
            sent.over();
        }
        match end {
            Some(End::Complete(_)) => {
                sender.finish();
                return Ok(());
            }
            Some(End::Failed(status)) => return Err(Stopped::Source(status)),
            None => {}
        }
    }
}

/// Source of the replies of a streaming call. Polling it also sends the messages of the request.
struct ReplySource {
    link: Link,
    reader: FrameReader,
    pump: Option<Pump>,
    sent: SentState,
    stall_timer: StallTimer,
    stall_policy: StallPolicy,
    /// Completes when the link is closed; created by the first `poll_background`.
    link_lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    kind: CallKind,
    /// The peer stopped the request before its end.
    is_stopped: bool,
    deadline: Pin<Box<Sleep>>,
    /// Time past the deadline to wait for the first frame of the reply; zero once used.
    grace: Duration,
    /// True if a frame of the reply has arrived, after which a head violates the protocol.
    is_started: bool,
    /// Result in STATUS, until the end of the stream has arrived.
    last: Option<Next>,
    /// Failure to send the request, until it is reported.
    pump_failure: Option<Status>,
}

impl ReplySource {
    /// Progress of the request, unless the peer never accepted the stream.
    fn progress(&self) -> Progress {
        self.sent.progress().unless_past_drain(&self.link, self.reader.stream_id())
    }

    /// Sends messages of the request, and stores a failure.
    fn poll_pump(&mut self, cx: &mut Context<'_>) {
        let Some(pump) = &mut self.pump else { return };
        let Poll::Ready(ended) = pump.as_mut().poll(cx) else { return };
        self.pump = None;
        let progress = self.progress();
        self.pump_failure = match ended {
            Ok(()) => None,
            Err(Stopped::Sending(Stall::Fault(SendFault::Stopped))) => {
                self.is_stopped = true;
                None
            }
            Err(Stopped::Sending(Stall::Slow)) => {
                self.reader.set_code_on_drop(StreamCode::Slow);
                Some(too_slow(progress))
            }
            Err(Stopped::Sending(Stall::Fault(SendFault::Lost(fault)))) => {
                Some(unavailable(&self.link, progress, fault))
            }
            Err(Stopped::Source(status)) => Some(progress.failed(status.code(), status.message())),
        };
    }

    /// Next event of the reply. Cancel safe.
    async fn next(&mut self) -> Next {
        if let Some(next) = self.frame().await {
            return next;
        }
        let progress = self.progress();
        let ended = expect_end(&mut self.reader, progress).await;
        self.concluded(ended)
    }

    /// Result in STATUS, after the end of the stream was checked.
    fn concluded(&mut self, ended: Result<(), Status>) -> Next {
        match ended {
            Ok(()) => self.last.take().unwrap_or_else(|| self.broken("the reply has no STATUS")),
            Err(status) => Next::Failed(status),
        }
    }

    /// Sets the time to wait for FIN after STATUS: short, and not past the deadline.
    fn wait_for_fin(&mut self) {
        let until = self.deadline.deadline().min(Instant::now() + REPLY_FIN_WAIT_MAX);
        self.deadline.as_mut().reset(until);
    }

    /// Ready when the time for FIN is over. Reads the clock: another timer may have woken the task.
    fn poll_fin(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if Instant::now() < self.deadline.deadline() {
            std::task::ready!(self.deadline.as_mut().poll(cx));
        }
        let ended = end_unseen(&self.reader, self.progress());
        Poll::Ready(self.concluded(ended))
    }

    /// Next event from a frame; `None` once STATUS has arrived.
    async fn frame(&mut self) -> Option<Next> {
        if self.last.is_some() {
            return None;
        }
        Some(match self.stall_timer.next(&mut self.reader).await {
            Ok(Some(Frame { kind: Kind::Message, payload, .. })) => {
                self.is_started = true;
                Next::Message(payload)
            }
            Ok(Some(Frame { kind, payload, .. })) => match self.head_or_status(kind, &payload) {
                Ok(Some(next)) => next,
                Ok(None) => return None,
                Err(status) => Next::Failed(status),
            },
            Ok(None) => self.broken("the reply ended without its STATUS"),
            Err(Stall::Slow) => {
                self.reader.set_code_on_drop(StreamCode::Slow);
                let text = "the peer sends the reply too slowly (less than 1 KiB/s)";
                Next::Failed(self.progress().failed(Code::ResourceExhausted, text))
            }
            Err(Stall::Fault(fault)) => {
                Next::Failed(read_failed(&self.link, self.progress(), fault))
            }
        })
    }

    /// Event of a HEAD or STATUS frame; `None` for STATUS, which is stored.
    fn head_or_status(&mut self, kind: Kind, payload: &[u8]) -> Result<Option<Next>, Status> {
        let progress = self.progress();
        let malformed = |fault: crate::wire::WireError| broken(progress, &fault.to_string());
        let was_started = std::mem::replace(&mut self.is_started, true);
        match kind {
            Kind::Head if !was_started => {
                Ok(Some(Next::Head(ReplyHead::decode(payload).map_err(malformed)?)))
            }
            Kind::Status => {
                let status = StatusHead::decode(payload).map_err(malformed)?;
                self.last = Some(status.map_or_else(Next::Failed, Next::End));
                self.wait_for_fin();
                Ok(None)
            }
            _ => Err(broken(progress, "the reply has a frame out of place")),
        }
    }

    fn broken(&self, text: &str) -> Next {
        Next::Failed(broken(self.progress(), text))
    }

    /// Ready when no further replies can arrive.
    fn poll_link_lost(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let link = self.link.clone();
        let link_lost =
            self.link_lost.get_or_insert_with(|| Box::pin(async move { link.closed().await }));
        if link_lost.as_mut().poll(cx).is_ready() {
            let fault = LinkFault::Broken("it was closed".into());
            return Poll::Ready(unavailable(&self.link, self.progress(), fault));
        }
        // A peer that takes no more of an HTTP request may still answer it.
        if self.is_stopped && self.kind == CallKind::Tcp {
            let text = "the other side reset the connection";
            return Poll::Ready(self.progress().failed(Code::Aborted, text));
        }
        self.poll_deadline(cx)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        std::task::ready!(self.deadline.as_mut().poll(cx));
        let over_at = self.deadline.deadline();
        if Instant::now() < over_at {
            return Poll::Pending;
        }
        let grace = std::mem::take(&mut self.grace);
        let may_run = self.sent.progress() == Progress::AfterEnd;
        if may_run && !self.is_started && !grace.is_zero() {
            self.deadline.as_mut().reset(over_at + grace);
            return self.poll_deadline(cx);
        }
        self.reader.set_code_on_drop(StreamCode::Deadline);
        Poll::Ready(self.progress().failed(Code::DeadlineExceeded, "the deadline passed"))
    }
}

impl Source for ReplySource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.poll_pump(cx);
        // The reply of the peer takes precedence over a failure to send.
        if let Poll::Ready(next) = pin!(self.next()).poll(cx) {
            return Poll::Ready(next);
        }
        if self.last.is_some() {
            return self.poll_fin(cx);
        }
        if let Some(status) = self.pump_failure.take() {
            return Poll::Ready(Next::Failed(status));
        }
        self.poll_deadline(cx).map(Next::Failed)
    }

    fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        self.poll_pump(cx);
        // Nothing after STATUS changes the result.
        if self.last.is_some() {
            return Poll::Pending;
        }
        // Where a reader may stall, the end of the other side is reported without it.
        match self.stall_policy {
            StallPolicy::Reset => Poll::Pending,
            StallPolicy::Wait(_) => self.poll_link_lost(cx),
        }
    }
}
