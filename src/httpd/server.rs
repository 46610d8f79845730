//! HTTP server: accepts connections, and serves HTTP/1.1 and HTTP/2 on them within its limits.

use super::{
    discard, frames,
    guarded::{self, Guarded},
    head,
    persistence::Persistence,
    request_body::RequestBody,
    slots::{Acquired, Admission, SlotOwner, Slots},
    watched::{Activity, WatchedBody},
};
use crate::{
    drain::{SignalListener, Tasks},
    limits::{
        ACCEPT_RETRY_AFTER, HANDSHAKE_WAIT_MAX, HTTP_CHECK_EVERY, HTTP_CONNECTIONS_MAX,
        HTTP_CONNECTIONS_PER_HOST_MAX, HTTP_CONNECTIONS_PER_NETWORK_MAX,
        HTTP_CONNECTIONS_PER_SITE_MAX, HTTP_DISCARD_STEP, HTTP_DISCARD_WAIT_MAX,
        HTTP_FIRST_BYTES_WAIT_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_WAIT_MAX, HTTP_HEADERS_MAX,
        HTTP_UNSENT_BYTES_MAX, HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_IDLE_MAX, HTTP2_PING_EVERY,
        HTTP2_RESETS_PENDING_MAX, HTTP2_STREAM_WINDOW_BYTES, HTTP2_STREAMS_MAX,
        IGNORED_HANDSHAKES_LOG_EVERY,
    },
    prefixes::PrefixLimits,
    rate_limit::{LogLimiter, RateLimit},
    system,
    tls::{ClientCertificate, Credentials, HttpTls},
};
use bytes::Bytes;
use http_body::Body;
use hyper::{
    HeaderMap, Request, Response, body::Incoming, header, server::conn, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

/// Client of a connection.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The certificate that it has shown.
    pub(crate) shown: Option<ClientCertificate>,
    /// True if its connection ends after the current responses.
    is_done: AtomicBool,
    owner: Arc<SlotOwner>,
}

impl Peer {
    fn new(address: SocketAddr, shown: Option<ClientCertificate>, owner: Arc<SlotOwner>) -> Self {
        Self { address, shown, is_done: AtomicBool::new(false), owner }
    }

    pub(crate) fn set_known(&self) {
        self.owner.set_known();
    }

    /// Ends the connection after its current responses, and answers no more requests.
    pub(crate) fn be_done(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }
}

/// Owner of the server: answers its requests.
pub(crate) trait Answers: Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static;

    /// Admission of this address.
    fn admits(&self, from: IpAddr) -> Admission;

    /// TLS and the current credentials; `None` for plain HTTP.
    fn tls(&self) -> Option<(Arc<HttpTls>, Credentials)>;

    /// Reports a failed handshake.
    fn handshake_failed(&self, from: SocketAddr, fault: &std::io::Error);

    /// Signals to stop accepting requests, and to end the last ones. `None` if the server is
    /// already draining.
    fn draining(&self) -> Option<[SignalListener; 2]>;

    /// Answers one request. Dropped when the client has gone.
    fn answer(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// State that all connections share.
struct Server<A> {
    answers: Arc<A>,
    tasks: Tasks,
    /// Limits the log lines about closed connections.
    closed: Mutex<LogLimiter>,
}

impl<A> Server<A> {
    /// Logs that a connection was closed, with the reason, rate-limited.
    fn log_closed(&self, address: IpAddr, why: impl fmt::Display) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = closed.admit(Instant::now()) {
            tracing::warn!(
                "closed a connection of {address} to the HTTP gateway: {why}{suppressed}"
            );
        }
    }
}

