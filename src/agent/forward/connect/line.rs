//! One connection to an upstream, dropped and thereby hung up, or given back and used again; and how it comes to be.

use super::address::Place;
use crate::{
    drain::Tasks,
    limits::{FORWARD_CONNECT_WAIT_MAX, FORWARD_HEAD_BYTES_MAX, FORWARD_HEADERS_MAX},
    race, system,
    tls::UpstreamTls,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, io};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// A request on its way out.
pub(super) type Outgoing = Request<Full<Bytes>>;

/// A connection that carries one exchange at a time.
pub(super) struct Line {
    sender: SendRequest<Full<Bytes>>,
    /// Dropped with the line, it has the connection dropped where it stands: that is how an upstream sees that nobody waits any more.
    _hangs_up: oneshot::Sender<Infallible>,
}

/// Why there is no reply.
pub(super) enum Broken {
    /// The request comes back: no byte of it was written.
    Unsent(Box<Outgoing>),
    /// Some of it may have been written.
    Sent(hyper::Error),
}

/// Why no connection came about. Nothing of a request was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error("cannot be reached: {}", system::explain(.0))]
    Connect(io::Error),
    #[error("did not pass the TLS handshake: {0}")]
    Tls(io::Error),
    #[error("does not speak HTTP/1.1: {0}")]
    Http(hyper::Error),
    #[error("did not take a connection within {FORWARD_CONNECT_WAIT_MAX:?}")]
    Slow,
    #[error("did not take a connection before the deadline")]
    Deadline,
    #[error("closed a new connection before the request was written")]
    Closed,
}

impl Unreachable {
    /// The same for the caller, who need not know where the upstream is and what its certificate says.
    pub(super) fn to_caller(&self) -> String {
        match self {
            Self::Connect(fault) => format!("cannot be reached ({})", system::kind(fault)),
            Self::Tls(_) => {
                "did not pass the TLS handshake; the log of the agent says why".to_owned()
            }
            other => other.to_string(),
        }
    }
}

/// A byte stream to an upstream, whatever it is underneath.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Line {
    /// Connects, within the deadline and within five seconds.
    pub(super) async fn connect(
        place: &Place,
        tls: Option<&UpstreamTls>,
        tasks: &Tasks,
        deadline: Instant,
    ) -> Result<Self, Unreachable> {
        let wait_until = Instant::now() + FORWARD_CONNECT_WAIT_MAX;
        let slow = if deadline < wait_until { Unreachable::Deadline } else { Unreachable::Slow };
        let stream = timeout_at(deadline.min(wait_until), dial(place, tls));
        Self::over(stream.await.map_err(|_elapsed| slow)??, tasks).await
    }

    async fn over(stream: Box<dyn Stream>, tasks: &Tasks) -> Result<Self, Unreachable> {
        let handshake = Builder::new()
            .max_buf_size(FORWARD_HEAD_BYTES_MAX)
            .max_header_size(FORWARD_HEAD_BYTES_MAX)
            .max_headers(FORWARD_HEADERS_MAX)
            .handshake(TokioIo::new(stream));
        // It waits for nothing: HTTP/1 has no greeting.
        let (sender, connection) = handshake.await.map_err(Unreachable::Http)?;
        let (hangs_up, hung_up) = oneshot::channel::<Infallible>();
        tasks.spawn(async move {
            tokio::select! {
                // Whoever waits for a reply hears of it.
                _ended = connection => {}
                _hung_up = hung_up => {}
            }
        });
        Ok(Self { sender, _hangs_up: hangs_up })
    }

    /// Whether it can carry a request now, as far as is known.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready() && !self.sender.is_closed()
    }

    /// Sends a request and waits for the head of its reply.
    pub(super) async fn send(&mut self, request: Outgoing) -> Result<Response<Incoming>, Broken> {
        self.sender.try_send_request(request).await.map_err(|mut fault| {
            match fault.take_message() {
                Some(request) => Broken::Unsent(Box::new(request)),
                None => Broken::Sent(fault.into_error()),
            }
        })
    }
}

async fn dial(place: &Place, tls: Option<&UpstreamTls>) -> Result<Box<dyn Stream>, Unreachable> {
    match place {
        Place::Tcp { host, port, .. } => {
            let stream = race::connect_tcp(host, *port).await;
            let stream = stream.map_err(Unreachable::Connect)?;
            stream.set_nodelay(true).map_err(Unreachable::Connect)?;
            match tls {
                None => Ok(Box::new(stream)),
                Some(tls) => Ok(Box::new(tls.connect(stream).await.map_err(Unreachable::Tls)?)),
            }
        }
        Place::Unix(path) => dial_socket(path).await,
    }
}

#[cfg(unix)]
async fn dial_socket(path: &std::path::Path) -> Result<Box<dyn Stream>, Unreachable> {
    let stream = tokio::net::UnixStream::connect(path).await;
    Ok(Box::new(stream.map_err(Unreachable::Connect)?))
}

#[cfg(not(unix))]
async fn dial_socket(_: &std::path::Path) -> Result<Box<dyn Stream>, Unreachable> {
    Err(Unreachable::Connect(io::ErrorKind::Unsupported.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    async fn line(tasks: &Tasks) -> (Line, DuplexStream) {
        let (ours, theirs) = duplex(4_096);
        let line = Line::over(Box::new(ours), tasks).await;
        (line.unwrap_or_else(|fault| panic!("{fault}")), theirs)
    }

    fn request() -> Outgoing {
        let mut request = Outgoing::new(Full::new(Bytes::from_static(b"message")));
        *request.uri_mut() = "/a".parse().expect("a path");
        request
    }

    #[tokio::test]
    async fn a_request_comes_back_from_a_line_whose_other_end_has_gone() {
        let (mut line, theirs) = line(&Tasks::default()).await;
        drop(theirs);
        let Err(Broken::Unsent(back)) = line.send(request()).await else {
            panic!("it did not come back");
        };
        assert_eq!(back.uri().path(), "/a");
        assert!(!line.is_ready());
    }

    #[tokio::test]
    async fn a_request_of_which_a_byte_was_read_does_not_come_back() {
        let (mut line, mut theirs) = line(&Tasks::default()).await;
        let reads_one_byte = async {
            theirs.read_exact(&mut [0]).await.expect("a byte");
            drop(theirs);
        };
        let (answered, ()) = tokio::join!(line.send(request()), reads_one_byte);
        assert!(matches!(answered, Err(Broken::Sent(_))));
    }

    #[tokio::test]
    async fn a_line_that_is_dropped_hangs_up_and_its_task_ends() {
        let tasks = Tasks::default();
        let (line, mut theirs) = line(&tasks).await;
        drop(line);
        assert_eq!(theirs.read(&mut [0]).await.expect("an end"), 0);
        assert!(tasks.wait(std::time::Duration::from_secs(5)).await);
        drop(theirs.shutdown().await);
    }
}
