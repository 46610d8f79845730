//! The answering half of a call: read the head, arm deadline and cancellation, write the reply.

use super::{
    batch::{End, Gathered, Gatherer, metadata_too_large},
    head::Head,
    message::Reply,
    messages::{Body, beside},
    request_body::{AskerFault, Moves, Pending, RequestFault, read_failed},
    steady::{Pace, Stall, write_at, write_steadily},
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
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::time::Instant;

/// Who receives calls: judges the head, admits, reads the body and starts the handler.
pub(crate) trait CallAcceptor: Send + Sync + 'static {
    /// Takes one call. A status that it returns travels as it is.
    fn receive(
        &self,
        head: Box<Head>,
        pending: Pending<'_>,
    ) -> impl Future<Output = Result<Reply, Status>> + Send;

    /// How the call is to be written down when it has ended, if it is. Asked before it is received.
    fn note(&self, head: &mut Head, began: Instant) -> Option<Box<CallRecord>> {
        let _ = (head, began);
        None
    }

    /// Hears that the asking side broke a call off that began then and had time until then.
    fn broken_off(&self, began: Instant, deadline: Instant) {
        let _ = (began, deadline);
    }

    /// Hears that this side broke a call off because of what the asking side sent.
    fn misbehaved(&self) {}

    /// How much longer than its deadline a call that may run is waited for: where this side only
    /// passes it on, the answer of the other side says more than its own clock.
    fn patience(&self, head: &Head) -> Duration {
        let _ = head;
        Duration::ZERO
    }

    /// Whether somebody waits for the calls in flight in order to close their link.
    fn is_leaving(&self) -> bool;
}

/// Answers one call on its stream. Ends when the reply was handed over or the call was broken off,
/// and with it the handler has ended; for a reception that is leaving, when the reply has arrived.
/// The peer takes messages of so many bytes.
///
/// No async function: what one takes by value it keeps beside its copy for as long as it runs.
pub(crate) fn answer<R: CallAcceptor>(
    stream: CallStream,
    reception: Arc<R>,
    limits: Arc<Limits>,
    peer_message_bytes_max: usize,
) -> impl Future<Output = ()> + Send {
    let CallStream { sender, mut reader } = stream;
    let message_bytes_max = limits.message_bytes_max.min(peer_message_bytes_max);
    reader.set_code_on_drop(StreamCode::Refused);
    // Before the head was judged nobody may make us hold a message.
    reader.allow_messages(0);
    let mut answering = Answering {
        sender,
        reader: Some(reader),
        reception,
        limits,
        moves: Moves::default(),
        asker_fault: OnceLock::new(),
        pace: Pace::Steady,
        message_bytes_max,
        note: None,
    };
    async move { answering.run(Instant::now()).await }
}

/// One call while it is answered.
struct Answering<R> {
    sender: FrameSender,
    /// Taken out by whoever reads a stream of messages.
    reader: Option<FrameReader>,
    reception: Arc<R>,
    limits: Arc<Limits>,
    moves: Moves,
    /// What the asking side did to end its request. Never made of a status: a reply can have any.
    asker_fault: OnceLock<AskerFault>,
    /// What is asked of whoever asks.
    pace: Pace,
    /// The largest message of a reply: the smaller limit of the two sides.
    message_bytes_max: usize,
    /// Where its end is to be written down.
    note: Option<Box<CallRecord>>,
}

impl<R: CallAcceptor> Answering<R> {
    async fn run(&mut self, received_at: Instant) {
        let (result, deadline) = match read_head(self.reader.as_mut(), received_at).await {
            Err(RequestFault { status, requester, .. }) => {
                self.asker_fault = requester.map(OnceLock::from).unwrap_or_default();
                (Err(status), received_at + STALL_WAIT_MAX)
            }
            Ok(mut head) => {
                let (deadline, call_id) = (head.meta.deadline, head.meta.call_id);
                self.message_bytes_max = head.meta.kind.message_bytes_max(self.message_bytes_max);
                self.pace = Pace::of(head.meta.kind, self.limits.stream_idle_max);
                self.note = self.reception.note(&mut head, received_at);
                let received = self.receive(head).await;
                if let (Some(_), Some(reader)) = (&received, &mut self.reader) {
                    reader.stop(StreamCode::Refused);
                }
                match received {
                    Some(Ok(reply)) if matches!(reply.body, Body::Messages(_)) => {
                        self.reader = None;
                        // Boxed: most calls have no stream, and need not carry room for one.
                        Box::pin(self.deliver(reply, deadline)).await;
                        // Leaving a stream that is being answered is how it is ended; breaking the
                        // protocol is not.
                        if self.moves.asker_fault() == Some(AskerFault::Misbehaved) {
                            self.reception.misbehaved();
                        }
                        return arrive(&self.sender, &*self.reception).await;
                    }
                    Some(result) => {
                        if let Err(status) = &result {
                            tracing::debug!("call {call_id} ends: {status}");
                        }
                        (result, deadline)
                    }
                    None => {
                        tracing::debug!("call {call_id} was broken off by whoever asks");
                        self.note_end(Code::Cancelled, Outcome::Unknown, None);
                        self.reception.broken_off(received_at, deadline);
                        return self.sender.reset(StreamCode::Cancelled);
                    }
                }
            }
        };
        let bytes = result.as_ref().map_or(0, Reply::message_bytes);
        let encoded = result.and_then(|reply| encode(&reply, self.message_bytes_max));
        let failed = encoded.as_ref().err();
        let (code, outcome) =
            failed.map_or((Code::Ok, Outcome::Ok), |status| (status.code(), status.outcome()));
        self.note_end(code, outcome, Some(if failed.is_none() { bytes } else { 0 }));
        match self.asker_fault.get().copied().or_else(|| self.moves.asker_fault()) {
            Some(AskerFault::BrokenOff) => self.reception.broken_off(received_at, deadline),
            Some(AskerFault::Misbehaved) => self.reception.misbehaved(),
            None => {}
        }
        write_result(&mut self.sender, encoded, deadline).await;
        arrive(&self.sender, &*self.reception).await;
    }

