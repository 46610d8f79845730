//! Peers on bare quinn and rustls that show whatever certificate they are told to, also ones that
//! our own credentials refuse to load.

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

/// What a raw peer shows.
pub(crate) enum Presented {
    /// No certificate.
    Nothing,
    /// This one.
    Leaf(LeafPem),
}

/// A client's TLS that believes what `good` believes and shows something else.
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

/// One raw link to a node, and what came of its words.
pub(crate) struct WelcomedLink {
    _endpoint: quinn::Endpoint,
    pub(crate) connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

/// Dials a node, says HELLO and waits for the answer: `Err` is how the node ended it.
pub(crate) async fn dial_raw(
    config: rustls::ClientConfig,
    to: SocketAddr,
) -> Result<WelcomedLink, quinn::ConnectionError> {
    dial_raw_from(raw_endpoint(), config, to).await
}

/// A socket to dial from, for those who want to know its port.
pub(crate) fn raw_endpoint() -> quinn::Endpoint {
    quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket")
}

/// The same from a socket of the test's own.
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

/// Dials with a byte of early data: whether it was taken, or `None` where the client had no ticket
/// to send any with.
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
    /// Sends one short control frame and gives the kind of the frame that answers it.
    async fn ask<const N: usize>(&mut self, kind: u8, fields: [(i128, Value); N]) -> Option<u8> {
        let fields: BTreeMap<_, _> =
            fields.into_iter().map(|(key, value)| (Value::Integer(key), value)).collect();
        let fields = serde_cbor::to_vec(&Value::Map(fields)).expect("encodes");
        let length = u16::try_from(fields.len()).expect("a short frame") | 0x4000;
        let frame = [&[kind], &length.to_be_bytes()[..], &fields].concat();
        self.send.write_all(&frame).await.ok()?;
        let mut head = [0; 3];
        soon("an answer comes", self.recv.read_exact(&mut head)).await.ok()?;
        let length = u16::from_be_bytes([head[1], head[2]]);
        assert_eq!(length >> 14, 1, "control frames have a length of two bytes");
        let mut rest = vec![0; usize::from(length & 0x3fff)];
        soon("all of it comes", self.recv.read_exact(&mut rest)).await.ok()?;
        Some(head[0])
    }

    /// Registers without services: whether the node has confirmed it.
    pub(crate) async fn register(&mut self) -> bool {
        let fields = [(0, Value::Integer(1)), (1, Value::Array(vec![]))];
        self.ask(0x03, fields).await == Some(0x04)
    }

    /// How the link ended.
    pub(crate) async fn ended(&self) -> quinn::ConnectionError {
        soon("the link ends", self.connection.closed()).await
    }
}

/// Something that listens like a node and shows a certificate of the test's choice. Whoever takes
/// it for a node is sent away with `UNAUTHORIZED`, which no handshake that failed can bring.
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

    /// Waits until somebody has dialled, and says whether the first one took this for a node.
    #[track_caller]
    pub(crate) fn was_accepted(&self) -> impl Future<Output = bool> + use<> {
        let mut handshakes = self.handshakes.subscribe();
        soon("somebody dials and judges", async move {
            let handshakes = handshakes
                .wait_for(|handshakes| !handshakes.is_empty())
                .await
                .expect("the raw node lives");
            handshakes[0]
        })
    }

    /// Shows this leaf.
    pub(crate) fn presenting(good: &Credentials, leaf: &LeafPem) -> Self {
        let mut config = good.accepting_config(ALPN).expect("a config");
        config.cert_resolver = pair(leaf, config.crypto_provider());
        Self::start(config)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().expect("an address")
    }
}

/// Takes links one after the other, waits for the first word on each, and closes it.
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

/// Where a raw client keeps session tickets, and a raw server its sessions: counts what is kept and
/// what is asked for.
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

    /// Sessions that were kept for later.
    pub(crate) fn stored(&self) -> usize {
        self.stored.load(Ordering::SeqCst)
    }

    /// Times that somebody came back with one.
    pub(crate) fn offered(&self) -> usize {
        self.offered.load(Ordering::SeqCst)
    }

    /// The client's side of resumption, on.
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
