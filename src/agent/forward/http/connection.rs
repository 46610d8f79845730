//! One HTTP/1.1 connection to an upstream: dialled, used for one exchange at a time, and closed
//! when dropped.

use super::{
    address::Destination,
    body::UpstreamBody,
    reuse,
    socket::{Exchange, WatchedSocket},
};
use crate::{
    drain::Tasks,
    limits::{
        FORWARD_AGE_MAX, FORWARD_CONNECT_WAIT_MAX, FORWARD_HEAD_BYTES_MAX, FORWARD_HEADERS_MAX,
    },
    race, system,
    tls::UpstreamTls,
};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
    header::AUTHORIZATION,
};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant, timeout_at},
};

pub(in crate::agent::forward) type Outgoing = Request<UpstreamBody>;

pub(in crate::agent::forward) struct UpstreamConnection {
    sender: SendRequest<UpstreamBody>,
    exchange: Arc<Exchange>,
    /// Time after which no call uses it.
    expires_at: Instant,
    /// Replies received, at least their heads.
    answers: u32,
    /// Maximum idle time before another use; `None` if the upstream has announced to close it.
    idle_max: Option<Duration>,
    ended: oneshot::Receiver<Instant>,
    /// Dropping it closes the socket at once, so that the upstream sees the cancellation.
    _hangs_up: oneshot::Sender<Infallible>,
}

pub(in crate::agent::forward) enum SendError {
    /// No byte was written; with the request.
    Unsent(Box<Outgoing>),
    /// Some bytes may have been written.
    Sent(hyper::Error),
}

/// Error of connecting. Nothing of a request was written.
#[derive(Debug, thiserror::Error)]
pub(in crate::agent::forward) enum Unreachable {
    #[error("cannot be reached: {}", system::explain(.0))]
    Connect(io::Error),
    #[error("did not pass the TLS handshake: {0}")]
    Tls(io::Error),
    #[error("does not speak this version of HTTP: {0}")]
    Http(hyper::Error),
    #[error("did not take a connection within {FORWARD_CONNECT_WAIT_MAX:?}")]
    Slow,
    #[error("did not take a connection before the deadline")]
    Deadline,
    #[error("closed a new connection, or spoke first on it, before the request was written")]
    Closed,
}

impl Unreachable {
    /// The error for the caller, without the address and the certificate of the upstream.
    pub(in crate::agent::forward) fn to_caller(&self) -> String {
        match self {
            Self::Connect(fault) => format!("cannot be reached ({})", system::kind(fault)),
            Self::Tls(_) => {
                "did not pass the TLS handshake; the log of the agent says why".to_owned()
            }
            other => other.to_string(),
        }
    }
}

/// Byte stream to an upstream over TCP, TLS or a Unix socket.
pub(super) trait UpstreamStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> UpstreamStream for S {}

impl UpstreamConnection {
    /// Begins HTTP/1.1. `chance`, 0 to 1, shortens its maximum age.
    pub(super) async fn over(
        stream: Box<dyn UpstreamStream>,
        exchange: Arc<Exchange>,
        tasks: &Tasks,
        chance: f64,
    ) -> Result<Self, Unreachable> {
        let expires_at = expiry(Instant::now(), chance);
        let handshake = Builder::new()
            .max_buf_size(FORWARD_HEAD_BYTES_MAX)
            .max_header_size(FORWARD_HEAD_BYTES_MAX)
            .max_headers(FORWARD_HEADERS_MAX)
            .handshake(TokioIo::new(stream));
        // Completes at once: HTTP/1 has no greeting.
        let (sender, connection) = handshake.await.map_err(Unreachable::Http)?;
        let (hangs_up, hung_up) = oneshot::channel::<Infallible>();
        let (ends, ended) = oneshot::channel();
        tasks.spawn(async move {
            tokio::select! {
                // A pending reply fails.
                _ended = connection.with_upgrades() => drop(ends.send(Instant::now())),
                _hung_up = hung_up => {}
            }
        });
        let (answers, idle_max, _hangs_up) = (0, None, hangs_up);
        Ok(Self { sender, exchange, expires_at, answers, idle_max, ended, _hangs_up })
    }

