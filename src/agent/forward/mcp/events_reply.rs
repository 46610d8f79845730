//! The event stream of a server as the reply of a call.

use super::refusals::Refusals;
use crate::{
    call::{Next, Source},
    limits::TCP_READ_BYTES_MAX,
    mcp::AnswerEvents,
    status::{Code, Status},
};
use bytes::Bytes;
use std::task::{Context, Poll, ready};

/// Pieces of the body of a response, of which the client gets the events that it may get.
pub(super) struct EventsReply<S> {
    inner: S,
    events: AnswerEvents,
    /// True if the stream answers a request.
    is_answer: bool,
    refusals: Refusals,
    /// What is still to be passed on.
    rest: Bytes,
}

impl<S> EventsReply<S> {
    pub(super) const fn new(
        inner: S,
        events: AnswerEvents,
        is_answer: bool,
        refusals: Refusals,
    ) -> Self {
        Self { inner, events, is_answer, refusals, rest: Bytes::new() }
    }

    fn pass(&mut self, piece: Bytes) -> Result<(), Status> {
        let passed = self.events.pass(piece);
        let refused = self.events.take_refused();
        if !refused.is_empty() {
            self.refusals.send(refused)?;
        }
        self.rest = passed?;
        Ok(())
    }
}

impl<S: Source> Source for EventsReply<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            if !self.rest.is_empty() {
                let bytes = self.rest.len().min(TCP_READ_BYTES_MAX);
                return Poll::Ready(Next::Message(self.rest.split_to(bytes)));
            }
            match ready!(self.inner.poll_next(cx)) {
                Next::Message(piece) if piece.is_empty() => {
                    if self.is_answer && !self.events.is_complete() {
                        let text = "the server ended its response before it had answered";
                        return Poll::Ready(Next::Failed(Status::unknown(Code::Unavailable, text)));
                    }
                    return Poll::Ready(Next::Message(piece));
                }
                Next::Message(piece) => {
                    if let Err(status) = self.pass(piece) {
                        return Poll::Ready(Next::Failed(status));
                    }
                }
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        self.inner.poll_background(cx)
    }
}
