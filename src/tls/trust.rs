//! Trust in CAs: verifies whether a trusted CA signed a chain, for a role, at a given time.

use super::{
    chain::{self, ChainBound},
    claim::ClaimSlot,
    crypto::{provider, unix_time},
    files::CrlScope,
    identity::Identity,
    verifiers::{ClientChains, ClientVerifier, NodesOnly, ServerChains, ServerVerifier},
};
use crate::{name::Role, rate_limit::LogLimits};
use rustls::{
    CertificateError, Error, RootCertStore,
    client::{
        WebPkiServerVerifier, danger::ServerCertVerifier, verify_server_cert_signed_by_trust_anchor,
    },
    crypto::CryptoProvider,
    server::{
        ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use std::sync::Arc;

pub(super) struct CaTrustParts<'a> {
    pub(super) clients: Arc<RootCertStore>,
    /// The CAs of nodes: the same ones, unless separate CAs are configured.
    pub(super) nodes: Arc<RootCertStore>,
    pub(super) crls: Vec<CertificateRevocationListDer<'static>>,
    pub(super) crl_scope: CrlScope,
    pub(super) trust_domain: &'a str,
}

/// Trusted CAs and verifiers for accepting and for dialling; built once per loaded credentials.
#[derive(Clone, Debug)]
pub(super) struct CaTrust {
    accepting: Arc<ClientChains>,
    dialling: Arc<ServerVerifier<NodesOnly>>,
    clients: Arc<RootCertStore>,
    nodes: Arc<RootCertStore>,
}

impl CaTrust {
    /// Trusts only the CAs, within one trust domain, and checks the revocation lists.
    pub(super) fn new(parts: &CaTrustParts<'_>) -> Result<Self, VerifierBuilderError> {
        let provider = provider();
        let trust_domain: Arc<str> = parts.trust_domain.into();
        let accepting = ClientChains {
            clients: parts.accepting_from(&parts.clients, &provider)?,
            nodes: parts.accepting_from(&parts.nodes, &provider)?,
            trust_domain: trust_domain.clone(),
            refusals: LogLimits::default(),
        };
        let dialling = NodesOnly {
            chain: parts.dialling_to(&provider)?,
            trust_domain,
            refusals: LogLimits::default(),
        };
        let (clients, nodes) = (parts.clients.clone(), parts.nodes.clone());
        let (accepting, dialling) = (Arc::new(accepting), Arc::new(ServerVerifier(dialling)));
        Ok(Self { accepting, dialling, clients, nodes })
    }

    /// True if the CAs of a role signed a chain that is valid at `at`. Ignores lists, hosts.
    pub(super) fn vouches_for(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        at: UnixTime,
    ) -> bool {
        let roots = if role == Role::Node { &self.nodes } else { &self.clients };
        expect_signed_by(roots, chain, role, at).is_ok()
    }

    /// The verifier of clients, which stores the claim of a rejected certificate in this slot.
    pub(super) fn client_verifier(
        &self,
        is_mandatory: bool,
        slot: ClaimSlot,
    ) -> Arc<ClientVerifier> {
        Arc::new(ClientVerifier { chains: self.accepting.clone(), is_mandatory, slot })
    }

    pub(super) fn node_verifier(&self) -> Arc<ServerVerifier<NodesOnly>> {
        self.dialling.clone()
    }

    /// End of a peer's chain. `None`: its leaf cannot be read.
    pub(super) fn end_of(&self, chain: &[CertificateDer<'_>]) -> Option<ChainBound> {
        let role = || Some(Identity::of_leaf(chain.first()?).ok()?.peer_name().role);
        chain::end_of(chain, |at| {
            role().is_some_and(|role| self.vouches_for(chain, role, unix_time(at)))
        })
    }

    /// Verifies a chain as the handshake does, as a node's if dialled by a name.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Error> {
        match dialled {
            Some(host) => self.dialling.0.verify(leaf, intermediates, host, now),
            None => self.accepting.verify(leaf, intermediates, now).map(drop),
        }
    }
}

/// rustls by default checks the whole chain, and accepts an expired list.
impl CaTrustParts<'_> {
    fn accepting_from(
        &self,
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
        let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .with_crls(self.crls.iter().cloned())
            .enforce_revocation_expiration()
            .clear_root_hint_subjects();
        match self.crl_scope {
            CrlScope::Leaf => builder.only_check_end_entity_revocation().build(),
            CrlScope::Chain => builder.build(),
        }
    }

    fn dialling_to(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, VerifierBuilderError> {
        let roots = self.nodes.clone();
        let builder = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(self.crls.iter().cloned())
            .enforce_revocation_expiration();
        let verifier = match self.crl_scope {
            CrlScope::Leaf => builder.only_check_end_entity_revocation().build()?,
            CrlScope::Chain => builder.build()?,
        };
        Ok(verifier)
    }
}

/// True if a chain leads to one of these CAs, with the key usage of its role. Ignores lists, hosts.
pub(super) fn expect_signed_by(
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'_>],
    role: Role,
    now: UnixTime,
) -> Result<(), Error> {
    let (leaf, intermediates) =
        chain.split_first().ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let provider = provider();
    if role == Role::Node {
        let leaf = ParsedCertificate::try_from(leaf)?;
        let known = provider.signature_verification_algorithms.all;
        return verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, now, known);
    }
    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider)
        .build()
        .map_err(|error| Error::General(error.to_string()))?
        .verify_client_cert(leaf, intermediates, now)
        .map(|_verified| ())
}