    /// Returns `true` if it can send a request now, as far as is known.
    pub(in crate::agent::forward) fn is_ready(&self) -> bool {
        self.sender.is_ready() && !self.sender.is_closed()
    }

    pub(in crate::agent::forward) const fn answers(&self) -> u32 {
        self.answers
    }

    /// Time until which it may be used again when idle from now on; `None` if it may not.
    pub(in crate::agent::forward) fn usable_until(&self, now: Instant) -> Option<Instant> {
        let until = self.expires_at.min(now + self.idle_max?);
        (now < until).then_some(until)
    }

    /// Time when it ended, if it did by `until`.
    pub(in crate::agent::forward) async fn ended_by(&mut self, until: Instant) -> Option<Instant> {
        let ended = match self.ended.try_recv() {
            Ok(at) => Some(at),
            Err(_) if until <= Instant::now() => None,
            Err(_) => timeout_at(until, &mut self.ended).await.ok()?.ok(),
        };
        // hyper has noticed the end, its task has not completed yet.
        ended.or_else(|| self.sender.is_closed().then(Instant::now))
    }

    /// Sends a request and awaits the head of its reply.
    pub(in crate::agent::forward) async fn send(
        &mut self,
        request: Outgoing,
    ) -> Result<Response<Incoming>, SendError> {
        if self.answers > 0 {
            self.exchange.look_first();
        }
        let (written, copy) = (self.exchange.written(), request.clone());
        let credential = request.headers().get(AUTHORIZATION).and_then(|one| one.to_str().ok());
        let is_of_connection = credential.is_some_and(reuse::is_of_connection);
        request.body().is_on(&self.exchange);
        let answered = self.sender.try_send_request(request).await;
        let response = answered.map_err(|fault| {
            // The connection has only this exchange, of which no byte was written.
            if self.exchange.written() == written {
                SendError::Unsent(Box::new(copy))
            } else {
                SendError::Sent(fault.into_error())
            }
        })?;
        self.answers = self.answers.saturating_add(1);
        self.idle_max = reuse::idle_max(&response).filter(|_| !is_of_connection);
        Ok(response)
    }
}

/// Expiry of a new connection, randomised so that connections made together do not expire together.
fn expiry(now: Instant, chance: f64) -> Instant {
    now + FORWARD_AGE_MAX.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
}

/// A connection on which no request was sent.
pub(super) struct Dialled {
    pub(super) stream: Box<dyn UpstreamStream>,
    pub(super) exchange: Arc<Exchange>,
    /// True if TLS has agreed on HTTP/2.
    pub(super) is_http2: bool,
}

/// Connects within the deadline and five seconds.
pub(super) async fn dial_in_time(
    destination: &Destination,
    tls: Option<&UpstreamTls>,
    may_be_http2: bool,
    deadline: Instant,
) -> Result<Dialled, Unreachable> {
    let wait_until = Instant::now() + FORWARD_CONNECT_WAIT_MAX;
    let slow = if deadline < wait_until { Unreachable::Deadline } else { Unreachable::Slow };
    let exchange = Arc::<Exchange>::default();
    let dialling = dial(destination, tls, may_be_http2, &exchange);
    let dialled = timeout_at(deadline.min(wait_until), dialling).await;
    let (stream, is_http2) = dialled.map_err(|_elapsed| slow)??;
    if tls.is_none() && !may_be_http2 {
        // With TLS, unread bytes may belong to the handshake; in HTTP/2 a server may speak first.
        exchange.look_first();
    }
    Ok(Dialled { stream, exchange, is_http2 })
}