    /// Has the reception take the call, with deadline and cancellation armed. `None` if the asking
    /// side has gone.
    async fn receive(&mut self, head: Box<Head>) -> Option<Result<Reply, Status>> {
        let Self { sender, reader, reception, limits, moves, asker_fault, .. } = self;
        let (deadline, kind) = (head.meta.deadline, head.meta.kind);
        let patience = reception.patience(&head);
        if head.meta.priority != 0 {
            sender.set_priority(head.meta.priority.into());
        }
        let complete = AtomicBool::new(false);
        let pending = Pending {
            reader,
            kind,
            limits,
            deadline,
            complete: &complete,
            moves,
            asker_fault,
            memory: None,
        };
        let receive = pin!(reception.receive(head, pending));
        let mut work = pin!(caught(receive));
        // Made when first polled: a handler that answers at once never needs it.
        let stopped = async { Box::pin(sender.stopped()).await };
        let ended = tokio::select! {
            biased;
            ended = async {
                let ended = ready_by(|| deadline, work.as_mut()).await;
                match ended {
                    Err(_elapsed) if complete.load(Ordering::Relaxed) && !patience.is_zero() => {
                        ready_by(|| deadline + patience, work.as_mut()).await
                    }
                    ended => ended,
                }
            } => ended,
            // Its stream was broken off, and nobody reads an answer.
            () = stopped => return None,
        };
        let outcome =
            if complete.load(Ordering::Relaxed) { Outcome::Unknown } else { Outcome::NotExecuted };
        Some(match ended {
            Ok(Ok(result)) => result,
            Ok(Err(Panicked)) => {
                Err(Status::with_outcome(Code::Internal, outcome, "the handler panicked"))
            }
            Err(_elapsed) => {
                Err(Status::with_outcome(Code::DeadlineExceeded, outcome, "the deadline passed"))
            }
        })
    }

    /// Writes a stream of replies as they come, at the pace of whoever reads them. Returns when its
    /// handler has ended.
    async fn deliver(&mut self, reply: Reply, deadline: Instant) {
        let Reply { body: Body::Messages(messages), metadata, .. } = reply else { return };
        let head = (!metadata.is_empty()).then(|| ReplyHead::new(&metadata));
        let batch = match Batch::starting_with(head.as_ref()) {
            Ok(batch) => batch,
            Err(fault) => return write_status(&mut self.sender, &metadata_too_large(&fault)).await,
        };
        let mut gatherer = Gatherer::new(messages, self.message_bytes_max);
        let copied = self.copy(&mut gatherer, batch, deadline).await;
        let bytes_out = Some(gatherer.bytes());
        match copied {
            Ok(()) => {
                self.note_end(Code::Ok, Outcome::Ok, bytes_out);
                self.sender.finish();
            }
            Err(Broken::Told(status)) => {
                drop(gatherer);
                self.note_end(status.code(), status.outcome(), bytes_out);
                write_status(&mut self.sender, &status).await;
            }
            Err(Broken::Reset(code)) => {
                let why = if code == StreamCode::Deadline {
                    Code::DeadlineExceeded
                } else {
                    Code::Cancelled
                };
                self.note_end(why, Outcome::Unknown, bytes_out);
                self.sender.reset(code);
            }
        }
    }

    /// Writes down how the call has ended, where calls are written down.
    fn note_end(&mut self, code: Code, outcome: Outcome, bytes_out: Option<u64>) {
        if let Some(note) = self.note.take() {
            note.ended(code, outcome, [Some(self.moves.bytes_in()), bytes_out]);
        }
    }

