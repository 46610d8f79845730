//! Body of a request: one message, or a stream of messages, read after the call was authorised.

use super::{
    body::Body,
    messages::{Messages, Next},
    request_faults::{
        InitiatorFault, RequestFault, StreamActivity, expect_end, message_or_end, read_failed,
        stalled,
    },
    request_source::RequestSource,
    stall::{StallTimer, read_steadily},
};
use crate::{
    limits::Limits,
    link::FrameReader,
    memory::MemoryAccount,
    metadata::Metadata,
    status::{Code, Status},
    wire::{CallKind, Kind, StreamCode},
};
use bytes::Bytes;
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};
use tokio::time::Instant;

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

async fn next_frame(reader: &mut FrameReader) -> Result<Option<(Kind, Bytes)>, RequestFault> {
    read_steadily(reader).await.map_err(|stall| stalled(stall, reader))
}
