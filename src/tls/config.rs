//! The two TLS settings: the side that accepts demands a certificate, the side that dials believes
//! nodes only.

use super::{
    chain::{self, ChainBound},
    claim::{ClaimSlot, Claiming},
    files::CrlScope,
    identity::{Identity, IdentityError},
};
use crate::{
    name::{PeerName, Role},
    rate_limit::LogLimits,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, NamedGroup,
    OtherError, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::CryptoProvider,
    server::{
        NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use std::{
    fmt, iter, slice,
    sync::{Arc, LazyLock},
    time::SystemTime,
};
use tokio::time::Instant;

/// What trust is built of.
pub(super) struct TrustParts<'a> {
    /// The CAs of agents and callers.
    pub(super) parties: Arc<RootCertStore>,
    /// The CAs of nodes: the same ones, unless they are kept apart.
    pub(super) nodes: Arc<RootCertStore>,
    /// The revocation lists of all of them, the newest of each issuer first.
    pub(super) crls: Vec<CertificateRevocationListDer<'static>>,
    /// What of a chain is looked up in them.
    pub(super) crl_scope: CrlScope,
    /// The domain in which names hold.
    pub(super) trust_domain: &'a str,
}

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as cryptography;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use rustls::crypto::ring as cryptography;
#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
compile_error!("dialback needs the feature `aws-lc-rs` or `ring`");

/// The cryptography, named outright: nothing is taken from, or left in, the process-wide default.
pub(super) fn provider() -> CryptoProvider {
    cryptography::default_provider()
}

/// A moment as TLS has it, to the second.
pub(super) fn unix_time(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Random bytes of the system, by way of the TLS provider.
///
/// # Panics
/// When the system has no randomness to give; nothing safe can be done without it.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

/// The same into these bytes.
///
/// # Panics
/// As [`random_bytes`].
pub(crate) fn fill_random(bytes: &mut [u8]) {
    #[expect(clippy::expect_used, reason = "documented; TLS itself could not work either")]
    provider().secure_random.fill(bytes).expect("the system gives random bytes");
}

/// Whom both sides believe: built once when credentials are loaded, shared by every config.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    accepting: Arc<PartiesOnly>,
    dialling: Arc<dyn ServerCertVerifier>,
    parties: Arc<RootCertStore>,
    nodes: Arc<RootCertStore>,
}

impl Trust {
    /// Believes the CAs and nobody else, within one trust domain, and minds the revocation lists.
    pub(super) fn new(parts: &TrustParts<'_>) -> Result<Self, VerifierBuilderError> {
        let provider = Arc::new(provider());
        let trust_domain: Arc<str> = parts.trust_domain.into();
        let accepting = PartiesOnly {
            parties: parts.accepting_from(&parts.parties, &provider)?,
            nodes: parts.accepting_from(&parts.nodes, &provider)?,
            trust_domain: trust_domain.clone(),
            refusals: LogLimits::default(),
        };
        let dialling = NodesOnly {
            chain: parts.dialling_to(&provider)?,
            trust_domain,
            refusals: LogLimits::default(),
        };
        let (parties, nodes) = (parts.parties.clone(), parts.nodes.clone());
        Ok(Self { accepting: Arc::new(accepting), dialling: Arc::new(dialling), parties, nodes })
    }

    /// Whether the CAs of a role vouch for a chain at a moment. Lists and hosts are not asked.
    pub(super) fn vouches_for(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        at: UnixTime,
    ) -> bool {
        let roots = if role == Role::Node { &self.nodes } else { &self.parties };
        expect_signed_by(roots, chain, role, at).is_ok()
    }

    /// The judge of those who dial, in one handshake.
    pub(super) fn accepting_verifier_of_one(&self, slot: ClaimSlot) -> Claiming {
        let trust_domain = self.accepting.trust_domain.clone();
        Claiming { verifier: self.accepting.clone(), trust_domain, slot }
    }

    /// When a chain of a peer ends. `None`: its leaf cannot be read.
    pub(super) fn end_of(&self, chain: &[CertificateDer<'_>]) -> Option<ChainBound> {
        let role = || Some(Identity::of_leaf(chain.first()?).ok()?.peer_name().role);
        chain::end_of(chain, |at| {
            role().is_some_and(|role| self.vouches_for(chain, role, unix_time(at)))
        })
    }

    /// Judges a chain as the handshake of the side that it faces does: as that of a node if it was
    /// dialled by a name.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Error> {
        match dialled {
            Some(host) => {
                self.dialling.verify_server_cert(leaf, intermediates, host, &[], now).map(drop)
            }
            None => self.accepting.verify(leaf, intermediates, now).map(drop),
        }
    }
}

/// rustls by itself would check the whole chain, and take an expired list for a good one.
impl TrustParts<'_> {
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

/// Whether a chain leads to one of these CAs at a moment, for what its role has to show it for.
/// Lists and hosts are not asked.
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
    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.into())
        .build()
        .map_err(|error| Error::General(error.to_string()))?
        .verify_client_cert(leaf, intermediates, now)
        .map(|_verified| ())
}

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

/// Shared by all configurations, because the accepting side makes one for each handshake.
fn provider_with(post_quantum: bool) -> Arc<CryptoProvider> {
    static WITHOUT_AND_WITH: LazyLock<[Arc<CryptoProvider>; 2]> = LazyLock::new(|| {
        let (mut without, with) = (provider(), provider());
        without.kx_groups.retain(|group| group.name() != NamedGroup::X25519MLKEM768);
        [without.into(), with.into()]
    });
    let [without, with] = &*WITHOUT_AND_WITH;
    if post_quantum { with.clone() } else { without.clone() }
}

/// Accepts any of the three roles of our trust domain; which of them may do what is the link's to
/// say.
#[derive(Debug)]
struct PartiesOnly {
    parties: Arc<dyn ClientCertVerifier>,
    nodes: Arc<dyn ClientCertVerifier>,
    trust_domain: Arc<str>,
    refusals: LogLimits<()>,
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

    fn verify(
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
struct NodesOnly {
    chain: Arc<dyn ServerCertVerifier>,
    trust_domain: Arc<str>,
    refusals: LogLimits<()>,
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
