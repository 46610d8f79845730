//! A leaf for a peer in a directory: kept while it is good, else made with a new key.

use super::{
    CertsDir, CertsError, LeafProfile,
    ca::Ca,
    dir::{Action, ISSUED, expect_holding, is_fresh},
    files::{self, Audience},
    issued,
    leaf::{DAY, Host},
    pair,
    params::key_pair,
};
use crate::{
    name::{Name, PeerName, Role},
    tls::{self, CertificateInfo, CsrInfo, PemError, Utc, spiffe_uri},
};
use rcgen::{KeyPair, PublicKeyData};
use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    time::SystemTime,
};
use zeroize::Zeroizing;

/// Describes a leaf to issue.
#[derive(Debug, Clone)]
pub struct LeafRequest {
    /// The role.
    pub role: Role,
    /// The name.
    pub name: Name,
    /// Host names and IP addresses under which a node is dialled: at least one; none for others.
    pub sans: Vec<String>,
    /// Days of validity; 90 is a good value.
    pub days: u32,
    /// Makes a new one even if the present one is good.
    pub force: bool,
}

impl LeafRequest {
    /// Requests a leaf that is valid for 90 days.
    pub const fn new(role: Role, name: Name) -> Self {
        Self { role, name, sans: vec![], days: 90, force: false }
    }
}

/// Report of [`CertsDir::issue`].
#[derive(Debug, Clone)]
pub struct IssueReport {
    /// Action on the leaf.
    pub action: Action,
    /// The peer that it names.
    pub peer: PeerName,
    /// The leaf.
    pub cert_path: PathBuf,
    /// Its key, or where it would lie: [`has_key`](Self::has_key).
    pub key_path: PathBuf,
    /// True if the key is here. A certificate that was signed from a request has its key elsewhere.
    pub has_key: bool,
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
}

impl CertsDir {
    /// Makes a leaf and its key, or keeps the ones that are good: of this CA, with these hosts, and
    /// with more than a third of their life left.
    pub fn issue(&self, request: &LeafRequest, now: SystemTime) -> Result<IssueReport, CertsError> {
        self.issue_for(request, None, now)
    }

    /// Signs a leaf for the key of a request: kept while the present one is for that key and good.
    /// Role, name, hosts and life are the operator's; all else in the request is ignored.
    pub fn sign(
        &self,
        csr: impl AsRef<Path>,
        request: &LeafRequest,
        now: SystemTime,
    ) -> Result<IssueReport, CertsError> {
        self.issue_for(request, Some(csr.as_ref()), now)
    }

    /// Issues a leaf for the key of a request in a file, or for a new key.
    fn issue_for(
        &self,
        request: &LeafRequest,
        csr: Option<&Path>,
        now: SystemTime,
    ) -> Result<IssueReport, CertsError> {
        let hosts = wanted_hosts(request)?;
        let key = csr.map(public_key_of).transpose()?;
        let _held = self.hold()?;
        let ca = self.ca()?;
        let peer = &PeerName::new(request.role, request.name.clone());
        let plan = Plan { peer, hosts: &hosts, not_after: leaf_end(request.days, &ca, now)? };
        let there = self.present_leaf(peer)?;
        match &key {
            Some(key) => self.expect_signable(peer, key)?,
            None if !request.force => self.expect_replaceable(peer, there.is_some())?,
            None => {}
        }
        if let Some((info, has_key)) = &there
            && key.as_ref().map_or(*has_key, |key| info.has_public_key(key))
            && !request.force
            && self.is_good(info, &ca, &plan, now)?
        {
            return Ok(self.report(Action::Kept, peer, info));
        }
        let info = self.make(&ca, &plan, key.as_deref(), now)?;
        let action = if there.is_some() { Action::Renewed } else { Action::Made };
        Ok(self.report(action, peer, &info))
    }

