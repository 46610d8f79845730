//! Tests of where requests and responses end, and of their trailers.

use super::{ROOM, TestServer, full, over_http_2, response};
use crate::httpd::request_body::RequestBody;
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, channel::Channel};
use hyper::{
    HeaderMap, Request, Response,
    header::{HeaderName, HeaderValue},
};

const CHECKSUM: HeaderName = HeaderName::from_static("x-checksum");

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(CHECKSUM, HeaderValue::from_static("7"))])
}

/// A server that answers with the frames of a request's body, and fails to compile where a body
/// cannot be read from a task of its own.
fn echo() -> TestServer {
    fn sent<B: Body + Send + 'static>(body: B) -> B {
        body
    }
    TestServer::new(|request: Request<RequestBody>, _| async move {
        let (mut body, mut text) = (sent(request.into_body()), String::new());
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => text += &format!("{};", String::from_utf8_lossy(&data)),
                Ok(Err(frame)) => text += &format!("{:?};", frame.into_trailers()),
                Err(_) => text += "error;",
            }
        }
        Response::new(full(String::leak(text)))
    })
}

#[tokio::test(start_paused = true)]
async fn trailers_of_a_request_are_its_last_frame() {
    let server = echo();
    let mut client = server.connect(ROOM);
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(&format!("{chunked}3\r\none\r\n0\r\nx-checksum: 7\r\n\r\n")).await;
    client.head().await;
    assert_eq!(client.rest().await, r#"one;Ok({"x-checksum": "7"});"#);
    let (mut sender, body) = Channel::new(2);
    sender.try_send(Frame::data(Bytes::from_static(b"one"))).expect("room");
    sender.try_send(Frame::trailers(trailers())).expect("room");
    drop(sender);
    let request = Request::post("http://a/").body(body.boxed_unsync()).expect("a request");
    let answer = over_http_2(&server, request).await.into_body().collect().await;
    let text = answer.expect("a body").to_bytes();
    assert_eq!(&*text, br#"one;Ok({"x-checksum": "7"});"#);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_breaks_off_fails_and_does_not_end() {
    let server = echo();
    let mut client = server.connect(ROOM);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.send("3\r\none\r\nx\r\n").await;
    client.head().await;
    assert_eq!(client.rest().await, "one;error;");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_asked_to_continue_when_its_body_is_read_and_not_before() {
    let expecting = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n";
    let server = echo();
    let mut client = server.connect(ROOM);
    for body in ["content-length: 3\r\n\r\n", "transfer-encoding: chunked\r\n\r\n"] {
        client.send(&format!("{expecting}{body}")).await;
        assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send(if body.starts_with('c') { "one" } else { "3\r\none\r\n0\r\n\r\n" }).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        assert_eq!(client.until("one;").await, "one;");
    }
    let server = TestServer::new(|request: Request<RequestBody>, _| async move {
        // What a proxy asks of a body before it has a place for it.
        let body = request.into_body();
        let is_known = !body.is_end_stream() && body.size_hint().exact() == Some(3);
        tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
        response(if is_known { "refused" } else { "wrong" })
    });
    let mut client = server.connect(ROOM);
    client.send(&format!("{expecting}content-length: 3\r\n\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!(client.rest().await, "refused");
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_read_after_its_response_and_is_not_discarded_meanwhile() {
    let (read, whole) = tokio::sync::oneshot::channel();
    let read = std::sync::Mutex::new(Some(read));
    let tasks = crate::drain::Tasks::default();
    let server = TestServer::new(move |request: Request<RequestBody>, _| {
        let body = request.into_body();
        if let Some(read) = read.lock().expect("whole").take() {
            tasks.spawn(async move { drop(read.send(body.collect().await)) });
        }
        async { response("early") }
    });
    let mut client = server.connect(ROOM);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 12\r\n\r\nthe ").await;
    client.until("early").await;
    for word in ["first ", "of"] {
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        client.send(word).await;
    }
    let whole = whole.await.expect("read").expect("a whole body").to_bytes();
    assert_eq!(&*whole, b"the first of");
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nnext").await;
    client.until("early").await;
}
