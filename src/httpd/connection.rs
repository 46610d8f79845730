//! Serves HTTP/1.1 or HTTP/2 on one connection until its end.

use super::{
    answers::{Answers, Peer},
    discard, frames,
    guarded::Guarded,
    head::{self, Found},
    ping_timer::PingTimer,
    request_body::KeptBody,
    unanswered_request::UnansweredRequest,
    watched::{Activity, WatchedBody},
};
use crate::{
    drain::{SignalListener, Tasks},
    limits::{
        HTTP_CHECK_EVERY, HTTP_DISCARD_STEP, HTTP_DISCARD_WAIT_MAX, HTTP_HEAD_BYTES_MAX,
        HTTP_HEAD_WAIT_MAX, HTTP_HEADERS_MAX, HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_IDLE_MAX,
        HTTP2_PING_EVERY, HTTP2_RESETS_PENDING_MAX, HTTP2_STREAM_WINDOW_BYTES, HTTP2_STREAMS_MAX,
    },
};
use hyper::{
    Request, Response, Version, body::Incoming, header, http::request::Parts, server::conn,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

pub(super) struct Connection<A> {
    pub(super) answers: Arc<A>,
    pub(super) tasks: Tasks,
    pub(super) peer: Arc<Peer>,
    pub(super) is_h2: bool,
    pub(super) activity: Arc<Activity>,
}

impl<A: Answers> Connection<A> {
    /// Serves until the end. A client that breaks the rules is logged and closed.
    pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        self,
        mut stream: Guarded<S>,
        mut draining: Option<[SignalListener; 2]>,
        log_closed: impl FnOnce(&str),
    ) {
        let keeps_alive = draining.is_some();
        // Waiting for the drain includes the last bytes of the connection.
        let [drain, _end] = draining.get_or_insert_default();
        stream.limit_stalls(self.activity.clone());
        let ended = if self.is_h2 {
            stream.count_frames(self.activity.allowance.clone());
            self.serve_http_2(&mut stream, drain).await
        } else {
            let found = stream.look_at_heads();
            let (left, read, ended) = self.serve_http_1(stream, found, keeps_alive, drain).await;
            stream = left;
            if let Some(upgrade) = self.peer.take_upgrade().filter(|_| ended == Ended::Complete) {
                // The drain does not wait for what is not HTTP any more.
                drop(draining);
                stream.leave_http();
                return upgrade((Box::new(stream), read)).await;
            }
            if ended == Ended::Complete {
                self.activity.set_truncated(false);
            }
            ended
        };
        if stream.is_flooded() {
            log_closed("it sends HTTP/2 frames without end that carry no request forward");
            if stream.is_between_writes() {
                let last = stream.write_all(&frames::ENHANCE_YOUR_CALM);
                drop(timeout(HTTP_DISCARD_STEP, last).await);
            }
            drop(timeout(HTTP_DISCARD_STEP, stream.shutdown()).await);
        } else if ended != Ended::Closed
            && !self.activity.is_truncated()
            && let Ok(Ok(())) = timeout(HTTP_DISCARD_STEP, stream.shutdown()).await
            && let Some(unended) = stream.unended()
        {
            discard::connection(unended).await;
        }
    }

    async fn serve_http_2<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: &mut Guarded<S>,
        drain: &mut SignalListener,
    ) -> Ended {
        let streams = Streams { tasks: self.tasks.clone(), activity: self.activity.clone() };
        let mut http = conn::http2::Builder::new(streams);
        http.timer(PingTimer(self.activity.clone()))
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HTTP_HEAD_BYTES_MAX as u32)
            .max_send_buf_size(HTTP2_STREAM_WINDOW_BYTES as usize)
            .max_pending_accept_reset_streams(HTTP2_RESETS_PENDING_MAX)
            .keep_alive_interval(HTTP2_PING_EVERY)
            .keep_alive_timeout(HTTP2_PING_EVERY);
        let service = service_fn(|request| self.answer(request, None));
        let connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let drain_by = conn::http2::Connection::graceful_shutdown;
        let state = (&*self.peer, &*self.activity);
        until_over(connection, drain_by, state, Some(HTTP2_IDLE_MAX), drain).await
    }

    /// Returns the stream, what was read of it behind the last request, and how HTTP ended.
    async fn serve_http_1<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: Guarded<S>,
        found: Found,
        keeps_alive: bool,
        drain: &mut SignalListener,
    ) -> (Guarded<S>, Vec<u8>, Ended) {
        let mut http = conn::http1::Builder::new();
        // Without a timer hyper silently ignores its limit on heads.
        http.timer(TokioTimer::new())
            .header_read_timeout(HTTP_HEAD_WAIT_MAX)
            .max_buf_size(HTTP_HEAD_BYTES_MAX)
            .max_headers(HTTP_HEADERS_MAX)
            .keep_alive(keeps_alive);
        let service = service_fn(|request| self.answer(request, Some(&found)));
        let mut connection = http.serve_connection(TokioIo::new(stream), service);
        let drain_by = conn::http1::Connection::graceful_shutdown;
        let state = (&*self.peer, &*self.activity);
        let ended = until_over(Pin::new(&mut connection), drain_by, state, None, drain).await;
        let conn::http1::Parts { io, read_buf, .. } = connection.into_parts();
        (io.into_inner(), read_buf.into(), ended)
    }

    /// Answers one request. `found` has the framing of the heads of HTTP/1.
    fn answer(
        &self,
        request: Request<Incoming>,
        found: Option<&Found>,
    ) -> impl Future<Output = Result<Response<WatchedBody<A::Body>>, Infallible>> + Send + use<A>
    {
        let guard = self.activity.answered();
        let (mut head, body) = request.into_parts();
        let framing = found.map_or_else(|| head::of_http_2(&head), Found::next);
        head.extensions.insert(framing);
        let is_awaited = found.is_some() && waits_for_continue(&head);
        let body = KeptBody::new(body, is_awaited, self.activity.allowance.clone());
        let reader = body.reader();
        let peer = self.peer.clone();
        let pending =
            UnansweredRequest::new(&head, (body, guard), peer.clone(), self.tasks.clone());
        let request = Request::from_parts(head, reader);
        let answers = self.answers.clone();
        let answer = answers.clone().answer(request, peer.clone());
        async move {
            if peer.is_done() {
                std::future::pending::<()>().await;
            }
            Ok(pending.answered(&*answers, answer.await))
        }
    }
}

