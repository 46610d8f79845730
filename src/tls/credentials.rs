//! What a party shows and whom it believes: certificate, key, CAs and revocation lists, checked together.

use super::{
    config::{self, Trust, TrustParts},
    facts::{self, CertificateFacts, CrlFacts, FactsError, Utc},
    files::{self, CredentialFiles, CredentialPem},
    identity::{Identity, IdentityError},
    lapse::{self, Lapse, Revoked},
};
use crate::name::{PeerName, Role};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, server::VerifierBuilderError, sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{PemObject, SectionKind},
};
use std::{
    cmp::Reverse,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

/// One party's certificate and key, the CAs it believes and the revocation lists it minds.
///
/// Loading checks everything that can be seen locally, so that a fault ends a start and not the first
/// link. Cloning is cheap. `Debug` shows the party and no key.
#[derive(Clone)]
pub struct Credentials {
    material: Arc<Material>,
    post_quantum: bool,
}

struct Material {
    own: Arc<CertifiedKey>,
    identity: Identity,
    trust: Trust,
    cert_place: String,
    crl_next_update: Option<SystemTime>,
    revoked: Revoked,
}

impl Credentials {
    /// Loads `DIR/STEM.pem`, `DIR/STEM.key`, `DIR/ca.pem` and, if it is there, `DIR/crl.pem`.
    ///
    /// The stem is role and name as `dialback certs` writes them: `agent-warehouse`.
    pub fn from_dir(dir: impl AsRef<Path>, stem: &str) -> Result<Self, CredentialsError> {
        Self::from_files(&CredentialFiles::in_dir(dir, stem))
    }

    /// Loads the files that are named. A revocation list that is named must be there.
    pub fn from_files(at: &CredentialFiles) -> Result<Self, CredentialsError> {
        let (cert, ca) = (files::read(&at.cert)?, files::read(&at.ca)?);
        let key = files::read_key(&at.key)?;
        let node_ca = at.node_ca.as_deref().map(files::read).transpose()?;
        let crl = at.crl.as_deref().map(files::read).transpose()?;
        let pem = CredentialPem {
            cert: &cert,
            key: &key,
            ca: &ca,
            node_ca: node_ca.as_deref(),
            crl: crl.as_deref(),
            crl_scope: at.crl_scope,
        };
        Self::load(&pem, &Places::of(at))
    }

    /// Loads PEM texts in memory.
    pub fn from_pem(pem: &CredentialPem<'_>) -> Result<Self, CredentialsError> {
        Self::load(pem, &Places::in_memory())
    }

    /// Finds the only leaf of a role in a directory. Several: the error lists them.
    pub fn find_in_dir(
        dir: impl AsRef<Path>,
        role: Role,
    ) -> Result<CredentialFiles, CredentialsError> {
        CredentialFiles::of_only(dir.as_ref(), role)
    }

    fn load(pem: &CredentialPem<'_>, places: &Places) -> Result<Self, CredentialsError> {
        let chain = certificates(pem.cert, &places.cert)?;
        let identity = own_identity(&chain, &places.cert)?;
        let own = certified_key(chain, pem.key, places)?;
        let authorities = Authorities::read(pem, places)?;
        authorities.expect_own(&own, &identity, places)?;
        let crls = pem.crl.map(|crl| revocation_lists(crl, &places.crl)).transpose()?;
        let Lists { lists, next_update, revoked } = crls.unwrap_or_default();
        let parts = TrustParts {
            parties: authorities.parties,
            nodes: authorities.nodes,
            crls: lists,
            crl_scope: pem.crl_scope,
            trust_domain: identity.trust_domain(),
        };
        let trust = Trust::new(&parts).map_err(|error| match error {
            VerifierBuilderError::InvalidCrl(why) => damaged(&places.crl, format!("{why:?}")),
            error => damaged(&places.ca, error.to_string()),
        })?;
        let cert_place = places.cert.clone();
        let crl_next_update = next_update;
        let material = Material { own, identity, trust, cert_place, crl_next_update, revoked };
        Ok(Self { material: Arc::new(material), post_quantum: true })
    }

    /// Who we are.
    pub fn identity(&self) -> &Identity {
        &self.material.identity
    }

    /// Our role and name.
    pub fn peer_name(&self) -> &PeerName {
        self.identity().peer_name()
    }

    /// The trust domain that we and our peers belong to.
    pub fn trust_domain(&self) -> &str {
        self.identity().trust_domain()
    }

    /// When the first of our revocation lists ends. From then on new links are refused.
    pub fn crl_next_update(&self) -> Option<SystemTime> {
        self.material.crl_next_update
    }

    /// Judges the chain of a peer again, as a handshake would now: that of a node if it was dialled by a name.
    pub(crate) fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        dialled: Option<&str>,
        now: SystemTime,
    ) -> Result<(), Lapse> {
        let Material { trust, revoked, .. } = &*self.material;
        lapse::judge(trust, revoked, chain, dialled, now)
    }

    /// Whether these are the very ones, and not others that may say the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.material, &other.material)
    }

    /// Whether both show the same certificate to a peer.
    pub(crate) fn shows_the_same(&self, other: &Self) -> bool {
        self.material.own.cert == other.material.own.cert
    }

    /// Refuses credentials in whose place others cannot be put while a party runs: it would be another party.
    ///
    /// # Errors
    /// They are of another role, name or trust domain.
    pub fn expect_successor(&self, next: &Self) -> Result<(), CredentialsError> {
        let is_same_party =
            self.peer_name() == next.peer_name() && self.trust_domain() == next.trust_domain();
        if is_same_party {
            return Ok(());
        }
        let named = |one: &Self| format!("{} of {}", one.peer_name(), one.trust_domain());
        Err(CredentialsError::OtherParty {
            place: next.material.cert_place.clone(),
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
            place: self.material.cert_place.clone(),
            found: self.peer_name().clone(),
            wanted,
        })
    }

    /// Switches the hybrid post-quantum key exchange, which is on. Its first flight needs two datagrams.
    /// Without the feature `aws-lc-rs` there is none to switch.
    #[must_use]
    pub fn with_post_quantum(self, on: bool) -> Self {
        Self { post_quantum: on, ..self }
    }

    /// TLS for the side that accepts: peers must show a certificate of our CAs and our trust domain.
    pub fn accepting_config(&self, alpn: &[u8]) -> Result<ServerConfig, CredentialsError> {
        let Material { own, trust, .. } = &*self.material;
        config::accepting(own.clone(), trust, self.post_quantum, alpn)
            .map_err(|source| CredentialsError::Tls { source })
    }

    /// What a party shows and whom it believes.
    #[cfg(feature = "gateway")]
    pub(super) fn own_and_trust(&self) -> (&Arc<CertifiedKey>, &Trust) {
        (&self.material.own, &self.material.trust)
    }

    /// TLS for the side that dials: it believes nodes of our CAs and our trust domain, by the name dialled.
    pub fn dialling_config(&self, alpn: &[u8]) -> Result<ClientConfig, CredentialsError> {
        let Material { own, trust, .. } = &*self.material;
        config::dialling(own.clone(), trust, self.post_quantum, alpn)
            .map_err(|source| CredentialsError::Tls { source })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Material { identity, cert_place, .. } = &*self.material;
        f.debug_struct("Credentials")
            .field("identity", identity)
            .field("cert", cert_place)
            .field("post_quantum", &self.post_quantum)
            .finish()
    }
}

