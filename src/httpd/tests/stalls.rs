//! Tests of clients that do not read their responses for a long time.

use super::{RawClient, TestServer, WINDOW, full, over_http_2};
use crate::limits::{HTTP_CHECK_EVERY, HTTP_PIECE_BYTES_MAX, HTTP_STEP, HTTP2_IDLE_MAX};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, channel::Channel};
use hyper::{Request, Response};
use std::sync::Mutex;
use tokio::{
    io::{AsyncReadExt, DuplexStream},
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
