//! Body of an HTTP message from the messages of a call.

use super::head::decode_trailers;
use crate::{
    call::{Messages, Next},
    limits::MEMORY_COUNTED_BYTES_MIN,
    memory::{Exhausted, MemoryAccount},
    status::{Code, Outcome, Status},
};
use bytes::{Bytes, BytesMut};
use hyper::body::Frame;
use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

/// The messages after a head, as frames of a body. Unread messages hold back the sender.
#[derive(Debug)]
pub(crate) struct HttpBody {
    messages: Messages,
    progress: ReadProgress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadProgress {
    Data,
    /// The empty message has come; trailers may follow.
    AfterData,
    AfterTrailers,
    Ended,
}

impl HttpBody {
    pub(crate) const fn new(messages: Messages) -> Self {
        Self { messages, progress: ReadProgress::Data }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.progress == ReadProgress::Ended
    }

    /// The next frame; `None` after the end of the call. A failure ends it.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if self.is_ended() {
                return Poll::Ready(None);
            }
            let message = match ready!(self.messages.poll_event(cx)) {
                Next::Head(_) => continue,
                Next::Message(message) => message,
                Next::End(_) if self.progress == ReadProgress::Data => {
                    return self.malformed("ended without the end of its body");
                }
                Next::End(_) => {
                    self.progress = ReadProgress::Ended;
                    return Poll::Ready(None);
                }
                Next::Failed(status) => return self.failed(status),
            };
            match self.progress {
                ReadProgress::Data if message.is_empty() => self.progress = ReadProgress::AfterData,
                ReadProgress::Data => return Poll::Ready(Some(Ok(Frame::data(message)))),
                ReadProgress::AfterData => {
                    self.progress = ReadProgress::AfterTrailers;
                    return match decode_trailers(&message) {
                        Ok(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                        Err(fault) => self.malformed(&format!("has bad trailers: {fault}")),
                    };
                }
                ReadProgress::AfterTrailers | ReadProgress::Ended => {
                    return self.malformed("continues after its end");
                }
            }
        }
    }

    /// Reads the rest of the body, without its trailers. It is counted for the account while it
    /// is used.
    ///
    /// # Errors
    /// It breaks off, is larger than this, or there is no memory for it.
    pub(crate) async fn collect(
        &mut self,
        bytes_max: usize,
        memory: &MemoryAccount,
    ) -> Result<Bytes, Status> {
        let no_room = |why: Exhausted| why.into_status(Outcome::Unknown);
        let (mut whole, mut held) = (BytesMut::new(), memory.take(0).map_err(no_room)?);
        while let Some(frame) = poll_fn(|cx| self.poll_next(cx)).await {
            let Ok(data) = frame?.into_data() else { continue };
            let bytes = whole.len() + data.len();
            if bytes > bytes_max {
                let text =
                    format!("the body is over the limit of {bytes_max} bytes (message_bytes_max)");
                return Err(Status::unknown(Code::ResourceExhausted, text));
            }
            if bytes >= MEMORY_COUNTED_BYTES_MIN {
                held.grow(bytes.saturating_sub(held.bytes())).map_err(no_room)?;
            }
            whole.extend_from_slice(&data);
        }
        held.become_message(whole.freeze()).map_err(no_room)
    }

    fn failed(&mut self, status: Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.progress = ReadProgress::Ended;
        Poll::Ready(Some(Err(status)))
    }

    fn malformed(&mut self, why: &str) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.failed(Status::unknown(Code::Internal, format!("the HTTP message {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::BodySource, *};
    use crate::limits::TCP_READ_BYTES_MAX;
    use hyper::{HeaderMap, body::Body, header::HeaderValue};
    use std::{collections::VecDeque, io, pin::Pin};

    type Frames = VecDeque<Result<Frame<Bytes>, io::Error>>;

    struct Scripted(Frames);

    impl Body for Scripted {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    fn trailers() -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.append("grpc-status", HeaderValue::from_static("0"));
        trailers
    }

    /// What comes out of a body that these frames went into: data, trailers, and the failure.
    async fn passed(frames: impl Into<Frames>) -> (Vec<usize>, Option<HeaderMap>, Option<Status>) {
        let source = BodySource::new(Scripted(frames.into()));
        let mut body = HttpBody::new(Messages::new(source));
        let (mut sizes, mut trailers) = (Vec::new(), None);
        loop {
            match poll_fn(|cx| body.poll_next(cx)).await {
                None => return (sizes, trailers, None),
                Some(Err(status)) => return (sizes, trailers, Some(status)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => sizes.push(data.len()),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    #[tokio::test]
    async fn a_body_is_passed_on_in_pieces_with_its_trailers() {
        let large = Bytes::from(vec![7; TCP_READ_BYTES_MAX + 1]);
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"one"))),
            Ok(Frame::data(Bytes::new())),
            Ok(Frame::data(large)),
            Ok(Frame::trailers(trailers())),
        ];
        let (sizes, passed, failure) = passed(frames).await;
        assert_eq!(sizes, [3, TCP_READ_BYTES_MAX, 1]);
        assert_eq!((passed, failure), (Some(trailers()), None));
    }

    #[tokio::test]
    async fn an_empty_body_ends_and_a_broken_one_fails() {
        assert_eq!(passed([]).await, (Vec::new(), None, None));
        let (sizes, _, failure) =
            passed([Ok(Frame::data(Bytes::from_static(b"one"))), Err(io::Error::other("gone"))])
                .await;
        assert_eq!(sizes, [3]);
        assert!(failure.expect("a failure").message().contains("gone"));
    }

    /// The failure of a body that these messages make.
    async fn failure(messages: &[&'static [u8]]) -> Option<String> {
        let (sender, received) = Messages::channel(8);
        for message in messages {
            sender.send(Bytes::from_static(message)).await.expect("room");
        }
        sender.finish().await.expect("room");
        let mut body = HttpBody::new(received);
        loop {
            match poll_fn(|cx| body.poll_next(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return Some(status.message().to_owned()),
                None => return None,
            }
        }
    }

    #[tokio::test]
    async fn a_body_without_its_end_and_messages_after_it_are_failures() {
        assert_eq!(failure(&[b"a", b"", b"\xa0"]).await, None);
        for (messages, text) in [
            (&[&b"a"[..]][..], "without the end"),
            (&[], "without the end"),
            (&[b"", b"a"], "bad trailers"),
            (&[b"", b""], "bad trailers"),
            (&[b"", b"\xa0", b"a"], "continues after"),
        ] {
            let failure = failure(messages).await.expect("a failure");
            assert!(failure.contains(text), "{failure}");
        }
    }
}