/// What to call each part in an error: the file, or what it is when there is none.
struct Places {
    cert: String,
    key: String,
    ca: String,
    node_ca: String,
    crl: String,
}

impl Places {
    fn of(at: &CredentialFiles) -> Self {
        let name = |path: &PathBuf| path.display().to_string();
        Self {
            cert: name(&at.cert),
            key: name(&at.key),
            ca: name(&at.ca),
            node_ca: at.node_ca.as_ref().map(name).unwrap_or_default(),
            crl: at.crl.as_ref().map(name).unwrap_or_default(),
        }
    }

    fn in_memory() -> Self {
        Self {
            cert: "the certificate text".into(),
            key: "the key text".into(),
            ca: "the CA text".into(),
            node_ca: "the text of the nodes' CA".into(),
            crl: "the revocation list text".into(),
        }
    }
}

fn certificates(pem: &[u8], place: &str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found = wanted_sections(pem, SectionKind::Certificate, "certificate", place)?;
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

fn wanted_sections(
    pem: &[u8],
    kind: SectionKind,
    wanted: &'static str,
    place: &str,
) -> Result<Vec<Vec<u8>>, CredentialsError> {
    let found = facts::sections(pem, kind).map_err(|error| damaged(place, error.to_string()))?;
    if found.is_empty() {
        return Err(lacking(pem, wanted, place));
    }
    Ok(found)
}

fn lacking(pem: &[u8], wanted: &'static str, place: &str) -> CredentialsError {
    CredentialsError::Lacking { place: place.into(), wanted, found: what_is_there(pem) }
}

fn what_is_there(pem: &[u8]) -> &'static str {
    let first = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).next();
    match first {
        _ if pem.is_empty() => "it is empty",
        None => "it has no PEM section (\"-----BEGIN ...\")",
        Some(Err(_)) => "it is cut off or damaged",
        Some(Ok((SectionKind::Certificate, _))) => "it holds a certificate",
        Some(Ok((SectionKind::Crl, _))) => "it holds a revocation list",
        Some(Ok((SectionKind::Csr, _))) => "it holds a certificate request",
        Some(Ok((SectionKind::PublicKey, _))) => "it holds a public key",
        Some(Ok((
            SectionKind::PrivateKey | SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey,
            _,
        ))) => "it holds a private key",
        Some(Ok(_)) => "it holds something else",
    }
}

