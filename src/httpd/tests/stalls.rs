//! Tests of clients that do not read their responses for a long time.

use super::{ROOM, RawClient, TestServer, WINDOW, full, over_http_2};
use crate::{
    httpd::answers::ResponseBodyError,
    limits::{HTTP_CHECK_EVERY, HTTP_PIECE_BYTES_MAX, HTTP_STEP, HTTP2_IDLE_MAX, HTTP2_PING_EVERY},
};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{
    BodyExt,
    channel::{Channel, Sender},
};
use hyper::{Request, Response, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, DuplexStream, ReadBuf, duplex},
    sync::oneshot,
    time::{Duration, Instant},
};

const HOUR: Duration = Duration::from_secs(3_600);
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// Bytes of a response that hyper takes at once, and more than the client's window.
const SHORT: usize = 5 * WINDOW as usize;

fn get() -> Request<super::TestBody> {
    Request::get("http://a/").body(full("")).expect("a request")
}

/// A server whose one response has no end, and the time from its last progress until it is cut.
fn endless() -> (TestServer, oneshot::Receiver<Duration>) {
    let ((cut, is_cut), (mut sender, body)) = (oneshot::channel(), Channel::new(1));
    let body = Mutex::new(Some(body.boxed_unsync()));
    let server = TestServer::new(move |_, _| {
        let body = body.lock().expect("whole").take().expect("one request");
        async { Response::new(body) }
    });
    server.tasks.spawn(async move {
        let piece = Bytes::from_static(&[7; HTTP_PIECE_BYTES_MAX]);
        let mut moved = Instant::now();
        while sender.send(Frame::data(piece.clone())).await.is_ok() {
            moved = Instant::now();
        }
        cut.send(moved.elapsed()).expect("the test waits for it");
    });
    (server, is_cut)
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_not_read_is_cut_when_it_has_stalled_for_as_long_as_it_may() {
    for stall_max in [HTTP_STEP, HOUR] {
        for is_http_2 in [false, true] {
            let (server, is_cut) = endless();
            let server = server.may_stall(stall_max);
            let (mut client, mut answer) = (None, None);
            if is_http_2 {
                answer = Some(over_http_2(&server, get()).await);
            } else {
                let client = client.insert(server.connect(1 << 10));
                client.send(GET).await;
                client.head().await;
            }
            let lasted = is_cut.await.expect("it is cut");
            let limits = stall_max..=stall_max + 2 * HTTP_CHECK_EVERY;
            assert!(limits.contains(&lasted), "{stall_max:?} {is_http_2}: {lasted:?}");
            drop((client, answer));
        }
    }
}

/// A server whose response is given to hyper whole, and ends long before it is sent.
fn short(stall_max: Duration) -> TestServer {
    let server = TestServer::new(|_, _| async {
        Response::new(full(std::str::from_utf8(&[b'x'; SHORT]).expect("text")))
    });
    server.may_stall(stall_max)
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_response_may_stall_for_as_long_as_the_rest() {
    let read = async |client: &mut RawClient<DuplexStream>| {
        let mut bytes = vec![0; SHORT - client.ahead.len()];
        client.stream.read_exact(&mut bytes).await.map(|_| client.ahead.clear())
    };
    let server = short(HOUR);
    let mut client = server.connect(1 << 10);
    for _ in 0..2 {
        client.send(GET).await;
        client.head().await;
        tokio::time::sleep(HOUR * 9 / 10).await;
        read(&mut client).await.expect("a whole response");
    }
    let server = short(HTTP_STEP);
    let mut client = server.connect(1 << 10);
    client.send(GET).await;
    client.head().await;
    tokio::time::sleep(HTTP_STEP + HTTP_CHECK_EVERY).await;
    assert!(read(&mut client).await.is_err(), "it is cut");
}

#[tokio::test(start_paused = true)]
async fn an_http_2_connection_is_not_closed_as_idle_before_the_end_of_a_response_is_sent() {
    let server = short(HOUR);
    let answer = over_http_2(&server, get()).await;
    tokio::time::sleep(HOUR * 9 / 10).await;
    let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
    assert_eq!(body.len(), SHORT);
    let server = short(HTTP_STEP);
    let answer = over_http_2(&server, get()).await;
    tokio::time::sleep(HTTP2_IDLE_MAX + HTTP_STEP + 2 * HTTP_CHECK_EVERY).await;
    assert!(answer.into_body().collect().await.is_err(), "it is cut");
}

/// A server of one response of these pieces, which has no end if `sender` is kept. The receiver
/// ends with the response.
fn streaming(
    count: usize,
) -> (TestServer, Sender<Bytes, ResponseBodyError>, oneshot::Receiver<()>) {
    let ((held, is_over), (mut sender, body)) = (oneshot::channel(), Channel::new(count.max(1)));
    for _ in 0..count {
        sender.try_send(Frame::data(Bytes::from_static(&[7; HTTP_PIECE_BYTES_MAX]))).expect("room");
    }
    let body = body.map_frame(move |frame| match held.is_closed() {
        true => unreachable!("the test waits for it"),
        false => frame,
    });
    let body = Mutex::new(Some(body.boxed_unsync()));
    let server = TestServer::new(move |_, _| {
        let body = body.lock().expect("whole").take().expect("one request");
        async { Response::new(body) }
    });
    (server.may_stall(HOUR), sender, is_over)
}

/// Reads of a client, which stop while the gate is shut.
#[derive(Default)]
struct Gate {
    is_shut: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    fn set_shut(&self, is_shut: bool) {
        self.is_shut.store(is_shut, Ordering::Relaxed);
        self.waker.lock().expect("whole").take().into_iter().for_each(Waker::wake);
    }
}

struct GatedReader<S>(S, Arc<Gate>);

impl<S: AsyncRead + Unpin> AsyncRead for GatedReader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.1.is_shut.load(Ordering::Relaxed) {
            *self.1.waker.lock().expect("whole") = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

/// Gets the response over HTTP/2, and shuts the gate after its head.
async fn ask_and_stop(server: &TestServer, room: usize) -> (Response<Incoming>, Arc<Gate>) {
    let (near, far) = duplex(room);
    server.serve(near, true);
    let ((reads, writes), gate) = (tokio::io::split(far), Arc::<Gate>::default());
    let io = TokioIo::new(tokio::io::join(GatedReader(reads, gate.clone()), writes));
    let handshake = http2::handshake(TokioExecutor::new(), io);
    let (mut client, connection) = handshake.await.expect("HTTP/2");
    server.tasks.spawn_until_stopped(async move { drop(connection.await) });
    let answer = client.send_request(get()).await.expect("a response");
    gate.set_shut(true);
    (answer, gate)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_a_ping_is_closed_unless_it_is_slow_to_read() {
    for (room, pieces, least) in [(ROOM, 0, HTTP2_PING_EVERY), (1 << 10, 8, HOUR)] {
        let (server, sender, is_over) = streaming(pieces);
        let answer = ask_and_stop(&server, room).await;
        let began = Instant::now();
        is_over.await.expect_err("it is dropped with the body");
        let limits = least..=least.max(2 * HTTP2_PING_EVERY) + 2 * HTTP_CHECK_EVERY;
        assert!(limits.contains(&began.elapsed()), "{:?}", began.elapsed());
        drop((answer, sender));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_on_after_a_pause_gets_the_whole_response() {
    let (server, sender, _is_over) = streaming(8);
    drop(sender);
    let (answer, gate) = ask_and_stop(&server, 1 << 10).await;
    tokio::time::sleep(HOUR * 9 / 10).await;
    gate.set_shut(false);
    let body = answer.into_body().collect().await.expect("a whole response").to_bytes();
    assert_eq!(body.len(), 8 * HTTP_PIECE_BYTES_MAX);
}
