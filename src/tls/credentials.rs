//! Credentials of a peer: certificate, key, CAs and revocation lists, checked together.

use super::{
    authorities::Authorities,
    certificate_info::Utc,
    chain::{ChainBound, Validity},
    claim::ClaimSlot,
    config,
    error::CredentialsError,
    files::{self, CredentialFiles, CredentialPem, CrlScope, SourceNames},
    identity::Identity,
    key_log::key_log,
    lists::{self, Lists, Mark},
    revalidation::{self, RevalidationError, Revoked},
    sections::{certificates, certified_key, damaged, identity_of},
    trust::{CaTrust, CaTrustParts},
};
use crate::name::{PeerName, Role};
#[cfg(feature = "gateway")]
use rustls::server::ResolvesServerCert;
use rustls::{ClientConfig, ServerConfig, server::VerifierBuilderError, sign::CertifiedKey};
use rustls_pki_types::CertificateDer;
use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

/// One peer's certificate and key, the CAs it trusts and the revocation lists it checks.
///
/// Loading checks all that can be checked locally. Cloning is cheap. `Debug` shows no key.
#[derive(Clone)]
pub struct Credentials {
    material: Arc<Material>,
    post_quantum: bool,
}

struct Material {
    own: Arc<CertifiedKey>,
    identity: Identity,
    validity: Validity,
    trust: CaTrust,
    cert_location: String,
    crl: OwnLists,
    /// Of the texts that trust was built of, in short.
    trust_mark: u64,
}

struct OwnLists {
    location: String,
    next_update: Option<SystemTime>,
    revoked: Revoked,
    marks: Vec<Mark>,
    /// True if they contain the own certificate.
    is_listed: bool,
}

impl Credentials {
    /// Loads `DIR/STEM.pem`, `STEM.key`, `ca.pem` and, if it exists or the CA was made with one,
    /// `crl.pem`. STEM is role and name as `dialback certs` writes them: `agent-warehouse`.
    pub fn from_dir(dir: impl AsRef<Path>, stem: &str) -> Result<Self, CredentialsError> {
        Self::from_files(&CredentialFiles::in_dir(dir, stem))
    }

    /// Loads the named files. A revocation list that is named must exist. A certificate for a key
    /// of `dialback certs request` is loaded with that key, also before that key replaces the key
    /// file.
    pub fn from_files(at: &CredentialFiles) -> Result<Self, CredentialsError> {
        let loaded = Self::from_exactly(at);
        let is_key_wrong = match &loaded {
            Err(CredentialsError::KeyMismatch { .. }) => true,
            Err(CredentialsError::Missing { path, .. }) => *path == at.key,
            _ => false,
        };
        let key = files::requested_key(&at.key);
        if !is_key_wrong || !key.exists() {
            return loaded;
        }
        match Self::from_exactly(&CredentialFiles { key, ..at.clone() }) {
            Err(CredentialsError::KeyMismatch { .. }) => loaded,
            other => other,
        }
    }

    fn from_exactly(at: &CredentialFiles) -> Result<Self, CredentialsError> {
        let (cert, ca) = (files::read(&at.cert)?, files::read(&at.ca)?);
        let key = files::read_key(&at.key)?;
        let node_ca = at.node_ca.as_deref().map(files::read).transpose()?;
        let mut pem = CredentialPem {
            cert: &cert,
            key: &key,
            ca: &ca,
            node_ca: node_ca.as_deref(),
            crl: None,
            crl_scope: at.crl_scope,
        };
        let sources = SourceNames::of(at);
        let crl = match at.crl.as_deref().map(files::read_lists).transpose() {
            // An expired certificate is reported first: a new one brings its list with it.
            Err(missing @ CredentialsError::MissingList { .. }) => {
                return Self::load(&pem, &sources).and(Err(missing));
            }
            read => read?,
        };
        pem.crl = crl.as_deref();
        Self::load(&pem, &sources)
    }

    /// Loads PEM texts in memory.
    pub fn from_pem(pem: &CredentialPem<'_>) -> Result<Self, CredentialsError> {
        Self::load(pem, &SourceNames::in_memory())
    }

    /// Finds the only leaf of a role in a directory. Several: the error lists them.
    pub fn find_in_dir(
        dir: impl AsRef<Path>,
        role: Role,
    ) -> Result<CredentialFiles, CredentialsError> {
        CredentialFiles::find_in_dir(dir.as_ref(), role)
    }

