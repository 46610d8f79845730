//! A directory of certificates: `ca.pem`, `ca.key`, `crl.pem`, `issued.jsonl`, and a pair of files per party.
//! What is good is kept, so that every command can be repeated.

use super::{
    CertsError, LeafPem, LeafProfile,
    ca::Ca,
    files::{self, Audience},
    issued::{self, ListedCertificate},
    leaf::Host,
};
use crate::{
    name::{Name, PeerName, Role},
    tls::{CertificateFacts, CrlFacts, FactsError, Utc, spiffe_uri},
};
use rcgen::{KeyPair, PublicKeyData};
use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long a revocation list holds. It is signed again before a third of that is left.
const CRL_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The trust domain of a CA for which none was named.
const TRUST_DOMAIN_DEFAULT: &str = "dialback.local";

/// How to make a CA.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// The trust domain. `None`: that of the CA that is there, or `dialback.local` for a new one.
    pub trust_domain: Option<String>,
    /// Replaces a CA that is there. Every leaf of the old one is then worthless.
    pub force: bool,
}

/// Which leaf to make.
#[derive(Debug, Clone)]
pub struct LeafRequest {
    /// What the party is.
    pub role: Role,
    /// How it is called.
    pub name: Name,
    /// Host names and IP addresses under which a node is dialled. For nodes at least one, for others none.
    pub sans: Vec<String>,
    /// How long it holds. 90 is a good value.
    pub days: u32,
    /// Makes a new one even if the present one is good.
    pub force: bool,
}

impl LeafRequest {
    /// Asks for a leaf that holds for 90 days.
    pub const fn new(role: Role, name: Name) -> Self {
        Self { role, name, sans: vec![], days: 90, force: false }
    }
}

/// What was done about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// There was none, or it was replaced by force.
    Made,
    /// It was there and no longer good enough.
    Renewed,
    /// It was good and was left alone.
    Kept,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "made",
            Self::Renewed => "renewed",
            Self::Kept => "kept",
        })
    }
}

/// What [`CertsDir::init`] did.
#[derive(Debug, Clone)]
pub struct InitReport {
    /// What was done about the CA.
    pub ca: Action,
    /// What was done about the revocation list.
    pub crl: Action,
    /// The CA's trust domain.
    pub trust_domain: String,
    /// The CA's certificate.
    pub ca_path: PathBuf,
    /// The CA's key.
    pub ca_key_path: PathBuf,
    /// The revocation list.
    pub crl_path: PathBuf,
    /// When the CA ends.
    pub ca_not_after: SystemTime,
    /// When the revocation list ends; run `init` again before.
    pub crl_next_update: Option<SystemTime>,
}

/// What [`CertsDir::issue`] did.
#[derive(Debug, Clone)]
pub struct IssueReport {
    /// What was done about the leaf.
    pub action: Action,
    /// Whose it is.
    pub party: PeerName,
    /// The leaf.
    pub cert_path: PathBuf,
    /// Its key.
    pub key_path: PathBuf,
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
    /// When the leaf ends.
    pub not_after: SystemTime,
}

/// A directory that holds a CA and what it signed.
#[derive(Debug, Clone)]
pub struct CertsDir {
    dir: PathBuf,
}

impl CertsDir {
    /// Names a directory, which need not be there yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Makes a CA and an empty revocation list, or keeps those that are good.
    ///
    /// A list with less than a third of its life left is signed again with its entries.
    pub fn init(&self, options: &InitOptions, now: SystemTime) -> Result<InitReport, CertsError> {
        let _held = files::hold_dir(&self.dir)?;
        let (ca, action) = self.keep_or_make_ca(options, now)?;
        let (crl, crl_next_update) = self.keep_or_sign_crl(&ca, now)?;
        Ok(InitReport {
            ca: action,
            crl,
            trust_domain: ca.trust_domain().into(),
            ca_path: self.ca_path(),
            ca_key_path: self.ca_key_path(),
            crl_path: self.crl_path(),
            ca_not_after: ca.facts().not_after,
            crl_next_update,
        })
    }

