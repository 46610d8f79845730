//! Source of the messages of a call from the body of an HTTP message.

use super::head::encode_trailers;
use crate::{
    call::{Next, Source},
    limits::TCP_READ_BYTES_MAX,
    metadata::Metadata,
    status::{Code, Status},
};
use bytes::Bytes;
use http_body::Body;
use std::{
    error::Error as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Pieces of a body, its end, and its trailers. The body is polled only for the next message.
pub(crate) struct BodySource<B> {
    body: B,
    /// Of the last piece, what is still to be passed on.
    rest: Bytes,
    progress: SourceProgress,
}

enum SourceProgress {
    Data,
    /// The empty message was passed on; these trailers follow.
    Trailers(Bytes),
    Ended,
}

impl<B> BodySource<B> {
    pub(crate) const fn new(body: B) -> Self {
        Self { body, rest: Bytes::new(), progress: SourceProgress::Data }
    }

    fn next_piece(&mut self) -> Bytes {
        let bytes = self.rest.len().min(TCP_READ_BYTES_MAX);
        self.rest.split_to(bytes)
    }
}

impl<B> BodySource<B>
where
    B: Body<Data = Bytes> + Send + Unpin,
{
    /// The next message or the end. A body that breaks off fails with what this makes of its error.
    pub(crate) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        failed: impl FnOnce(B::Error) -> Status,
    ) -> Poll<Next> {
        loop {
            if !self.rest.is_empty() {
                return Poll::Ready(Next::Message(self.next_piece()));
            }
            match std::mem::replace(&mut self.progress, SourceProgress::Ended) {
                SourceProgress::Data => self.progress = SourceProgress::Data,
                SourceProgress::Trailers(trailers) => return Poll::Ready(Next::Message(trailers)),
                SourceProgress::Ended => return Poll::Ready(Next::End(Metadata::default())),
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    self.progress = SourceProgress::Ended;
                    return Poll::Ready(Next::Message(Bytes::new()));
                }
                Some(Ok(frame)) => frame,
                Some(Err(fault)) => return Poll::Ready(Next::Failed(failed(fault))),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else { continue };
                    match encode_trailers(trailers) {
                        Ok(message) => self.progress = SourceProgress::Trailers(message),
                        Err(fault) => {
                            let status = Status::unknown(Code::Internal, fault.to_string());
                            return Poll::Ready(Next::Failed(status));
                        }
                    }
                    return Poll::Ready(Next::Message(Bytes::new()));
                }
            }
        }
    }
}

/// The body of a request as its client sends it.
impl<B> Source for BodySource<B>
where
    B: Body<Data = Bytes, Error: std::error::Error> + Send + Unpin,
{
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.poll_message(cx, |fault| {
            let io = fault.source().and_then(|source| source.downcast_ref::<io::Error>());
            let is_malformed = io.is_some_and(|io| {
                matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
            });
            if is_malformed {
                let text = format!("the body of the request is malformed: {fault}");
                return Status::unknown(Code::InvalidArgument, text);
            }
            Status::unknown(Code::Cancelled, format!("the body of the request broke off: {fault}"))
        })
    }
}
