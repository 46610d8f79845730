//! Tests of connections with a scripted owner, over streams in memory and on a paused clock where
//! time decides.

mod broken;
mod framing;
mod stalls;
mod upgrades;

use super::{
    answers::{Answers, Peer, ResponseBodyError},
    connection::Connection,
    guarded::Guarded,
    request_body::RequestBody,
    server,
    slots::Admission,
    watched::Activity,
};
#[cfg(all(feature = "gateway", feature = "certs"))]
use crate::{
    certs::{Ca, LeafProfile},
    tls::{CredentialPem, Credentials, GatewayClientTls},
};
use crate::{
    drain::{SignalListener, Tasks},
    limits::HTTP_STEP,
    tls::HttpTls,
};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Full, channel::Channel, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// Room of a stream in memory where its size does not matter.
const ROOM: usize = 1 << 20;
/// Bytes of a response that a client of HTTP/2 takes ahead.
const WINDOW: u32 = 4 << 10;

type TestBody = UnsyncBoxBody<Bytes, ResponseBodyError>;
type TestAnswer = Pin<Box<dyn Future<Output = Response<TestBody>> + Send>>;

/// Answers with a function.
struct Script {
    answer: Box<dyn Fn(Request<RequestBody>, Arc<Peer>) -> TestAnswer + Send + Sync>,
    stall_max: Duration,
}

impl Answers for Script {
    const NAME: &'static str = "the test server";

    type Body = TestBody;

    fn admits(&self, _: IpAddr) -> Admission {
        Admission::One
    }

    fn tls(&self) -> Option<HttpTls> {
        None
    }

    fn handshake_failed(&self, from: SocketAddr, fault: &std::io::Error) {
        panic!("the handshake of {from} failed: {fault}");
    }

    fn draining(&self) -> Option<[SignalListener; 2]> {
        Some(<[SignalListener; 2]>::default())
    }

    fn answer(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> impl Future<Output = Response<TestBody>> + Send {
        (self.answer)(request, peer)
    }

    fn stall_max(&self, _: &Response<TestBody>) -> Duration {
        self.stall_max
    }
}

/// A server whose connections a test opens by itself.
struct TestServer {
    script: Arc<Script>,
    tasks: Tasks,
}

impl TestServer {
    fn new<F>(answer: impl Fn(Request<RequestBody>, Arc<Peer>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<TestBody>> + Send + 'static,
    {
        let answer =
            Box::new(move |request, peer| -> TestAnswer { Box::pin(answer(request, peer)) });
        let script = Arc::new(Script { answer, stall_max: HTTP_STEP });
        Self { script, tasks: Tasks::default() }
    }

    /// Lets its responses stall for as long.
    fn may_stall(mut self, stall_max: Duration) -> Self {
        Arc::get_mut(&mut self.script).expect("no connection yet").stall_max = stall_max;
        self
    }

    /// Serves a connection until its end, or until the tasks are stopped.
    fn serve<S>(&self, stream: S, is_h2: bool)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let address = ([192, 0, 2, 7], 4_000).into();
        let connection = Connection {
            answers: self.script.clone(),
            tasks: self.tasks.clone(),
            peer: Arc::new(Peer::new((address, None), (None, None), Arc::default())),
            is_h2,
            activity: Arc::new(Activity::new(Instant::now())),
        };
        let (stream, draining) = (Guarded::new(stream, Vec::new()), self.script.draining());
        self.tasks.spawn_until_stopped(connection.serve(stream, draining, |_| ()));
    }

    /// Opens a connection of TCP to a listener.
    async fn connect_tcp(&self) -> RawClient<TcpStream> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (script, tasks) = (self.script.clone(), self.tasks.clone());
        self.tasks.spawn_until_stopped(server::serve(listener, script, tasks));
        RawClient::new(TcpStream::connect(address).await.expect("a connection"))
    }

    /// Opens a connection of HTTP/1 with TLS.
    #[cfg(all(feature = "gateway", feature = "certs"))]
    async fn connect_tls(&self) -> RawClient<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let ((near, far), credentials) = (duplex(ROOM), credentials());
        let tls = GatewayClientTls::of_node("localhost", &credentials).expect("a client");
        let accept = HttpTls::with_clients(None, Arc::default(), credentials).accept(near);
        let (accepted, stream) = tokio::join!(accept, tls.connect(far));
        self.serve(accepted.expect("a handshake").stream, false);
        RawClient::new(stream.expect("a handshake"))
    }

    /// Opens a connection of HTTP/1 with this room in each direction.
    fn connect(&self, room: usize) -> RawClient<DuplexStream> {
        let (near, far) = duplex(room);
        self.serve(near, false);
        RawClient::new(far)
    }
}

#[cfg(all(feature = "gateway", feature = "certs"))]
fn credentials() -> Credentials {
    let now = std::time::SystemTime::now();
    let ca = Ca::generate("dialback.local", now).expect("a CA");
    let peer = "node/edge-1".parse().expect("a name");
    let leaf = ca.leaf(&LeafProfile::new(ca.trust_domain(), &peer, &["localhost"], now));
    let leaf = leaf.expect("a leaf");
    let pem = CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: ca.pem().as_bytes(),
        ..CredentialPem::default()
    };
    Credentials::from_pem(&pem).expect("credentials")
}

/// Sends a request of HTTP/2 on a connection of its own. The client takes the response as far as
/// its body is polled, and a window ahead.
async fn over_http_2(server: &TestServer, request: Request<TestBody>) -> Response<Incoming> {
    let (near, far) = duplex(ROOM);
    server.serve(near, true);
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(WINDOW);
    let (mut sender, connection) = client.handshake(TokioIo::new(far)).await.expect("HTTP/2");
    server.tasks.spawn_until_stopped(async move { drop(connection.await) });
    sender.send_request(request).await.expect("a response")
}

/// A client of HTTP/1 that sends and reads text as it stands.
struct RawClient<S> {
    stream: S,
    /// Bytes that were read beyond what was asked for.
    ahead: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawClient<S> {
    const fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("room");
    }

    /// Reads to the end of this text.
    async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.ahead.windows(end.len()).position(|bytes| bytes == end.as_bytes());
            if let Some(at) = found {
                let text: Vec<u8> = self.ahead.drain(..at + end.len()).collect();
                return String::from_utf8(text).expect("text");
            }
            let read = self.stream.read_buf(&mut self.ahead).await.expect("more");
            assert!(read > 0, "the connection ended: {:?}", String::from_utf8_lossy(&self.ahead));
        }
    }

    /// Reads the head of a response.
    async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Reads to the end of the connection.
    async fn rest(&mut self) -> String {
        self.stream.read_to_end(&mut self.ahead).await.expect("an end");
        String::from_utf8(std::mem::take(&mut self.ahead)).expect("text")
    }
}

fn full(text: &'static str) -> TestBody {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}

/// A response with this body.
fn response(text: &'static str) -> Response<TestBody> {
    Response::new(full(text))
}

/// A body of these pieces. It breaks off after them if there is an error.
fn pieces(pieces: &[&'static str], error: Option<&str>) -> TestBody {
    let (mut sender, body) = Channel::new(pieces.len().max(1));
    for piece in pieces {
        sender.try_send(Frame::data(Bytes::from_static(piece.as_bytes()))).expect("room");
    }
    match error {
        Some(error) => sender.abort(error.into()),
        None => drop(sender),
    }
    body.boxed_unsync()
}
