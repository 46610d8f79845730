//! Body of a request. The server keeps it until the response was sent, and then discards the rest.

use super::frames::Allowance;
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

#[derive(Clone)]
pub(crate) struct RequestBody(Arc<BodyState>);

struct BodyState {
    body: Mutex<Incoming>,
    /// The client sends it only when it is asked to (`100 Continue`).
    is_awaited: bool,
    /// Reading has begun, so the client was asked to send it.
    is_begun: AtomicBool,
    is_over: AtomicBool,
    allowance: Arc<Allowance>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, is_awaited: bool, allowance: Arc<Allowance>) -> Self {
        Self(Arc::new(BodyState {
            is_over: AtomicBool::new(body.is_end_stream()),
            body: Mutex::new(body),
            is_awaited,
            is_begun: AtomicBool::new(false),
            allowance,
        }))
    }

    fn body(&self) -> MutexGuard<'_, Incoming> {
        self.0.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Relaxed)
    }

    /// Returns `true` if the client withholds it, because it was not asked to send it.
    pub(super) fn is_kept_back(&self) -> bool {
        self.0.is_awaited && !self.0.is_begun.load(Ordering::Relaxed) && !self.is_over()
    }

    /// Returns `true` if part of it has not arrived.
    pub(super) fn has_rest(&self) -> bool {
        !self.is_over() && !self.is_kept_back()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.0.is_begun.store(true, Ordering::Relaxed);
        let frame = ready!(Pin::new(&mut *self.body()).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
            Some(Ok(_)) => self.0.allowance.read(),
            None | Some(Err(_)) => self.0.is_over.store(true, Ordering::Relaxed),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over() || self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}
