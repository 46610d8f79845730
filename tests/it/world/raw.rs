//! Peers on bare quinn and rustls that present any certificate, also ones that our own credentials
//! refuse to load.

use super::soon;
use dialback::{ALPN, CloseCode, Credentials, certs::LeafPem};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    SignatureScheme,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, ResolvesClientCert, Resumption,
        Tls12ClientSessionValue, Tls13ClientSessionValue,
    },
    crypto::CryptoProvider,
    server::StoresServerSessions,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_cbor::Value;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;

/// The certificate that a raw peer presents.
pub(crate) enum Presented {
    /// No certificate.
    Nothing,
    /// This one.
    Leaf(LeafPem),
}

/// A client's TLS that trusts the CAs of `good` and presents another certificate.
pub(crate) fn quic_client(good: &Credentials, presented: Presented) -> rustls::ClientConfig {
    let mut config = good.dialling_config(ALPN).expect("a config");
    config.client_auth_cert_resolver = match presented {
        Presented::Nothing => Arc::new(NoCertificate),
        Presented::Leaf(leaf) => pair(&leaf, config.crypto_provider()),
    };
    config
}

fn pair(leaf: &LeafPem, provider: &CryptoProvider) -> Arc<SingleCertAndKey> {
    let chain = CertificateDer::pem_slice_iter(leaf.cert.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("a key");
    let pair = CertifiedKey::from_der(chain, key, provider).expect("a pair");
    Arc::new(SingleCertAndKey::from(pair))
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A raw link to a node, after WELCOME.
pub(crate) struct WelcomedLink {
    _endpoint: quinn::Endpoint,
    pub(crate) connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

/// Dials a node, sends HELLO and waits for the answer: `Err` is the reason of the close.
pub(crate) async fn dial_raw(
    config: rustls::ClientConfig,
    to: SocketAddr,
) -> Result<WelcomedLink, quinn::ConnectionError> {
    dial_raw_from(raw_endpoint(), config, to).await
}

/// A socket to dial from, for tests that need its port.
pub(crate) fn raw_endpoint() -> quinn::Endpoint {
    quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket")
}

/// The same from a given socket.
pub(crate) async fn dial_raw_from(
    endpoint: quinn::Endpoint,
    config: rustls::ClientConfig,
    to: SocketAddr,
) -> Result<WelcomedLink, quinn::ConnectionError> {
    let quic = QuicClientConfig::try_from(config).expect("TLS for QUIC");
    let config = quinn::ClientConfig::new(Arc::new(quic));
    let connecting = endpoint.connect_with(config, to, "localhost").expect("dialled");
    let connection = soon("the handshake ends", connecting).await?;
    let (send, recv) = connection.open_bi().await?;
    let mut link = WelcomedLink { _endpoint: endpoint, connection, send, recv };
    let instance = Value::Bytes(vec![7; 16]);
    let fields = [(0, Value::Integer(1)), (1, Value::Integer(1)), (3, instance)];
    match link.ask(0x01, fields).await {
        Some(0x02) => Ok(link),
        Some(kind) => panic!("the answer to HELLO was {kind:#x}"),
        None => Err(link.ended().await),
    }
}

/// Dials with a byte of early data: returns whether it was accepted, or `None` where the client had
/// no ticket.
pub(crate) async fn dial_early(config: rustls::ClientConfig, to: SocketAddr) -> Option<bool> {
    let quic = QuicClientConfig::try_from(config).expect("TLS for QUIC");
    let config = quinn::ClientConfig::new(Arc::new(quic));
    let endpoint = raw_endpoint();
    let connecting = endpoint.connect_with(config, to, "localhost").expect("dialled");
    let (connection, is_accepted) = connecting.into_0rtt().ok()?;
    let (mut send, _recv) = connection.open_bi().await.expect("a stream");
    send.write_all(&[0x01]).await.expect("sent");
    Some(soon("the handshake ends", is_accepted).await)
}

impl WelcomedLink {
    /// Sends one short control frame and returns the kind of the answering frame.
    async fn ask<const N: usize>(&mut self, kind: u8, fields: [(i128, Value); N]) -> Option<u8> {
        let fields: BTreeMap<_, _> =
            fields.into_iter().map(|(key, value)| (Value::Integer(key), value)).collect();
        let fields = serde_cbor::to_vec(&Value::Map(fields)).expect("encodes");
        let length = u16::try_from(fields.len()).expect("a short frame") | 0x4000;
        let frame = [&[kind], &length.to_be_bytes()[..], &fields].concat();
        self.send.write_all(&frame).await.ok()?;
        let mut head = [0; 3];
        soon("an answer arrives", self.recv.read_exact(&mut head)).await.ok()?;
        let length = u16::from_be_bytes([head[1], head[2]]);
        assert_eq!(length >> 14, 1, "control frames have a length of two bytes");
        let mut rest = vec![0; usize::from(length & 0x3fff)];
        soon("the frame arrives", self.recv.read_exact(&mut rest)).await.ok()?;
        Some(head[0])
    }

    /// Registers without services: returns whether the node has confirmed it.
    pub(crate) async fn register(&mut self) -> bool {
        let fields = [(0, Value::Integer(1)), (1, Value::Array(vec![]))];
        self.ask(0x03, fields).await == Some(0x04)
    }

    /// The reason for which the link ended.
    pub(crate) async fn ended(&self) -> quinn::ConnectionError {
        soon("the link ends", self.connection.closed()).await
    }
}

/// A listener like a node that presents any certificate. Every peer that accepts it is closed with
/// `UNAUTHORIZED`, a code that no failed handshake has.
pub(crate) struct RawNode {
    endpoint: quinn::Endpoint,
    handshakes: watch::Sender<Vec<bool>>,
    _task: super::Background<()>,
}

impl RawNode {
    /// Listens on a free port.
    pub(crate) fn start(config: rustls::ServerConfig) -> Self {
        let quic = QuicServerConfig::try_from(config).expect("TLS for QUIC");
        let config = quinn::ServerConfig::with_crypto(Arc::new(quic));
        let at = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = quinn::Endpoint::server(config, at).expect("a socket");
        let handshakes = watch::Sender::default();
        let task = super::spawn(reject_all(endpoint.clone(), handshakes.clone()));
        Self { endpoint, handshakes, _task: task }
    }

    /// Waits until a peer has dialled; returns whether the first one accepted this as a node.
    #[track_caller]
    pub(crate) fn was_accepted(&self) -> impl Future<Output = bool> + use<> {
        let mut handshakes = self.handshakes.subscribe();
        soon("a peer dials and verifies", async move {
            let handshakes = handshakes
                .wait_for(|handshakes| !handshakes.is_empty())
                .await
                .expect("the raw node lives");
            handshakes[0]
        })
    }

    /// Presents this leaf.
    pub(crate) fn presenting(good: &Credentials, leaf: &LeafPem) -> Self {
        let mut config = good.accepting_config(ALPN).expect("a config");
        config.cert_resolver = pair(leaf, config.crypto_provider());
        Self::start(config)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().expect("an address")
    }
}

/// Accepts links one after the other, waits for the first byte on each, and closes it.
async fn reject_all(endpoint: quinn::Endpoint, handshakes: watch::Sender<Vec<bool>>) {
    while let Some(incoming) = endpoint.accept().await {
        let handshake = incoming.await;
        handshakes.send_modify(|handshakes| handshakes.push(handshake.is_ok()));
        let Ok(connection) = handshake else { continue };
        if let Ok((_send, mut recv)) = connection.accept_bi().await {
            drop(recv.read_chunk(1, true).await);
        }
        let code = CloseCode::Unauthorized.number() as u32;
        connection.close(code.into(), b"this is only a test");
        connection.closed().await;
    }
}

/// The session tickets of a raw client and the sessions of a raw server: counts stored and offered
/// ones.
#[derive(Debug)]
pub(crate) struct TicketStore {
    client: ClientSessionMemoryCache,
    server: Arc<dyn StoresServerSessions>,
    stored: AtomicUsize,
    offered: AtomicUsize,
}

impl TicketStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            client: ClientSessionMemoryCache::new(8),
            server: rustls::server::ServerSessionMemoryCache::new(8),
            stored: AtomicUsize::new(0),
            offered: AtomicUsize::new(0),
        })
    }

    /// Sessions that were stored.
    pub(crate) fn stored(&self) -> usize {
        self.stored.load(Ordering::SeqCst)
    }

    /// The number of attempts to resume one.
    pub(crate) fn offered(&self) -> usize {
        self.offered.load(Ordering::SeqCst)
    }

    /// Resumption for the client side.
    pub(crate) fn resumption(self: &Arc<Self>) -> Resumption {
        Resumption::store(self.clone())
    }
}

impl ClientSessionStore for TicketStore {
    fn set_kx_hint(&self, server: ServerName<'static>, group: rustls::NamedGroup) {
        self.client.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        self.client.kx_hint(server)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.stored.fetch_add(1, Ordering::SeqCst);
        self.client.insert_tls13_ticket(server, ticket);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.client.take_tls13_ticket(server)
    }
}

impl StoresServerSessions for TicketStore {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.stored.fetch_add(1, Ordering::SeqCst);
        self.server.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.offered.fetch_add(1, Ordering::SeqCst);
        self.server.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.offered.fetch_add(1, Ordering::SeqCst);
        self.server.take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}