    /// Signs a leaf for this key, or for a new one. Recorded first, so that it can be revoked.
    pub(super) fn make(
        &self,
        ca: &Ca,
        plan: &Plan<'_>,
        public_key_der: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<CertificateInfo, CertsError> {
        let ((cert, key), profile) = (self.pair_of(plan.peer), plan.profile(ca, now));
        let Some(public_key_der) = public_key_der else {
            let leaf = ca.leaf(&profile)?;
            let info = self.record(plan, &leaf.cert)?;
            pair::replace_held(&cert, &leaf.cert, &key, &leaf.key)?;
            return Ok(info);
        };
        let leaf = ca.leaf_for_key(&profile, public_key_der)?;
        let info = self.record(plan, &leaf.cert)?;
        match self.requested_key_of(plan.peer)? {
            Some(requested) if requested.subject_public_key_info() == public_key_der => {
                pair::install_held(&cert, &leaf.cert, &key, &tls::requested_key(&key))?;
            }
            _ => files::replace(&cert, &leaf.cert, Audience::All)?,
        }
        Ok(info)
    }

    fn is_good(
        &self,
        info: &CertificateInfo,
        ca: &Ca,
        wanted: &Plan<'_>,
        now: SystemTime,
    ) -> Result<bool, CertsError> {
        Ok(is_as_wanted(info, ca, wanted)
            && is_fresh(info.not_before, info.not_after, now)
            && !self.is_revoked(&info.serial)?)
    }

    /// A certificate with another's key would not load, and its owner may have forgotten that key.
    fn expect_signable(&self, peer: &PeerName, wanted: &[u8]) -> Result<(), CertsError> {
        let requested = self.requested_key_of(peer)?;
        if requested.is_none_or(|key| key.subject_public_key_info() != wanted) {
            let key = self.leaf_path(peer, "key");
            match self.key_at(&key) {
                Ok(None) => {}
                Ok(Some(there)) if there.subject_public_key_info() == wanted => {}
                Err(error @ CertsError::Unusable { .. }) => return Err(error),
                _ => return Err(CertsError::KeyMismatch { key, peer: peer.clone() }),
            }
        }
        match self.revoked_serial_of_key(peer, wanted)? {
            Some(serial) => Err(CertsError::RevokedKey { peer: peer.clone(), serial }),
            None => Ok(()),
        }
    }

    /// Only force replaces an intact key that cannot be used here, such as an encrypted one, or one
    /// whose request is under way: the certificate that comes back would be worthless.
    fn expect_replaceable(&self, peer: &PeerName, has_leaf: bool) -> Result<(), CertsError> {
        let key = match self.key_at(&self.leaf_path(peer, "key")) {
            Err(error @ CertsError::Unusable { .. }) => return Err(error),
            key => key.ok().flatten(),
        };
        if has_leaf {
            return Ok(());
        }
        let csr = self.leaf_path(peer, "csr");
        let requests = CsrInfo::all_from_pem(&files::read_pem(&csr)?.unwrap_or_default());
        match (requests.as_deref(), key) {
            (Ok([one]), Some(key)) if key.subject_public_key_info() == one.public_key_der() => {
                Err(CertsError::RequestUnderWay { csr, peer: peer.clone() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn pair_of(&self, peer: &PeerName) -> (PathBuf, PathBuf) {
        (self.leaf_path(peer, "pem"), self.leaf_path(peer, "key"))
    }

    /// The key that waits for its certificate, if there is one.
    pub(super) fn requested_key_of(&self, peer: &PeerName) -> Result<Option<KeyPair>, CertsError> {
        self.key_at(&tls::requested_key(&self.leaf_path(peer, "key")))
    }

    /// The key in a file, if there is one.
    pub(super) fn key_at(&self, path: &Path) -> Result<Option<KeyPair>, CertsError> {
        let Some(text) = files::read_pem(path)?.map(Zeroizing::new) else { return Ok(None) };
        match key_pair(&text) {
            Ok(Some(key)) => Ok(Some(key)),
            Err(error @ PemError::Unusable { .. }) => Err(CertsError::of_file(path, error)),
            Ok(None) | Err(_) => Err(CertsError::UnfitKey { path: path.into() }),
        }
    }

    /// Holds the directory, which must be there.
    pub(super) fn hold(&self) -> Result<Option<File>, CertsError> {
        if !self.dir.is_dir() {
            return Err(CertsError::NoCa { dir: self.dir.clone() });
        }
        files::lock_dir(&self.dir)
    }

    /// The existing leaf, and true if the key file belongs to it. Unreadable ones count as old.
    pub(super) fn present_leaf(
        &self,
        peer: &PeerName,
    ) -> Result<Option<(CertificateInfo, bool)>, CertsError> {
        let (cert, key) = self.pair_of(peer);
        pair::mend_held(&cert, &key)?;
        let Some(text) = files::read_pem(&cert)? else { return Ok(None) };
        let leafs = CertificateInfo::all_from_pem(&text).unwrap_or_default();
        let key = self.key_at(&key).unwrap_or_default();
        Ok(leafs.into_iter().next().map(|info| {
            let fits = key.is_some_and(|key| info.has_public_key(&key.subject_public_key_info()));
            (info, fits)
        }))
    }

    fn record(&self, plan: &Plan<'_>, cert: &str) -> Result<CertificateInfo, CertsError> {
        let info = signed_leaf(cert)?;
        issued::append(&self.at(ISSUED), plan.peer, &info, &plan.host_texts())?;
        Ok(info)
    }

    pub(super) fn report(
        &self,
        action: Action,
        peer: &PeerName,
        info: &CertificateInfo,
    ) -> IssueReport {
        let key_path = self.leaf_path(peer, "key");
        IssueReport {
            action,
            peer: peer.clone(),
            cert_path: self.leaf_path(peer, "pem"),
            has_key: key_path.exists(),
            key_path,
            serial: info.serial.clone(),
            not_after: info.not_after,
        }
    }

    pub(super) fn leaf_path(&self, peer: &PeerName, ending: &str) -> PathBuf {
        self.dir.join(format!("{}-{}.{ending}", peer.role, peer.name))
    }
}

pub(super) fn signed_leaf(pem: &str) -> Result<CertificateInfo, CertsError> {
    let leafs = CertificateInfo::all_from_pem(pem.as_bytes())
        .map_err(|source| CertsError::of_file("the new leaf".as_ref(), source))?;
    let first = leafs.into_iter().next();
    first.ok_or_else(|| CertsError::Signing { why: "nothing was signed".into() })
}

pub(super) struct Plan<'a> {
    pub(super) peer: &'a PeerName,
    pub(super) hosts: &'a BTreeSet<Host>,
    pub(super) not_after: SystemTime,
}

impl Plan<'_> {
    fn host_texts(&self) -> Vec<String> {
        self.hosts.iter().map(ToString::to_string).collect()
    }

    fn profile(&self, ca: &Ca, now: SystemTime) -> LeafProfile {
        let texts = self.host_texts();
        let names: Vec<&str> = texts.iter().map(String::as_str).collect();
        let profile = LeafProfile::new(ca.trust_domain(), self.peer, &names, now);
        LeafProfile { not_after: self.not_after, ..profile }
    }
}

fn public_key_of(path: &Path) -> Result<Vec<u8>, CertsError> {
    let text = files::read_bytes(path)?;
    let found = CsrInfo::all_from_pem(&text).map_err(|source| CertsError::of_file(path, source))?;
    match found.as_slice() {
        [one] => Ok(one.public_key_der().to_vec()),
        several => Err(CertsError::NotOneRequest { path: path.into(), count: several.len() }),
    }
}

/// The hosts of a request. Only a node may have them: with them a leaf is half of a node's.
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
    let ca_end = ca.info().not_after;
    let left = ca_end.duration_since(now).unwrap_or_default();
    let max = left.as_secs() / DAY.as_secs();
    if days == 0 || u64::from(days) > max {
        return Err(CertsError::BadDays { days, max, until: Utc(ca_end) });
    }
    Ok(now + DAY * days)
}

fn is_as_wanted(info: &CertificateInfo, ca: &Ca, wanted: &Plan<'_>) -> bool {
    ca.is_issuer_of(info)
        && info.uri_sans == [spiffe_uri(ca.trust_domain(), wanted.peer)]
        && hosts_of(info) == *wanted.hosts
}

pub(super) fn hosts_of(info: &CertificateInfo) -> BTreeSet<Host> {
    let names = info.dns_sans.iter().map(|name| Host::Name(name.to_ascii_lowercase()));
    names.chain(info.ip_sans.iter().map(|address| Host::Address(*address))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certs::{InitOptions, fixtures::with_ca_at},
        tls::{CredentialFiles, Credentials},
    };
    use std::{fs, time::Duration};

    fn request_for(role: Role, name: &str, sans: &[&str]) -> LeafRequest {
        let sans = sans.iter().map(ToString::to_string).collect();
        LeafRequest { sans, ..LeafRequest::new(role, name.parse().expect("a name")) }
    }

    #[test]
    fn an_issued_certificate_loads_as_credentials_of_its_peer() {
        let now = SystemTime::now();
        let (dir, certs) = with_ca_at(now);
        let node = request_for(Role::Node, "edge-1", &["localhost", "127.0.0.1"]);
        for request in [
            node,
            request_for(Role::Agent, "warehouse", &[]),
            request_for(Role::Caller, "ops", &[]),
        ] {
            let report = certs.issue(&request, now).expect("issued");
            assert_eq!(report.action, Action::Made);
            let files = Credentials::find_in_dir(dir.path(), request.role).expect("the only one");
            assert_eq!((&files.cert, &files.key), (&report.cert_path, &report.key_path));
            let credentials = Credentials::from_files(&files).expect("loaded");
            assert_eq!(credentials.peer_name(), &report.peer);
            assert_eq!(credentials.identity().serial(), report.serial);
            assert!(credentials.crl_next_update().is_some());
        }
        let listed = certs.list().expect("listed");
        assert_eq!(listed.len(), 3);
        assert_eq!(listed[0].sans, ["127.0.0.1", "localhost"]);
    }

    #[test]
    fn a_good_leaf_is_kept_and_an_old_other_or_unwanted_one_is_renewed() {
        let now = SystemTime::now();
        let (_dir, certs) = with_ca_at(now);
        let request = request_for(Role::Node, "edge-1", &["a.example", "b.example"]);
        let action = |request: &LeafRequest, now| certs.issue(request, now).expect("issued").action;
        assert_eq!(action(&request, now), Action::Made);
        assert_eq!(action(&request, now + 59 * DAY), Action::Kept);
        let reordered = request_for(Role::Node, "edge-1", &["B.example", "a.example"]);
        assert_eq!(action(&reordered, now), Action::Kept);
        assert_eq!(action(&request, now + 61 * DAY), Action::Renewed);
        let moved = request_for(Role::Node, "edge-1", &["a.example"]);
        assert_eq!(action(&moved, now + 61 * DAY), Action::Renewed);
        let forced = LeafRequest { force: true, ..moved.clone() };
        assert_eq!(action(&forced, now + 61 * DAY), Action::Renewed);
        certs.init(&InitOptions { force: true, ..InitOptions::default() }, now).expect("a new CA");
        assert_eq!(action(&moved, now + 61 * DAY), Action::Renewed);
        assert_eq!(certs.list().expect("listed").len(), 5);
    }

    #[test]
    fn a_leaf_whose_key_was_lost_is_renewed() {
        let now = SystemTime::now();
        let (_dir, certs) = with_ca_at(now);
        let request = request_for(Role::Agent, "a", &[]);
        let key = certs.issue(&request, now).expect("issued").key_path;
        fs::remove_file(&key).expect("removed");
        assert_eq!(certs.issue(&request, now).expect("issued").action, Action::Renewed);
        assert!(key.exists());
    }

    #[test]
    fn an_impossible_request_is_refused_with_its_remedy() {
        // Certificates count whole seconds, and so does the limit at which this test looks.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (dir, certs) = with_ca_at(now);
        let agent = request_for(Role::Agent, "a", &[]);
        let days = |days| LeafRequest { days, ..agent.clone() };
        for (request, word) in [
            (request_for(Role::Node, "n", &[]), "--san"),
            (request_for(Role::Node, "n", &["host:4433"]), "without port"),
            (request_for(Role::Agent, "a", &["localhost"]), "leave --san out"),
            (days(0), "--days"),
            (days(3_651), "--days"),
        ] {
            let message = certs.issue(&request, now).expect_err("refused").to_string();
            assert!(message.contains(word), "{message} lacks {word}");
        }
        assert!(certs.issue(&days(3_650), now).is_ok());
        let nowhere = CertsDir::new(dir.path().join("no"));
        let message = nowhere.issue(&agent, now).expect_err("refused").to_string();
        assert!(message.contains("dialback certs init"), "{message}");
        assert!(!dir.path().join("no").exists());
    }

    #[test]
    fn credentials_are_found_by_role_when_there_is_one_and_listed_when_there_are_several() {
        let now = SystemTime::now();
        let (dir, certs) = with_ca_at(now);
        let find = || Credentials::find_in_dir(dir.path(), Role::Agent);
        let message = find().expect_err("none").to_string();
        assert!(
            message.contains("dialback certs init") && message.contains("dialback certs issue"),
            "{message}"
        );
        certs.issue(&request_for(Role::Agent, "a", &[]), now).expect("issued");
        certs.issue(&request_for(Role::Caller, "c", &[]), now).expect("issued");
        assert!(find().is_ok());
        certs.issue(&request_for(Role::Agent, "b", &[]), now).expect("issued");
        let message = find().expect_err("two").to_string();
        assert!(message.contains("agent-a, agent-b") && message.contains("--cert"), "{message}");
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_private() {
        let now = SystemTime::now();
        let (dir, certs) = with_ca_at(now);
        certs.issue(&request_for(Role::Agent, "a", &[]), now).expect("issued");
        assert!(Credentials::from_dir(dir.path(), "agent-a").is_ok());
        let mut files = CredentialFiles::in_dir(dir.path(), "agent-a");
        files.crl = Some(dir.path().join("gone.pem"));
        let message = Credentials::from_files(&files).expect_err("refused").to_string();
        assert!(message.contains("gone.pem does not exist"), "{message}");
        fs::remove_file(dir.path().join("crl.pem")).expect("removed");
        let message =
            Credentials::from_dir(dir.path(), "agent-a").expect_err("refused").to_string();
        assert!(
            message.contains("crl.pem does not exist") && message.contains("--crl none"),
            "{message}"
        );
        files.crl = None;
        assert!(Credentials::from_files(&files).is_ok());
        certs.crl(now).expect("made again");
        let message =
            Credentials::from_dir(dir.path(), "agent-z").expect_err("refused").to_string();
        assert!(message.contains("agent-z.pem does not exist"), "{message}");
        let wrong = Credentials::from_dir(dir.path(), "agent-a").expect("loaded");
        let files = CredentialFiles::in_dir(dir.path(), "agent-a");
        let message = Credentials::from_files(&files).expect("loaded").expect_role(Role::Node);
        let message = message.expect_err("refused").to_string();
        assert!(message.contains("agent-a.pem") && message.contains("role"), "{message}");
        assert!(wrong.expect_role(Role::Agent).is_ok());
    }

    #[test]
    fn a_key_whose_request_is_under_way_is_replaced_by_force_only() {
        let now = SystemTime::now();
        let (_dir, certs) = with_ca_at(now);
        let request = request_for(Role::Agent, "a", &[]);
        let peer: PeerName = "agent/a".parse().expect("a peer");
        let key_path = certs.request(&peer, false).expect("made").key_path;
        let key = fs::read(&key_path).expect("read");
        let message = certs.issue(&request, now).expect_err("refused").to_string();
        assert!(message.contains("certs sign") && message.contains("--force"), "{message}");
        assert_eq!(fs::read(&key_path).expect("read"), key);
        let forced = LeafRequest { force: true, ..request.clone() };
        certs.issue(&forced, now).expect("issued");
        assert_ne!(fs::read(&key_path).expect("read"), key);
        assert_eq!(certs.issue(&request, now).expect("kept").action, Action::Kept);
    }

    #[test]
    fn a_command_that_ended_between_certificate_and_key_is_finished_by_the_next() {
        let now = SystemTime::now();
        let (dir, certs) = with_ca_at(now);
        let request = request_for(Role::Agent, "a", &[]);
        let loads = || Credentials::from_dir(dir.path(), "agent-a").is_ok();
        let old = certs.issue(&request, now).expect("issued");
        let cert = fs::read(&old.cert_path).expect("read");
        let forced = LeafRequest { force: true, ..request.clone() };
        let new = certs.issue(&forced, now).expect("issued");
        // As it is when the process ends after the first of two renames.
        let next = dir.path().join(".agent-a.pem.next");
        fs::rename(&new.cert_path, &next).expect("moved");
        fs::write(&old.cert_path, cert).expect("written");
        assert!(!loads());
        let kept = certs.issue(&request, now).expect("finished");
        assert_eq!((kept.action, kept.serial), (Action::Kept, new.serial));
        assert!(loads() && !next.exists());
        // The CA's key can be rewritten in the same way.
        let key = fs::read(dir.path().join("ca.key")).expect("read");
        certs.init(&InitOptions { force: true, ..InitOptions::default() }, now).expect("made");
        assert_ne!(fs::read(dir.path().join("ca.key")).expect("read"), key);
        let (ca, next) = (dir.path().join("ca.pem"), dir.path().join(".ca.pem.next"));
        fs::rename(&ca, &next).expect("moved");
        assert!(certs.ca().is_ok() && ca.exists() && !next.exists());
    }
}
