//! TLS configurations: of the side that accepts, and of the side that dials.

use super::crypto::provider_with;
use rustls::{
    ClientConfig, Error, ServerConfig,
    client::{Resumption, danger::ServerCertVerifier},
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use std::sync::Arc;

pub(super) fn accepting(
    own: Arc<CertifiedKey>,
    verifier: Arc<dyn ClientCertVerifier>,
    post_quantum: bool,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider_with(post_quantum))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // A resumed session does not show a certificate again, so a revoked peer could come back.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
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