    /// Makes a leaf and its key, or keeps the ones that are good: of this CA, with these hosts, and with
    /// more than a third of their life left.
    pub fn issue(&self, request: &LeafRequest, now: SystemTime) -> Result<IssueReport, CertsError> {
        let hosts = wanted_hosts(request)?;
        if !self.dir.is_dir() {
            return Err(CertsError::NoCa { dir: self.dir.clone() });
        }
        let _held = files::hold_dir(&self.dir)?;
        let ca = self.ca()?;
        let not_after = leaf_end(request.days, &ca, now)?;
        let party = PeerName::new(request.role, request.name.clone());
        let there = self.present_leaf(&party)?;
        if let Some((facts, key_fits)) = &there {
            let is_good = *key_fits && is_as_wanted(facts, &ca, &party, &hosts);
            if is_good && !request.force && is_fresh(facts.not_before, facts.not_after, now) {
                return Ok(self.report(Action::Kept, party, facts));
            }
        }
        let texts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let names: Vec<&str> = texts.iter().map(String::as_str).collect();
        let profile =
            LeafProfile { not_after, ..LeafProfile::new(ca.trust_domain(), &party, &names, now) };
        let facts = self.store(&party, &ca.leaf(&profile)?, &texts)?;
        let action = if there.is_some() { Action::Renewed } else { Action::Made };
        Ok(self.report(action, party, &facts))
    }

    /// Every leaf that was signed here, oldest first.
    pub fn list(&self) -> Result<Vec<ListedCertificate>, CertsError> {
        if !self.dir.is_dir() {
            return Err(CertsError::NoCa { dir: self.dir.clone() });
        }
        issued::read(&self.dir.join("issued.jsonl"))
    }

    /// The CA of this directory, with its key.
    pub fn ca(&self) -> Result<Ca, CertsError> {
        let (cert_path, key_path) = (self.ca_path(), self.ca_key_path());
        let key = files::read_if_there(&key_path)?.map(zeroize::Zeroizing::new);
        match (files::read_if_there(&cert_path)?, key) {
            (Some(cert), Some(key)) => Ca::from_pem(&cert, &key).map_err(|error| match error {
                CertsError::UnfitCa { why, .. } => CertsError::UnfitCa { path: cert_path, why },
                other => other,
            }),
            (Some(_), None) => Err(CertsError::HalfCa { there: cert_path, gone: key_path }),
            (None, Some(_)) => Err(CertsError::HalfCa { there: key_path, gone: cert_path }),
            (None, None) => Err(CertsError::NoCa { dir: self.dir.clone() }),
        }
    }

    fn keep_or_make_ca(
        &self,
        options: &InitOptions,
        now: SystemTime,
    ) -> Result<(Ca, Action), CertsError> {
        let wanted = options.trust_domain.as_deref();
        if options.force {
            // The operator asked for a new one: what lies there need not even be readable.
            return self.make_ca(wanted.unwrap_or(TRUST_DOMAIN_DEFAULT), now);
        }
        match self.ca() {
            Err(CertsError::NoCa { .. }) => {
                self.make_ca(wanted.unwrap_or(TRUST_DOMAIN_DEFAULT), now)
            }
            Err(error) => Err(error),
            Ok(ca) => {
                expect_holding(&ca, now)?;
                self.expect_trust_domain(&ca, wanted)?;
                Ok((ca, Action::Kept))
            }
        }
    }

    fn make_ca(&self, trust_domain: &str, now: SystemTime) -> Result<(Ca, Action), CertsError> {
        let ca = Ca::generate(trust_domain, now)?;
        files::replace(&self.ca_key_path(), &ca.key_pem(), Audience::Owner)?;
        files::replace(&self.ca_path(), ca.pem(), Audience::All)?;
        Ok((ca, Action::Made))
    }