/// Accepts until it is dropped. Each connection has a task of its own.
pub(crate) async fn serve<A: Answers>(listener: TcpListener, answers: Arc<A>, tasks: Tasks) {
    let limits = PrefixLimits {
        host: HTTP_CONNECTIONS_PER_HOST_MAX,
        site: HTTP_CONNECTIONS_PER_SITE_MAX,
        network: HTTP_CONNECTIONS_PER_NETWORK_MAX,
    };
    let slots = Slots::new(HTTP_CONNECTIONS_MAX, limits);
    let every = || LogLimiter::new(RateLimit::new(1, IGNORED_HANDSHAKES_LOG_EVERY));
    let mut failed = every();
    let server = Arc::new(Server { answers, tasks, closed: Mutex::new(every()) });
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(fault) => {
                if let Some(suppressed) = failed.admit(Instant::now()) {
                    let fault = system::explain(&fault);
                    tracing::warn!("a connection could not be accepted: {fault}{suppressed}");
                }
                tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
                continue;
            }
        };
        let ip = address.ip().to_canonical();
        let admission = server.answers.admits(ip);
        if admission == Admission::Refused {
            continue;
        }
        let slot = match slots.take(ip, admission) {
            Ok(Acquired { slot, dropped }) => {
                if let Some((full, ip)) = dropped {
                    server.log_closed(ip, format_args!("it had shown no caller, and {full}"));
                }
                slot
            }
            Err(full) => {
                server.log_closed(ip, full);
                continue;
            }
        };
        let (owner, server) = (slot.owner.clone(), server.clone());
        let work = connection(stream, address, server.clone(), owner.clone());
        server.tasks.spawn_until_stopped(async move {
            tokio::select! {
                () = work => {}
                () = owner.evicted() => {}
            }
            drop(slot);
        });
    }
}

/// One connection, from its first byte to its end.
async fn connection<A: Answers>(
    stream: TcpStream,
    address: SocketAddr,
    server: Arc<Server<A>>,
    owner: Arc<SlotOwner>,
) {
    let answers = &server.answers;
    let draining = answers.draining();
    drop(stream.set_nodelay(true));
    hold_little(&stream);
    let Some((tls, credentials)) = answers.tls() else {
        let peer = Peer::new(address, None, owner);
        let first = guarded::first_bytes(stream, HTTP_FIRST_BYTES_WAIT_MAX).await;
        let Some((first, is_h2)) = first else { return };
        return talk(first, is_h2, peer, &server, draining).await;
    };
    let handshake = tls.accept(&credentials, stream);
    let late = |_elapsed| Err(std::io::Error::other("the TLS handshake did not end in time"));
    match timeout(HANDSHAKE_WAIT_MAX, handshake).await.unwrap_or_else(late) {
        Ok(accepted) => {
            let peer = Peer::new(address, accepted.shown, owner);
            let stream = Guarded::new(accepted.stream, Vec::new());
            talk(stream, accepted.is_h2, peer, &server, draining).await;
        }
        Err(fault) => answers.handshake_failed(address, &fault),
    }
}

/// Limits unsent bytes in the operating system, so that stalled writes show a client that reads
/// nothing, and a slow reader is not mistaken for one. Not available on every system.
fn hold_little(stream: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    drop(socket2::SockRef::from(stream).set_tcp_notsent_lowat(HTTP_UNSENT_BYTES_MAX));
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (stream, HTTP_UNSENT_BYTES_MAX);
}