impl<A> Drop for Connection<A> {
    /// An upgrade that has not run may own the peer, which owns the upgrade.
    fn drop(&mut self) {
        drop(self.peer.take_upgrade());
    }
}

/// `true` if an HTTP/1.1 client awaits `100 Continue` before the body (RFC 9110 section 10.1.1).
fn waits_for_continue(head: &Parts) -> bool {
    let expectation = head.headers.get(header::EXPECT).filter(|_| head.version > Version::HTTP_10);
    expectation.is_some_and(|one| one.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Executor of HTTP/2: one task per request. Dropping a task resets only its stream.
#[derive(Clone)]
struct Streams {
    tasks: Tasks,
    activity: Arc<Activity>,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    /// Called once for each request, right after that was begun.
    fn execute(&self, work: F) {
        let reset = self.activity.last_reset();
        self.tasks.spawn_until_stopped(async move {
            tokio::select! {
                biased;
                () = work => {}
                () = reset => {}
            }
        });
    }
}

/// End of HTTP on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// After a complete response. The client may still be sending, and its bytes must be discarded.
    Complete,
    /// By an error or a refusal, and the client may still be sending.
    Early,
    /// Nothing more is read or written.
    Closed,
}

/// Drives a connection to its end: by itself, by a graceful shutdown, or by a timeout.
async fn until_over<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    graceful_shutdown: fn(Pin<&mut C>),
    (peer, activity): (&Peer, &Activity),
    idle_max: Option<std::time::Duration>,
    drain: &mut SignalListener,
) -> Ended {
    let mut look = tokio::time::interval(HTTP_CHECK_EVERY);
    let (mut has_left, mut was_idle) = (false, false);
    let mut done_by = None;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return match ended {
                _ if was_idle => Ended::Closed,
                Ok(()) => Ended::Complete,
                // After a protocol error of HTTP/2 nothing more is read. A response that broke off
                // must not end as one that is complete: TLS sends no close_notify.
                Err(fault) if idle_max.is_some() || fault.is_user() => Ended::Closed,
                Err(_) => Ended::Early,
            },
            () = drain.notified() => {
                was_idle |= activity.idle_since().is_some();
                graceful_shutdown(connection.as_mut());
                has_left = true;
                drain.done();
            }
            now = look.tick() => {
                activity.allowance.waited();
                if activity.is_stalled(now) {
                    return Ended::Closed;
                }
                if peer.is_done() {
                    let done_by = *done_by.get_or_insert(now + HTTP_DISCARD_WAIT_MAX);
                    if now >= done_by || activity.idle_since().is_some() {
                        return Ended::Early;
                    }
                }
                let Some(since) = activity.idle_since() else { continue };
                if idle_max.is_some() && !activity.has_had_request() && now >= since + HTTP_HEAD_WAIT_MAX {
                    return Ended::Closed;
                }
                match idle_max {
                    // The client may still have to take the end of a response.
                    Some(idle_max) if now >= since + idle_max + activity.stall_max() => {
                        return Ended::Closed;
                    }
                    Some(idle_max) if now >= since + idle_max && !has_left => {
                        was_idle = true;
                        graceful_shutdown(connection.as_mut());
                        has_left = true;
                    }
                    _ => {}
                }
            }
        }
    }
}
