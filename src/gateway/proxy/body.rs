//! Body of a response that is passed on.

use super::{
    super::stream::{AuthenticationEnd, no_longer_authenticated},
    grpc::{grpc_trailers, is_grpc},
};
use crate::{
    http_call::HttpBody, limits::HTTP_STREAM_KEEP_ALIVE_EVERY, mcp::AnswerEvents, status::Status,
};
use bytes::Bytes;
use hyper::{HeaderMap, body::Frame, header, http::request::Parts};
use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep};

type FrameResult = Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>;

/// Frames of a response. HTTP polls for each; dropping it before its end cancels the call.
pub(in crate::gateway) struct ProxyBody {
    body: HttpBody,
    /// Bytes still to come, if the head states the length.
    left: Option<u64>,
    /// The last frame, a piece or trailers, kept until the call has ended, because a client stops
    /// reading after it.
    last: Option<Frame<Bytes>>,
    authentication_end: AuthenticationEnd,
    is_grpc: bool,
    events: Option<EventKeepAlive>,
    /// Decides on the events of an MCP server.
    mcp: Option<Box<AnswerEvents>>,
    /// Ends the response where it is, if there is such an end.
    end: Option<AuthenticationEnd>,
    is_over: bool,
}

impl ProxyBody {
    pub(super) fn new(
        body: HttpBody,
        headers: &HeaderMap,
        request: &Parts,
        authentication_end: AuthenticationEnd,
    ) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let is_over = body.is_ended();
        let events = EventKeepAlive::of(headers).filter(|_| left.is_none() && !is_over);
        let is_grpc = is_grpc(&request.headers);
        Self {
            body,
            left,
            last: None,
            authentication_end,
            is_grpc,
            events,
            mcp: None,
            end: None,
            is_over,
        }
    }

    /// Passes the events of an MCP server on as far as these allow it.
    pub(super) fn with_mcp(self, events: AnswerEvents) -> Self {
        Self { mcp: Some(Box::new(events)), ..self }
    }

    /// Ends the response well once this is ready: its client only listens, and listens again.
    pub(super) fn ending_with(self, end: AuthenticationEnd) -> Self {
        Self { end: Some(end), ..self }
    }

    /// Returns whether everything was taken.
    pub(in crate::gateway) const fn is_over(&self) -> bool {
        self.is_over
    }

    pub(in crate::gateway) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<FrameResult>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.authentication_end.as_mut().poll(cx).is_ready() {
            return self.fail(&no_longer_authenticated());
        }
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            self.is_over = true;
            return Poll::Ready(None);
        }
        loop {
            let frame = match self.body.poll_next(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return self.poll_keep_alive(cx),
            };
            match frame.transpose() {
                Err(status) if !self.last.as_ref().is_some_and(Frame::is_trailers) => {
                    return self.fail(&status);
                }
                // Nothing of the response is missing after its trailers.
                Err(_) | Ok(None) => {
                    self.is_over = true;
                    return Poll::Ready(self.last.take().map(Ok));
                }
                Ok(Some(frame)) => {
                    let frame = match self.mcp_events(frame) {
                        Ok(Some(frame)) => frame,
                        Ok(None) => continue,
                        Err(status) => return self.fail(&status),
                    };
                    let Some(data) = frame.data_ref() else {
                        self.last = Some(frame);
                        continue;
                    };
                    if let Some(events) = &mut self.events {
                        events.passed(data);
                    }
                    let Some(left) = &mut self.left else { return Poll::Ready(Some(Ok(frame))) };
                    *left = left.saturating_sub(data.len() as u64);
                    if *left > 0 {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    self.last = Some(frame);
                }
            }
        }
    }

    /// What passes of a frame.
    fn mcp_events(&mut self, frame: Frame<Bytes>) -> Result<Option<Frame<Bytes>>, Status> {
        let Some(events) = &mut self.mcp else { return Ok(Some(frame)) };
        let Ok(data) = frame.into_data() else { return Ok(None) };
        let passed = events.pass(data)?;
        Ok((!passed.is_empty()).then(|| Frame::data(passed)))
    }

    /// Ends a response that cannot be completed, so that its client can tell.
    fn fail(&mut self, status: &Status) -> Poll<Option<FrameResult>> {
        if let Some(events) = &mut self.mcp {
            let event = events.failure(status);
            self.is_over = event.is_some() || events.is_answered();
            if self.is_over {
                return Poll::Ready(event.map(|event| Ok(Frame::data(event))));
            }
        }
        self.is_over = self.is_grpc;
        Poll::Ready(Some(match self.is_grpc {
            true => Ok(Frame::trailers(grpc_trailers(status))),
            false => Err(format!("the response was broken off: {status}").into()),
        }))
    }

    fn poll_keep_alive(&mut self, cx: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        let Some(events) = &mut self.events else { return Poll::Pending };
        ready!(events.poll(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b":\n\n")))))
    }
}

/// Sends comments while an event stream is silent, and only between two events.
struct EventKeepAlive {
    sleep: Pin<Box<Sleep>>,
    is_between_events: bool,
}

