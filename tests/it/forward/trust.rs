//! Upstreams with certificates, and on Unix sockets.

use super::upstream::{HttpUpstream, ServerAction, joined, json};
use crate::world::{Background, World, check_status, spawn};
use dialback::{Code, Forward, Outcome, Status, UpstreamError};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A TLS proxy in front of a plain server, with the certificate of a peer of this world.
async fn in_front(
    world: &World,
    peer: &str,
    upstream: &HttpUpstream,
) -> (SocketAddr, Background<()>) {
    let leaf = world.leaf(peer);
    let certs = CertificateDer::pem_slice_iter(leaf.cert.as_bytes());
    let certs = certs.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("a key");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .expect("a configuration");
    let (acceptor, behind) = (TlsAcceptor::from(Arc::new(config)), upstream.address());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("bound");
    let passing = spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut plain = tokio::net::TcpStream::connect(behind).await.expect("the server");
            drop(tokio::io::copy_bidirectional(&mut stream, &mut plain).await);
        }
    });
    (at, passing)
}

async fn called(url: String, ca: &str) -> Result<u64, Status> {
    let forward = Forward::to_tls(url, ca).expect("an upstream");
    joined(forward.service("HelloService")).call("HelloService/Hello", "x").await
}

#[tokio::test]
async fn an_upstream_is_trusted_only_by_the_configured_ca_and_for_its_host() {
    let (world, other) = (World::new(), World::new());
    let upstream = HttpUpstream::answering(json("1")).await;
    let (at, _passing) = in_front(&world, "node/edge-1", &upstream).await;
    for host in ["localhost", "127.0.0.1"] {
        let answered = called(format!("https://{host}:{}", at.port()), world.ca().pem()).await;
        assert_eq!(answered, Ok(1), "{host}");
    }
    let failed = called(format!("https://localhost:{}", at.port()), other.ca().pem()).await;
    let status = check_status(failed, Code::Unavailable, Outcome::NotExecuted);
    assert!(status.message().contains("TLS handshake"), "{status}");
    let (nameless, _passing) = in_front(&world, "agent/x", &upstream).await;
    let failed = called(format!("https://{nameless}"), world.ca().pem()).await;
    check_status(failed, Code::Unavailable, Outcome::NotExecuted);
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn sequential_calls_share_a_tls_connection() {
    let (world, upstream) = (World::new(), HttpUpstream::answering(json("1")).await);
    let (at, _passing) = in_front(&world, "node/edge-1", &upstream).await;
    let forward = Forward::to_tls(format!("https://{at}"), world.ca().pem()).expect("an upstream");
    let callee = joined(forward.service("HelloService"));
    for _ in 0..4 {
        assert_eq!(callee.call::<u64>("HelloService/Hello", "x").await, Ok(1));
    }
    assert!(upstream.seen().iter().all(|seen| seen.connection == 0), "{:#?}", upstream.seen());
}

#[tokio::test]
async fn a_plain_upstream_is_not_called_where_tls_is_expected() {
    let upstream = HttpUpstream::answering(json("1")).await;
    let (at, closing) = (upstream.address(), World::new());
    let failed = called(format!("https://{at}"), closing.ca().pem()).await;
    check_status(failed, Code::Unavailable, Outcome::NotExecuted);
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn https_needs_configured_cas_and_no_other_scheme_may_have_them() {
    let pem = World::new().ca().pem().to_owned();
    assert!(Forward::to_tls("https://a", &pem).is_ok() && Forward::to("http://a").is_ok());
    assert_eq!(Forward::to("https://a").expect_err("no trust"), UpstreamError::NoTrust);
    let unused = Forward::to_tls("http://a", &pem).expect_err("no TLS");
    assert!(unused.to_string().contains("http://a"), "{unused}");
    for (url, pem) in [("https://a", ""), ("https://a", "nonsense"), ("https://a_b..", &pem)] {
        let fault = Forward::to_tls(url, pem).expect_err("no TLS");
        assert!(matches!(fault, UpstreamError::Tls(_)), "{fault}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_upstream_may_be_a_unix_socket_and_an_absent_one_is_not_executed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let audit_log = Arc::default();
    let served = spawn({
        let audit_log = Arc::clone(&audit_log);
        async move {
            let script: Arc<dyn Fn(&super::upstream::Seen) -> ServerAction + Send + Sync> =
                Arc::new(|_| ServerAction::Answers(json("1")));
            let (stream, _) = listener.accept().await.expect("a connection");
            super::upstream::answer_requests(stream, script, audit_log).await;
        }
    });
    let callee = |path: &std::path::Path| {
        let url = format!("unix:{}:/api", path.display());
        joined(Forward::to(url).expect("a socket").service("HelloService"))
    };
    assert_eq!(callee(&path).call::<u64>("HelloService/Hello", "x").await, Ok(1));
    let head = audit_log.borrow().seen[0].head.clone();
    assert!(head.starts_with("POST /api/HelloService/Hello HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: localhost\r\n"), "{head}");
    drop(served);
    let gone = callee(&dir.path().join("gone.sock"));
    let failed = gone.call::<u64>("HelloService/Hello", "x").await;
    check_status(failed, Code::Unavailable, Outcome::NotExecuted);
}
