//! Responder of a call: reads the head, arms deadline and cancellation, writes the reply.

use super::{
    batch::{End, Gathered, Gatherer, metadata_too_large},
    body::Body,
    head::Head,
    message::Reply,
    message_timer::MessageTimer,
    messages::with_background,
    panics::log_panic,
    reply_parts::{ReplyStreamError, expect_within, pass_on},
    request_body::PendingRequest,
    request_faults::{InitiatorFault, RequestFault, StreamActivity, read_failed},
    stall::{Stall, StallPolicy, write_at, write_steadily},
};
use crate::{
    lazy_timeout::ready_by,
    limits::{HEAD_WAIT_MAX, Limits, STALL_WAIT_MAX},
    link::{CallStream, FrameReader, FrameSender, ReadFault},
    observe::CallRecord,
    status::{Code, Outcome, Status},
    wire::{
        Batch, Chunks, Kind, ReplyHead, StatusHead, StreamCode, WireError, reply_chunks,
        status_chunk,
    },
};
use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::Poll,
    thread,
    time::Duration,
};
use tokio::time::Instant;

/// Accepts calls: checks the head, authorises, reads the body and starts the handler.
pub(crate) trait CallAcceptor: Send + Sync + 'static {
    /// Handles one call. A status that it returns is sent unchanged.
    fn receive(
        &self,
        head: Box<Head>,
        pending: PendingRequest<'_>,
    ) -> impl Future<Output = Result<Reply, Status>> + Send;

    /// Audit record to complete at the end, if calls are recorded. Called before `receive`.
    fn note(&self, head: &mut Head, began: Instant) -> Option<Box<CallRecord>> {
        let _ = (head, began);
        None
    }

    /// Notes that the initiator reset a call that began at `began` and had time until `deadline`.
    fn was_reset(&self, began: Instant, deadline: Instant) {
        let _ = (began, deadline);
    }

    /// Notes that this side aborted a call because of what the initiator sent.
    fn misbehaved(&self) {}

    /// Time past its deadline to wait for a call that may run: when this side only relays it, the
    /// reply of the other side is more precise than its own clock.
    fn grace(&self, head: &Head) -> Duration {
        let _ = head;
        Duration::ZERO
    }

    /// Returns `true` if the link is closed once its calls in flight have ended.
    fn is_draining(&self) -> bool;
}

/// Answers one call. Completes when the reply was handed to the transport or the call was reset,
/// after its handler has ended; when draining, once the reply has arrived at the peer. Not an async
/// function, which would keep its arguments next to its copies of them.
pub(crate) fn answer<R: CallAcceptor>(
    stream: CallStream,
    acceptor: Arc<R>,
    limits: Arc<Limits>,
    peer_message_bytes_max: usize,
) -> impl Future<Output = ()> + Send {
    let CallStream { sender, mut reader } = stream;
    let message_bytes_max = limits.message_bytes_max.min(peer_message_bytes_max);
    reader.set_code_on_drop(StreamCode::Refused);
    // No message is buffered before the head was checked.
    reader.allow_messages(0);
    let mut responder = Responder {
        sender,
        reader: Some(reader),
        acceptor,
        limits,
        activity: StreamActivity::default(),
        initiator_fault: OnceLock::new(),
        stall_policy: StallPolicy::Reset,
        message_bytes_max,
        note: None,
    };
    async move { responder.run(Instant::now()).await }
}

/// State of one call.
struct Responder<R> {
    sender: FrameSender,
    /// Taken by the source of a stream of messages.
    reader: Option<FrameReader>,
    acceptor: Arc<R>,
    limits: Arc<Limits>,
    activity: StreamActivity,
    /// Fault of the initiator that ended the request.
    initiator_fault: OnceLock<InitiatorFault>,
    stall_policy: StallPolicy,
    /// Maximum size of a reply message: the smaller limit of the two sides.
    message_bytes_max: usize,
    note: Option<Box<CallRecord>>,
}

