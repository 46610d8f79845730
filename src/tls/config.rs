//! TLS configurations: of the side that accepts, and of the side that dials.

#[cfg(any(feature = "forward", feature = "gateway"))]
use super::crypto::provider;
use super::crypto::provider_with;
#[cfg(feature = "tunnel")]
use super::key_log::key_log;
#[cfg(any(feature = "forward", feature = "gateway", feature = "tunnel"))]
use super::pem;
#[cfg(any(feature = "forward", feature = "gateway", feature = "tunnel"))]
use rustls::RootCertStore;
#[cfg(any(feature = "forward", feature = "gateway"))]
use rustls::client::WebPkiServerVerifier;
#[cfg(feature = "tunnel")]
use rustls::version::TLS12;
use rustls::{
    ClientConfig, Error, ServerConfig,
    client::{Resumption, danger::ServerCertVerifier},
    server::{NoServerSessionStorage, ResolvesServerCert, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
#[cfg(any(feature = "forward", feature = "gateway", feature = "tunnel"))]
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// ALPN of HTTP/1.1.
#[cfg(any(feature = "forward", feature = "gateway", feature = "tunnel"))]
pub(super) const HTTP_1: &[u8] = b"http/1.1";

/// ALPN of HTTP/2.
#[cfg(any(feature = "forward", feature = "gateway", feature = "tunnel"))]
pub(super) const H2: &[u8] = b"h2";

pub(super) fn accepting(
    own: Arc<CertifiedKey>,
    verifier: Arc<dyn ClientCertVerifier>,
    post_quantum: bool,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    accepting_with(Arc::new(SingleCertAndKey::from(own)), verifier, post_quantum, alpn)
}

/// Makes the configuration of the side that accepts, which selects its certificate by handshake.
pub(super) fn accepting_with(
    shown: Arc<dyn ResolvesServerCert>,
    verifier: Arc<dyn ClientCertVerifier>,
    post_quantum: bool,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    let config = ServerConfig::builder_with_provider(provider_with(post_quantum))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    Ok(without_resumption(config, alpn))
}

/// Makes the configuration of the side that accepts tunnels. It authenticates nobody, so it speaks
/// TLS 1.2 too, and asks for no certificate, which TLS 1.2 would send in clear.
#[cfg(feature = "tunnel")]
pub(super) fn accepting_tunnels(
    own: Arc<CertifiedKey>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider_with(true))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.key_log = key_log();
    Ok(without_resumption(config, alpn))
}

/// A resumed session does not show a certificate again, so a revoked peer could come back.
fn without_resumption(mut config: ServerConfig, alpn: &[&[u8]]) -> ServerConfig {
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config
}

/// Makes the configuration of the side that dials. Without a certificate of its own it shows none.
pub(super) fn dialling(
    own: Option<Arc<CertifiedKey>>,
    verifier: Arc<dyn ServerCertVerifier>,
    post_quantum: bool,
    alpn: &[u8],
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider_with(post_quantum))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// Makes the configuration of an HTTP client that trusts the CAs of a PEM text. They are `of` the
/// server, for errors.
#[cfg(any(feature = "forward", feature = "gateway"))]
pub(super) fn dialling_with_cas(
    ca_pem: &[u8],
    own: Option<Arc<CertifiedKey>>,
    alpn: &[u8],
    of: &str,
) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    add_cas(&mut roots, ca_pem, of)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider())
        .build()
        .map_err(|fault| fault.to_string())?;
    dialling(own, verifier, true, alpn).map_err(|fault| fault.to_string())
}

/// Adds the CAs of a PEM text, of which there is one at least.
#[cfg(any(feature = "forward", feature = "gateway", feature = "tunnel"))]
pub(super) fn add_cas(roots: &mut RootCertStore, ca_pem: &[u8], of: &str) -> Result<(), String> {
    let cas = pem::bodies(ca_pem, pem::PemKind::Certificate)
        .map_err(|fault| format!("the CAs of {of}: {fault}"))?;
    if cas.is_empty() {
        return Err(format!("the CAs of {of}: there is no certificate in the file"));
    }
    for ca in cas {
        let added = roots.add(CertificateDer::from(ca));
        added.map_err(|fault| format!("a CA of {of}: {fault}"))?;
    }
    Ok(())
}
