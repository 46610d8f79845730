//! Adds pings to the frames of an upstream.

use super::{
    PING_BYTES,
    frames::{WebSocketFrames, WebSocketSide},
};
use crate::{
    call::{Next, Source},
    limits::HTTP_STREAM_KEEP_ALIVE_EVERY,
    status::Status,
};
use bytes::Bytes;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep};

/// A ping whose pong is known.
const PING: &[u8] = b"\x89\x08dialback";

/// WebSocketFrames of an upstream, and a ping where it has sent nothing for a while.
pub(in super::super) struct PingSource {
    source: Box<dyn Source>,
    frames: WebSocketFrames,
    /// The end of the upstream's bytes, while the rest before it is passed on.
    end: Option<Next>,
    due: Pin<Box<Sleep>>,
}

impl PingSource {
    pub(in super::super) fn new(source: Box<dyn Source>) -> Self {
        let due = Box::pin(tokio::time::sleep(HTTP_STREAM_KEEP_ALIVE_EVERY));
        Self {
            source,
            frames: WebSocketFrames::new(WebSocketSide::Server, PING_BYTES),
            end: None,
            due,
        }
    }

    /// The upstream's next message, or its end.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(end);
        }
        loop {
            let next = ready!(self.source.poll_next(cx));
            let passed = match next {
                Next::Message(ref bytes) if bytes.is_empty() => self.frames.rest(),
                Next::Message(bytes) => match self.frames.pass(bytes) {
                    // All of it is held; an empty message would be the end.
                    bytes if bytes.is_empty() => continue,
                    bytes => return Poll::Ready(Next::Message(bytes)),
                },
                Next::End(_) => self.frames.rest(),
                Next::Head(_) | Next::Failed(_) => return Poll::Ready(next),
            };
            if passed.is_empty() {
                return Poll::Ready(next);
            }
            self.end = Some(next);
            return Poll::Ready(Next::Message(passed));
        }
    }
}

impl Source for PingSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Poll::Ready(next) = self.poll_frames(cx) {
            self.due.as_mut().reset(Instant::now() + HTTP_STREAM_KEEP_ALIVE_EVERY);
            return Poll::Ready(next);
        }
        while self.due.as_mut().poll(cx).is_ready() {
            self.due.as_mut().reset(Instant::now() + HTTP_STREAM_KEEP_ALIVE_EVERY);
            if self.frames.may_insert() {
                return Poll::Ready(Next::Message(Bytes::from_static(PING)));
            }
        }
        Poll::Pending
    }

    fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        self.source.poll_background(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::Messages, metadata::Metadata};
    use std::time::Duration;

    const EVERY: Duration = HTTP_STREAM_KEEP_ALIVE_EVERY;

    /// The messages that come within a time, with when they came.
    async fn all_within(messages: &mut Messages, time: Duration) -> Vec<(Duration, Bytes)> {
        let (began, mut all) = (Instant::now(), Vec::new());
        let read = async {
            while let Some(message) = messages.next().await {
                all.push((began.elapsed(), message.expect("a message")));
            }
        };
        drop(tokio::time::timeout(time, read).await);
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_upstream_gets_pings_between_its_frames_only() {
        let (upstream, mut messages) = Messages::channel(4);
        messages.wrap(PingSource::new);
        let pings = all_within(&mut messages, EVERY * 5 / 2).await;
        assert_eq!(pings, [(EVERY, PING.into()), (EVERY * 2, PING.into())]);
        // Half of a frame, and its rest.
        upstream.send(Bytes::from_static(b"\x81\x04ab")).await.expect("room");
        let half = all_within(&mut messages, EVERY * 10).await;
        assert_eq!(half, [(Duration::ZERO, Bytes::from_static(b"\x81\x04ab"))]);
        upstream.send(Bytes::from_static(b"cd")).await.expect("room");
        let whole = all_within(&mut messages, EVERY * 3 / 2).await;
        assert_eq!(whole, [(Duration::ZERO, "cd".into()), (EVERY, PING.into())]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_after_what_was_held() {
        for ends_by_message in [true, false] {
            let (upstream, mut messages) = Messages::channel(4);
            messages.wrap(PingSource::new);
            upstream.send(Bytes::from_static(b"\x81")).await.expect("room");
            match ends_by_message {
                true => upstream.send(Bytes::new()).await.expect("room"),
                false => upstream.give(Next::End(Metadata::default())).await.expect("room"),
            }
            let all = all_within(&mut messages, EVERY / 2).await;
            let expected: &[&[u8]] = if ends_by_message { &[b"\x81", b""] } else { &[b"\x81"] };
            assert_eq!(all.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), expected);
        }
    }
}