impl<R: CallAcceptor> Responder<R> {
    async fn run(&mut self, received_at: Instant) {
        let (result, deadline) = match read_head(self.reader.as_mut(), received_at).await {
            Err(RequestFault { status, requester, .. }) => {
                self.initiator_fault = requester.map(OnceLock::from).unwrap_or_default();
                (Err(status), received_at + STALL_WAIT_MAX)
            }
            Ok(mut head) => {
                let (deadline, call_id) = (head.meta.deadline, head.meta.call_id);
                self.message_bytes_max = head.meta.kind.message_bytes_max(self.message_bytes_max);
                self.stall_policy = StallPolicy::of(head.meta.kind, self.limits.stream_idle_max);
                self.note = self.acceptor.note(&mut head, received_at);
                let received = self.receive(head).await;
                if let (Some(_), Some(reader)) = (&received, &mut self.reader) {
                    reader.stop(StreamCode::Refused);
                }
                match received {
                    Some(Ok(reply)) if matches!(reply.body, Body::Parts(_)) => {
                        // Boxed: few replies are this large.
                        Box::pin(self.pass_on(reply, deadline)).await;
                        return arrive(&self.sender, &*self.acceptor).await;
                    }
                    Some(Ok(reply)) if matches!(reply.body, Body::Messages(_)) => {
                        self.reader = None;
                        // Boxed: most calls have no stream, and do not carry its size.
                        Box::pin(self.deliver(reply, deadline)).await;
                        // An initiator may end a stream of replies by a reset, not by a violation.
                        if self.activity.initiator_fault() == Some(InitiatorFault::Misbehaved) {
                            self.acceptor.misbehaved();
                        }
                        return arrive(&self.sender, &*self.acceptor).await;
                    }
                    Some(result) => (result, deadline),
                    None => {
                        tracing::debug!("call {call_id} was reset by its initiator");
                        self.note_end(
                            (Code::Cancelled, Outcome::Unknown),
                            "it was cancelled",
                            None,
                        );
                        self.acceptor.was_reset(received_at, deadline);
                        return self.sender.reset(StreamCode::Cancelled);
                    }
                }
            }
        };
        let encoded = result.and_then(|reply| encode(&reply, self.message_bytes_max));
        match &encoded {
            Ok((_, bytes)) => self.note_end((Code::Ok, Outcome::Ok), "", Some(*bytes as u64)),
            Err(status) => {
                self.note_end((status.code(), status.outcome()), status.message(), Some(0));
            }
        }
        match self.initiator_fault.get().copied().or_else(|| self.activity.initiator_fault()) {
            Some(InitiatorFault::Reset) => self.acceptor.was_reset(received_at, deadline),
            Some(InitiatorFault::Misbehaved) => self.acceptor.misbehaved(),
            None => {}
        }
        match encoded {
            Ok((chunks, _)) => {
                self.sender.begin_message(chunks.bytes_left());
                write(&mut self.sender, chunks, deadline).await;
            }
            Err(status) => write_status(&mut self.sender, &status).await,
        }
        arrive(&self.sender, &*self.acceptor).await;
    }

