//! TLS of tunnels. It only looks like HTTPS: what is inside authenticates both ends. So both sides
//! speak TLS 1.2 too, which some proxies do not exceed.

use super::{
    config::{HTTP_1, add_cas},
    crypto::{algorithms, provider},
    key_log::key_log,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{fmt, io, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// The TLS of tunnels. Without CAs it accepts every certificate.
#[derive(Clone, Default)]
pub(crate) struct TunnelTls(Option<TlsConnector>);

impl TunnelTls {
    /// Verifies certificates with the system's CAs and those of a PEM text.
    pub(crate) fn verifying(ca_pem: Option<&[u8]>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let (added, _unusable) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = ca_pem {
            add_cas(&mut roots, pem, "tunnels")?;
        } else if added == 0 {
            return Err("verify needs CAs, and this system has none; name them with ca".into());
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider());
        let verifier = verifier.build().map_err(|fault| fault.to_string())?;
        let config = config(verifier).map_err(|fault| fault.to_string())?;
        Ok(Self(Some(config.into())))
    }

    /// Performs the handshake with a host, which may be a name or an IP address.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Send + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<S>> {
        let host = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = match &self.0 {
            Some(connector) => connector.clone(),
            None => config(Arc::new(AcceptsAll)).map_err(io::Error::other)?.into(),
        };
        connector.connect(host, stream).await
    }
}

fn config(verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    config.resumption = Resumption::disabled();
    config.key_log = key_log();
    Ok(Arc::new(config))
}

impl fmt::Debug for TunnelTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TunnelTls(verify: {})", self.0.is_some())
    }
}

/// Accepts the certificate of every tunnel.
#[derive(Debug)]
struct AcceptsAll;

impl ServerCertVerifier for AcceptsAll {
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
        algorithms().supported_schemes()
    }
}
