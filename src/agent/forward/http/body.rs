//! Body of a request to an upstream: a text in memory, or the messages of a call.

use super::socket::Exchange;
use crate::{convert::Text, http_call::HttpBody, status::Status};
use bytes::Bytes;
use hyper::{
    HeaderMap,
    body::{Body, Frame, SizeHint},
};
use std::{
    collections::VecDeque,
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// Body of a request. A clone begins at the start again, for another connection.
#[derive(Clone)]
pub(in crate::agent::forward) enum UpstreamBody {
    Text(Text),
    Stream(StreamedBody),
}

impl From<Text> for UpstreamBody {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

/// Messages of a call as they come. What was taken of them is kept until a byte of the request is
/// written: until then it can be sent on another connection.
pub(in crate::agent::forward) struct StreamedBody {
    shared: Arc<Mutex<Shared>>,
    /// Only the last clone is the body.
    generation: u32,
}

struct Shared {
    body: HttpBody,
    generation: u32,
    taken: Vec<Piece>,
    again: VecDeque<Piece>,
    sent: Sent,
    moved_at: Instant,
    /// Nobody waits for the reply any more.
    is_cancelled: bool,
    /// Why the body broke off.
    failure: Option<Status>,
    waker: Option<Waker>,
}

/// Whether a byte of the request was written.
enum Sent {
    /// No connection has the request.
    No,
    /// Bytes that its connection had written before.
    After(Arc<Exchange>, u64),
    Yes,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl StreamedBody {
    pub(in crate::agent::forward) fn new(body: HttpBody) -> Self {
        let (taken, again) = (Vec::new(), VecDeque::new());
        let (sent, moved_at) = (Sent::No, Instant::now());
        let shared = Shared {
            body,
            generation: 0,
            taken,
            again,
            sent,
            moved_at,
            is_cancelled: false,
            failure: None,
            waker: None,
        };
        Self { shared: Arc::new(Mutex::new(shared)), generation: 0 }
    }

    /// A view of its progress, which is not the body.
    pub(in crate::agent::forward) fn progress(&self) -> BodyProgress {
        BodyProgress(self.shared.clone())
    }

    /// Names the connection that has the request from now on.
    fn is_on(&self, exchange: &Arc<Exchange>) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.sent = Sent::After(exchange.clone(), exchange.written());
    }
}

/// What became of the source of a body.
pub(super) struct BodySourceState(Arc<Mutex<Shared>>);

impl BodySourceState {
    /// Why it broke off, if it did.
    pub(super) fn failure(&self) -> Option<Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failure.clone()
    }
}

impl UpstreamBody {
    /// The source of a body that is streamed.
    pub(super) fn source(&self) -> Option<BodySourceState> {
        match self {
            Self::Text(_) => None,
            Self::Stream(StreamedBody { shared, .. }) => Some(BodySourceState(shared.clone())),
        }
    }

    pub(super) fn is_on(&self, exchange: &Arc<Exchange>) {
        if let Self::Stream(body) = self {
            body.is_on(exchange);
        }
    }
}

impl Clone for StreamedBody {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), generation: self.generation + 1 }
    }
}

impl Shared {
    /// Returns `true` while nothing of the request was written, so that pieces are kept.
    fn is_unsent(&mut self) -> bool {
        match &self.sent {
            Sent::No => true,
            Sent::After(exchange, before) if exchange.written() == *before => true,
            Sent::After(..) => {
                self.sent = Sent::Yes;
                self.taken = Vec::new();
                false
            }
            Sent::Yes => false,
        }
    }

