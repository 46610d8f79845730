//! A client that speaks to an enroller without dialback: any bytes, with or without a certificate.

use crate::world::soon;
use dialback::{CredentialFiles, JOIN_ALPN, certs::JoinToken};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use serde_cbor::Value;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// A client with its own socket.
pub(super) struct RawClient {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
}

/// The answer of an enroller.
#[derive(Debug)]
pub(super) struct EnrollReply(BTreeMap<Value, Value>);

/// A request as a map: kind, certificate request, peer, secret.
pub(super) fn request(ask: i128, csr: &[u8], peer: &str, secret: &[u8]) -> Vec<u8> {
    let fields = [
        (0, Value::Integer(ask)),
        (1, Value::Bytes(csr.into())),
        (2, Value::Text(peer.into())),
        (3, Value::Bytes(secret.into())),
    ];
    let fields = fields.map(|(key, value)| (Value::Integer(key), value));
    serde_cbor::to_vec(&Value::Map(fields.into())).expect("encodes")
}

/// The secret of a token, as its bearer can read it from the line.
pub(super) fn secret(token: &JoinToken) -> Vec<u8> {
    let line = token.to_line();
    let hex = line.split(':').nth(3).expect("a secret").as_bytes();
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a digit") as u8;
    hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

impl RawClient {
    /// Presents this certificate, or none.
    pub(super) fn new(presented: Option<&CredentialFiles>) -> Self {
        Self::from(Ipv4Addr::LOCALHOST.into(), presented)
    }

    /// The same from another address of this machine.
    pub(super) fn from(address: IpAddr, presented: Option<&CredentialFiles>) -> Self {
        let quic = QuicClientConfig::try_from(tls(presented)).expect("TLS for QUIC");
        Self {
            endpoint: quinn::Endpoint::client((address, 0).into()).expect("a socket"),
            config: quinn::ClientConfig::new(Arc::new(quic)),
        }
    }

    pub(super) async fn dial(
        &self,
        at: SocketAddr,
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        let connecting = self.endpoint.connect_with(self.config.clone(), at, "localhost");
        soon("the handshake ends", connecting.expect("dialled")).await
    }

    /// Sends these bytes and reads the answer; none if the connection is closed instead.
    pub(super) async fn send(&self, at: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let connection = self.dial(at).await.ok()?;
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        send.write_all(bytes).await.ok()?;
        send.finish().ok()?;
        let answer = soon("an answer arrives", recv.read_to_end(1 << 20)).await.ok();
        connection.close(0x40_u8.into(), b"");
        answer
    }

    /// The answer as a map.
    pub(super) async fn ask(&self, at: SocketAddr, bytes: &[u8]) -> EnrollReply {
        EnrollReply::read(&self.send(at, bytes).await.expect("an answer"))
    }
}

impl EnrollReply {
    pub(super) fn read(answer: &[u8]) -> Self {
        match serde_cbor::from_slice(answer).expect("CBOR") {
            Value::Map(fields) => Self(fields),
            other => panic!("no map: {other:?}"),
        }
    }

    pub(super) fn code(&self) -> u16 {
        match self.0.get(&Value::Integer(0)) {
            Some(Value::Integer(code)) => u16::try_from(*code).expect("a code"),
            other => panic!("no code: {other:?}"),
        }
    }

    /// 1 the text, 2 the leaf, 3 the CA, 4 the CRL.
    pub(super) fn text(&self, key: i128) -> &str {
        match self.0.get(&Value::Integer(key)) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }
}

fn tls(presented: Option<&CredentialFiles>) -> ClientConfig {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAnyServer(provider)));
    let mut config = match presented {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let cert = CertificateDer::from_pem_file(&files.cert).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
            builder.with_client_auth_cert(vec![cert], key).expect("a pair")
        }
    };
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    config
}

/// The cryptography provider that the crate was built with.
fn provider() -> Arc<CryptoProvider> {
    let world = crate::world::World::new();
    let config = world.credentials("agent/a").dialling_config(JOIN_ALPN).expect("a config");
    config.crypto_provider().clone()
}

/// Accepts any server: these tests do not verify it.
#[derive(Debug)]
struct AcceptAnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A listener like an enroller that presents another peer's certificate.
pub(super) fn impostor(presented: &CredentialFiles) -> quinn::Endpoint {
    let cert = CertificateDer::from_pem_file(&presented.cert).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(&presented.key).expect("a key");
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("a pair");
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    let quic = quinn::crypto::rustls::QuicServerConfig::try_from(config).expect("TLS for QUIC");
    let config = quinn::ServerConfig::with_crypto(Arc::new(quic));
    let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into());
    let endpoint = endpoint.expect("a socket");
    let taking = endpoint.clone();
    drop(tokio::runtime::Handle::current().spawn(async move {
        while let Some(incoming) = taking.accept().await {
            drop(incoming.await);
        }
    }));
    endpoint
}
