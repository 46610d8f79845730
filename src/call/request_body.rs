//! Body of a request: one message, or a stream of messages, read after the call was authorised.

use super::{
    body::Body,
    head::malformed,
    messages::{Messages, Next, Source},
    stall::{Stall, StallTimer, read_steadily},
};
use crate::{
    limits::Limits,
    link::{FrameReader, ReadFault},
    memory::MemoryAccount,
    metadata::Metadata,
    status::{Code, Outcome, Status},
    wire::{CallKind, Kind, StreamCode, WireError},
};
use bytes::Bytes;
use std::{
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tokio::time::Instant;

/// Counts frames and bytes of a call, so that a stream without activity can be ended.
#[derive(Debug, Default)]
pub(super) struct StreamActivity {
    /// Created at the first count: most calls have no stream.
    stream: OnceLock<Arc<Counts>>,
    /// Bytes of the message of a unary request.
    only_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    activity: AtomicU64,
    bytes_in: AtomicU64,
    initiator_fault: OnceLock<InitiatorFault>,
}

impl Counts {
    fn add_message(&self, message: &Bytes) {
        self.bytes_in.fetch_add(message.len() as u64, Ordering::Relaxed);
    }
}

impl StreamActivity {
    fn counts(&self) -> &Arc<Counts> {
        self.stream.get_or_init(Arc::default)
    }

    /// Counts one frame.
    pub(super) fn add(&self) {
        self.counts().activity.fetch_add(1, Ordering::Relaxed);
    }

    /// Frames so far.
    pub(super) fn count(&self) -> u64 {
        self.counts().activity.load(Ordering::Relaxed)
    }

    /// Bytes received in messages so far.
    pub(super) fn bytes_in(&self) -> u64 {
        let of_stream =
            self.stream.get().map_or(0, |counts| counts.bytes_in.load(Ordering::Relaxed));
        self.only_bytes.load(Ordering::Relaxed) + of_stream
    }

    /// Fault of the initiator that ended a stream which a handler was reading.
    pub(super) fn initiator_fault(&self) -> Option<InitiatorFault> {
        self.stream.get()?.initiator_fault.get().copied()
    }
}

/// Fault of the initiator that ended its request. Created only where a request is read, never from
/// a status, which a reply can carry too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitiatorFault {
    Reset,
    /// Violated the protocol or a limit, or sent too slowly, so that this side aborted the call.
    Misbehaved,
}

/// Error of reading a request.
#[derive(Debug)]
pub(super) struct RequestFault {
    pub(super) status: Status,
    /// Set if the initiator is at fault.
    pub(super) requester: Option<InitiatorFault>,
    /// Code for STOP_SENDING, not derived from the status: slow and large requests have the same.
    pub(super) stop: StreamCode,
}

impl RequestFault {
    pub(super) const fn misbehaved(status: Status, stop: StreamCode) -> Self {
        Self { status, requester: Some(InitiatorFault::Misbehaved), stop }
    }

    pub(super) fn malformed(text: &str) -> Self {
        let status = Status::not_executed(Code::InvalidArgument, text);
        Self::misbehaved(status, StreamCode::Malformed)
    }

    /// Not a fault of the initiator, such as a deadline.
    pub(super) const fn nobodys(status: Status) -> Self {
        Self { status, requester: None, stop: StreamCode::Refused }
    }

    /// Fault to count against the initiator; not for the method's own limit, which it cannot know.
    fn counted(&self, has_own_bound: bool) -> Option<InitiatorFault> {
        let is_own_bound = has_own_bound && self.stop == StreamCode::TooLarge;
        self.requester.filter(|_| !is_own_bound)
    }
}

/// Body of a request that is not read yet.
pub(crate) struct PendingRequest<'a> {
    pub(super) reader: &'a mut Option<FrameReader>,
    pub(super) kind: CallKind,
    pub(super) limits: &'a Limits,
    pub(super) deadline: Instant,
    /// Set when a handler may start.
    pub(super) complete: &'a AtomicBool,
    pub(super) activity: &'a StreamActivity,
    /// Set when the initiator ended its request.
    pub(super) initiator_fault: &'a OnceLock<InitiatorFault>,
    pub(super) memory: Option<MemoryAccount>,
}

