//! A stream on which a client only listens: it ends when the agent drains.

use crate::{
    call::{Next, Source},
    drain::Signal,
    metadata::Metadata,
    status::Status,
};
use bytes::Bytes;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// The body of a response that would never end by itself, and would delay every restart.
pub(super) struct UntilDrain<S> {
    inner: S,
    drain: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_ending: bool,
}

impl<S> UntilDrain<S> {
    pub(super) fn new(inner: S, drain: &Signal) -> Self {
        let mut drain = drain.listen();
        let drain = Box::pin(async move { drain.notified().await });
        Self { inner, drain, is_ending: false }
    }
}

impl<S: Source> Source for UntilDrain<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.is_ending {
            return Poll::Ready(Next::End(Metadata::default()));
        }
        if self.drain.as_mut().poll(cx).is_ready() {
            self.is_ending = true;
            // An empty message ends the body.
            return Poll::Ready(Next::Message(Bytes::new()));
        }
        self.inner.poll_next(cx)
    }

    fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        self.inner.poll_background(cx)
    }
}