    fn load(pem: &CredentialPem<'_>, sources: &SourceNames) -> Result<Self, CredentialsError> {
        let chain = certificates(pem.cert, &sources.cert)?;
        let identity = identity_of(&chain, &sources.cert)?;
        expect_current(&identity, SystemTime::now(), &sources.cert)?;
        let own = certified_key(chain, pem.key, &sources.cert, &sources.key)?;
        let authorities = Authorities::read(pem, sources)?;
        let validity = authorities
            .validity_of(&own, &identity)
            .ok_or_else(|| damaged(&sources.cert, "its first certificate cannot be read"))?;
        let now = SystemTime::now();
        expect_current_chain(&validity, now, &sources.cert)?;
        authorities.expect_own(&own, &identity, sources, validity.nearest(now))?;
        let Lists { all, next_update, revoked, marks } =
            Lists::read(pem, sources, &authorities, &own.cert)?;
        let is_listed = revoked.names(&own.cert);
        let parts = CaTrustParts {
            clients: authorities.clients,
            nodes: authorities.nodes,
            crls: all,
            crl_scope: pem.crl_scope,
            trust_domain: identity.trust_domain(),
        };
        let trust = CaTrust::new(&parts).map_err(|error| match error {
            VerifierBuilderError::InvalidCrl(why) => damaged(&sources.crl, format!("{why:?}")),
            error => damaged(&sources.ca, error.to_string()),
        })?;
        let (cert_location, crl_location) = (sources.cert.clone(), sources.crl.clone());
        let crl = OwnLists { location: crl_location, next_update, revoked, marks, is_listed };
        let trust_mark = trust_mark(pem);
        let material = Material { own, identity, validity, trust, cert_location, crl, trust_mark };
        Ok(Self { material: Arc::new(material), post_quantum: true })
    }

    /// The own identity.
    pub fn identity(&self) -> &Identity {
        &self.material.identity
    }

    /// The own role and name.
    pub fn peer_name(&self) -> &PeerName {
        self.identity().peer_name()
    }

    /// The trust domain of this peer and of its peers.
    pub fn trust_domain(&self) -> &str {
        self.identity().trust_domain()
    }

    /// Validity of our certificate: no longer than the intermediates in its file that vouch for it.
    pub fn validity(&self) -> &Validity {
        &self.material.validity
    }

    /// End of the chain of a verified peer, by the CAs that we trust. `None`: it cannot be read.
    pub(crate) fn end_of(&self, chain: &[CertificateDer<'_>]) -> Option<ChainBound> {
        self.material.trust.end_of(chain)
    }

    /// End of the first of our revocation lists to expire. From then on new links are rejected.
    pub fn crl_next_update(&self) -> Option<SystemTime> {
        self.material.crl.next_update
    }

    /// True if our own lists revoke our own certificate. Peers that have the same lists refuse it.
    pub fn is_revoked(&self) -> bool {
        self.material.crl.is_listed
    }

    /// Verifies a peer's chain as a handshake would now; as a node's if dialled by a name.
    pub(crate) fn revalidate(
        &self,
        chain: &[CertificateDer<'_>],
        dialled: Option<&str>,
        now: SystemTime,
    ) -> Result<(), RevalidationError> {
        let Material { trust, crl, .. } = &*self.material;
        revalidation::revalidate(trust, &crl.revoked, chain, dialled, now)
    }

    /// True if both are the same instance, and not an equal one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.material, &other.material)
    }

    pub(crate) fn shows_the_same(&self, other: &Self) -> bool {
        self.material.own.cert == other.material.own.cert
    }

    pub(crate) fn believes_the_same(&self, other: &Self) -> bool {
        self.material.trust_mark == other.material.trust_mark
    }

    /// Refuses credentials that cannot replace these in a running peer.
    ///
    /// # Errors
    /// They are of another role, name or trust domain, or have an older revocation list of a CA.
    pub fn expect_successor(&self, next: &Self) -> Result<(), CredentialsError> {
        let is_same_peer =
            self.peer_name() == next.peer_name() && self.trust_domain() == next.trust_domain();
        if is_same_peer {
            let (before, next) = (&self.material.crl, &next.material.crl);
            return lists::expect_successors(&before.marks, &next.marks, &next.location);
        }
        let named = |one: &Self| format!("{} of {}", one.peer_name(), one.trust_domain());
        Err(CredentialsError::OtherPeer {
            location: next.material.cert_location.clone(),
            found: named(next),
            wanted: named(self),
        })
    }

    /// Refuses credentials of another role, before any peer has to.
    pub fn expect_role(&self, wanted: Role) -> Result<(), CredentialsError> {
        if self.peer_name().role == wanted {
            return Ok(());
        }
        Err(CredentialsError::WrongRole {
            location: self.material.cert_location.clone(),
            found: self.peer_name().clone(),
            wanted,
        })
    }

    /// Switches the hybrid post-quantum key exchange, which is on. Its first flight needs two
    /// datagrams. Without the feature `aws-lc-rs` there is none to switch.
    #[must_use]
    pub fn with_post_quantum(self, on: bool) -> Self {
        Self { post_quantum: on, ..self }
    }

    /// TLS for accepting: peers must show a certificate of our CAs and our trust domain.
    pub fn accepting_config(&self, alpn: &[u8]) -> Result<ServerConfig, CredentialsError> {
        self.accepting_config_of_one(alpn, &ClaimSlot::default())
    }

    /// TLS for accepting one handshake. The slot receives the claim of a rejected certificate.
    pub(crate) fn accepting_config_of_one(
        &self,
        alpn: &[u8],
        slot: &ClaimSlot,
    ) -> Result<ServerConfig, CredentialsError> {
        let Material { own, trust, .. } = &*self.material;
        let clients = trust.client_verifier(true, slot.clone());
        let mut config = config::accepting(own.clone(), clients, self.post_quantum, &[alpn])?;
        config.key_log = key_log();
        Ok(config)
    }

    /// TLS for the gateway: peers may show a certificate, which is verified as on links.
    #[cfg(feature = "gateway")]
    pub(super) fn http_config(
        &self,
        shown: Arc<dyn ResolvesServerCert>,
        alpn: &[&[u8]],
        slot: &ClaimSlot,
    ) -> Result<ServerConfig, CredentialsError> {
        let clients = self.material.trust.client_verifier(false, slot.clone());
        Ok(config::accepting_with(shown, clients, true, alpn)?)
    }

    /// The file or text of the own certificate.
    #[cfg(feature = "tunnel")]
    pub(super) fn cert_location(&self) -> &str {
        &self.material.cert_location
    }

    /// The own certificate and its key.
    #[cfg(any(feature = "gateway", feature = "tunnel"))]
    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.material.own.clone()
    }