    /// Runs the acceptor with deadline and cancellation armed. `None` if the call was reset.
    async fn receive(&mut self, head: Box<Head>) -> Option<Result<Reply, Status>> {
        let Self { sender, reader, acceptor, limits, activity, initiator_fault, .. } = self;
        let (deadline, kind) = (head.meta.deadline, head.meta.kind);
        let (call_id, method) = (head.meta.call_id, head.meta.method.clone());
        let grace = acceptor.grace(&head);
        if head.meta.priority != 0 {
            sender.set_priority(head.meta.priority);
        }
        let pending = PendingRequest {
            reader,
            kind,
            limits,
            deadline,
            activity,
            initiator_fault,
            memory: None,
            is_passed_on: false,
        };
        let receive = pin!(acceptor.receive(head, pending));
        let mut work = pin!(caught(receive));
        // Created at the first poll: a handler that answers at once does not need it.
        let stopped = async { Box::pin(sender.stopped()).await };
        let ended = tokio::select! {
            biased;
            ended = async {
                let ended = ready_by(|| deadline, work.as_mut()).await;
                match ended {
                    Err(_elapsed) if activity.is_complete() && !grace.is_zero() => {
                        ready_by(|| deadline + grace, work.as_mut()).await
                    }
                    ended => ended,
                }
            } => ended,
            // The stream was stopped: the reply would not be read.
            () = stopped => return None,
        };
        let outcome = if activity.is_complete() { Outcome::Unknown } else { Outcome::NotExecuted };
        Some(match ended {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                log_panic(&*panic, call_id, &method);
                Err(Status::with_outcome(Code::Internal, outcome, "the handler panicked"))
            }
            Err(_elapsed) => {
                Err(Status::with_outcome(Code::DeadlineExceeded, outcome, "the deadline passed"))
            }
        })
    }

    /// Writes a stream of replies, as fast as they are read. Returns when the handler has ended.
    async fn deliver(&mut self, reply: Reply, deadline: Instant) {
        let Reply { body: Body::Messages(messages), metadata, .. } = reply else { return };
        let head = (!metadata.is_empty()).then(|| ReplyHead::new(&metadata));
        let batch = match Batch::starting_with(head.as_ref()) {
            Ok(batch) => batch,
            Err(fault) => return write_status(&mut self.sender, &metadata_too_large(&fault)).await,
        };
        let mut gatherer = Gatherer::new(messages, self.message_bytes_max);
        let copied = self.copy(&mut gatherer, batch, deadline).await;
        let bytes_out = gatherer.bytes();
        drop(gatherer);
        self.conclude(copied, bytes_out).await;
    }

    /// Writes a reply of one message while it comes.
    async fn pass_on(&mut self, mut reply: Reply, deadline: Instant) {
        let passed = pass_on(&mut self.sender, &mut reply, self.message_bytes_max, deadline).await;
        let bytes_out = if passed.is_ok() { reply.body.message_bytes() as u64 } else { 0 };
        drop(reply);
        self.conclude(passed, bytes_out).await;
    }

    /// Ends a reply that was written as it came.
    async fn conclude(&mut self, written: Result<(), ReplyStreamError>, bytes_out: u64) {
        let bytes_out = Some(bytes_out);
        match written {
            Ok(()) => {
                self.note_end((Code::Ok, Outcome::Ok), "", bytes_out);
                self.sender.finish();
            }
            Err(ReplyStreamError::Report(status)) => {
                self.note_end((status.code(), status.outcome()), status.message(), bytes_out);
                write_status(&mut self.sender, &status).await;
            }
            Err(ReplyStreamError::Broken(status)) => {
                self.note_end((status.code(), Outcome::Unknown), status.message(), bytes_out);
                self.sender.reset(match status.code() {
                    Code::DeadlineExceeded => StreamCode::Deadline,
                    Code::Unavailable => StreamCode::Lost,
                    _ => StreamCode::Internal,
                });
            }
            Err(ReplyStreamError::Reset(code)) => {
                let (why, reason) = match code {
                    StreamCode::Deadline => (Code::DeadlineExceeded, "its deadline passed"),
                    _ => (Code::Cancelled, "it was cancelled"),
                };
                self.note_end((why, Outcome::Unknown), reason, bytes_out);
                self.sender.reset(code);
            }
        }
    }

    fn note_end(&mut self, result: (Code, Outcome), reason: &str, bytes_out: Option<u64>) {
        if let Some(note) = self.note.take() {
            note.ended(result, reason, [Some(self.activity.bytes_in()), bytes_out]);
        }
    }

    async fn copy(
        &mut self,
        gatherer: &mut Gatherer,
        mut batch: Batch,
        deadline: Instant,
    ) -> Result<(), ReplyStreamError> {
        let mut stopped = pin!(self.sender.stopped());
        let mut timer = MessageTimer::new(deadline, self.stall_policy, self.limits.stream_idle_max);
        loop {
            let gathered = {
                let gather = pin!(gatherer.gather(batch, false));
                tokio::select! {
                    biased;
                    gathered = timer.wait(&self.activity, gather) => gathered?,
                    () = stopped.as_mut() => return Err(ReplyStreamError::Reset(StreamCode::Cancelled)),
                }
            };
            let Gathered { batch: mut ready, end } = gathered;
            if let Some(End::Complete(trailing)) = &end {
                ready
                    .push_status(&StatusHead::ok(trailing))
                    .map_err(|fault| ReplyStreamError::Report(metadata_too_large(&fault)))?;
            }
            if !ready.is_empty() {
                self.write_batch(gatherer, ready, deadline).await?;
            }
            match end {
                Some(End::Complete(_)) => return Ok(()),
                Some(End::Failed(status)) => return Err(ReplyStreamError::Report(status)),
                None => batch = Batch::default(),
            }
        }
    }

    /// Writes while the handler and the other direction continue.
    async fn write_batch(
        &mut self,
        gatherer: &mut Gatherer,
        batch: Batch,
        deadline: Instant,
    ) -> Result<(), ReplyStreamError> {
        let mut chunks = batch.into_chunks();
        let write = write_at(self.stall_policy, &mut self.sender, &mut chunks);
        let write = pin!(with_background(&mut gatherer.messages, write));
        // Part of a frame may be sent, so a status cannot follow.
        Err(ReplyStreamError::Reset(match ready_by(|| deadline, write).await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(Stall::Slow))) => StreamCode::Slow,
            Ok(Err(failure)) if failure.code() == Code::DeadlineExceeded => StreamCode::Deadline,
            Ok(Ok(Err(Stall::Fault(_))) | Err(_)) => StreamCode::Cancelled,
            Err(_elapsed) => StreamCode::Deadline,
        }))
    }
}

