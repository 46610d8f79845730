//! Tracks pending responses of a connection, and resets those that the client does not read.

use super::{answers::ResponseBodyError, frames::Allowance};
use crate::limits::{HTTP_PIECE_BYTES_MAX, HTTP_STEP};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Longer than any connection lasts, and short enough to be added to a time.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3_600);

pub(super) struct Activity {
    state: Mutex<ActivityState>,
    /// The end of the connection is the end of its last response, which is not complete.
    is_truncated: AtomicBool,
    /// Frames of HTTP/2 that the client may send.
    pub(super) allowance: Arc<Allowance>,
}

struct ActivityState {
    next: u64,
    /// Requests without a complete response: one for each stream, so few.
    answered: Vec<PendingResponse>,
    idle_since: Instant,
    /// Longest time for which one of the responses so far may stall.
    stall_max: Duration,
    is_write_stalled: bool,
    /// Time when a write last began or ceased to stall.
    write_stalled_at: Option<Instant>,
}

struct PendingResponse {
    id: u64,
    /// Time since which a piece was returned and no other was polled.
    given: Option<Instant>,
    stall_max: Duration,
    /// Set for what HTTP/2 may have to reset.
    reset: Option<Arc<Notify>>,
}

impl ActivityState {
    fn pending(&mut self, id: u64) -> Option<&mut PendingResponse> {
        self.answered.iter_mut().find(|pending| pending.id == id)
    }
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        let state = ActivityState {
            next: 0,
            answered: Vec::new(),
            idle_since: now,
            stall_max: HTTP_STEP,
            is_write_stalled: false,
            write_stalled_at: None,
        };
        let is_truncated = AtomicBool::default();
        Self { state: Mutex::new(state), is_truncated, allowance: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, ActivityState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request, until the returned guard is dropped.
    pub(super) fn answered(self: &Arc<Self>) -> ResponseGuard {
        self.allowance.moved();
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        let pending = PendingResponse { id, given: None, stall_max: HTTP_STEP, reset: None };
        state.answered.push(pending);
        ResponseGuard { activity: self.clone(), id }
    }

    pub(super) fn has_had_request(&self) -> bool {
        self.state().next > 0
    }

    /// Time since which no response is pending; `None` if one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        state.answered.is_empty().then_some(state.idle_since)
    }

    /// Completes when the response to the latest request must be reset.
    pub(super) fn last_reset(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut state = self.state();
        let last = state.next.checked_sub(1).and_then(|id| state.pending(id));
        let reset = last.map(|last| last.reset.get_or_insert_default().clone()).unwrap_or_default();
        async move { reset.notified().await }
    }

    /// Resets the responses that stall because the client does not read them. Returns `true` if all
    /// of them stall, and the connection must be closed. A proxy shares one connection between
    /// clients, so other responses continue.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let state = self.state();
        let is_stalled = |one: &&PendingResponse| {
            // HTTP/1 sends one response at a time, and many pieces may wait for one write.
            let written_at = if one.reset.is_none() { state.write_stalled_at } else { None };
            one.given.is_some_and(|since| {
                now.saturating_duration_since(written_at.map_or(since, |at| at.max(since)))
                    >= one.stall_max
            })
        };
        let (stalled, others): (Vec<_>, Vec<_>) = state.answered.iter().partition(is_stalled);
        stalled.iter().filter_map(|one| one.reset.as_ref()).for_each(|reset| reset.notify_one());
        !stalled.is_empty() && others.is_empty()
    }

    /// Longest time for which the connection may stall. The end of a response is sent after its
    /// body is gone, so this is of all responses so far, and not of the pending ones.
    pub(super) fn stall_max(&self) -> Duration {
        self.state().stall_max
    }

    /// Records that only the end of the connection ends its last response, or that this is sent.
    pub(super) fn set_truncated(&self, is_truncated: bool) {
        self.is_truncated.store(is_truncated, Ordering::Relaxed);
    }

    pub(super) fn is_truncated(&self) -> bool {
        self.is_truncated.load(Ordering::Relaxed)
    }

    pub(super) fn set_write_stalled(&self, is_stalled: bool) {
        let mut state = self.state();
        state.is_write_stalled = is_stalled;
        state.write_stalled_at = Some(Instant::now());
    }

    /// Last time when a write made no progress: now, if one does not.
    pub(super) fn last_write_stall(&self) -> Option<Instant> {
        let state = self.state();
        state.write_stalled_at.map(|at| if state.is_write_stalled { Instant::now() } else { at })
    }
}

/// Guard of a request until its response is complete.
pub(super) struct ResponseGuard {
    activity: Arc<Activity>,
    id: u64,
}

impl ResponseGuard {
    /// Records that only the end of the connection ends the response.
    pub(super) fn ends_by_close(&self) {
        self.activity.set_truncated(true);
    }

    /// Lets the response stall for as long.
    pub(super) fn may_stall(&self, stall_max: Duration) {
        let stall_max = stall_max.min(FOREVER);
        let mut state = self.activity.state();
        state.stall_max = state.stall_max.max(stall_max);
        if let Some(pending) = state.pending(self.id) {
            pending.stall_max = stall_max;
        }
    }