impl PendingRequest<'_> {
    /// Counts the messages of the request in the account of a caller.
    pub(crate) fn counted_in(self, memory: MemoryAccount) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Reads the body: a unary message with END and the end of the stream; of a stream of messages,
    /// the first message or the end. Called last: a handler starts with the result, and never after
    /// a failure. `message_bytes_max` is a lower limit of the method.
    pub(crate) async fn body(self, message_bytes_max: Option<usize>) -> Result<Body, Status> {
        let side_max = self.limits.message_bytes_max;
        let bytes_max = message_bytes_max.map_or(side_max, |max| max.min(side_max));
        let bytes_max = self.kind.message_bytes_max(bytes_max);
        let reader = self.reader.as_mut().ok_or_else(|| gone("the request was read before"))?;
        reader.allow_messages(bytes_max);
        if let Some(memory) = self.memory.filter(|_| self.kind != CallKind::Tcp) {
            reader.count_in(memory);
        }
        let read = if self.kind.streams_requests() {
            // A permit is held meanwhile, which a silent stream must not hold for its lifetime.
            let idle_max = self.limits.stream_idle_max;
            // Boxed: most calls have no stream, and do not carry its size.
            let first = Box::pin(tokio::time::timeout(idle_max, first(reader)));
            first.await.unwrap_or_else(|_elapsed| {
                let text = format!("no message came within {idle_max:?} (stream_idle_max)");
                Err(RequestFault::nobodys(Status::not_executed(Code::DeadlineExceeded, text)))
            })
        } else {
            only_message(reader).await.map(Next::Message)
        };
        let next = read.map_err(|fault| {
            reader.stop(fault.stop);
            if let Some(requester) = fault.counted(bytes_max < side_max) {
                self.initiator_fault.get_or_init(|| requester);
            }
            fault.status
        })?;
        // Last check of the deadline before the handler: a body or queue may have used it up.
        if Instant::now() >= self.deadline {
            let text = "the deadline passed before the handler was started";
            return Err(Status::not_executed(Code::DeadlineExceeded, text));
        }
        self.complete.store(true, Ordering::Relaxed);
        Ok(match next {
            Next::Message(message) if !self.kind.streams_requests() => {
                self.activity.only_bytes.store(message.len() as u64, Ordering::Relaxed);
                Body::Message(message)
            }
            next => Body::Messages(match self.reader.take() {
                Some(mut reader) => {
                    // The handler starts: messages that it leaves unread were not refused.
                    reader.set_code_on_drop(StreamCode::Cancelled);
                    let counts = self.activity.counts().clone();
                    if let Next::Message(message) = &next {
                        counts.add_message(message);
                    }
                    let stall_timer = StallTimer::default();
                    let has_own_bound = bytes_max < side_max;
                    let has_ended = false;
                    Messages::new(RequestSource {
                        reader,
                        stall_timer,
                        counts,
                        has_own_bound,
                        has_ended,
                    })
                    .starting_with(next)
                }
                None => return Err(gone("the request was read before")),
            }),
        })
    }
}

fn gone(text: &str) -> Status {
    Status::not_executed(Code::Internal, text)
}

async fn only_message(reader: &mut FrameReader) -> Result<Bytes, RequestFault> {
    let message = message_or_end(next_frame(reader).await?)?;
    if message.is_some() && message_or_end(next_frame(reader).await?)?.is_some() {
        let text = "the request has more than one message, and its kind of call one";
        return Err(RequestFault::malformed(text));
    }
    expect_end(next_frame(reader).await?)?;
    message.ok_or_else(|| RequestFault::malformed("the request has no message"))
}

/// First message of a stream, or its end: a handler starts with either.
async fn first(reader: &mut FrameReader) -> Result<Next, RequestFault> {
    let frame = reader.next().await.map_err(read_failed)?;
    if let Some(message) = message_or_end(frame.map(|frame| (frame.kind, frame.payload)))? {
        return Ok(Next::Message(message));
    }
    expect_end(next_frame(reader).await?)?;
    Ok(Next::End(Metadata::default()))
}