async fn dial(
    destination: &Destination,
    tls: Option<&UpstreamTls>,
    may_be_http2: bool,
    exchange: &Arc<Exchange>,
) -> Result<(Box<dyn UpstreamStream>, bool), Unreachable> {
    match destination {
        Destination::Tcp { host, port, .. } => {
            let stream = race::connect_tcp(host, *port).await;
            let stream = stream.map_err(Unreachable::Connect)?;
            stream.set_nodelay(true).map_err(Unreachable::Connect)?;
            let stream = WatchedSocket::new(stream, exchange.clone());
            match tls {
                None => Ok((Box::new(stream), false)),
                Some(tls) => {
                    let secured = tls.connect(stream, may_be_http2).await;
                    let (stream, is_http2) = secured.map_err(Unreachable::Tls)?;
                    Ok((Box::new(stream), is_http2))
                }
            }
        }
        #[cfg(unix)]
        Destination::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(path).await;
            let stream = stream.map_err(Unreachable::Connect)?;
            Ok((Box::new(WatchedSocket::new(stream, exchange.clone())), false))
        }
        #[cfg(not(unix))]
        Destination::Unix(_) => Err(Unreachable::Connect(io::ErrorKind::Unsupported.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::socket::Look, *};
    use crate::convert::Text;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    impl Look for DuplexStream {
        fn is_silent(&self) -> bool {
            true
        }
    }

    async fn connection(tasks: &Tasks) -> (UpstreamConnection, DuplexStream) {
        let ((ours, theirs), exchange) = (duplex(4_096), Arc::<Exchange>::default());
        let ours = Box::new(WatchedSocket::new(ours, exchange.clone()));
        let connection = UpstreamConnection::over(ours, exchange, tasks, 0.0).await;
        (connection.unwrap_or_else(|fault| panic!("{fault}")), theirs)
    }

    fn request() -> Outgoing {
        let mut request = Outgoing::new(Text::complete(b"message"[..].into()).into());
        *request.uri_mut() = "/a".parse().expect("a path");
        request
    }

    #[tokio::test]
    async fn a_request_comes_back_from_a_connection_whose_other_end_has_gone() {
        let (mut connection, theirs) = connection(&Tasks::default()).await;
        drop(theirs);
        let Err(SendError::Unsent(back)) = connection.send(request()).await else {
            panic!("it did not come back");
        };
        assert_eq!(back.uri().path(), "/a");
        assert!(!connection.is_ready());
    }

    #[tokio::test]
    async fn a_request_of_which_a_byte_was_read_does_not_come_back() {
        let (mut connection, mut theirs) = connection(&Tasks::default()).await;
        let reads_one_byte = async {
            theirs.read_exact(&mut [0]).await.expect("a byte");
            drop(theirs);
        };
        let (answered, ()) = tokio::join!(connection.send(request()), reads_one_byte);
        assert!(matches!(answered, Err(SendError::Sent(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_an_age_that_chance_shortens_by_up_to_half() {
        let now = Instant::now();
        assert_eq!(expiry(now, 0.0), now + FORWARD_AGE_MAX);
        assert_eq!(expiry(now, 1.0), now + FORWARD_AGE_MAX / 2);
        let (mut connection, _theirs) = connection(&Tasks::default()).await;
        assert_eq!(connection.usable_until(now), None, "it has carried no reply");
        let idle = Duration::from_secs(1);
        connection.idle_max = Some(idle);
        assert_eq!(connection.usable_until(now), Some(now + idle));
        let late = now + FORWARD_AGE_MAX - idle / 2;
        assert_eq!(connection.usable_until(late), Some(now + FORWARD_AGE_MAX));
        assert_eq!(connection.usable_until(now + FORWARD_AGE_MAX), None);
    }

    #[tokio::test]
    async fn a_connection_that_is_dropped_hangs_up_and_its_task_ends() {
        let tasks = Tasks::default();
        let (connection, mut theirs) = connection(&tasks).await;
        drop(connection);
        assert_eq!(theirs.read(&mut [0]).await.expect("an end"), 0);
        assert!(tasks.wait(Duration::from_secs(5)).await);
        drop(theirs.shutdown().await);
    }
}