fn own_identity(chain: &[CertificateDer<'_>], place: &str) -> Result<Identity, CredentialsError> {
    let leaf = chain.first().ok_or(IdentityError::NoCertificate);
    let identity = leaf
        .and_then(Identity::of_leaf)
        .map_err(|source| CredentialsError::NoParty { place: place.into(), source })?;
    expect_current(&identity, SystemTime::now(), place)?;
    Ok(identity)
}

fn expect_current(
    identity: &Identity,
    now: SystemTime,
    place: &str,
) -> Result<(), CredentialsError> {
    let (place, now_utc) = (place.to_owned(), Utc(now));
    if now < identity.not_before() {
        let since = Utc(identity.not_before());
        return Err(CredentialsError::NotValidYet { place, since, now: now_utc });
    }
    if now > identity.not_after() {
        let until = Utc(identity.not_after());
        let party = identity.peer_name().to_string().replace('/', " ");
        return Err(CredentialsError::Expired { place, until, now: now_utc, party });
    }
    Ok(())
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key_pem: &[u8],
    places: &Places,
) -> Result<Arc<CertifiedKey>, CredentialsError> {
    let key = match PrivateKeyDer::from_pem_slice(key_pem) {
        Ok(key) => key,
        Err(rustls_pki_types::pem::Error::NoItemsFound) => {
            return Err(lacking(key_pem, "private key", &places.key));
        }
        // The parser's own words may quote a line of the key.
        Err(_) => return Err(damaged(&places.key, "it is cut off or damaged")),
    };
    match CertifiedKey::from_der(chain, key, &config::provider()) {
        Ok(own) => Ok(Arc::new(own)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CredentialsError::KeyMismatch {
            key: places.key.clone(),
            cert: places.cert.clone(),
        }),
        Err(error) => Err(damaged(&places.key, error.to_string())),
    }
}

/// A chain that no CA of ours has to vouch for, with its key.
#[cfg(feature = "gateway")]
pub(super) fn server_key(
    cert: &[u8],
    key: &[u8],
    cert_place: &str,
    key_place: &str,
) -> Result<Arc<CertifiedKey>, CredentialsError> {
    let places = Places { cert: cert_place.into(), key: key_place.into(), ..Places::in_memory() };
    certified_key(certificates(cert, cert_place)?, key, &places)
}

/// Who vouches for whom.
struct Authorities {
    parties: Arc<RootCertStore>,
    nodes: Arc<RootCertStore>,
    are_apart: bool,
}

impl Authorities {
    /// The CAs of agents and callers, and those of nodes; where none are named for nodes, both are the same.
    fn read(pem: &CredentialPem<'_>, places: &Places) -> Result<Self, CredentialsError> {
        // One record for both, because the revocation lists of both stand in one file and are found by name.
        let mut known = vec![];
        let parties = Arc::new(roots(pem.ca, &places.ca, &mut known)?);
        let nodes = match pem.node_ca {
            Some(node_ca) => Arc::new(roots(node_ca, &places.node_ca, &mut known)?),
            None => parties.clone(),
        };
        Ok(Self { parties, nodes, are_apart: pem.node_ca.is_some() })
    }

    /// With CAs apart, those that vouch for our role must vouch for us: else peers with the same settings would refuse us, and
    /// two files in each other's place would go unnoticed. With one bundle this is the peers' to judge: they may believe others.
    fn expect_own(
        &self,
        own: &CertifiedKey,
        identity: &Identity,
        places: &Places,
    ) -> Result<(), CredentialsError> {
        if !self.are_apart {
            return Ok(());
        }
        let role = identity.peer_name().role;
        let (roots, bundle) = match role {
            Role::Node => (&self.nodes, &places.node_ca),
            Role::Agent | Role::Caller => (&self.parties, &places.ca),
        };
        config::expect_signed_by(roots, &own.cert, role).map_err(|error| {
            let (cert, bundle, why) = (places.cert.clone(), bundle.clone(), error.to_string());
            CredentialsError::ForeignLeaf { cert, role, bundle, why }
        })
    }
}

fn roots(
    pem: &[u8],
    place: &str,
    known: &mut Vec<CertificateFacts>,
) -> Result<RootCertStore, CredentialsError> {
    let mut store = RootCertStore::empty();
    for root in certificates(pem, place)? {
        let facts =
            CertificateFacts::from_der(&root).map_err(|error| damaged(place, error.to_string()))?;
        if !facts.is_ca {
            return Err(CredentialsError::NoAuthority {
                place: place.into(),
                subject: facts.subject,
            });
        }
        expect_own_name(&facts, known, place)?;
        store.add(root).map_err(|error| damaged(place, error.to_string()))?;
        known.push(facts);
    }
    Ok(store)
}

/// webpki finds the revocation list of a CA by the CA's name, so two CAs of one name would share one list.
/// One CA twice, or renewed under its old key, is harmless.
fn expect_own_name(
    facts: &CertificateFacts,
    known: &[CertificateFacts],
    place: &str,
) -> Result<(), CredentialsError> {
    let is_namesake = |other: &CertificateFacts| {
        other.subject_der == facts.subject_der && other.public_key_der != facts.public_key_der
    };
    if known.iter().any(is_namesake) {
        return Err(CredentialsError::TwoAuthorities {
            place: place.into(),
            subject: facts.subject.clone(),
        });
    }
    Ok(())
}

#[derive(Default)]
struct Lists {
    lists: Vec<CertificateRevocationListDer<'static>>,
    next_update: Option<SystemTime>,
    revoked: Revoked,
}

/// The lists, newest first: webpki takes the first one of an issuer and looks at no other.
fn revocation_lists(pem: &[u8], place: &str) -> Result<Lists, CredentialsError> {
    let mut found = vec![];
    for list in wanted_sections(pem, SectionKind::Crl, "revocation list", place)? {
        let facts = CrlFacts::from_der(&list).map_err(|error| damaged(place, error.to_string()))?;
        found.push((facts, CertificateRevocationListDer::from(list)));
    }
    found.sort_by_key(|(facts, _)| Reverse((facts.number, facts.this_update)));
    let next_update = newest_of_each(&found).filter_map(|facts| facts.next_update).min();
    let revoked = Revoked::new(newest_of_each(&found).flat_map(|facts| {
        facts.revoked.iter().map(|entry| (facts.issuer.clone(), entry.serial.clone()))
    }));
    let lists = found.into_iter().map(|(_, list)| list).collect();
    Ok(Lists { lists, next_update, revoked })
}

fn newest_of_each<T>(sorted: &[(CrlFacts, T)]) -> impl Iterator<Item = &CrlFacts> {
    sorted.iter().enumerate().filter_map(|(i, (facts, _))| {
        let is_first = !sorted[..i].iter().any(|(newer, _)| newer.issuer == facts.issuer);
        is_first.then_some(facts)
    })
}

fn damaged(place: &str, why: impl Into<String>) -> CredentialsError {
    CredentialsError::Damaged { place: place.into(), why: why.into() }
}

/// Why credentials were not loaded, with the file and the way out.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file or directory is not there.
    #[error("{path} does not exist; {remedy}", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What makes one.
        remedy: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is readable and has nothing of the wanted kind in it.
    #[error("{place} holds no {wanted}: {found}")]
    Lacking {
        /// The file.
        place: String,
        /// What was wanted.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A file has the wanted kind of content and it is broken.
    #[error("{place} is damaged: {why}; copy or make it again")]
    Damaged {
        /// The file.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A key that others can read.
    #[error(
        "{path} has mode {mode:04o}, so that others can get at the key; mend it with `chmod 600 {path}`",
        path = path.display()
    )]
    ExposedKey {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Certificate and key are not a pair.
    #[error(
        "the key in {key} is not the key of the certificate in {cert}; take the two that were made together"
    )]
    KeyMismatch {
        /// The key's file.
        key: String,
        /// The certificate's file.
        cert: String,
    },
    /// The certificate names no party.
    #[error("{place} cannot be used")]
    NoParty {
        /// The file.
        place: String,
        /// Why not.
        source: IdentityError,
    },
    /// The certificate holds later only.
    #[error(
        "{place} is not valid yet: it holds from {since}, and the clock here says {now}; check the clock"
    )]
    NotValidYet {
        /// The file.
        place: String,
        /// When it begins.
        since: Utc,
        /// The local clock.
        now: Utc,
    },
    /// The certificate holds no longer.
    #[error(
        "{place} has expired: it held until {until}, and the clock here says {now}; issue it again with `dialback certs issue {party}`, or check the clock"
    )]
    Expired {
        /// The file.
        place: String,
        /// When it ended.
        until: Utc,
        /// The local clock.
        now: Utc,
        /// Role and name, as the command wants them.
        party: String,
    },
    /// A leaf where a CA is wanted.
    #[error(
        "{place} holds {subject:?}, which is no CA; name the file with the CA's certificate (ca.pem)"
    )]
    NoAuthority {
        /// The file.
        place: String,
        /// The certificate's subject.
        subject: String,
    },
    /// A leaf that the CAs of its role did not sign, where nodes have CAs of their own.
    #[error(
        "{cert} is not signed by a CA of {bundle} ({why}); where node_ca is set, nodes are signed by a CA of node_ca, and agents and callers by one of ca: check that the two are not in each other's place, and that this certificate of role {role} is of the right CA"
    )]
    ForeignLeaf {
        /// The certificate's file.
        cert: String,
        /// Its role.
        role: Role,
        /// The CAs that should have signed it.
        bundle: String,
        /// What the check of the chain says.
        why: String,
    },
    /// Two CAs that cannot be told apart by name.
    #[error(
        "{place} holds two CAs with one name, {subject:?}, and revocation lists are found by that name; remove one, or make a CA with a name of its own"
    )]
    TwoAuthorities {
        /// The file.
        place: String,
        /// The name.
        subject: String,
    },
    /// Credentials of another role than the one this side needs.
    #[error(
        "{place} is the certificate of {found}, and the role wanted here is {wanted}; name a certificate of role {wanted} with --cert and --key, or make one with `dialback certs issue {wanted} NAME`"
    )]
    WrongRole {
        /// The file.
        place: String,
        /// Whose it is.
        found: PeerName,
        /// What is wanted.
        wanted: Role,
    },
    /// Somebody else's, for a party that runs.
    #[error(
        "{place} is the certificate of {found}, and {wanted} runs here; another party needs a process of its own"
    )]
    OtherParty {
        /// The file.
        place: String,
        /// Whose it is.
        found: String,
        /// Who runs.
        wanted: String,
    },
    /// A directory without a leaf of the role.
    #[error("{dir} holds no certificate of role {role}; {remedy}", dir = dir.display())]
    NoneInDir {
        /// The directory.
        dir: PathBuf,
        /// The role.
        role: Role,
        /// What makes one.
        remedy: &'static str,
    },
    /// A directory with several leafs of the role.
    #[error("{dir} holds several certificates of role {role} ({found}); name one with --cert and --key", dir = dir.display())]
    SeveralInDir {
        /// The directory.
        dir: PathBuf,
        /// The role.
        role: Role,
        /// Their names.
        found: String,
    },
    /// TLS did not take the settings.
    #[error("TLS cannot be set up with these credentials")]
    Tls {
        /// What rustls says.
        source: rustls::Error,
    },
}

impl From<FactsError> for IdentityError {
    fn from(error: FactsError) -> Self {
        Self::Unreadable { why: error.to_string() }
    }
}
