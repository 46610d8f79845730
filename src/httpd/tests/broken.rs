//! Tests of responses that break off.

use super::{TestServer, full, over_http_2, pieces};
use http_body_util::BodyExt;
use hyper::{
    Request, Response,
    header::{self, HeaderValue},
};
use std::error::Error;

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

#[cfg(all(feature = "gateway", feature = "certs"))]
mod over_tls {
    use super::{super::ROOM, GET, server};
    use crate::{
        certs::{Ca, LeafProfile},
        httpd::tests::RawClient,
        tls::{CredentialPem, Credentials, GatewayClientTls, HttpTls},
    };
    use std::{io, sync::Arc, time::SystemTime};
    use tokio::io::{AsyncReadExt, duplex};

    fn credentials() -> Credentials {
        let now = SystemTime::now();
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

    /// HTTP/1.0 has no chunks: without an incomplete close the response would look complete.
    #[tokio::test]
    async fn tls_of_a_broken_response_ends_without_close_notify() {
        let (server, credentials) = (server(None), credentials());
        let tls = GatewayClientTls::of_node("localhost", &credentials).expect("a client");
        for (path, ended) in [("/whole", Ok(11)), ("/broken", Err(io::ErrorKind::UnexpectedEof))] {
            let (near, far) = duplex(ROOM);
            let accept =
                HttpTls::with_clients(None, Arc::default(), credentials.clone()).accept(near);
            let (accepted, stream) = tokio::join!(accept, tls.connect(far));
            server.serve(accepted.expect("a handshake").stream, false);
            let mut client = RawClient::new(stream.expect("a handshake"));
            client.send(&GET.replace("/broken", path).replace("1.1", "1.0")).await;
            let head = client.head().await;
            assert!(!head.contains("transfer-encoding"), "{head}");
            let mut rest = std::mem::take(&mut client.ahead);
            let end = client.stream.read_to_end(&mut rest).await;
            assert_eq!(end.map(|_| rest.len()).map_err(|fault| fault.kind()), ended, "{path}");
            assert_eq!(rest, b"firstsecond");
        }
    }
}