/// Waits until the reply has arrived, if the acceptor is draining: closing a link discards data in
/// flight. Otherwise it would cost a wake-up per call for nothing.
async fn arrive<R: CallAcceptor>(sender: &FrameSender, acceptor: &R) {
    if acceptor.is_draining() {
        drop(tokio::time::timeout(STALL_WAIT_MAX, sender.delivered()).await);
    }
}

async fn read_head(
    reader: Option<&mut FrameReader>,
    received_at: Instant,
) -> Result<Box<Head>, RequestFault> {
    let misbehaved = |status| RequestFault::misbehaved(status, StreamCode::Malformed);
    let reader = reader.ok_or_else(|| {
        let text = "the head was read before";
        RequestFault::nobodys(Status::not_executed(Code::Internal, text))
    })?;
    let read = ready_by(|| received_at + HEAD_WAIT_MAX, pin!(reader.next())).await;
    let frame = match read {
        Ok(Ok(Some(frame))) if frame.kind == Kind::Head => frame,
        Ok(Ok(_)) | Ok(Err(ReadFault::Wire(WireError::TooLarge { kind: "Message", .. }))) => {
            return Err(RequestFault::malformed("the first frame of a call was not HEAD"));
        }
        Ok(Err(fault)) => return Err(read_failed(fault)),
        Err(_elapsed) => {
            reader.stop(StreamCode::Slow);
            return Err(misbehaved(Status::not_executed(
                Code::ResourceExhausted,
                "the head of the call did not come in time",
            )));
        }
    };
    Head::decode(&frame.payload, received_at).map_err(misbehaved)
}

/// Runs the work, so that a panic ends this call only.
fn caught<F: Future>(mut work: Pin<&mut F>) -> impl Future<Output = thread::Result<F::Output>> {
    std::future::poll_fn(move |cx| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
}

/// Frames of a reply of one message, and the size of the message.
fn encode(reply: &Reply, message_bytes_max: usize) -> Result<(Chunks, usize), Status> {
    let message = reply.message()?;
    let bytes = message.len();
    expect_within(bytes, message_bytes_max)?;
    let head = (!reply.metadata.is_empty()).then(|| ReplyHead::new(&reply.metadata));
    reply_chunks(head.as_ref(), message, &StatusHead::ok(&reply.trailing))
        .map(|chunks| (chunks, bytes))
        .map_err(|fault| metadata_too_large(&fault))
}

/// Sends a failure, even after the deadline: the initiator may notice the deadline later.
async fn write_status(sender: &mut FrameSender, status: &Status) {
    match status_chunk(&StatusHead::failed(status)) {
        Ok(chunks) => write(sender, chunks, Instant::now() + STALL_WAIT_MAX).await,
        Err(_too_large) => sender.reset(StreamCode::Internal),
    }
}

async fn write(sender: &mut FrameSender, mut chunks: Chunks, until: Instant) {
    let written = ready_by(|| until, pin!(write_steadily(sender, &mut chunks))).await;
    match written {
        Ok(Ok(())) => sender.finish(),
        Ok(Err(Stall::Slow)) => sender.reset(StreamCode::Slow),
        Ok(Err(Stall::Fault(_gone))) => sender.reset(StreamCode::Cancelled),
        Err(_elapsed) => sender.reset(StreamCode::Deadline),
    }
}
