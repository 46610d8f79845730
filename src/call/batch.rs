//! Batches the ready messages of a stream into one write, up to a size.

use super::messages::{Messages, Next};
use crate::wire::{Batch, WireError};
use crate::{metadata::Metadata, status::Status};
use std::task::{Context, Poll};

#[derive(Debug)]
pub(super) enum End {
    /// All messages have arrived, followed by these pairs.
    Complete(Metadata),
    Failed(Status),
}

/// Gathers what a stream has ready.
pub(super) struct Gatherer {
    pub(super) messages: Messages,
    message_bytes_max: usize,
    ended: Option<End>,
    bytes: u64,
}

#[derive(Debug)]
pub(super) struct Gathered {
    /// Frames to write; may be empty.
    pub(super) batch: Batch,
    pub(super) end: Option<End>,
}

impl Gatherer {
    pub(super) const fn new(messages: Messages, message_bytes_max: usize) -> Self {
        Self { messages, message_bytes_max, ended: None, bytes: 0 }
    }

    /// Bytes of the messages gathered so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits for a message or the end, and takes what else is ready; a single frame if `one`.
    pub(super) async fn gather(&mut self, batch: Batch, one: bool) -> Gathered {
        let mut batch = Some(batch);
        let mut count = 0;
        std::future::poll_fn(|cx| self.poll_gather(cx, &mut batch, &mut count, one)).await
    }

    fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Option<Batch>,
        count: &mut usize,
        one: bool,
    ) -> Poll<Gathered> {
        let gathering = batch.get_or_insert_default();
        while self.ended.is_none() && !(gathering.is_full() || one && *count > 0) {
            match self.messages.poll_event(cx) {
                Poll::Pending if *count == 0 => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Next::Head(_)) => {}
                Poll::Ready(Next::Message(message)) if message.len() > self.message_bytes_max => {
                    self.ended =
                        Some(End::Failed(too_large(message.len(), self.message_bytes_max)));
                }
                Poll::Ready(Next::Message(message)) => {
                    self.bytes += message.len() as u64;
                    gathering.push(message);
                    *count += 1;
                }
                Poll::Ready(Next::End(trailing)) => self.ended = Some(End::Complete(trailing)),
                Poll::Ready(Next::Failed(status)) => self.ended = Some(End::Failed(status)),
            }
        }
        let end = if one && *count > 0 { None } else { self.ended.take() };
        Poll::Ready(Gathered { batch: std::mem::take(gathering), end })
    }
}

fn too_large(bytes: usize, max: usize) -> Status {
    let text =
        format!("a message of {bytes} bytes is over the limit of {max} bytes (message_bytes_max)");
    Status::unknown(crate::status::Code::ResourceExhausted, text)
}

/// A batch that could not be made: its metadata is over the limit.
pub(super) fn metadata_too_large(fault: &WireError) -> Status {
    Status::unknown(crate::status::Code::Internal, format!("the metadata of the reply: {fault}"))
}