    /// TLS for the side that dials: trusts nodes of our CAs and trust domain, by the name dialled.
    pub fn dialling_config(&self, alpn: &[u8]) -> Result<ClientConfig, CredentialsError> {
        let Material { own, trust, .. } = &*self.material;
        let (own, nodes) = (Some(own.clone()), trust.node_verifier());
        let mut config = config::dialling(own, nodes, self.post_quantum, alpn)?;
        config.key_log = key_log();
        Ok(config)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Material { identity, cert_location, .. } = &*self.material;
        f.debug_struct("Credentials")
            .field("identity", identity)
            .field("cert", cert_location)
            .field("post_quantum", &self.post_quantum)
            .finish()
    }
}

/// Used only to log which part has changed.
fn trust_mark(pem: &CredentialPem<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let CredentialPem { cert: _, key: _, ca, node_ca, crl, crl_scope } = pem;
    (ca, node_ca, crl, *crl_scope == CrlScope::Chain).hash(&mut hasher);
    hasher.finish()
}

fn expect_current(
    identity: &Identity,
    now: SystemTime,
    location: &str,
) -> Result<(), CredentialsError> {
    let (location, now_utc) = (location.to_owned(), Utc(now));
    if now < identity.not_before() {
        let since = Utc(identity.not_before());
        return Err(CredentialsError::NotValidYet { location, since, now: now_utc });
    }
    if now > identity.not_after() {
        let until = Utc(identity.not_after());
        let peer = identity.peer_name().to_string().replace('/', " ");
        return Err(CredentialsError::Expired { location, until, now: now_utc, peer });
    }
    Ok(())
}

/// Checks the intermediates that a known CA needs. Without a known CA it is unknown which count.
fn expect_current_chain(
    validity: &Validity,
    now: SystemTime,
    location: &str,
) -> Result<(), CredentialsError> {
    let Validity { starts, ends, is_known } = validity;
    let now_utc = Utc(now);
    match (starts.intermediate(), ends.intermediate()) {
        (Some(_), _) if *is_known && now < starts.at() => {
            let (location, since) = (starts.subject(location), Utc(starts.at()));
            Err(CredentialsError::NotValidYet { location, since, now: now_utc })
        }
        (_, Some(subject)) if *is_known && now > ends.at() => {
            let (location, subject, until) = (location.into(), subject.into(), Utc(ends.at()));
            Err(CredentialsError::IntermediateExpired { location, subject, until, now: now_utc })
        }
        _ => Ok(()),
    }
}