    fn expect_trust_domain(&self, ca: &Ca, wanted: Option<&str>) -> Result<(), CertsError> {
        match wanted {
            Some(wanted) if wanted != ca.trust_domain() => Err(CertsError::OtherTrustDomain {
                dir: self.dir.clone(),
                found: ca.trust_domain().into(),
                wanted: wanted.into(),
            }),
            _ => Ok(()),
        }
    }

    fn keep_or_sign_crl(
        &self,
        ca: &Ca,
        now: SystemTime,
    ) -> Result<(Action, Option<SystemTime>), CertsError> {
        let path = self.crl_path();
        let text = files::read_if_there(&path)?.unwrap_or_default();
        let lists =
            CrlFacts::all_from_pem(text.as_bytes()).map_err(|source| damaged(&path, source))?;
        let total = lists.len();
        let mut own: Vec<CrlFacts> =
            lists.into_iter().filter(|list| list.issuer == ca.facts().subject).collect();
        let foreign = total - own.len();
        own.sort_by_key(|list| (list.number, list.this_update));
        let Some(newest) = own.pop() else {
            // Lists of a CA that was replaced by force say nothing about this one.
            return self.sign_crl(ca, &[], 1, now, Action::Made);
        };
        let until = newest.next_update;
        if until.is_some_and(|until| is_fresh(newest.this_update, until, now)) {
            return Ok((Action::Kept, until));
        }
        if foreign > 0 {
            return Err(CertsError::ForeignLists { path });
        }
        let number = newest.number.unwrap_or(0).saturating_add(1);
        self.sign_crl(ca, &newest.revoked, number, now, Action::Renewed)
    }

    fn sign_crl(
        &self,
        ca: &Ca,
        revoked: &[crate::tls::RevokedSerial],
        number: u64,
        now: SystemTime,
        action: Action,
    ) -> Result<(Action, Option<SystemTime>), CertsError> {
        let until = now + CRL_LIFE;
        let pem = ca.crl(revoked, number, now, until)?;
        files::replace(&self.crl_path(), &pem, Audience::All)?;
        Ok((action, Some(until)))
    }

    /// The leaf that is there, and whether the key beside it is its own. Unreadable ones count as old.
    fn present_leaf(
        &self,
        party: &PeerName,
    ) -> Result<Option<(CertificateFacts, bool)>, CertsError> {
        let Some(text) = files::read_if_there(&self.leaf_path(party, "pem"))? else {
            return Ok(None);
        };
        let leafs = CertificateFacts::all_from_pem(text.as_bytes()).unwrap_or_default();
        let key = files::read_if_there(&self.leaf_path(party, "key"))?.map(zeroize::Zeroizing::new);
        let key = key.and_then(|key| KeyPair::from_pem(&key).ok());
        Ok(leafs.into_iter().next().map(|facts| {
            let fits = key.is_some_and(|key| facts.has_public_key(&key.subject_public_key_info()));
            (facts, fits)
        }))
    }

    /// The record comes first: a serial that is out in the world unrecorded could never be revoked.
    fn store(
        &self,
        party: &PeerName,
        leaf: &LeafPem,
        sans: &[String],
    ) -> Result<CertificateFacts, CertsError> {
        let path = self.leaf_path(party, "pem");
        let facts = CertificateFacts::all_from_pem(leaf.cert.as_bytes())
            .map_err(|source| damaged(&path, source))?
            .into_iter()
            .next()
            .ok_or_else(|| CertsError::NothingToInspect { path: path.clone() })?;
        issued::append(&self.dir.join("issued.jsonl"), party, &facts, sans)?;
        files::replace(&self.leaf_path(party, "key"), &leaf.key, Audience::Owner)?;
        files::replace(&path, &leaf.cert, Audience::All)?;
        Ok(facts)
    }

    fn report(&self, action: Action, party: PeerName, facts: &CertificateFacts) -> IssueReport {
        IssueReport {
            action,
            cert_path: self.leaf_path(&party, "pem"),
            key_path: self.leaf_path(&party, "key"),
            party,
            serial: facts.serial.clone(),
            not_after: facts.not_after,
        }
    }

