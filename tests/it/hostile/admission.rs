//! Links before WELCOME: which clients get one, and how little they may do with it.

use super::{Ledger, agent, good_body, linked, node, raw_node};
use crate::raw_peer::{Head, Issuer, RawLink, RawStream, Settings, frame, hello, kind, ping, soon};
use dialback::ALPN;
use quinn::{ConnectionError, SendDatagramError};
use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

/// The output of a future that is ready at once.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// The TLS alert with which the peer ended a link.
async fn alert(result: Result<RawLink, ConnectionError>) -> u64 {
    let error = match result {
        // The dialler's handshake completes before the other side has verified it.
        Ok(link) => {
            let error = soon("the refusal", link.connection.closed()).await;
            assert!(at_once(link.connection.accept_bi()).is_none_or(|got| got.is_err()));
            error
        }
        Err(error) => error,
    };
    match error {
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) - 0x100,
        other => panic!("no alert: {other:?}"),
    }
}

/// The TLS configuration of a peer, changed.
fn tls(issuer: &Issuer, change: impl FnOnce(&mut rustls::ClientConfig)) -> rustls::ClientConfig {
    let mut tls = issuer.credentials("caller/ops").dialling_config(ALPN).expect("TLS");
    change(&mut tls);
    tls
}

/// Trusts the CA and presents no certificate.
fn without_certificate(issuer: &Issuer) -> rustls::ClientConfig {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(issuer.ca_pem().as_bytes()).expect("a CA");
    roots.add(ca).expect("a root");
    let provider = tls(issuer, |_| {}).crypto_provider().clone();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls
}

#[tokio::test]
async fn unauthenticated_clients_and_other_protocols_get_only_an_alert() {
    const CERTIFICATE_REQUIRED: u64 = 116;
    const NO_APPLICATION_PROTOCOL: u64 = 120;
    const UNKNOWN_CA: u64 = 48;
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let dial = |tls| RawLink::dial_tls(node.local_addr(), tls, Settings::default());
    assert_eq!(alert(dial(without_certificate(&issuer)).await).await, CERTIFICATE_REQUIRED);
    for alpn in [vec![], vec![b"dialback/2".to_vec()], vec![b"h3".to_vec(), b"dialback".to_vec()]] {
        let tls = tls(&issuer, |tls| tls.alpn_protocols = alpn);
        assert_eq!(alert(dial(tls).await).await, NO_APPLICATION_PROTOCOL);
    }
    // The same name by another CA; it trusts ours, or it would reject the handshake itself.
    let other = tls(&Issuer::new(), |_| {}).client_auth_cert_resolver;
    let tls_of_other = tls(&issuer, |tls| tls.client_auth_cert_resolver = other);
    assert_eq!(alert(dial(tls_of_other).await).await, UNKNOWN_CA);
    // For comparison: with our protocol as one of several.
    let tls = tls(&issuer, |tls| tls.alpn_protocols = vec![b"h3".to_vec(), ALPN.to_vec()]);
    let link = dial(tls).await.expect("a handshake");
    let mut control = link.open().await;
    control.send(&hello([1, 1], 0)).await;
    control.expect(kind::WELCOME).await;
}

/// Unidirectional streams and datagrams are not granted; the other streams are.
async fn check_one_way(link: &RawLink, control: &mut RawStream) {
    control.send(&ping(1)).await;
    control.expect(kind::PONG).await;
    assert!(at_once(link.connection.open_uni()).is_none(), "a unidirectional stream was granted");
    let datagram = link.connection.send_datagram(b"x"[..].into());
    assert_eq!(datagram, Err(SendDatagramError::UnsupportedByPeer));
    assert!(at_once(link.connection.open_bi()).is_some(), "a stream was not granted");
}

#[tokio::test]
async fn no_role_accepts_unidirectional_streams_or_datagrams() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let node = node(&issuer, &ledger).await;
    for peer in ["caller/ops", "agent/raw"] {
        let (link, mut control) = linked(&issuer, &node, peer).await;
        check_one_way(&link, &mut control).await;
    }
    let (_agent, link, mut control) = raw_node(&issuer, &ledger).await;
    check_one_way(&link, &mut control).await;
}

/// Writes until there is no more credit.
fn fill(stream: &mut RawStream, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(count) = at_once(stream.send.write(&bytes[written % bytes.len()..])) {
        written += count.expect("writable");
    }
    written
}

#[tokio::test]
async fn before_welcome_the_limits_are_two_streams_and_64_kib_and_afterwards_more() {
    const STREAMS: u32 = 128 + 32;
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let node = node(&issuer, &ledger).await;
    let link = RawLink::dial(node.local_addr(), &issuer.credentials("caller/ops")).await;
    let mut control = link.open().await;
    let mut spare = link.open().await;
    assert!(at_once(link.connection.open_bi()).is_none(), "a third stream was granted");
    let words = hello([1, 1], 0);
    control.send(&words).await;
    // Optional frames: the node could read them forever.
    let filling = frame(0x80, &[0; 16_000]);
    let written = fill(&mut spare, &filling);
    // HELLO may have been read by now, but then the node has not run since: this is one thread.
    assert_eq!(written + words.len(), 64 * 1024);
    control.expect(kind::WELCOME).await;
    spare.send(&filling[written % filling.len()..]).await;
    for _ in 0..16 {
        spare.send(&filling).await;
    }
    let mut streams = Vec::new();
    for _ in 2..STREAMS {
        let stream = soon("stream credit", link.connection.open_bi()).await;
        streams.push(stream.expect("the link is up"));
    }
    // An eighth more at most, plus one.
    while let Some(stream) = at_once(link.connection.open_bi()) {
        streams.push(stream.expect("the link is up"));
        assert!(streams.len() < 200, "the streams are unlimited");
    }
}

#[tokio::test]
async fn stream_credit_is_returned_however_many_calls_have_ended() {
    // An eighth of 256 + 32: credit that quinn does not announce until one more stream has ended.
    const ENDED: usize = 36;
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let (_agent, link, mut control) = raw_node(&issuer, &ledger).await;
    for _ in 0..ENDED {
        let mut stream = link.open().await;
        stream.send(&[Head::here("Echo/Echo").frame(), good_body()].concat()).await;
        stream.finish();
        assert_eq!(stream.reply().await.code, 0);
    }
    // All credit that the agent granted arrived before its PONG.
    control.send(&ping(1)).await;
    control.expect(kind::PONG).await;
    let mut open = Vec::new();
    while open.len() < 256 {
        let stream = at_once(link.connection.open_bi());
        open.push(stream.unwrap_or_else(|| panic!("no stream for call {}", open.len() + 1)));
    }
}

#[tokio::test]
async fn a_stream_opened_before_welcome_is_served_after_it() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let node = node(&issuer, &ledger).await;
    let agent = agent(&issuer, &node.local_addr().to_string(), &ledger);
    soon("registration", agent.registered(1)).await;
    let link = RawLink::dial(node.local_addr(), &issuer.credentials("caller/ops")).await;
    let mut control = link.open().await;
    let mut early = link.open().await;
    early.send(&[Head::agent("Echo/Echo", "warehouse").frame(), good_body()].concat()).await;
    early.finish();
    assert_eq!(ledger.count(), 0);
    control.send(&hello([1, 1], 0)).await;
    control.expect(kind::WELCOME).await;
    assert_eq!(early.reply().await.code, 0);
    assert_eq!(ledger.count(), 1);
}
