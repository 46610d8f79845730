//! Initiator of a call: opens a stream, sends the request, awaits the reply.
//!
//! The line between `not_executed` and `unknown`: see `docs/protocol.md`, "What the initiator
//! concludes". The responder starts a handler only after END, so if the stream is reset before END
//! was handed to the transport, no handler ran.

use super::{
    body::Body,
    exchange::{
        InitiatorLimits, Progress, begin, broken, end_unseen, expect_end, read_failed, send_request,
    },
    initiator_stream::initiate_stream,
    message::{Reply, Request},
    messages::Next,
    part_source::{PartSource, Rest},
    parts::MessageParts,
    stall::Stall,
};
use crate::{
    lazy_timeout::ready_by,
    limits::REPLY_FIN_WAIT_MAX,
    link::{CallStream, Frame, FrameReader, Link, ReadFault},
    memory::MemoryAccount,
    metadata::Metadata,
    name::PeerName,
    status::{Code, Status},
    wire::{CallKind, Kind, ReplyHead, StatusHead, StreamCode, WireError},
};
use bytes::Bytes;
use std::pin::pin;
use tokio::time::Instant;

/// Makes a call over a link; takes a stream of messages out of the request. `name_caller` is
/// written into the head as the requester, which agents trust from nodes only. Dropping the future
/// cancels the call.
pub(crate) async fn ask(
    link: &Link,
    request: &mut Request,
    limits: InitiatorLimits,
    name_caller: Option<&PeerName>,
    relayed: Option<RelayedReply>,
) -> Result<Reply, Status> {
    match request.meta.kind {
        CallKind::Unary => initiate_unary(link, request, limits, name_caller, relayed).await,
        _ => {
            let memory = relayed.map(|relayed| relayed.memory);
            Box::pin(initiate_stream(link, request, limits, name_caller, memory)).await
        }
    }
}

/// A reply that a node takes for a caller.
#[derive(Debug)]
pub(crate) struct RelayedReply {
    /// Counts its messages.
    pub(crate) memory: MemoryAccount,
    /// True if a large message of a unary reply is returned while it comes.
    pub(crate) in_parts: bool,
}

/// Returns `true` if the same attempt can continue on the next link: this link is draining or
/// replaced, and the call was not started on it.
pub(crate) fn is_retryable_on_next_link(reply: &Result<Reply, Status>, link: &Link) -> bool {
    let is_unavailable = |status: &Status| status.code() == Code::Unavailable;
    (link.is_peer_draining() || link.is_replaced())
        && reply.as_ref().is_err_and(|fault| is_unavailable(fault) && fault.is_safe_to_retry())
}

/// Not an async function, which would keep its arguments next to its copies of them.
fn initiate_unary(
    link: &Link,
    request: &mut Request,
    limits: InitiatorLimits,
    name_caller: Option<&PeerName>,
    relayed: Option<RelayedReply>,
) -> impl Future<Output = Result<Reply, Status>> + Send {
    let in_parts = relayed.as_ref().is_some_and(|relayed| relayed.in_parts);
    let memory = relayed.map(|relayed| relayed.memory);
    async move {
        let mut stream = begin(link, request, limits).await?;
        if let Some(memory) = memory {
            stream.reader.count_in(memory);
        }
        let deadline = request.meta.deadline;
        let sent = {
            let sending = pin!(send_request(link, &mut stream, request, name_caller));
            ready_by(|| deadline, sending).await
        };
        let (progress, until) = match sent {
            Ok(Ok(true)) => {
                stream.sender.finish();
                if in_parts {
                    stream.reader.allow_parts();
                }
                // The responder knows whether a handler ran: its STATUS is more precise.
                (Progress::AfterEnd, request.meta.deadline + limits.grace)
            }
            Ok(Ok(false)) => (Progress::BeforeEnd, request.meta.deadline),
            Ok(Err(fault)) => return Err(fault),
            Err(_elapsed) => return Err(too_late(link, &mut stream, Progress::BeforeEnd)),
        };
        let reading = read_reply(link, &mut stream.reader, progress, false);
        match tokio::time::timeout_at(until, reading).await {
            Ok(Ok(ReadReply::Whole(answer))) => {
                wait_for_end(&mut stream.reader, progress).await?;
                answer
            }
            Ok(Ok(ReadReply::Begun(metadata, start))) => {
                let body = Body::Parts(parts_of(link, stream.reader, &start, until));
                Ok(Reply { body, metadata, ..Reply::default() })
            }
            Ok(Err(fault)) => Err(fault),
            Err(_elapsed) => Err(too_late(link, &mut stream, progress)),
        }
    }
}