    fn ca_path(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    fn ca_key_path(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    fn crl_path(&self) -> PathBuf {
        self.dir.join("crl.pem")
    }

    fn leaf_path(&self, party: &PeerName, ending: &str) -> PathBuf {
        self.dir.join(format!("{}-{}.{ending}", party.role, party.name))
    }
}

/// Something that `certs inspect` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspected {
    /// A certificate.
    Certificate(Box<CertificateFacts>),
    /// A revocation list.
    Crl(CrlFacts),
}

impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(facts) => facts.fmt(f),
            Self::Crl(facts) => facts.fmt(f),
        }
    }
}

/// Reads the certificates of a PEM file, then its revocation lists.
pub fn inspect(path: impl AsRef<Path>) -> Result<Vec<Inspected>, CertsError> {
    let path = path.as_ref();
    let text = files::read(path)?;
    let bytes = text.as_bytes();
    let certificates =
        CertificateFacts::all_from_pem(bytes).map_err(|error| damaged(path, error))?;
    let lists = CrlFacts::all_from_pem(bytes).map_err(|error| damaged(path, error))?;
    let certificates = certificates.into_iter().map(|facts| Inspected::Certificate(facts.into()));
    let found: Vec<_> = certificates.chain(lists.into_iter().map(Inspected::Crl)).collect();
    if found.is_empty() {
        return Err(CertsError::NothingToInspect { path: path.into() });
    }
    Ok(found)
}

fn damaged(path: &Path, source: FactsError) -> CertsError {
    CertsError::Damaged { path: path.into(), source }
}

/// The hosts of a request, each once. Only a node may have them: an agent's leaf with a host name
/// would be half of a node's.
fn wanted_hosts(request: &LeafRequest) -> Result<BTreeSet<Host>, CertsError> {
    match request.role {
        Role::Node if request.sans.is_empty() => Err(CertsError::NodeWithoutSan),
        Role::Node => request.sans.iter().map(|text| Host::parse(text)).collect(),
        role if !request.sans.is_empty() => Err(CertsError::SanNotForRole { role }),
        _ => Ok(BTreeSet::new()),
    }
}

fn leaf_end(days: u32, ca: &Ca, now: SystemTime) -> Result<SystemTime, CertsError> {
    expect_holding(ca, now)?;
    let ca_end = ca.facts().not_after;
    let left = ca_end.duration_since(now).unwrap_or_default();
    let max = left.as_secs() / DAY.as_secs();
    if days == 0 || u64::from(days) > max {
        return Err(CertsError::BadDays { days, max, until: Utc(ca_end) });
    }
    Ok(now + DAY * days)
}

fn expect_holding(ca: &Ca, now: SystemTime) -> Result<(), CertsError> {
    if now <= ca.facts().not_after {
        return Ok(());
    }
    Err(CertsError::CaExpired { until: Utc(ca.facts().not_after), now: Utc(now) })
}

fn is_as_wanted(
    facts: &CertificateFacts,
    ca: &Ca,
    party: &PeerName,
    hosts: &BTreeSet<Host>,
) -> bool {
    let names = facts.dns_sans.iter().map(|name| Host::Name(name.to_ascii_lowercase()));
    let addresses = facts.ip_sans.iter().map(|address| Host::Address(*address));
    ca.is_issuer_of(facts)
        && facts.uri_sans == [spiffe_uri(ca.trust_domain(), party)]
        && names.chain(addresses).collect::<BTreeSet<_>>() == *hosts
}

/// Whether something holds now and has more than a third of its life left.
fn is_fresh(from: SystemTime, until: SystemTime, now: SystemTime) -> bool {
    let life = until.duration_since(from).unwrap_or_default();
    let left = until.duration_since(now).unwrap_or_default();
    from <= now && left > life / 3
}
