//! The certificate chain that a peer has shown, and the identity in it.

use super::fault::LinkFault;
use crate::tls::{ChainBound, Credentials, Identity};
use rustls_pki_types::CertificateDer;

/// Returns the identity of the peer, and the end of its chain by the credentials that verified it.
pub(super) fn verified(
    connection: &quinn::Connection,
    credentials: &Credentials,
) -> Result<(Identity, ChainBound), LinkFault> {
    let identity = identity_of(connection, credentials.trust_domain())?;
    let ends = credentials.end_of(&chain_of(connection));
    let ends = ends.ok_or_else(|| LinkFault::Broken("the peer's chain cannot be read".into()))?;
    Ok((identity, ends))
}

/// Returns the certificates that the peer has shown, its own first.
pub(super) fn chain_of(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<_>>().ok());
    chain.map(|chain| *chain).unwrap_or_default()
}

/// Returns the identity of the peer, only from the certificate that TLS has verified.
pub(super) fn identity_of(
    connection: &quinn::Connection,
    trust_domain: &str,
) -> Result<Identity, LinkFault> {
    let chain = chain_of(connection);
    if chain.is_empty() {
        return Err(LinkFault::Broken("the peer showed no certificate".into()));
    }
    Identity::from_verified_chain(&chain, trust_domain).map_err(|fault| LinkFault::Handshake {
        is_identity: true,
        is_not_valid_yet: false,
        reason: fault.to_string(),
        remedy: "issue it again with `dialback certs issue`".into(),
    })
}
