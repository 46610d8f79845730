//! JSON text as a response body, complete or written piece by piece.

use crate::wire::json::JsonText;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

/// JSON in memory, or written as it is polled; with a prefix and a suffix.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    head: Bytes,
    written: Option<Box<JsonText>>,
    tail: Bytes,
}

impl Text {
    pub(crate) const fn complete(text: Bytes) -> Self {
        Self { head: text, written: None, tail: Bytes::new() }
    }

    pub(super) fn written(text: JsonText) -> Self {
        Self { head: Bytes::new(), written: Some(Box::new(text)), tail: Bytes::new() }
    }

    pub(crate) fn between(self, head: &[u8], tail: &'static [u8]) -> Self {
        if self.written.is_none() {
            return Self::complete([head, &self.head, tail].concat().into());
        }
        Self { head: Bytes::copy_from_slice(head), tail: Bytes::from_static(tail), ..self }
    }

    /// Bytes that were not polled yet.
    pub(crate) fn left(&self) -> u64 {
        let written = self.written.as_ref().map_or(0, |text| text.left());
        (self.head.len() + written + self.tail.len()) as u64
    }

    /// The next piece; `None` after the last. Pending only to yield to other tasks.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.head.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut self.head)));
        }
        match self.written.as_mut().and_then(|text| text.next_piece()) {
            Some(piece) if piece.is_empty() => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(piece) => return Poll::Ready(Some(piece)),
            None => self.written = None,
        }
        let tail = std::mem::take(&mut self.tail);
        Poll::Ready((!tail.is_empty()).then_some(tail))
    }
}

/// The body of an HTTP message, of a request to an upstream or of an answer of the gateway.
impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.poll_piece(cx).map(|piece| Some(Ok(Frame::data(piece?))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn all(mut text: Text) -> Vec<u8> {
        let (left, mut out) = (text.left(), Vec::new());
        while let Some(piece) = poll_fn(|cx| text.poll_piece(cx)).await {
            assert!(!piece.is_empty(), "an empty piece ends a body in chunks");
            out.extend_from_slice(&piece);
        }
        assert_eq!((text.left(), left), (0, out.len() as u64));
        out
    }

    #[tokio::test]
    async fn a_text_is_the_same_complete_and_in_pieces() {
        // The first million bytes are omitted, so many steps produce no output.
        let cbor = [&[0xbf][..], &[0x60, 0x83, 1, 2, 3].repeat(200_000), &[0x61, b'a', 1, 0xff]];
        let cbor = Bytes::from(cbor.concat());
        let written = || Text::written(JsonText::new(cbor.clone()).expect("well-formed"));
        let complete = || Text::complete(Bytes::from_static(b"{\"\":[1,2,3],\"a\":1}"));
        assert_eq!(all(written()).await, all(complete()).await);
        for around in [written(), complete()].map(|text| text.between(b"data: ", b"\n\n")) {
            assert_eq!(all(around).await, b"data: {\"\":[1,2,3],\"a\":1}\n\n");
        }
        assert_eq!(all(Text::complete(Bytes::new())).await, b"");
    }
}
