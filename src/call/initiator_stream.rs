//! The asking half of a streaming call: the request's messages on their way out, the reply's on
//! their way in.
//!
//! The line between `not_executed` and `unknown` lies at the first message: the answering side
//! starts a handler when it has received one, or END, and not before.

use super::{
    batch::{End, Gathered, Gatherer},
    initiator::{
        AskLimits, Progress, begin, broken, end_unseen, expect_end, read_failed, send_request,
        too_slow, unavailable,
    },
    message::{Reply, Request},
    messages::{Body, Messages, Next, Source},
    steady::{Pace, Stall, Steady, write_at},
};
use crate::{
    limits::REPLY_FIN_WAIT_MAX,
    link::{FrameReader, FrameSender, Link, LinkFault, SendFault},
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

/// Whether something was handed over on which a handler may have started.
#[derive(Debug, Clone, Default)]
struct Handed(Arc<AtomicBool>);

impl Handed {
    fn progress(&self) -> Progress {
        if self.0.load(Ordering::Acquire) { Progress::AfterEnd } else { Progress::BeforeEnd }
    }

    fn over(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Asks over a link. Gives the reply when its first frame has come; dropping it or its stream
/// cancels the call.
pub(super) async fn ask_stream(
    link: &Link,
    request: &mut Request,
    limits: AskLimits,
    name_caller: Option<&PeerName>,
    memory: Option<MemoryAccount>,
) -> Result<Reply, Status> {
    let mut stream = begin(link, request, limits).await?;
    // Pieces of a connection are few and small, and a refusal would cut it.
    if let Some(memory) = memory.filter(|_| request.meta.kind != CallKind::Tcp) {
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
    let handed = Handed::default();
    let pace = Pace::of(request.meta.kind, limits.stream_idle_max);
    let mut sender = stream.sender;
    let pump: Option<Pump> = match std::mem::take(&mut request.body) {
        Body::Messages(messages) if is_sent => {
            let bytes_max = request.meta.kind.message_bytes_max(limits.request_bytes_max(link));
            let gatherer = Gatherer::new(messages, bytes_max);
            Some(Box::pin(pump(sender, gatherer, handed.clone(), pace)))
        }
        Body::Messages(_) => None,
        Body::Message(message) => {
            // Still here for another attempt.
            request.body = Body::Message(message);
            if is_sent {
                handed.over();
                sender.finish();
            }
            None
        }
    };
    let mut replies = Replies {
        link: link.clone(),
        reader: stream.reader,
        pump,
        handed,
        steady: Steady::default(),
        pace,
        cut_off: None,
        is_stopped: false,
        deadline: Box::pin(tokio::time::sleep_until(request.meta.deadline)),
        patience: limits.patience,
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

/// The reply of a call that answers with one message.
async fn one(mut replies: Replies) -> Result<Reply, Status> {
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

/// Why the request's messages stopped flowing.
enum Stopped {
    /// The peer wants no more; its reply says why.
    ByPeer,
    /// The peer takes them too slowly.
    Slow,
    /// The link is gone.
    Lost(LinkFault),
    /// They broke off where they come from.
    Source(Status),
}

impl From<Stall<SendFault>> for Stopped {
    fn from(stall: Stall<SendFault>) -> Self {
        match stall {
            Stall::Slow => Self::Slow,
            Stall::Fault(SendFault::Stopped) => Self::ByPeer,
            Stall::Fault(SendFault::Lost(fault)) => Self::Lost(fault),
        }
    }
}

/// The request's messages on their way out.
type Pump = Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send>>;

/// Sends the messages of a request and then END. Dropped or failed before that, it breaks the
/// request off.
async fn pump(
    mut sender: FrameSender,
    mut gatherer: Gatherer,
    handed: Handed,
    pace: Pace,
) -> Result<(), Stopped> {
    let mut stopped = pin!(sender.stopped());
    loop {
        // The first frame goes alone: whether it was handed over whole decides the outcome.
        let is_first = handed.progress() == Progress::BeforeEnd;
        let gathered = tokio::select! {
            biased;
            gathered = gatherer.gather(Batch::default(), is_first) => gathered,
            // The others learn it with their next message, or from the reply.
            () = stopped.as_mut(), if pace != Pace::Steady => return Err(Stopped::ByPeer),
        };
        let Gathered { mut batch, end } = gathered;
        let is_last = matches!(end, Some(End::Whole(_)));
        if is_last {
            batch.push_end();
        }
        if !batch.is_empty() {
            write_at(pace, &mut sender, &mut batch.into_chunks()).await?;
            handed.over();
        }
        match end {
            Some(End::Whole(_)) => {
                sender.finish();
                return Ok(());
            }
            Some(End::Failed(status)) => return Err(Stopped::Source(status)),
            None => {}
        }
    }
}

/// The replies of a streaming call as they come. Whoever takes them also drives the request's
/// messages.
struct Replies {
    link: Link,
    reader: FrameReader,
    pump: Option<Pump>,
    handed: Handed,
    steady: Steady,
    pace: Pace,
    /// Ends with the link; made by the first who waits for something else on account of the
    /// replies.
    cut_off: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The peer has stopped the request before its end.
    is_stopped: bool,
    deadline: Pin<Box<Sleep>>,
    /// How long past the deadline the first frame of the reply is waited for; zero once that was
    /// done.
    patience: Duration,
    /// Whether a head would come too late.
    is_started: bool,
    /// What the STATUS said, until the end of the stream has come too.
    last: Option<Next>,
    /// Why the request's messages stopped, until it was told.
    pump_failure: Option<Status>,
}

impl Replies {
    /// How far the request got, as far as the peer has not said that it never took the stream.
    fn progress(&self) -> Progress {
        self.handed.progress().judged(&self.link, self.reader.stream_id())
    }

    /// Lets the request's messages go on, and notes a failure if they cannot.
    fn poll_pump(&mut self, cx: &mut Context<'_>) {
        let Some(pump) = &mut self.pump else { return };
        let Poll::Ready(ended) = pump.as_mut().poll(cx) else { return };
        self.pump = None;
        let progress = self.progress();
        self.is_stopped = matches!(ended, Err(Stopped::ByPeer));
        self.pump_failure = match ended {
            Ok(()) | Err(Stopped::ByPeer) => None,
            Err(Stopped::Slow) => {
                self.reader.set_code_on_drop(StreamCode::Slow);
                Some(too_slow(progress))
            }
            Err(Stopped::Lost(fault)) => Some(unavailable(&self.link, progress, fault)),
            Err(Stopped::Source(status)) => Some(progress.failed(status.code(), status.message())),
        };
    }

    /// What comes next. Nothing is lost when it is dropped and called again.
    async fn next(&mut self) -> Next {
        if let Some(next) = self.frame().await {
            return next;
        }
        let progress = self.progress();
        let ended = expect_end(&mut self.reader, progress).await;
        self.concluded(ended)
    }

    /// What STATUS said, once nothing follows it.
    fn concluded(&mut self, ended: Result<(), Status>) -> Next {
        match ended {
            Ok(()) => self.last.take().unwrap_or_else(|| self.broken("the reply has no STATUS")),
            Err(status) => Next::Failed(status),
        }
    }

    /// STATUS has come: its FIN is waited for a moment, and not beyond the deadline.
    fn wait_for_fin(&mut self) {
        let until = self.deadline.deadline().min(Instant::now() + REPLY_FIN_WAIT_MAX);
        self.deadline.as_mut().reset(until);
    }

    /// Ready when that moment is over. The clock is read too: the timer of somebody else may have
    /// woken this task for the same moment.
    fn poll_fin(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if Instant::now() < self.deadline.deadline() {
            std::task::ready!(self.deadline.as_mut().poll(cx));
        }
        let ended = end_unseen(&self.reader, self.progress());
        Poll::Ready(self.concluded(ended))
    }

    /// The next frame's meaning; `None` once STATUS has come.
    async fn frame(&mut self) -> Option<Next> {
        if self.last.is_some() {
            return None;
        }
        Some(match self.steady.next(&mut self.reader).await {
            Ok(Some((Kind::Message, payload))) => {
                self.is_started = true;
                Next::Message(payload)
            }
            Ok(Some((kind, payload))) => match self.words(kind, &payload) {
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

    /// What a frame of words means; `None` for STATUS, which is noted.
    fn words(&mut self, kind: Kind, payload: &[u8]) -> Result<Option<Next>, Status> {
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

    /// Ready when no more replies will come than those that have come.
    fn poll_cut_off(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let link = self.link.clone();
        let cut_off =
            self.cut_off.get_or_insert_with(|| Box::pin(async move { link.closed().await }));
        if cut_off.as_mut().poll(cx).is_ready() {
            let fault = LinkFault::Broken("it was closed".into());
            return Poll::Ready(unavailable(&self.link, self.progress(), fault));
        }
        if self.is_stopped {
            let text = "the other side broke the connection off";
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
        let patience = std::mem::take(&mut self.patience);
        let may_run = self.handed.progress() == Progress::AfterEnd;
        if may_run && !self.is_started && !patience.is_zero() {
            // The answering side knows whether a handler ran: its STATUS says more than the line
            // does.
            self.deadline.as_mut().reset(over_at + patience);
            return self.poll_deadline(cx);
        }
        self.reader.set_code_on_drop(StreamCode::Deadline);
        Poll::Ready(self.progress().failed(Code::DeadlineExceeded, "the deadline passed"))
    }
}

impl Source for Replies {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.poll_pump(cx);
        // What the peer has said counts more than what could not be sent.
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

    fn poll_beside(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        self.poll_pump(cx);
        // Nothing that comes after STATUS changes it.
        if self.last.is_some() {
            return Poll::Pending;
        }
        // Where a reader may stand still, the end of the other side must not wait for it.
        match self.pace {
            Pace::Steady => Poll::Pending,
            Pace::Still(_) => self.poll_cut_off(cx),
        }
    }
}
