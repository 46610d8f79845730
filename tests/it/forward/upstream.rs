//! An HTTP server for these tests that answers as scripted, byte for byte, and records the
//! requests.

use crate::world::{Background, soon, spawn};
use dialback::{Callee, Forward, Service, testing};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The reaction to a request.
#[derive(Clone)]
pub(crate) enum ServerAction {
    /// Writes these bytes and waits for the next request.
    Answers(Vec<u8>),
    /// Writes these bytes and closes the connection.
    AnswersAndCloses(Vec<u8>),
    /// Writes these bytes, nothing more, and waits until the other side disconnects.
    Hangs(Vec<u8>),
    /// Writes the first of these bytes, and then the others repeatedly, until the other side
    /// disconnects.
    Pours(Vec<u8>, Vec<u8>),
}

/// A request as received.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The connection it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The value of a header, names in lower case; panics if it occurs twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (have, value) = line.split_once(':')?;
            (have == name).then_some(value.trim())
        });
        let value = values.next();
        assert_eq!(values.next(), None, "{name} occurs twice in {}", self.head);
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }
}

/// The records of the server.
#[derive(Default)]
pub(crate) struct ServerLog {
    pub(crate) seen: Vec<Seen>,
    pub(crate) connections: usize,
    /// Connections that the other side has ended.
    pub(crate) disconnected: usize,
    /// Connections that it has closed itself.
    pub(crate) closed: usize,
    /// Bytes that it could write.
    pub(crate) written: usize,
}

type Script = Arc<dyn Fn(&Seen) -> ServerAction + Send + Sync>;

pub(crate) struct HttpUpstream {
    address: SocketAddr,
    server_log: Arc<watch::Sender<ServerLog>>,
    _serving: Background<()>,
}

impl HttpUpstream {
    /// A plain server that reacts in this way to each request.
    pub(crate) async fn start(
        script: impl Fn(&Seen) -> ServerAction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, server_log) = (listener.local_addr().expect("bound"), Arc::default());
        let serving = spawn(serve(listener, Arc::new(script), Arc::clone(&server_log)));
        Self { address, server_log, _serving: serving }
    }

    /// The same, answering every request with this reply.
    pub(crate) async fn answering(reply: Vec<u8>) -> Self {
        Self::start(move |_| ServerAction::Answers(reply.clone())).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The service HelloService forwarded to it, called in memory.
    pub(crate) fn callee(&self) -> Callee {
        joined(self.forward().service("HelloService"))
    }

    pub(crate) fn forward(&self) -> Forward {
        Forward::to(self.url()).expect("an upstream")
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.server_log.borrow().seen.clone()
    }

    /// The only request that was received.
    #[track_caller]
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen[0].clone()
    }

    pub(crate) fn written(&self) -> usize {
        self.server_log.borrow().written
    }

    /// Waits until the record fulfils a condition.
    #[track_caller]
    pub(crate) fn until(
        &self,
        what: &str,
        mut holds: impl FnMut(&ServerLog) -> bool,
    ) -> impl Future<Output = ()> {
        let mut server_log = self.server_log.subscribe();
        soon(what, async move {
            drop(server_log.wait_for(|server_log| holds(server_log)).await.expect("it serves"));
        })
    }

    /// Waits until the other side has ended this many connections.
    #[track_caller]
    pub(crate) fn disconnected(&self, count: usize) -> impl Future<Output = ()> {
        self.until("the agent closes the connection", move |server_log| {
            server_log.disconnected >= count
        })
    }
}

pub(crate) fn joined(service: Service) -> Callee {
    testing::join([service]).expect("a service")
}

async fn serve(listener: TcpListener, script: Script, server_log: Arc<watch::Sender<ServerLog>>) {
    let mut connections = Vec::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        connections.push(spawn(answer_requests(stream, script.clone(), server_log.clone())));
    }
}

/// Serves one connection until either side ends it.
pub(crate) async fn answer_requests<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    script: Script,
    server_log: Arc<watch::Sender<ServerLog>>,
) {
    let mut connection = 0;
    server_log.send_modify(|server_log| {
        connection = server_log.connections;
        server_log.connections += 1;
    });
    while let Some(seen) = read(&mut stream, connection).await {
        let does = script(&seen);
        server_log.send_modify(|server_log| server_log.seen.push(seen));
        let done = match does {
            ServerAction::Answers(bytes) => {
                write(&mut stream, &bytes, &server_log).await;
                continue;
            }
            ServerAction::AnswersAndCloses(bytes) => {
                write(&mut stream, &bytes, &server_log).await;
                drop(stream);
                server_log.send_modify(|server_log| server_log.closed += 1);
                return;
            }
            ServerAction::Hangs(bytes) => write(&mut stream, &bytes, &server_log).await,
            ServerAction::Pours(head, again) => {
                let mut goes_on = write(&mut stream, &head, &server_log).await;
                while goes_on {
                    goes_on = write(&mut stream, &again, &server_log).await;
                }
                false
            }
        };
        if done {
            // No more requests follow on this connection; the next event is its end.
            drop(stream.read(&mut [0]).await);
        }
        break;
    }
    server_log.send_modify(|server_log| server_log.disconnected += 1);
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
    server_log: &watch::Sender<ServerLog>,
) -> bool {
    let is_written = stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok();
    server_log.send_modify(|server_log| server_log.written += bytes.len());
    is_written
}

/// The next request, or `None` if the other side has disconnected.
async fn read<S: AsyncRead + Unpin>(stream: &mut S, connection: usize) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head_ends = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_ends].to_vec()).expect("a head of text");
    let mut seen = Seen { connection, head, body: bytes[head_ends..].to_vec() };
    let length = seen.header("content-length").map(|length| length.parse().expect("a number"));
    let is_chunked = seen.header("transfer-encoding").is_some();
    // A body in chunks is kept as it came; it may be cut.
    let is_whole = |body: &[u8]| match length {
        Some(length) => body.len() >= length,
        None => !is_chunked || body.ends_with(b"\r\n\r\n"),
    };
    while !is_whole(&seen.body) {
        assert_ne!(stream.read_buf(&mut seen.body).await.ok()?, 0, "cut: {seen:?}");
    }
    Some(seen)
}

/// A reply with this status line, these headers, and a length.
pub(crate) fn reply(status: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    [head.as_bytes(), b"\r\n", body].concat()
}

/// A valid JSON reply.
pub(crate) fn json(body: &str) -> Vec<u8> {
    reply("200 OK", &[("content-type", "application/json")], body)
}

/// The head of a stream of this media type, which ends with the connection unless it is chunked.
pub(crate) fn stream_head(media_type: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: {media_type}\r\n\r\n")
        .into_bytes()
}

/// Bytes as one chunk.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A message in Connect's envelope.
pub(crate) fn envelope(flags: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short");
    [&[flags][..], &length.to_be_bytes(), bytes].concat()
}

/// Makes sure that this runtime has processed all socket events up to now: a byte passes through it
/// after them.
pub(crate) async fn process_socket_events() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut one = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it");
    let (mut other, _) = listener.accept().await.expect("a connection");
    for _ in 0..3 {
        one.write_all(b"x").await.expect("written");
        other.read_exact(&mut [0]).await.expect("read");
    }
}