    async fn copy(
        &mut self,
        gatherer: &mut Gatherer,
        mut batch: Batch,
        deadline: Instant,
    ) -> Result<(), Broken> {
        let mut stopped = pin!(self.sender.stopped());
        loop {
            let gathered = {
                let mut gather = pin!(gatherer.gather(batch, false));
                tokio::select! {
                    biased;
                    gathered = self.moving(gather.as_mut(), deadline) => gathered?,
                    () = stopped.as_mut() => return Err(Broken::Reset(StreamCode::Cancelled)),
                }
            };
            let Gathered { batch: mut ready, end } = gathered;
            let is_last = matches!(end, Some(End::Whole(_)));
            let told = match end {
                Some(End::Whole(trailing)) => {
                    ready
                        .push_status(&StatusHead::ok(&trailing))
                        .map_err(|fault| Broken::Told(metadata_too_large(&fault)))?;
                    None
                }
                Some(End::Failed(status)) => Some(status),
                None => None,
            };
            if !ready.is_empty() {
                self.write_batch(gatherer, ready, deadline).await?;
            }
            if let Some(status) = told {
                return Err(Broken::Told(status));
            }
            if is_last {
                return Ok(());
            }
            batch = Batch::default();
        }
    }

    /// Waits for something of a stream, by the deadline, and not for ever while nothing moves.
    async fn moving<T>(
        &self,
        mut work: Pin<&mut impl Future<Output = T>>,
        deadline: Instant,
    ) -> Result<T, Broken> {
        loop {
            let moved = self.moves.count();
            let until = || match self.pace {
                Pace::Steady => deadline.min(Instant::now() + self.limits.stream_idle_max),
                // Whoever leads a connection bounds how long it may stand still.
                Pace::Still(_) => deadline,
            };
            match ready_by(until, work.as_mut()).await {
                Ok(output) => {
                    self.moves.add();
                    return Ok(output);
                }
                Err(_elapsed) if Instant::now() >= deadline => {
                    return Err(Broken::told(Code::DeadlineExceeded, "the deadline passed"));
                }
                Err(_elapsed) if self.moves.count() == moved => {
                    let text = format!(
                        "nothing was sent in either direction for {:?} (stream_idle_max)",
                        self.limits.stream_idle_max
                    );
                    return Err(Broken::told(Code::DeadlineExceeded, text));
                }
                Err(_elapsed) => {}
            }
        }
    }

    /// Writes while the handler and the other direction go on.
    async fn write_batch(
        &mut self,
        gatherer: &mut Gatherer,
        batch: Batch,
        deadline: Instant,
    ) -> Result<(), Broken> {
        let mut chunks = batch.into_chunks();
        let write = write_at(self.pace, &mut self.sender, &mut chunks);
        let write = pin!(beside(&mut gatherer.messages, write));
        match ready_by(|| deadline, write).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(Stall::Slow))) => Err(Broken::Reset(StreamCode::Slow)),
            Ok(Ok(Err(Stall::Fault(_gone)))) => Err(Broken::Reset(StreamCode::Cancelled)),
            // Part of a frame may be under way, so that nothing can be said any more.
            Ok(Err(cut_off)) if cut_off.code() == Code::DeadlineExceeded => {
                Err(Broken::Reset(StreamCode::Deadline))
            }
            Ok(Err(_cut_off)) => Err(Broken::Reset(StreamCode::Cancelled)),
            Err(_elapsed) => Err(Broken::Reset(StreamCode::Deadline)),
        }
    }
}

/// Why a stream of replies is not whole.
enum Broken {
    /// The asking side is told.
    Told(Status),
    /// It is not there, or does not read.
    Reset(StreamCode),
}

impl Broken {
    fn told(code: Code, text: impl Into<String>) -> Self {
        Self::Told(Status::unknown(code, text))
    }
}

/// Closing a link throws away what is still on its way. Whoever waits for its calls before it
/// closes must wait for their replies to arrive; at all other times that would be a wake-up a call
/// for nothing.
async fn arrive<R: CallAcceptor>(sender: &FrameSender, reception: &R) {
    if reception.is_leaving() {
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
            return Err(misbehaved(Status::not_executed(
                Code::InvalidArgument,
                "the first frame of a call was not HEAD",
            )));
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

/// The work panicked; the panic itself was printed by the panic hook.
struct Panicked;

/// Runs the work so that its panic ends this call and nothing else.
fn caught<F: Future>(mut work: Pin<&mut F>) -> impl Future<Output = Result<F::Output, Panicked>> {
    std::future::poll_fn(move |cx| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_panic) => Poll::Ready(Err(Panicked)),
        }
    })
}

async fn write_result(
    sender: &mut FrameSender,
    encoded: Result<Chunks, Status>,
    deadline: Instant,
) {
    match encoded {
        Ok(chunks) => write(sender, chunks, deadline).await,
        Err(status) => write_status(sender, &status).await,
    }
}

fn encode(reply: &Reply, message_bytes_max: usize) -> Result<Chunks, Status> {
    let message = reply.message()?;
    let (bytes, max) = (message.len(), message_bytes_max);
    if bytes > max {
        let text = format!(
            "the reply of {bytes} bytes is over the limit of {max} bytes (message_bytes_max)"
        );
        return Err(Status::unknown(Code::Internal, text));
    }
    let head = (!reply.metadata.is_empty()).then(|| ReplyHead::new(&reply.metadata));
    reply_chunks(head.as_ref(), message, &StatusHead::ok(&reply.trailing)).map_err(|fault| {
        Status::unknown(Code::Internal, format!("the metadata of the reply: {fault}"))
    })
}

/// A failure travels even when its deadline has passed: the asking side may be late to notice.
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
