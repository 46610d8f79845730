//! The two TLS settings: the side that accepts demands a certificate, the side that dials believes
//! nodes only.

use super::{claim::ClaimSlot, crypto::provider_with, trust::Trust};
use rustls::{
    ClientConfig, Error, ServerConfig,
    client::Resumption,
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use std::sync::Arc;

/// The config of the side that accepts: a peer without a good certificate gets nothing.
pub(super) fn accepting(
    own: Arc<CertifiedKey>,
    trust: &Trust,
    post_quantum: bool,
    alpn: &[u8],
) -> Result<ServerConfig, Error> {
    let mut config = accepting_by(own, trust.accepting.clone(), post_quantum)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// The same for one handshake, which puts what a refused certificate says of itself into this slot.
pub(super) fn accepting_one(
    own: Arc<CertifiedKey>,
    trust: &Trust,
    post_quantum: bool,
    alpn: &[u8],
    slot: ClaimSlot,
) -> Result<ServerConfig, Error> {
    let verifier = Arc::new(trust.accepting_verifier_of_one(slot));
    let mut config = accepting_by(own, verifier, post_quantum)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// The same with another judge of peers, and without a protocol.
pub(super) fn accepting_by(
    own: Arc<CertifiedKey>,
    judge: Arc<dyn ClientCertVerifier>,
    post_quantum: bool,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider_with(post_quantum))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(judge)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    // A resumed session is not asked for a certificate again, so a revoked peer could come back.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// The config of the side that dials: it shows its certificate and believes nodes only.
pub(super) fn dialling(
    own: Arc<CertifiedKey>,
    trust: &Trust,
    post_quantum: bool,
    alpn: &[u8],
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider_with(post_quantum))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(trust.dialling.clone())
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}
