//! HTTP/2 and gRPC, to clients and to upstreams.

use super::SiteSetup;
use crate::world::{Background, soon, spawn};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Frame, Incoming},
    header::HeaderValue,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::net::{TcpListener, TcpStream};

/// A body of these frames.
struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// A server of HTTP/2 without TLS that answers as gRPC servers do: an echo with trailers at
/// `/echo`, and a failure in the head alone elsewhere. It tells the `te` and the `grpc-timeout`
/// that it got.
async fn grpc_server() -> (String, Background<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("h2c://{}", listener.local_addr().expect("bound"));
    let serving = spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let service = service_fn(|request: Request<Incoming>| async move {
            let header = |name| request.headers().get(name).cloned();
            let (te, timeout) = (header("te"), header("grpc-timeout"));
            let is_echo = request.uri().path() == "/echo";
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [Frame::data(body), Frame::trailers(trailers)];
            let frames = if is_echo { frames.into() } else { VecDeque::new() };
            let mut response = Response::new(Frames(frames));
            let headers = response.headers_mut();
            if !is_echo {
                headers.insert("grpc-status", HeaderValue::from_static("5"));
            }
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            te.map(|te| headers.insert("got-te", te));
            timeout.map(|timeout| headers.insert("got-timeout", timeout));
            Ok::<_, Infallible>(response)
        });
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(http.serve_connection(TokioIo::new(stream), service).await);
    });
    (url, serving)
}

/// Sends a gRPC request to the site that is open to everybody, over HTTP/2.
async fn asked(setup: &SiteSetup, path: &str, lines: &[(&str, &str)]) -> Response<Incoming> {
    let stream = TcpStream::connect(setup.at()).await.expect("a connection");
    let io = TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = handshake.expect("HTTP/2");
    let _connection = spawn(async move { drop(connection.await) });
    let mut request = Request::post(format!("http://open.test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from_static(b"\0\0\0\0\x01x"))).expect("one");
    let response = soon("a response", sender.send_request(request)).await.expect("a response");
    // The connection has to outlive the body.
    let (head, body) = response.into_parts();
    std::mem::forget(_connection);
    std::mem::forget(sender);
    Response::from_parts(head, body)
}

#[tokio::test]
async fn a_grpc_call_passes_with_its_trailers_and_its_deadline() {
    let (url, _serving) = grpc_server().await;
    let setup = SiteSetup::to(&url).await;
    let response = asked(&setup, "/echo", &[("grpc-timeout", "5S")]).await;
    assert_eq!(response.headers()["got-te"], "trailers");
    let left = response.headers()["got-timeout"].to_str().expect("text").to_owned();
    let millis: u64 = left.strip_suffix('m').expect("milliseconds").parse().expect("a number");
    assert!((1..=5_000).contains(&millis), "{left}");
    let body = soon("the body", response.into_body().collect()).await.expect("whole");
    assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
    assert_eq!(&body.to_bytes()[..], b"\0\0\0\0\x01x");
}

#[tokio::test]
async fn a_failure_in_the_head_alone_ends_the_stream_with_the_head() {
    let (url, _serving) = grpc_server().await;
    let setup = SiteSetup::to(&url).await;
    let response = asked(&setup, "/none", &[]).await;
    assert_eq!(response.headers()["grpc-status"], "5", "{response:?}");
    assert!(response.body().is_end_stream(), "gRPC clients read it only so");
}

#[tokio::test]
async fn a_grpc_client_reads_a_failure_of_dialback_as_a_status_with_its_outcome() {
    let setup = SiteSetup::to("h2c://127.0.0.1:1").await;
    let response = asked(&setup, "/echo", &[]).await;
    assert_eq!((response.status().as_u16(), response.body().is_end_stream()), (200, true));
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("grpc-status", "14"),
        ("dialback-outcome", "not_executed"),
    ] {
        assert_eq!(response.headers()[name], value, "{name}");
    }
    assert!(!response.headers().contains_key("grpc-retry-pushback-ms"));
}
