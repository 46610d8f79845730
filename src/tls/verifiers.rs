//! Verifiers of certificates in TLS handshakes: of clients, and of nodes that are dialled.

use super::{
    chain,
    claim::ClaimSlot,
    crypto::algorithms,
    identity::{Identity, IdentityError},
};
use crate::{
    name::{PeerName, Role},
    rate_limit::LogLimits,
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{fmt, iter, slice, sync::Arc};
use tokio::time::Instant;

/// The methods of rustls' two verifier traits that check a signature of the handshake: a
/// certificate that is shown without its key is rejected, after `$rejected` has run for its leaf.
macro_rules! signature_methods {
    ($self:ident, $leaf:ident => $rejected:expr) => {
        fn verify_tls12_signature(
            &$self,
            message: &[u8],
            $leaf: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, $leaf, signature, &algorithms())
                .inspect_err(|_| $rejected)
        }

        fn verify_tls13_signature(
            &$self,
            message: &[u8],
            $leaf: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, $leaf, signature, &algorithms())
                .inspect_err(|_| $rejected)
        }

        fn supported_verify_schemes(&$self) -> Vec<SignatureScheme> {
            algorithms().supported_schemes()
        }
    };
}

#[derive(Debug)]
pub(super) struct ClientChains {
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) nodes: Arc<dyn ClientCertVerifier>,
    pub(super) trust_domain: Arc<str>,
    pub(super) refusals: LogLimits<()>,
}

impl ClientChains {
    /// A client that claims to be a node must be signed by a CA of nodes, and no other client may
    /// be: the claim selects the CAs and proves nothing.
    fn vouching_for(&self, claimed: Option<&PeerName>) -> &dyn ClientCertVerifier {
        match claimed {
            Some(peer) if peer.role == Role::Node => &*self.nodes,
            _ => &*self.clients,
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

#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) chains: Arc<ClientChains>,
    pub(super) is_mandatory: bool,
    pub(super) slot: ClaimSlot,
}

impl ClientVerifier {
    fn keep_claim(&self, leaf: &CertificateDer<'_>) {
        self.slot.keep(leaf, &self.chains.trust_domain);
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.chains.verify(leaf, intermediates, now).inspect_err(|error| {
            log_rejected(&self.chains.refusals, &chain_of(leaf, intermediates), error);
            self.keep_claim(leaf);
        })
    }

    signature_methods!(self, leaf => self.keep_claim(leaf));
}

fn chain_of<'a>(
    leaf: &CertificateDer<'a>,
    intermediates: &[CertificateDer<'a>],
) -> Vec<CertificateDer<'a>> {
    iter::once(leaf).chain(intermediates).cloned().collect()
}

fn log_rejected(refusals: &LogLimits<()>, chain: &[CertificateDer<'_>], error: &Error) {
    let Some(Ok(identity)) = chain.first().map(Identity::of_leaf) else { return };
    let Some(suppressed) = refusals.admit((), Instant::now()) else { return };
    let (peer, serial) = (identity.peer_name(), identity.serial());
    let why = chain::blamed(error, chain).unwrap_or_else(|| error.to_string());
    tracing::warn!(
        %peer,
        serial = %serial,
        reason = why,
        "rejected the certificate that names {peer}, serial {serial}: {why}{suppressed}"
    );
}

/// Verifies the chain, the dialled name, and the role `node`.
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
            peer if peer.role == Role::Node => Ok(()),
            peer => Err(Unfit::NoNode(peer.clone())),
        }
    }

    /// Prefers "wrong role": an agent's leaf fails first on host name and usage.
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
            Err(Unfit::NoNode(peer)) if blames_names_or_usage => Unfit::NoNode(peer).into(),
            _ => error,
        }
    }
}

impl ServerChains for NodesOnly {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        self.chain
            .verify_server_cert(leaf, intermediates, dialled, &[], now)
            .map_err(|error| self.reworded(error, leaf))
            .inspect_err(|error| {
                // The link reports all other errors.
                let chain = chain_of(leaf, intermediates);
                if chain::blamed(error, &chain).is_some() {
                    log_rejected(&self.refusals, &chain, error);
                }
            })?;
        Ok(self.expect_node(leaf)?)
    }
}

pub(super) trait ServerChains: fmt::Debug + Send + Sync {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error>;
}

#[derive(Debug)]
pub(super) struct ServerVerifier<C>(pub(super) C);

impl<C: ServerChains> ServerCertVerifier for ServerVerifier<C> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify(leaf, intermediates, dialled, now)?;
        Ok(ServerCertVerified::assertion())
    }

    signature_methods!(self, leaf => ());
}

/// Mark before our text in errors that rustls prints.
pub(super) const UNFIT_MARK: &str = "unfit: ";

/// A leaf with a valid chain whose holder is not the required one.
#[derive(thiserror::Error)]
pub(super) enum Unfit {
    #[error("{UNFIT_MARK}{0}")]
    Identity(IdentityError),
    #[error("{UNFIT_MARK}wrong role: this is the certificate of {0}, and a node is required")]
    NoNode(PeerName),
    #[cfg(feature = "certs")]
    #[error("{UNFIT_MARK}{0}")]
    NoEnroller(String),
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
