//! Tests of where requests and responses end, and of their trailers.

use super::{ROOM, TestBody, TestServer, full, over_http_2, pieces, response};
use crate::httpd::request_body::RequestBody;
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, channel::Channel};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

const CHECKSUM: HeaderName = HeaderName::from_static("x-checksum");

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(CHECKSUM, HeaderValue::from_static("7"))])
}

/// The answer to a request with this head on a connection of its own, read to its end.
async fn answer(server: &TestServer, request: &str) -> (String, String) {
    let mut client = server.connect(ROOM);
    client.send(&format!("{request}\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
    (client.head().await, client.rest().await)
}

/// A server whose answers have trailers.
fn with_trailers(announces: bool) -> TestServer {
    TestServer::new(move |_, _| async move {
        let (mut sender, body) = Channel::new(2);
        sender.try_send(Frame::data(Bytes::from_static(b"data"))).expect("room");
        sender.try_send(Frame::trailers(trailers())).expect("room");
        let mut response: Response<TestBody> = Response::new(body.boxed_unsync());
        if announces {
            response.headers_mut().insert(header::TRAILER, HeaderValue::from(CHECKSUM));
        }
        response
    })
}

#[tokio::test]
async fn trailers_are_sent_to_a_client_that_accepts_them_if_the_head_announces_them() {
    let (te, end) = ("GET / HTTP/1.1\r\nte: deflate, trailers", "4\r\ndata\r\n0\r\n\r\n");
    for (announces, request, expected) in [
        (true, te, "4\r\ndata\r\n0\r\nx-checksum: 7\r\n\r\n"),
        (false, te, end),
        (true, "GET / HTTP/1.1", end),
        (true, "GET / HTTP/1.0\r\nte: trailers", "data"),
    ] {
        let (_, body) = answer(&with_trailers(announces), request).await;
        assert_eq!(body, expected, "{request} {announces}");
    }
    // A connection stays open after them.
    let server = with_trailers(true);
    let mut client = server.connect(ROOM);
    for _ in 0..2 {
        client.send(&format!("{te}\r\nhost: a\r\n\r\n")).await;
        client.until("0\r\nx-checksum: 7\r\n\r\n").await;
    }
}

#[tokio::test]
async fn over_http_2_trailers_need_no_announcement() {
    let request = Request::get("http://a/").body(full("")).expect("a request");
    let answer = over_http_2(&with_trailers(false), request).await;
    let body = answer.into_body().collect().await.expect("a body");
    assert_eq!(body.trailers(), Some(&trailers()));
}

/// A server that answers with this status, length and body, whatever the request.
fn answering(status: u16, length: Option<u64>, body: fn() -> TestBody) -> TestServer {
    TestServer::new(move |_, _| async move {
        let mut response = Response::new(body());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        if let Some(length) = length {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    })
}

#[tokio::test]
async fn responses_without_content_have_a_length_only_where_it_may_be() {
    let (whole, none, streamed) = (|| full("body"), || full(""), || pieces(&["body"], None));
    for (method, status, length, body, expected) in [
        ("HEAD", 200, None, whole as fn() -> TestBody, Some("4")),
        ("HEAD", 200, Some(9), none, Some("9")),
        ("HEAD", 200, Some(9), streamed, Some("9")),
        ("HEAD", 200, None, none, None),
        ("HEAD", 200, None, streamed, None),
        ("HEAD", 204, Some(4), none, None),
        ("GET", 204, None, none, None),
        ("GET", 204, Some(4), whole, None),
        ("GET", 204, None, streamed, None),
        ("GET", 304, None, none, None),
        ("GET", 304, None, whole, None),
        ("GET", 304, None, streamed, None),
        ("GET", 200, None, none, Some("0")),
    ] {
        let server = answering(status, length, body);
        let of = |head: &HeaderMap| head.get(header::CONTENT_LENGTH).cloned();
        let (head, rest) = answer(&server, &format!("{method} / HTTP/1.1")).await;
        let found = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!((found, rest.as_str()), (expected, ""), "{method} {status} {length:?}");
        assert!(!head.contains("transfer-encoding"), "{head}");
        let request = Request::builder().method(method).uri("http://a/").body(full(""));
        let answer = over_http_2(&server, request.expect("a request")).await;
        if status != 200 || method == "HEAD" {
            assert_eq!(of(answer.headers()), expected.map(HeaderValue::from_static));
        }
        let body = answer.into_body().collect().await.expect("an end").to_bytes();
        assert!(body.is_empty(), "HTTP/2: {method} {status} {length:?}");
    }
}

#[tokio::test]
async fn a_connection_continues_after_a_response_without_content() {
    let server = answering(304, Some(4), || pieces(&["body"], Some("it is not even read")));
    let mut client = server.connect(ROOM);
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 304 ") && head.contains("keep-alive"), "{head}");
    }
}

#[tokio::test]
async fn the_end_of_the_connection_ends_a_response_of_unknown_length_to_http_1_0() {
    let keep = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    let server = answering(200, None, || pieces(&["one", "two"], None));
    let mut client = server.connect(ROOM);
    client.send(keep).await;
    let head = client.head().await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert!(!head.contains("keep-alive") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(client.rest().await, "onetwo");
    // With a length it stays open.
    let server = answering(200, Some(6), || pieces(&["one", "two"], None));
    let mut client = server.connect(ROOM);
    for _ in 0..2 {
        client.send(keep).await;
        assert!(client.head().await.contains("\r\nconnection: keep-alive\r\n"));
        client.until("onetwo").await;
    }
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