    fn poll(
        &mut self,
        generation: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, Box<dyn Error + Send + Sync>>>> {
        if self.is_cancelled {
            return Poll::Ready(Some(Err("the call has ended".into())));
        }
        if generation < self.generation {
            return Poll::Ready(Some(Err("the request is sent on another connection".into())));
        }
        if generation > self.generation {
            self.generation = generation;
            self.again = std::mem::take(&mut self.taken).into();
        }
        let piece = match self.again.pop_front() {
            Some(piece) => piece,
            None => match self.body.poll_next(cx) {
                Poll::Pending => {
                    self.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(status))) => {
                    self.failure = Some(status.clone());
                    return Poll::Ready(Some(Err(status.into())));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Piece::Data(data),
                    Err(frame) => Piece::Trailers(frame.into_trailers().unwrap_or_default()),
                },
            },
        };
        self.moved_at = Instant::now();
        if self.is_unsent() {
            self.taken.push(piece.clone());
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Text(text) => text.poll_piece(cx).map(|piece| Some(Ok(Frame::data(piece?)))),
            Self::Stream(StreamedBody { shared, generation }) => {
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                shared.poll(*generation, cx).map(|piece| piece.map(|piece| piece.map(Frame::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.left() == 0,
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.left()),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl From<Piece> for Frame<Bytes> {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Data(data) => Self::data(data),
            Piece::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}

/// Progress of a request body while another task sends it. Dropping it ends the body: the reply has
/// ended, or nobody waits for it.
pub(in crate::agent::forward) struct BodyProgress(Arc<Mutex<Shared>>);

impl BodyProgress {
    /// When the last piece was taken.
    pub(in crate::agent::forward) fn moved_at(&self) -> Instant {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).moved_at
    }

    /// Completes when no piece was taken for this time.
    pub(in crate::agent::forward) async fn idle(&self, idle_max: Duration) {
        loop {
            let moved_at = self.moved_at();
            if moved_at + idle_max <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(moved_at + idle_max).await;
        }
    }
}

impl Drop for BodyProgress {
    fn drop(&mut self) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.is_cancelled = true;
        if let Some(waker) = shared.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{MessageSender, Messages};
    use http_body_util::BodyExt as _;

    async fn streamed(pieces: &[&'static [u8]]) -> (MessageSender, UpstreamBody) {
        let (sender, messages) = Messages::channel(8);
        for piece in pieces {
            sender.send(Bytes::from_static(piece)).await.expect("room");
        }
        (sender, UpstreamBody::Stream(StreamedBody::new(HttpBody::new(messages))))
    }

    async fn next(body: &mut UpstreamBody) -> Result<Bytes, String> {
        let frame = body.frame().await.expect("a frame").map_err(|fault| fault.to_string())?;
        Ok(frame.into_data().expect("data"))
    }

    #[tokio::test]
    async fn a_body_of_which_nothing_was_written_begins_again_on_another_connection() {
        let (_sender, mut first) = streamed(&[b"one", b"two", b"three"]).await;
        let exchange = Arc::<Exchange>::default();
        let mut second = first.clone();
        first.is_on(&exchange);
        assert_eq!(next(&mut first).await.as_deref(), Ok(&b"one"[..]));
        assert_eq!(next(&mut first).await.as_deref(), Ok(&b"two"[..]));
        for expected in [&b"one"[..], b"two", b"three"] {
            assert_eq!(next(&mut second).await.as_deref(), Ok(expected));
        }
        assert!(next(&mut first).await.expect_err("not the body").contains("another connection"));
    }

    #[tokio::test]
    async fn pieces_are_not_kept_once_a_byte_of_the_request_was_written() {
        let (_sender, mut body) = streamed(&[b"one", b"two"]).await;
        let exchange = Arc::<Exchange>::default();
        body.is_on(&exchange);
        next(&mut body).await.expect("a piece");
        exchange.count(1);
        next(&mut body).await.expect("a piece");
        let UpstreamBody::Stream(StreamedBody { shared, .. }) = &body else { return };
        assert!(shared.lock().expect("whole").taken.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_idle_when_no_piece_was_taken_for_some_time() {
        let (_sender, mut body) = streamed(&[b"one"]).await;
        let UpstreamBody::Stream(stream) = &body else { return };
        let (progress, began) = (stream.progress(), Instant::now());
        let second = Duration::from_secs(1);
        let takes = async {
            tokio::time::sleep(second / 2).await;
            next(&mut body).await.expect("a piece");
        };
        tokio::join!(progress.idle(second), takes);
        assert_eq!(began.elapsed(), second * 3 / 2);
    }
}