impl EventKeepAlive {
    /// For a response that is a stream of server-sent events.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
        let is_events =
            kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
        let is_plain =
            headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
        (is_events && is_plain).then(|| Self {
            sleep: Box::pin(tokio::time::sleep(HTTP_STREAM_KEEP_ALIVE_EVERY)),
            is_between_events: true,
        })
    }

    fn passed(&mut self, data: &[u8]) {
        self.is_between_events =
            [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].iter().any(|end| data.ends_with(end));
        self.sleep.as_mut().reset(Instant::now() + HTTP_STREAM_KEEP_ALIVE_EVERY);
    }

    /// Ready when a comment may be sent.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            self.sleep.as_mut().reset(Instant::now() + HTTP_STREAM_KEEP_ALIVE_EVERY);
            if self.is_between_events {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::{MessageSender, Messages, Next},
        http_call::encode_trailers,
        metadata::Metadata,
        status::Code,
    };
    use hyper::Request;
    use hyper::header::HeaderValue;

    fn body(headers: &[(&'static str, &'static str)], is_grpc: bool) -> (MessageSender, ProxyBody) {
        let (sender, messages) = Messages::channel(8);
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.insert(*name, HeaderValue::from_static(value));
        }
        let mut request = Request::builder();
        if is_grpc {
            request = request.header(header::CONTENT_TYPE, "application/grpc");
        }
        let (request, ()) = request.body(()).expect("a request").into_parts();
        let end: AuthenticationEnd = Box::pin(std::future::pending());
        (sender, ProxyBody::new(HttpBody::new(messages), &all, &request, end))
    }

    async fn next(body: &mut ProxyBody) -> Option<Result<Frame<Bytes>, String>> {
        let frame = std::future::poll_fn(|cx| body.poll_next(cx)).await?;
        Some(frame.map_err(|fault| fault.to_string()))
    }

    async fn give(sender: &MessageSender, messages: &[&'static [u8]]) {
        for message in messages {
            sender.send(Bytes::from_static(message)).await.expect("room");
        }
    }

    #[tokio::test]
    async fn the_last_piece_of_a_known_length_comes_with_the_end_of_the_call() {
        let (sender, mut body) = body(&[("content-length", "3")], false);
        give(&sender, &[b"ab", b"c"]).await;
        assert!(next(&mut body).await.expect("a frame").is_ok());
        {
            let waiting = std::pin::pin!(next(&mut body));
            assert!(crate::lazy_timeout::poll_once(waiting).await.is_pending());
        }
        give(&sender, &[b""]).await;
        sender.finish().await.expect("room");
        let last = next(&mut body).await.expect("a frame").expect("data");
        assert_eq!((last.into_data().ok().as_deref(), body.is_over()), (Some(&b"c"[..]), true));
    }

    #[tokio::test]
    async fn trailers_come_with_the_end_of_the_call_however_it_ends() {
        let failed = Next::Failed(Status::unknown(Code::Unavailable, "lost"));
        for end in [Next::End(Metadata::default()), failed] {
            let (sender, mut body) = body(&[], false);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let messages = encode_trailers(trailers.clone()).expect("they fit");
            give(&sender, &[b"a", b""]).await;
            sender.send(messages).await.expect("room");
            assert!(next(&mut body).await.expect("a frame").expect("data").is_data());
            {
                let waiting = std::pin::pin!(next(&mut body));
                assert!(crate::lazy_timeout::poll_once(waiting).await.is_pending());
            }
            sender.give(end).await.expect("room");
            let last = next(&mut body).await.expect("a frame").expect("trailers");
            assert_eq!((last.into_trailers().ok(), body.is_over()), (Some(trailers), true));
        }
    }

    #[tokio::test]
    async fn a_response_that_breaks_off_is_an_error_and_for_grpc_its_status() {
        let failed = || Next::Failed(Status::unknown(Code::Unavailable, "lost"));
        let (sender, mut plain) = body(&[], false);
        sender.give(failed()).await.expect("room");
        assert!(next(&mut plain).await.expect("a frame").expect_err("broken").contains("lost"));
        let (sender, mut grpc) = body(&[], true);
        sender.give(failed()).await.expect("room");
        let frame = next(&mut grpc).await.expect("a frame").expect("trailers");
        assert_eq!(frame.trailers_ref().expect("trailers")["grpc-status"], "14");
        assert!(grpc.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_event_stream_sends_comments_between_two_events_only() {
        let (sender, mut body) = body(&[("content-type", "text/event-stream; x=1")], false);
        let comment = next(&mut body).await.expect("a frame").expect("data");
        assert_eq!(comment.into_data().ok().as_deref(), Some(&b":\n\n"[..]));
        give(&sender, &[b"data: a"]).await;
        assert!(next(&mut body).await.expect("a frame").is_ok());
        let silence = tokio::time::timeout(HTTP_STREAM_KEEP_ALIVE_EVERY * 3, next(&mut body));
        assert!(silence.await.is_err(), "inside an event");
        give(&sender, &[b"\n\n"]).await;
        assert!(next(&mut body).await.expect("a frame").is_ok());
        let comment = next(&mut body).await.expect("a frame").expect("data");
        assert_eq!(comment.into_data().ok().as_deref(), Some(&b":\n\n"[..]));
    }
}
