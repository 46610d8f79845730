//! Body of a request, as its owner reads it and as the server keeps it, to discard the rest.

use super::{discard, frames::Allowance};
use crate::drain::UnderWay;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Body of a request for its owner, who may read it for longer than the response lasts. Trailers
/// are its last frame. Clones are of the same body, and one of them reads at a time.
///
/// The server discards what is left once the response is complete and all clones are dropped. So a
/// clone that is neither read nor dropped holds its connection, or its stream of HTTP/2.
#[derive(Clone)]
pub(crate) struct RequestBody {
    state: Arc<RequestBodyState>,
    _reader: TaskTrackerToken,
}

struct RequestBodyState {
    body: Mutex<Incoming>,
    /// The client sends it only when it is asked to (`100 Continue`).
    is_awaited: bool,
    /// Reading has begun, so the client was asked to send it.
    is_begun: AtomicBool,
    is_over: AtomicBool,
    readers: UnderWay,
    allowance: Arc<Allowance>,
}

impl RequestBodyState {
    fn body(&self) -> MutexGuard<'_, Incoming> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Body of a request for the server, until the response was sent.
pub(super) struct KeptBody(Arc<RequestBodyState>);

impl KeptBody {
    pub(super) fn new(body: Incoming, is_awaited: bool, allowance: Arc<Allowance>) -> Self {
        Self(Arc::new(RequestBodyState {
            is_over: AtomicBool::new(body.is_end_stream()),
            body: Mutex::new(body),
            is_awaited,
            is_begun: AtomicBool::new(false),
            readers: UnderWay::default(),
            allowance,
        }))
    }

    pub(super) fn reader(&self) -> RequestBody {
        RequestBody { state: self.0.clone(), _reader: self.0.readers.count() }
    }

    /// Returns `true` if the client withholds it, because it was not asked to send it.
    pub(super) fn is_kept_back(&self) -> bool {
        let Self(state) = self;
        state.is_awaited && !state.is_begun.load(Ordering::Relaxed) && !state.is_over()
    }

    /// Returns `true` if part of it has not arrived.
    pub(super) fn has_rest(&self) -> bool {
        !self.0.is_over() && !self.is_kept_back()
    }

    /// Discards the rest, once nobody reads it any more.
    pub(super) async fn discard(self) {
        self.0.readers.nothing().await;
        discard::body(self.reader()).await;
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let state = &self.state;
        if state.is_over() {
            return Poll::Ready(None);
        }
        state.is_begun.store(true, Ordering::Relaxed);
        let mut body = state.body();
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        if data.is_some_and(|data| !data.is_empty()) {
            state.allowance.read();
        }
        // After a response hyper does not show the end of a body before the next request.
        if data.is_none() || body.is_end_stream() {
            state.is_over.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.state.is_over() || self.state.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.state.body().size_hint()
    }
}
