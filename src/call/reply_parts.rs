//! Writes a reply of one message while it comes.

use super::{
    batch::metadata_too_large,
    body::Body,
    message::Reply,
    parts::NotPassedOn,
    stall::{Stall, write_steadily},
};
use crate::{
    lazy_timeout::ready_by,
    link::FrameSender,
    metadata::Metadata,
    status::{Code, Status},
    wire::{Chunks, ReplyHead, StatusHead, StreamCode, reply_start, status_chunk},
};
use std::pin::pin;
use tokio::time::Instant;

/// Error that ends a reply early, which is written as it comes.
pub(super) enum ReplyStreamError {
    /// Reported to the initiator.
    Report(Status),
    /// The other side failed inside a frame: the initiator concludes that the outcome is unknown.
    Broken(Status),
    /// Reset: the initiator is gone, or does not read.
    Reset(StreamCode),
}

impl ReplyStreamError {
    pub(super) fn unknown(code: Code, text: impl Into<String>) -> Self {
        Self::Report(Status::unknown(code, text))
    }
}

/// Writes HEAD, the message while it comes, and STATUS.
pub(super) async fn pass_on(
    sender: &mut FrameSender,
    reply: &mut Reply,
    message_bytes_max: usize,
    deadline: Instant,
) -> Result<(), ReplyStreamError> {
    let first = start(reply, message_bytes_max).map_err(ReplyStreamError::Report)?;
    let Body::Parts(parts) = &mut reply.body else { return Ok(()) };
    sender.begin_message(parts.bytes());
    let passed = ready_by(|| deadline, pin!(parts.pass_on(first, sender))).await;
    let trailing = match passed {
        Ok(Ok(trailing)) => trailing,
        Ok(Err(NotPassedOn::Source(status))) => return Err(ReplyStreamError::Broken(status)),
        // No frame is incomplete: a STATUS can follow.
        Ok(Err(NotPassedOn::End(status))) => return Err(ReplyStreamError::Report(status)),
        Ok(Err(NotPassedOn::Sending(stall))) => return Err(unwritten(&stall)),
        Ok(Err(NotPassedOn::Late)) | Err(_) => {
            return Err(ReplyStreamError::Reset(StreamCode::Deadline));
        }
    };
    write_ok(sender, &trailing, deadline).await
}

/// HEAD and the header of the message, unless it is too large.
fn start(reply: &Reply, message_bytes_max: usize) -> Result<Chunks, Status> {
    expect_within(reply.body.message_bytes(), message_bytes_max)?;
    let head = (!reply.metadata.is_empty()).then(|| ReplyHead::new(&reply.metadata));
    reply_start(head.as_ref(), reply.body.message_bytes())
        .map_err(|fault| metadata_too_large(&fault))
}

/// Refuses to write a message that is larger than the initiator takes.
pub(super) fn expect_within(bytes: usize, max: usize) -> Result<(), Status> {
    if bytes <= max {
        return Ok(());
    }
    let text =
        format!("the reply of {bytes} bytes is over the limit of {max} bytes (message_bytes_max)");
    Err(Status::unknown(Code::Internal, text))
}

async fn write_ok(
    sender: &mut FrameSender,
    trailing: &Metadata,
    deadline: Instant,
) -> Result<(), ReplyStreamError> {
    let mut status = status_chunk(&StatusHead::ok(trailing))
        .map_err(|fault| ReplyStreamError::Report(metadata_too_large(&fault)))?;
    match ready_by(|| deadline, pin!(write_steadily(sender, &mut status))).await {
        Ok(written) => written.map_err(|stall| unwritten(&stall)),
        Err(_elapsed) => Err(ReplyStreamError::Reset(StreamCode::Deadline)),
    }
}

/// The initiator takes nothing more, or too slowly.
const fn unwritten<F>(stall: &Stall<F>) -> ReplyStreamError {
    ReplyStreamError::Reset(match stall {
        Stall::Slow => StreamCode::Slow,
        Stall::Fault(_) => StreamCode::Cancelled,
    })
}
