//! Body of a request: one message, or a stream of messages, read after the call was authorised.

use super::{
    body::Body,
    messages::{Messages, Next},
    part_source::{PartSource, Rest},
    parts::MessageParts,
    request_faults::{
        InitiatorFault, RequestFault, StreamActivity, expect_end, message_or_end, read_failed,
        stalled,
    },
    request_source::RequestSource,
    stall::{Stall, StallTimer, read_steadily},
};
use crate::{
    limits::Limits,
    link::{Frame, FrameReader, ReadFault},
    memory::MemoryAccount,
    metadata::Metadata,
    status::{Code, Status},
    wire::{CallKind, StreamCode},
};
use std::sync::OnceLock;
use tokio::time::Instant;

/// Body of a request that is not read yet.
pub(crate) struct PendingRequest<'a> {
    pub(super) reader: &'a mut Option<FrameReader>,
    pub(super) kind: CallKind,
    pub(super) limits: &'a Limits,
    pub(super) deadline: Instant,
    pub(super) activity: &'a StreamActivity,
    /// Set when the initiator ended its request.
    pub(super) initiator_fault: &'a OnceLock<InitiatorFault>,
    pub(super) memory: Option<MemoryAccount>,
    pub(super) is_passed_on: bool,
}

impl PendingRequest<'_> {
    /// Counts the messages of the request in the account of a caller.
    pub(crate) fn counted_in(self, memory: MemoryAccount) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Lets a large unary message be a body as soon as its header has come. Its end then stands for
    /// END, the end of the stream and the deadline, which another side must not see earlier.
    pub(crate) fn passed_on(self) -> Self {
        Self { is_passed_on: true, ..self }
    }

    /// Reads the body: a unary message with END and the end of the stream; of a stream of messages,
    /// the first message or the end. Called last: a handler starts with the result, and never after
    /// a failure. `message_bytes_max` is a lower limit of the method.
    pub(crate) async fn body(mut self, message_bytes_max: Option<usize>) -> Result<Body, Status> {
        let side_max = self.limits.message_bytes_max;
        let bytes_max = message_bytes_max.map_or(side_max, |max| max.min(side_max));
        let bytes_max = self.kind.message_bytes_max(bytes_max);
        let reader = self.reader.as_mut().ok_or_else(|| gone("the request was read before"))?;
        reader.allow_messages(bytes_max);
        if let Some(memory) = self.memory.take().filter(|_| !self.kind.is_forward()) {
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
            if self.is_passed_on {
                reader.allow_parts();
            }
            only_message(reader, false).await
        };
        let has_own_bound = bytes_max < side_max;
        let message = read.and_then(|message| {
            expect_in_time(self.deadline)?;
            Ok(message)
        });
        let message =
            message.map_err(|fault| fault.end(reader, self.initiator_fault, has_own_bound))?;
        if let Some(start) = message.as_ref().filter(|message| message.missing > 0) {
            return self.parts(start, has_own_bound);
        }
        match message {
            Some(message) if !self.kind.streams_requests() => {
                self.activity.complete(message.payload.len());
                Ok(Body::Message(message.payload))
            }
            first => {
                self.activity.complete(0);
                self.messages(first, has_own_bound)
            }
        }
    }

    /// The rest of a message as it comes. Its handler starts elsewhere, after its end.
    fn parts(self, start: &Frame, has_own_bound: bool) -> Result<Body, Status> {
        let reader = self.reader.take().ok_or_else(|| gone("the request was read before"))?;
        let bytes = start.payload.len() + start.missing as usize;
        let (counts, deadline) = (self.activity.counts().clone(), self.deadline);
        let then = move |mut reader: FrameReader, parts: Result<(), Stall<ReadFault>>| -> Rest {
            Box::pin(async move {
                let ended = match parts {
                    Ok(()) => only_message(&mut reader, true).await.map(drop),
                    Err(stall) => Err(stalled(stall, &mut reader)),
                };
                match ended.and_then(|()| expect_in_time(deadline)) {
                    Ok(()) => {
                        counts.complete(bytes);
                        Next::End(Metadata::default())
                    }
                    Err(fault) => {
                        let initiator_fault = &counts.initiator_fault;
                        Next::Failed(fault.end(&mut reader, initiator_fault, has_own_bound))
                    }
                }
            })
        };
        let stall_timer = Some(StallTimer::default());
        let source = PartSource::new(start, reader, stall_timer, then);
        Ok(Body::Parts(MessageParts::new(bytes, source)))
    }

    /// The messages of a stream, whose first frame was read.
    fn messages(self, first: Option<Frame>, has_own_bound: bool) -> Result<Body, Status> {
        let mut reader = self.reader.take().ok_or_else(|| gone("the request was read before"))?;
        // The handler starts: messages that it leaves unread were not refused.
        reader.set_code_on_drop(StreamCode::Cancelled);
        let counts = self.activity.counts().clone();
        let next = match first {
            Some(Frame { payload, .. }) => {
                counts.add_message(&payload);
                Next::Message(payload)
            }
            None => Next::End(Metadata::default()),
        };
        let (stall_timer, has_ended) = (StallTimer::default(), false);
        let source = RequestSource { reader, stall_timer, counts, has_own_bound, has_ended };
        Ok(Body::Messages(Messages::new(source).starting_with(next)))
    }
}

fn gone(text: &str) -> Status {
    Status::not_executed(Code::Internal, text)
}

/// Last check of the deadline before the handler: a body or queue may have used it up.
fn expect_in_time(deadline: Instant) -> Result<(), RequestFault> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let text = "the deadline passed before the handler was started";
    Err(RequestFault::nobodys(Status::not_executed(Code::DeadlineExceeded, text)))
}

/// The message of a unary request, after END and the end of the stream; only its start, if it is
/// read in parts. No further one may come if it `has_come`.
async fn only_message(
    reader: &mut FrameReader,
    mut has_come: bool,
) -> Result<Option<Frame>, RequestFault> {
    let mut only = None;
    while let Some(message) = message_or_end(next_frame(reader).await?)? {
        if has_come {
            let text = "the request has more than one message, and its kind of call one";
            return Err(RequestFault::malformed(text));
        }
        let message = &*only.insert(message);
        if message.missing > 0 {
            return Ok(only);
        }
        has_come = true;
    }
    expect_end(next_frame(reader).await?)?;
    if has_come { Ok(only) } else { Err(RequestFault::malformed("the request has no message")) }
}

/// First message of a stream, or `None` for its end: a handler starts with either.
async fn first(reader: &mut FrameReader) -> Result<Option<Frame>, RequestFault> {
    let message = message_or_end(reader.next().await.map_err(read_failed)?)?;
    if message.is_none() {
        expect_end(next_frame(reader).await?)?;
    }
    Ok(message)
}

async fn next_frame(reader: &mut FrameReader) -> Result<Option<Frame>, RequestFault> {
    read_steadily(reader).await.map_err(|stall| stalled(stall, reader))
}