    fn given(&self, since: Option<Instant>) {
        if since.is_some() {
            self.activity.allowance.moved();
        }
        if let Some(pending) = self.activity.state().pending(self.id) {
            pending.given = since;
        }
    }
}

impl Drop for ResponseGuard {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.answered.retain(|pending| pending.id != self.id);
        state.idle_since = Instant::now();
    }
}

/// Body of a response, in pieces.
pub(super) struct WatchedBody<B: Body> {
    body: B,
    rest: Bytes,
    progress: BodyProgress,
    answered: Option<ResponseGuard>,
    /// Runs when the body is dropped after its end. The request counts as answered after it.
    afterwards: Option<Afterwards>,
}

type Afterwards = Box<dyn FnOnce(ResponseGuard) + Send>;

enum BodyProgress {
    Open,
    /// It was polled to its end.
    Complete,
    /// It broke off. The error is returned by the next poll.
    Failed(Option<ResponseBodyError>),
}

impl<B: Body> WatchedBody<B> {
    /// Counts as polled from the start: HTTP/2 polls nothing while the client grants no window.
    pub(super) fn new(body: B, answered: ResponseGuard) -> Self {
        answered.given(Some(Instant::now()));
        Self {
            body,
            rest: Bytes::new(),
            progress: BodyProgress::Open,
            answered: Some(answered),
            afterwards: None,
        }
    }

    /// Sends nothing of the body: the response has none.
    pub(super) fn without_content(body: B, answered: ResponseGuard) -> Self {
        let mut watched = Self::new(body, answered);
        watched.progress = BodyProgress::Complete;
        watched
    }

    /// Runs this after the end of the response, unless it breaks off.
    pub(super) fn then(mut self, afterwards: impl FnOnce(ResponseGuard) + Send + 'static) -> Self {
        self.afterwards = Some(Box::new(afterwards));
        self
    }

    fn given(&self, since: Option<Instant>) {
        if let Some(answered) = &self.answered {
            answered.given(since);
        }
    }

    fn is_complete(&self) -> bool {
        match self.progress {
            BodyProgress::Open => self.rest.is_empty() && self.body.is_end_stream(),
            BodyProgress::Complete => true,
            BodyProgress::Failed(_) => false,
        }
    }
}

impl<B: Body> Drop for WatchedBody<B> {
    fn drop(&mut self) {
        self.given(None);
        if let (true, Some(afterwards), Some(answered)) =
            (self.is_complete(), self.afterwards.take(), self.answered.take())
        {
            afterwards(answered);
        }
    }
}

impl<B: Body<Data = Bytes, Error: Into<ResponseBodyError>> + Unpin> WatchedBody<B> {
    /// Polls for the next frame that has bytes to send, or trailers, which end the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(frame)),
                Some(Err(fault)) => {
                    // Hyper writes what it has before it polls again. After an error it would not.
                    self.progress = BodyProgress::Failed(Some(fault.into()));
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                end => {
                    self.progress = BodyProgress::Complete;
                    return Poll::Ready(end.and_then(Result::ok));
                }
            }
        }
    }
}