/// Message of a frame, or `None` for END.
fn message_or_end(frame: Option<(Kind, Bytes)>) -> Result<Option<Bytes>, RequestFault> {
    match frame {
        Some((Kind::Message, payload)) => Ok(Some(payload)),
        Some((Kind::End, _)) => Ok(None),
        Some(_) => Err(RequestFault::malformed("a frame out of place in a request")),
        None => Err(RequestFault::malformed("the request ended without END")),
    }
}

fn expect_end<F>(frame: Option<F>) -> Result<(), RequestFault> {
    match frame {
        Some(_) => Err(RequestFault::malformed("the request continues after END")),
        None => Ok(()),
    }
}

async fn next_frame(reader: &mut FrameReader) -> Result<Option<(Kind, Bytes)>, RequestFault> {
    read_steadily(reader).await.map_err(|stall| stalled(stall, reader))
}

fn stalled(stall: Stall<ReadFault>, reader: &mut FrameReader) -> RequestFault {
    match stall {
        Stall::Fault(fault) => read_failed(fault),
        Stall::Slow => {
            reader.stop(StreamCode::Slow);
            let text = "the request came too slowly (less than 1 KiB/s)";
            let status = Status::not_executed(Code::ResourceExhausted, text);
            RequestFault::misbehaved(status, StreamCode::Slow)
        }
    }
}

pub(super) fn read_failed(fault: ReadFault) -> RequestFault {
    match fault {
        ReadFault::Wire(fault @ WireError::TooLarge { .. }) => {
            RequestFault::misbehaved(malformed(&fault), StreamCode::TooLarge)
        }
        ReadFault::Wire(fault) => {
            RequestFault::misbehaved(malformed(&fault), StreamCode::Malformed)
        }
        ReadFault::Exhausted(why) => RequestFault {
            status: why.into_status(Outcome::NotExecuted),
            requester: None,
            stop: StreamCode::Overloaded,
        },
        ReadFault::Truncated => RequestFault::malformed("the request ended inside a frame"),
        ReadFault::Reset(_) => RequestFault {
            status: Status::not_executed(Code::Cancelled, "the initiator reset the request"),
            requester: Some(InitiatorFault::Reset),
            stop: StreamCode::Cancelled,
        },
        ReadFault::Lost(fault) => {
            RequestFault::nobodys(Status::not_executed(Code::Unavailable, fault.to_string()))
        }
    }
}

/// Source of the messages of a request. Its handler runs, so the outcome of a failure is unknown.
struct RequestSource {
    reader: FrameReader,
    stall_timer: StallTimer,
    counts: Arc<Counts>,
    /// True if the method has a message limit below that of this side.
    has_own_bound: bool,
    /// END has arrived, the end of the stream has not.
    has_ended: bool,
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
            Ok(Some(payload)) => {
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
        self.reader.stop(fault.stop);
        if let Some(requester) = fault.counted(self.has_own_bound) {
            self.counts.initiator_fault.get_or_init(|| requester);
        }
        Next::Failed(Status::unknown(fault.status.code(), fault.status.message()))
    }
}

impl Source for RequestSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        pin!(self.next()).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_over_the_calls_own_bound_is_not_counted_and_a_slow_or_malformed_one_is() {
        let status = || Status::not_executed(Code::ResourceExhausted, "x");
        let misbehaved = Some(InitiatorFault::Misbehaved);
        for (stop, has_own_bound, counted) in [
            (StreamCode::TooLarge, true, None),
            (StreamCode::TooLarge, false, misbehaved),
            // The same status as a request that is too large.
            (StreamCode::Slow, true, misbehaved),
            (StreamCode::Malformed, true, misbehaved),
        ] {
            let fault = RequestFault::misbehaved(status(), stop);
            assert_eq!(fault.counted(has_own_bound), counted, "{stop}, {has_own_bound}");
        }
        assert_eq!(RequestFault::nobodys(status()).counted(false), None);
        let too_large = WireError::TooLarge { kind: "Message", bytes: 2, limit: 1 };
        assert_eq!(read_failed(ReadFault::Wire(too_large)).stop, StreamCode::TooLarge);
        assert_eq!(read_failed(ReadFault::Truncated).stop, StreamCode::Malformed);
    }
}
