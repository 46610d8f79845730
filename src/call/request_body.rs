//! What comes after a request's head: one message, or a stream of them, read when the call was
//! admitted.

use super::{
    head::malformed,
    messages::{Body, Messages, Next, Source},
    steady::{Stall, Steady, read_steadily},
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

/// Counts what moves in a streaming call, so that one in which nothing does can be ended, and what
/// has come in messages.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Made by the first who counts: most calls have no stream.
    stream: OnceLock<Arc<Counts>>,
    /// Of the one message of a request that has one.
    only_bytes: AtomicU64,
}

/// What whoever reads a stream counts.
#[derive(Debug, Default)]
struct Counts {
    moves: AtomicU64,
    bytes_in: AtomicU64,
    /// What the asking side did while the handler ran.
    asker_fault: OnceLock<AskerFault>,
}

impl Counts {
    fn add_message(&self, message: &Bytes) {
        self.bytes_in.fetch_add(message.len() as u64, Ordering::Relaxed);
    }
}

impl Moves {
    fn counts(&self) -> &Arc<Counts> {
        self.stream.get_or_init(Arc::default)
    }

    /// One more.
    pub(super) fn add(&self) {
        self.counts().moves.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    pub(super) fn count(&self) -> u64 {
        self.counts().moves.load(Ordering::Relaxed)
    }

    /// What has come in messages so far.
    pub(super) fn bytes_in(&self) -> u64 {
        let of_stream =
            self.stream.get().map_or(0, |counts| counts.bytes_in.load(Ordering::Relaxed));
        self.only_bytes.load(Ordering::Relaxed) + of_stream
    }

    /// What the asking side did to end a stream of messages that a handler was reading.
    pub(super) fn asker_fault(&self) -> Option<AskerFault> {
        self.stream.get()?.asker_fault.get().copied()
    }
}

/// What the asking side did that ended its request. Made only where a request is read: no status
/// that a reply can carry is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AskerFault {
    /// It reset the stream.
    BrokenOff,
    /// It sent what is not the protocol, too much, or too slowly, so that this side broke the call
    /// off.
    Misbehaved,
}

/// Why a request could not be read.
#[derive(Debug)]
pub(super) struct RequestFault {
    pub(super) status: Status,
    /// Set if the asking side is at fault.
    pub(super) requester: Option<AskerFault>,
    /// With which code the asking side is stopped. Not made of the status: a slow and a large
    /// request have the same one.
    pub(super) stop: StreamCode,
}

impl RequestFault {
    pub(super) const fn misbehaved(status: Status, stop: StreamCode) -> Self {
        Self { status, requester: Some(AskerFault::Misbehaved), stop }
    }

    /// Nothing is wrong with what came: for example, the time is over.
    pub(super) const fn nobodys(status: Status) -> Self {
        Self { status, requester: None, stop: StreamCode::Refused }
    }

    /// What counts against the asking side. A bound of the call's own is not told to it, so that it
    /// may go over it in good faith.
    fn counted(&self, has_own_bound: bool) -> Option<AskerFault> {
        let is_own_bound = has_own_bound && self.stop == StreamCode::TooLarge;
        self.requester.filter(|_| !is_own_bound)
    }
}

/// The rest of a request, to be read once the call was admitted.
pub(crate) struct Pending<'a> {
    /// Taken out by whoever reads a stream of messages.
    pub(super) reader: &'a mut Option<FrameReader>,
    pub(super) kind: CallKind,
    pub(super) limits: &'a Limits,
    /// After this nobody waits for an answer.
    pub(super) deadline: Instant,
    /// Set when a handler may run from now on.
    pub(super) complete: &'a AtomicBool,
    pub(super) moves: &'a Moves,
    /// Set when the asking side ended its request.
    pub(super) asker_fault: &'a OnceLock<AskerFault>,
    /// Where its messages are counted.
    pub(super) memory: Option<MemoryAccount>,
}