impl<B: Body<Data = Bytes, Error: Into<ResponseBodyError>> + Unpin> Body for WatchedBody<B> {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        self.given(None);
        if let BodyProgress::Failed(fault) = &mut self.progress {
            return Poll::Ready(fault.take().map(Err));
        }
        if self.rest.is_empty() {
            match ready!(self.poll_body(cx)).map(Frame::into_data) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                None => return Poll::Ready(None),
            }
        }
        let step = self.rest.len().min(HTTP_PIECE_BYTES_MAX);
        let piece = self.rest.split_to(step);
        self.given(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_complete()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut all = SizeHint::new();
        all.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            all.set_upper(upper + rest);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full, channel::Channel};
    use hyper::HeaderMap;

    #[tokio::test(start_paused = true)]
    async fn response_is_sent_in_pieces_and_stalls_if_the_next_is_not_polled() {
        let activity = Arc::new(Activity::new(Instant::now()));
        let bytes = Bytes::from(vec![7; HTTP_PIECE_BYTES_MAX + 1]);
        let mut body = WatchedBody::new(Full::new(bytes), activity.answered());
        assert_eq!(body.size_hint().exact(), Some(HTTP_PIECE_BYTES_MAX as u64 + 1));
        assert!(activity.idle_since().is_none() && activity.is_stalled(Instant::now() + HTTP_STEP));
        let first = body.frame().await.expect("a piece").expect("a piece");
        assert_eq!(first.data_ref().map(Bytes::len), Some(HTTP_PIECE_BYTES_MAX));
        assert!(!activity.is_stalled(Instant::now() + HTTP_STEP / 2));
        assert!(activity.is_stalled(Instant::now() + HTTP_STEP));
        let last = body.frame().await.expect("a piece").expect("a piece");
        assert!(last.data_ref().map(Bytes::len) == Some(1) && body.is_end_stream());
        drop(body);
        assert!(
            activity.idle_since().is_some() && !activity.is_stalled(Instant::now() + HTTP_STEP)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn response_of_http_1_does_not_stall_while_writes_progress() {
        let activity = Arc::new(Activity::new(Instant::now()));
        let mut body = WatchedBody::new(Full::new(Bytes::from_static(b"x")), activity.answered());
        drop(body.frame().await);
        for _ in 0..5 {
            activity.set_write_stalled(true);
            tokio::time::advance(HTTP_STEP * 9 / 10).await;
            activity.set_write_stalled(false);
            assert!(!activity.is_stalled(Instant::now() + HTTP_STEP / 2));
        }
        assert!(activity.is_stalled(Instant::now() + HTTP_STEP));
    }

    #[tokio::test(start_paused = true)]
    async fn the_callback_of_a_response_runs_only_if_its_whole_body_was_polled() {
        let (activity, bytes) = (Arc::new(Activity::new(Instant::now())), Bytes::from_static(b"x"));
        let kept = Arc::new(Mutex::new(Vec::new()));
        let answer = |bytes: &Bytes| {
            let kept = kept.clone();
            WatchedBody::new(Full::new(bytes.clone()), activity.answered())
                .then(move |answered| kept.lock().expect("whole").push(answered))
        };
        drop(answer(&bytes));
        assert!(kept.lock().expect("whole").is_empty() && activity.idle_since().is_some());
        let mut complete = answer(&bytes);
        drop(complete.frame().await);
        drop((complete, answer(&Bytes::new())));
        assert_eq!(kept.lock().expect("whole").len(), 2);
        assert!(
            activity.idle_since().is_none() && !activity.is_stalled(Instant::now() + HTTP_STEP)
        );
        kept.lock().expect("whole").clear();
        assert!(activity.idle_since().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn trailers_end_a_body_and_an_error_breaks_it_off() {
        let activity = Arc::new(Activity::new(Instant::now()));
        for is_broken in [false, true] {
            let (mut sender, body) = Channel::<Bytes, ResponseBodyError>::new(2);
            let large = Bytes::from(vec![7; HTTP_PIECE_BYTES_MAX + 1]);
            sender.try_send(Frame::data(large)).expect("room");
            if is_broken {
                sender.abort("lost".into());
            } else {
                sender.try_send(Frame::trailers(HeaderMap::new())).expect("room");
            }
            let is_complete = Arc::new(AtomicBool::new(false));
            let complete = is_complete.clone();
            let mut body = WatchedBody::new(body, activity.answered())
                .then(move |_| complete.store(true, Ordering::Relaxed));
            for bytes in [HTTP_PIECE_BYTES_MAX, 1] {
                let piece = body.frame().await.expect("a piece").expect("a piece");
                assert_eq!(piece.data_ref().map(Bytes::len), Some(bytes));
            }
            assert!(!body.is_end_stream());
            let last = body.frame().await.expect("an end");
            match is_broken {
                false => assert!(last.expect("trailers").is_trailers() && body.is_end_stream()),
                true => assert!(last.is_err() && !body.is_end_stream()),
            }
            drop(body);
            assert_ne!(is_complete.load(Ordering::Relaxed), is_broken);
            assert!(activity.idle_since().is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_response_alone_is_reset_while_another_continues() {
        let (activity, bytes) = (Arc::new(Activity::new(Instant::now())), Bytes::from_static(b"x"));
        let mut stalled = WatchedBody::new(Full::new(bytes), activity.answered());
        let is_reset = activity.last_reset();
        drop(stalled.frame().await);
        let going_on = activity.answered();
        let continues = activity.last_reset();
        assert!(!activity.is_stalled(Instant::now() + HTTP_STEP), "the connection stays");
        is_reset.await;
        let waits = tokio::time::timeout(HTTP_STEP, continues).await;
        assert!(waits.is_err(), "it has done nothing");
        drop(going_on);
        assert!(activity.is_stalled(Instant::now() + HTTP_STEP), "nothing else is left on it");
    }

    #[tokio::test(start_paused = true)]
    async fn each_response_stalls_for_as_long_as_it_may() {
        let (activity, now) = (Arc::new(Activity::new(Instant::now())), Instant::now());
        let stalled = |stall_max| {
            let guard = activity.answered();
            guard.may_stall(stall_max);
            let is_reset = activity.last_reset();
            (WatchedBody::new(Full::new(Bytes::from_static(b"x")), guard), is_reset)
        };
        assert_eq!(activity.stall_max(), HTTP_STEP);
        let (brief, brief_is_reset) = stalled(HTTP_STEP);
        let (patient, patient_is_reset) = stalled(HTTP_STEP * 100);
        let (endless, _) = stalled(Duration::MAX);
        assert_eq!(activity.stall_max(), FOREVER);
        assert!(!activity.is_stalled(now + HTTP_STEP));
        brief_is_reset.await;
        drop(brief);
        assert!(!activity.is_stalled(now + HTTP_STEP * 99));
        assert!(!activity.is_stalled(now + HTTP_STEP * 100));
        patient_is_reset.await;
        drop((patient, endless));
        assert_eq!(activity.stall_max(), FOREVER, "its end may not be sent yet");
    }
}
