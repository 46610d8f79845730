//! Tests of responses that break off.

use super::{RawClient, TestServer, full, over_http_2, pieces};
use http_body_util::{BodyExt, channel::Channel};
use hyper::{
    Request, Response,
    header::{self, HeaderValue},
};
use std::{error::Error, io::ErrorKind, sync::Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

const GET: &str = "GET /broken HTTP/1.1\r\nhost: a\r\n\r\n";

/// A server whose responses to `/broken` break off after two pieces, and others after the same are
/// complete.
fn server(length: Option<u64>) -> TestServer {
    TestServer::new(move |request, _| async move {
        let error = (request.uri().path() == "/broken").then_some("the upstream was lost");
        let mut response = Response::new(pieces(&["first", "", "second"], error));
        if let Some(length) = length {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    })
}

#[tokio::test]
async fn a_broken_response_in_chunks_has_no_last_chunk() {
    let server = server(None);
    let mut client = server.connect(super::ROOM);
    client.send("GET /whole HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.head().await.contains("\r\ntransfer-encoding: chunked\r\n"));
    assert_eq!(client.until("0\r\n\r\n").await, "5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n");
    client.send(GET).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(client.rest().await, "5\r\nfirst\r\n6\r\nsecond\r\n");
}

#[tokio::test]
async fn a_broken_response_with_a_length_ends_before_it() {
    let server = server(Some(20));
    let mut client = server.connect(super::ROOM);
    client.send(GET).await;
    assert!(client.head().await.contains("\r\ncontent-length: 20\r\n"));
    assert_eq!(client.rest().await, "firstsecond");
}

#[tokio::test]
async fn over_http_2_the_stream_of_a_broken_response_is_reset() {
    let server = server(None);
    let request = |path: &str| Request::get(format!("http://a{path}")).body(full(""));
    let whole = over_http_2(&server, request("/whole").expect("a request")).await;
    let whole = whole.into_body().collect().await.expect("a whole body").to_bytes();
    assert_eq!(&*whole, b"firstsecond");
    let broken = over_http_2(&server, request("/broken").expect("a request")).await;
    let fault = broken.into_body().collect().await.expect_err("it breaks off");
    let cause = fault.source().expect("the reset").to_string();
    assert!(cause.contains("unexpected internal error"), "{cause}");
}

/// The rest of a response to HTTP/1.0, which has no chunks, and the error after it.
async fn rest_of_http_1_0<S>(client: &mut RawClient<S>, path: &str) -> (Vec<u8>, Option<ErrorKind>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    client.send(&GET.replace("/broken", path).replace("1.1", "1.0")).await;
    let head = client.head().await;
    assert!(!head.contains("transfer-encoding"), "{head}");
    let mut rest = std::mem::take(&mut client.ahead);
    let end = client.stream.read_to_end(&mut rest).await;
    (rest, end.err().map(|fault| fault.kind()))
}

#[tokio::test]
async fn the_connection_of_a_broken_response_to_http_1_0_is_reset() {
    let server = server(None);
    for (path, error) in [("/whole", None), ("/broken", Some(ErrorKind::ConnectionReset))] {
        let (rest, found) = rest_of_http_1_0(&mut server.connect_tcp().await, path).await;
        assert_eq!((rest.as_slice(), found), (&b"firstsecond"[..], error), "{path}");
    }
}

#[cfg(all(feature = "gateway", feature = "certs"))]
#[tokio::test]
async fn tls_of_a_broken_response_ends_without_close_notify() {
    let server = server(None);
    for (path, error) in [("/whole", None), ("/broken", Some(ErrorKind::UnexpectedEof))] {
        let (rest, found) = rest_of_http_1_0(&mut server.connect_tls().await, path).await;
        assert_eq!((rest.as_slice(), found), (&b"firstsecond"[..], error), "{path}");
    }
}

#[tokio::test]
async fn a_response_to_http_1_0_is_also_reset_where_its_connection_is_dropped() {
    let (_sender, body) = Channel::new(1);
    let body = Mutex::new(Some(body.boxed_unsync()));
    let server = TestServer::new(move |_, _| {
        let body = body.lock().expect("whole").take().expect("one request");
        async { Response::new(body) }
    });
    let mut client = server.connect_tcp().await;
    client.send(&GET.replace("1.1", "1.0")).await;
    client.head().await;
    server.tasks.stop();
    let end = client.stream.read_to_end(&mut client.ahead).await;
    assert_eq!(end.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
}