impl Pending<'_> {
    /// Counts the messages of the request as this caller's.
    pub(crate) fn counted_in(self, memory: MemoryAccount) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// What the request carries: its one message, once END and the end of the stream were received;
    /// for a stream of messages, as soon as the first of them or their end is here. To be asked for
    /// last: what it gives is for a handler that starts now.
    ///
    /// `message_bytes_max` is a bound of this call's own, under the side's.
    ///
    /// # Errors
    /// Everything that is not what the kind of the call says, and a deadline that has passed: not
    /// executed.
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
            // A place is held meanwhile: who opens streams and says nothing holds none for the day
            // that a stream may take.
            let idle_max = self.limits.stream_idle_max;
            // Boxed: most calls have no stream, and need not carry room for one.
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
                self.asker_fault.get_or_init(|| requester);
            }
            fault.status
        })?;
        // The last look at the clock before the handler: a slow body or a queue may have used up
        // the time.
        if Instant::now() >= self.deadline {
            let text = "the deadline passed before the handler was started";
            return Err(Status::not_executed(Code::DeadlineExceeded, text));
        }
        self.complete.store(true, Ordering::Relaxed);
        Ok(match next {
            Next::Message(message) if !self.kind.streams_requests() => {
                self.moves.only_bytes.store(message.len() as u64, Ordering::Relaxed);
                Body::Message(message)
            }
            next => Body::Messages(match self.reader.take() {
                Some(mut reader) => {
                    // The handler starts: what it leaves unread was not refused.
                    reader.set_code_on_drop(StreamCode::Cancelled);
                    let counts = self.moves.counts().clone();
                    if let Next::Message(message) = &next {
                        counts.add_message(message);
                    }
                    let steady = Steady::default();
                    let has_own_bound = bytes_max < side_max;
                    let has_ended = false;
                    Messages::new(Requests { reader, steady, counts, has_own_bound, has_ended })
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

fn invalid<T>(text: &str) -> Result<T, RequestFault> {
    let status = Status::not_executed(Code::InvalidArgument, text);
    Err(RequestFault::misbehaved(status, StreamCode::Malformed))
}

async fn only_message(reader: &mut FrameReader) -> Result<Bytes, RequestFault> {
    let mut message = None;
    loop {
        match (next_frame(reader).await?, message.is_some()) {
            (Some((Kind::Message, payload)), false) => message = Some(payload),
            (Some((Kind::Message, _)), true) => {
                return invalid("the request has more than one message, and its kind of call one");
            }
            (Some((Kind::End, _)), _) => break,
            (Some(_), _) => return invalid("a frame out of place in a request"),
            (None, _) => return invalid("the request ended without END"),
        }
    }
    expect_end(next_frame(reader).await?)?;
    message.map_or_else(|| invalid("the request has no message"), Ok)
}

fn expect_end(frame: Option<(Kind, Bytes)>) -> Result<(), RequestFault> {
    if frame.is_some() { invalid("the request goes on after END") } else { Ok(()) }
}

/// The first message of a stream, or its end: before either no handler starts.
async fn first(reader: &mut FrameReader) -> Result<Next, RequestFault> {
    let frame = reader.next().await.map_err(read_failed)?;
    match frame.map(|frame| (frame.kind, frame.payload)) {
        Some((Kind::Message, payload)) => Ok(Next::Message(payload)),
        Some((Kind::End, _)) => {
            expect_end(next_frame(reader).await?)?;
            Ok(Next::End(Metadata::default()))
        }
        Some(_) => invalid("a frame out of place in a request"),
        None => invalid("the request ended without END"),
    }
}

/// The next frame of a request, or why there is none.
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
        ReadFault::Cut => {
            let text = "the request ended inside a frame";
            let status = Status::not_executed(Code::InvalidArgument, text);
            RequestFault::misbehaved(status, StreamCode::Malformed)
        }
        ReadFault::Reset(_) => RequestFault {
            status: Status::not_executed(Code::Cancelled, "the asking side broke the request off"),
            requester: Some(AskerFault::BrokenOff),
            stop: StreamCode::Cancelled,
        },
        ReadFault::Lost(fault) => {
            RequestFault::nobodys(Status::not_executed(Code::Unavailable, fault.to_string()))
        }
    }
}

/// The messages of a request as they come. Its handler runs: a failure here is unknown.
struct Requests {
    reader: FrameReader,
    steady: Steady,
    counts: Arc<Counts>,
    /// Whether the call has a bound on messages under the side's.
    has_own_bound: bool,
    /// END has come, and the end of the stream has not.
    has_ended: bool,
}

impl Requests {
    /// Nothing is lost when it is dropped and called again.
    async fn next(&mut self) -> Next {
        if self.has_ended {
            return self.end().await;
        }
        let frame = match self.steady.next(&mut self.reader).await {
            Ok(frame) => frame,
            Err(stall) => return self.failed(stall),
        };
        self.counts.moves.fetch_add(1, Ordering::Relaxed);
        match frame {
            Some((Kind::Message, payload)) => {
                self.counts.add_message(&payload);
                Next::Message(payload)
            }
            Some((Kind::End, _)) => {
                self.has_ended = true;
                self.end().await
            }
            Some(_) => self.broken("a frame out of place in a request"),
            None => self.broken("the request ended without END"),
        }
    }

    /// After END only the end of the stream can follow, which is on its way already.
    async fn end(&mut self) -> Next {
        match self.reader.next().await {
            Ok(None) => Next::End(Metadata::default()),
            Ok(Some(_)) => self.broken("the request goes on after END"),
            Err(fault) => self.failed(Stall::Fault(fault)),
        }
    }

    fn broken(&mut self, text: &str) -> Next {
        self.ended_by(RequestFault::misbehaved(
            Status::not_executed(Code::InvalidArgument, text),
            StreamCode::Malformed,
        ))
    }

    fn failed(&mut self, stall: Stall<ReadFault>) -> Next {
        let fault = stalled(stall, &mut self.reader);
        self.ended_by(fault)
    }

    /// The handler runs, so that the outcome is unknown.
    fn ended_by(&mut self, fault: RequestFault) -> Next {
        self.reader.stop(fault.stop);
        if let Some(requester) = fault.counted(self.has_own_bound) {
            self.counts.asker_fault.get_or_init(|| requester);
        }
        Next::Failed(Status::unknown(fault.status.code(), fault.status.message()))
    }
}

impl Source for Requests {
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
        let misbehaved = Some(AskerFault::Misbehaved);
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
        assert_eq!(read_failed(ReadFault::Cut).stop, StreamCode::Malformed);
    }
}