async fn talk<S, A>(
    mut stream: Guarded<S>,
    is_h2: bool,
    peer: Peer,
    server: &Server<A>,
    draining: Option<[SignalListener; 2]>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Answers,
{
    let (peer, activity) = (Arc::new(peer), Arc::new(Activity::new(Instant::now())));
    let framing = (!is_h2).then(|| stream.look_at_heads());
    if is_h2 {
        stream.count_frames(activity.allowance.clone());
    }
    let service = {
        let (activity, peer) = (activity.clone(), peer.clone());
        let (answers, tasks) = (server.answers.clone(), server.tasks.clone());
        service_fn(move |request: Request<Incoming>| {
            let answered = activity.answered();
            let (mut head, body) = request.into_parts();
            let framing =
                framing.as_ref().map_or_else(|| head::of_http_2(&head), head::Found::next);
            head.extensions.insert(framing);
            let persistence = (!is_h2).then(|| Persistence::of(&head));
            let is_awaited = !is_h2 && waits_for_continue(&head.headers);
            let body = RequestBody::new(body, is_awaited, activity.allowance.clone());
            let request = Request::from_parts(head, body.clone());
            let (answer, tasks) = (answers.clone().answer(request, peer.clone()), tasks.clone());
            let peer = peer.clone();
            async move {
                if peer.is_done.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                let mut response = answer.await;
                if let Some(persistence) = persistence {
                    persistence.write(response.headers_mut(), body.is_kept_back());
                }
                Ok::<_, Infallible>(response.map(|answer| {
                    let watched = WatchedBody::new(answer, answered);
                    if !body.has_rest() {
                        return watched;
                    }
                    watched.then(move |answered| {
                        tasks.spawn_until_stopped(async move {
                            discard::body(body).await;
                            drop(answered);
                        });
                    })
                }))
            }
        })
    };
    // Waiting for the drain includes the last bytes of the connection.
    let mut draining = draining;
    let keeps_alive = draining.is_some();
    let drain = draining.get_or_insert_default();
    let io = TokioIo::new(&mut stream);
    let is_to_linger = if is_h2 {
        let streams = Streams { tasks: server.tasks.clone(), activity: activity.clone() };
        let mut http = conn::http2::Builder::new(streams);
        http.timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HTTP_HEAD_BYTES_MAX as u32)
            .max_send_buf_size(HTTP2_STREAM_WINDOW_BYTES as usize)
            .max_pending_accept_reset_streams(HTTP2_RESETS_PENDING_MAX)
            .keep_alive_interval(HTTP2_PING_EVERY)
            .keep_alive_timeout(HTTP2_PING_EVERY);
        let connection = http.serve_connection(io, service);
        let drain_by = conn::http2::Connection::graceful_shutdown;
        until_over(connection, drain_by, (&peer, &activity), Some(HTTP2_IDLE_MAX), &mut drain[0])
            .await
    } else {
        let mut http = conn::http1::Builder::new();
        // Without a timer hyper silently ignores its limit on heads.
        http.timer(TokioTimer::new())
            .header_read_timeout(HTTP_HEAD_WAIT_MAX)
            .max_buf_size(HTTP_HEAD_BYTES_MAX)
            .max_headers(HTTP_HEADERS_MAX)
            .keep_alive(keeps_alive);
        let connection = http.serve_connection(io, service);
        let drain_by = conn::http1::Connection::graceful_shutdown;
        until_over(connection, drain_by, (&peer, &activity), None, &mut drain[0]).await
    };
    if stream.is_flooded() {
        let why = "it sends HTTP/2 frames without end that carry no request forward";
        server.log_closed(peer.address.ip(), why);
        if stream.is_between_writes() {
            let last = stream.write_all(&frames::ENHANCE_YOUR_CALM);
            drop(timeout(HTTP_DISCARD_STEP, last).await);
        }
        drop(timeout(HTTP_DISCARD_STEP, stream.shutdown()).await);
    } else if is_to_linger
        && let Ok(Ok(())) = timeout(HTTP_DISCARD_STEP, stream.shutdown()).await
        && let Some(unended) = stream.unended()
    {
        discard::connection(unended).await;
    }
}

/// Returns `true` if an HTTP/1 client waits for `100 Continue` before it sends the body (RFC 9110
/// section 10.1.1).
fn waits_for_continue(headers: &HeaderMap) -> bool {
    let expectation = headers.get(header::EXPECT);
    expectation.is_some_and(|one| one.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Executor of HTTP/2: one task per request. Dropping a task before its end resets the stream of
/// that request only.
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

/// Drives a connection to its end: by itself, by a graceful shutdown, or by a timeout. Returns
/// `true` if the client may still be sending, and its bytes must be discarded.
async fn until_over<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    graceful_shutdown: fn(Pin<&mut C>),
    (peer, activity): (&Peer, &Activity),
    idle_max: Option<std::time::Duration>,
    drain: &mut SignalListener,
) -> bool {
    let mut connection = pin!(connection);
    let mut look = tokio::time::interval(HTTP_CHECK_EVERY);
    let (mut has_left, mut was_idle) = (false, false);
    let mut done_by = None;
    loop {
        tokio::select! {
            // After a protocol error of HTTP/2 nothing more is read.
            ended = connection.as_mut() => return !was_idle && (idle_max.is_none() || ended.is_ok()),
            () = drain.notified() => {
                was_idle |= activity.idle_since().is_some();
                graceful_shutdown(connection.as_mut());
                has_left = true;
                drain.done();
            }
            now = look.tick() => {
                activity.allowance.waited();
                if activity.is_stalled(now) {
                    return false;
                }
                if peer.is_done.load(Ordering::Relaxed) {
                    let done_by = *done_by.get_or_insert(now + HTTP_DISCARD_WAIT_MAX);
                    if now >= done_by || activity.idle_since().is_some() {
                        return true;
                    }
                }
                let Some(since) = activity.idle_since() else { continue };
                if idle_max.is_some() && !activity.has_had_request() && now >= since + HTTP_HEAD_WAIT_MAX {
                    return false;
                }
                match idle_max {
                    Some(idle_max) if now >= since + idle_max + HTTP_HEAD_WAIT_MAX => return false,
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