fn too_late(link: &Link, stream: &mut CallStream, progress: Progress) -> Status {
    stream.set_code_on_drop(StreamCode::Deadline);
    let progress = progress.unless_past_drain(link, stream.reader.stream_id());
    progress.failed(Code::DeadlineExceeded, "the deadline passed")
}

/// What was read of a reply.
enum ReadReply {
    /// All, with the result in STATUS.
    Whole(Result<Reply, Status>),
    /// The start of a message whose rest is read in parts.
    Begun(Metadata, Frame),
}

/// The message of a reply that has begun, and must be whole by this time.
fn parts_of(link: &Link, reader: FrameReader, start: &Frame, until: Instant) -> MessageParts {
    let (link, bytes) = (link.clone(), start.payload.len() + start.missing as usize);
    let then = move |mut reader: FrameReader, parts: Result<(), Stall<ReadFault>>| -> Rest {
        Box::pin(async move {
            match rest_of_reply(&link, &mut reader, parts).await {
                Ok(trailing) => Next::End(trailing),
                Err(status) => Next::Failed(status),
            }
        })
    };
    let mut parts = MessageParts::new(bytes, PartSource::new(start, reader, None, then));
    parts.expect_by(until);
    parts
}

/// Reads what follows the parts of a reply, or reports the fault that ended them.
async fn rest_of_reply(
    link: &Link,
    reader: &mut FrameReader,
    parts: Result<(), Stall<ReadFault>>,
) -> Result<Metadata, Status> {
    let progress = Progress::AfterEnd;
    parts.map_err(|stall| match stall {
        Stall::Fault(fault) => read_failed(link, progress, fault),
        Stall::Slow => broken(progress, "the reply came too slowly"),
    })?;
    match read_reply(link, reader, progress, true).await? {
        ReadReply::Whole(answer) => {
            wait_for_end(reader, progress).await?;
            answer.map(|reply| reply.trailing)
        }
        ReadReply::Begun(..) => Err(out_of_place(progress)),
    }
}

fn out_of_place(progress: Progress) -> Status {
    broken(progress, "the reply has a frame out of place")
}

/// Reads `[HEAD] MESSAGE STATUS` and returns the result in STATUS; without STATUS it is an error.
/// STATUS alone, if the message `has_come`.
async fn read_reply(
    link: &Link,
    reader: &mut FrameReader,
    progress: Progress,
    has_come: bool,
) -> Result<ReadReply, Status> {
    let malformed = |fault: WireError| broken(progress, &fault.to_string());
    let (mut metadata, mut message) = (None, has_come.then(Bytes::new));
    loop {
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(broken(progress, "the reply ended without its STATUS")),
            Err(fault) => {
                let progress = progress.unless_past_drain(link, reader.stream_id());
                return Err(read_failed(link, progress, fault));
            }
        };
        match frame.kind {
            Kind::Head if metadata.is_none() && message.is_none() => {
                metadata = Some(ReplyHead::decode(&frame.payload).map_err(malformed)?);
            }
            Kind::Message if message.is_none() && frame.missing > 0 => {
                return Ok(ReadReply::Begun(metadata.unwrap_or_default(), frame));
            }
            Kind::Message if message.is_none() => message = Some(frame.payload),
            Kind::Status => {
                let status = StatusHead::decode(&frame.payload).map_err(malformed)?;
                return Ok(ReadReply::Whole(match status {
                    Ok(trailing) => {
                        let no_message = || broken(progress, "the reply has no message");
                        let body = Body::Message(message.ok_or_else(no_message)?);
                        Ok(Reply { body, metadata: metadata.unwrap_or_default(), trailing })
                    }
                    Err(status) => Err(status),
                }));
            }
            _ => return Err(out_of_place(progress)),
        }
    }
}

/// Waits for the end of the stream after STATUS. The reply is complete; only further frames
/// invalidate it, not a lost link or a missing FIN.
async fn wait_for_end(reader: &mut FrameReader, progress: Progress) -> Result<(), Status> {
    let until = || Instant::now() + REPLY_FIN_WAIT_MAX;
    let ended = ready_by(until, pin!(expect_end(reader, progress))).await.ok();
    ended.unwrap_or_else(|| end_unseen(reader, progress))
}
