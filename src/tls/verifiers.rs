//! Verifiers of certificates in TLS handshakes: of those who dial, and of nodes that are dialled.

use super::{
    chain,
    identity::{Identity, IdentityError},
};
use crate::{
    name::{PeerName, Role},
    rate_limit::LogLimits,
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{fmt, iter, slice, sync::Arc};
use tokio::time::Instant;

/// Accepts any of the three roles of our trust domain; which of them may do what is the link's to
/// say.
#[derive(Debug)]
pub(super) struct PartiesOnly {
    pub(super) parties: Arc<dyn ClientCertVerifier>,
    pub(super) nodes: Arc<dyn ClientCertVerifier>,
    pub(super) trust_domain: Arc<str>,
    pub(super) refusals: LogLimits<()>,
}

impl PartiesOnly {
    /// Whoever says that it is a node has to be signed by a CA of nodes, and nobody else may be:
    /// what a leaf says of itself only chooses who has to vouch for it.
    fn vouching_for(&self, claimed: Option<&PeerName>) -> &dyn ClientCertVerifier {
        match claimed {
            Some(party) if party.role == Role::Node => &*self.nodes,
            _ => &*self.parties,
        }
    }

    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let claimed = Identity::of_leaf(leaf).ok();
        let chain = self.vouching_for(claimed.as_ref().map(Identity::peer_name));
        let verified = chain.verify_client_cert(leaf, intermediates, now)?;
        Identity::from_verified_chain(slice::from_ref(leaf), &self.trust_domain)
            .map_err(|error| Error::from(Unfit::Identity(error)))?;
        Ok(verified)
    }
}

impl ClientCertVerifier for PartiesOnly {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.parties.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, now).inspect_err(|error| {
            tell_refused(&self.refusals, &chain_of(leaf, intermediates), error);
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.parties.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.parties.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.parties.supported_verify_schemes()
    }
}

fn chain_of<'a>(
    leaf: &CertificateDer<'a>,
    intermediates: &[CertificateDer<'a>],
) -> Vec<CertificateDer<'a>> {
    iter::once(leaf).chain(intermediates).cloned().collect()
}

/// Logs who was refused, within bounds. TLS hands on the reason and not the name, and a name that
/// nobody vouched for is worth reading all the same.
fn tell_refused(refusals: &LogLimits<()>, chain: &[CertificateDer<'_>], error: &Error) {
    let Some(Ok(identity)) = chain.first().map(Identity::of_leaf) else { return };
    let Some(suppressed) = refusals.say((), Instant::now()) else { return };
    let (party, serial) = (identity.peer_name(), identity.serial());
    let why = chain::blamed(error, chain).unwrap_or_else(|| error.to_string());
    tracing::warn!(
        "refused the certificate that names {party}, serial {serial}: {why}{suppressed}"
    );
}

/// Believes the chain, the name that was dialled, and the role `node`: all three.
#[derive(Debug)]
pub(super) struct NodesOnly {
    pub(super) chain: Arc<dyn ServerCertVerifier>,
    pub(super) trust_domain: Arc<str>,
    pub(super) refusals: LogLimits<()>,
}

impl NodesOnly {
    fn expect_node(&self, leaf: &CertificateDer<'_>) -> Result<(), Unfit> {
        let identity = Identity::from_verified_chain(slice::from_ref(leaf), &self.trust_domain)
            .map_err(Unfit::Identity)?;
        match identity.peer_name() {
            party if party.role == Role::Node => Ok(()),
            party => Err(Unfit::NoNode(party.clone())),
        }
    }

    /// Words for a refusal that already stands. An agent's leaf has no host name and no server
    /// usage, so the chain refuses it first, and "wrong role" says more than either.
    fn reworded(&self, error: Error, leaf: &CertificateDer<'_>) -> Error {
        use CertificateError as Fault;
        let blames_names_or_usage = matches!(
            &error,
            Error::InvalidCertificate(
                Fault::InvalidPurpose
                    | Fault::InvalidPurposeContext { .. }
                    | Fault::NotValidForName
                    | Fault::NotValidForNameContext { .. }
            )
        );
        match self.expect_node(leaf) {
            Err(Unfit::NoNode(party)) if blames_names_or_usage => Unfit::NoNode(party).into(),
            _ => error,
        }
    }
}

impl ServerCertVerifier for NodesOnly {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .chain
            .verify_server_cert(leaf, intermediates, dialled, ocsp_response, now)
            .map_err(|error| self.reworded(error, leaf))
            .inspect_err(|error| {
                // The link says all else.
                let chain = chain_of(leaf, intermediates);
                if chain::blamed(error, &chain).is_some() {
                    tell_refused(&self.refusals, &chain, error);
                }
            })?;
        self.expect_node(leaf)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// What rustls prints, around our own words, when a verifier of ours refuses.
pub(super) const UNFIT_MARK: &str = "unfit: ";

/// A leaf whose chain is good and whose holder is not the one wanted.
#[derive(thiserror::Error)]
enum Unfit {
    #[error("{UNFIT_MARK}{0}")]
    Identity(IdentityError),
    #[error("{UNFIT_MARK}the certificate is that of {0}; the role wanted here is node")]
    NoNode(PeerName),
}

/// rustls shows a foreign error by its `Debug`, and that text is all that QUIC hands on.
impl fmt::Debug for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Self {
        CertificateError::Other(OtherError(Arc::new(unfit))).into()
    }
}
