//! A key and a request for its certificate, made where the key will stay.

use super::{
    CertsDir, CertsError,
    dir::Action,
    files::{self, Audience},
    pair,
    params::{named, new_key},
};
use crate::{
    name::PeerName,
    tls::{self, CsrInfo},
};
use rcgen::{KeyPair, PublicKeyData};
use std::{fs, path::PathBuf};
use zeroize::Zeroizing;

/// Report of [`CertsDir::request`].
#[derive(Debug, Clone)]
pub struct RequestReport {
    /// The peer that they name.
    pub peer: PeerName,
    /// Action on the key.
    pub key: Action,
    /// The key, which stays here.
    pub key_path: PathBuf,
    /// The key waits for its certificate; the previous key stays in use until then.
    pub is_waiting: bool,
    /// Action on the request.
    pub csr: Action,
    /// The request, which goes to the CA.
    pub csr_path: PathBuf,
}

impl CertsDir {
    /// Makes a key and a request for its certificate, or keeps those that are there; the directory
    /// is made if need be and needs no CA.
    ///
    /// `force` makes a new key. The key in use is kept until the certificate of the new one is
    /// loaded, or signed in this directory.
    pub fn request(&self, peer: &PeerName, force: bool) -> Result<RequestReport, CertsError> {
        let _held = files::lock_dir(&self.dir)?;
        let ((cert_path, own_path), csr_path) = (self.pair_of(peer), self.leaf_path(peer, "csr"));
        pair::mend_held(&cert_path, &own_path)?;
        let is_in_use = own_path.symlink_metadata().is_ok();
        let requested_path = tls::requested_key(&own_path);
        let kept = if force { None } else { self.kept_key(peer)? };
        let (key, action, key_path) = match kept {
            Some((key, path)) => (key, Action::Kept, path),
            None => {
                let key = new_key()?;
                let pem = Zeroizing::new(key.serialize_pem());
                if is_in_use {
                    pair::write_requested_held(&own_path, &pem)?;
                    (key, Action::Made, requested_path.clone())
                } else {
                    files::replace(&own_path, &pem, Audience::Owner)?;
                    (key, Action::Made, own_path)
                }
            }
        };
        let text = files::read_pem(&csr_path)?.unwrap_or_default();
        let requests = CsrInfo::all_from_pem(&text).unwrap_or_default();
        let csr = match requests.as_slice() {
            [one] if one.public_key_der() == key.subject_public_key_info() => Action::Kept,
            _ => {
                files::replace(&csr_path, &request_for(peer, &key)?, Audience::All)?;
                Action::Made
            }
        };
        let is_waiting = key_path == requested_path;
        let peer = peer.clone();
        Ok(RequestReport { peer, key: action, key_path, is_waiting, csr, csr_path })
    }

    /// The newest existing key, and its path.
    fn kept_key(&self, peer: &PeerName) -> Result<Option<(KeyPair, PathBuf)>, CertsError> {
        let own_path = self.leaf_path(peer, "key");
        if let Some(key) = self.requested_key_of(peer)? {
            return Ok(Some((key, tls::requested_key(&own_path))));
        }
        Ok(self.key_at(&own_path)?.map(|key| (key, own_path)))
    }

    /// The keys that wait for their certificates here, in the order of their peers' names.
    pub fn waiting_keys(&self) -> Result<Vec<(PeerName, PathBuf)>, CertsError> {
        let unreadable = |source| CertsError::Unreadable { path: self.dir.clone(), source };
        let mut found = vec![];
        for entry in fs::read_dir(&self.dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(".key.requested"));
            let peer = stem.and_then(|stem| stem.replacen('-', "/", 1).parse().ok());
            found.extend(peer.map(|peer: PeerName| (peer, path.clone())));
        }
        found.sort_by_key(|(peer, _)| peer.to_string());
        Ok(found)
    }
}

/// The subject is for people. It requests nothing: the signer decides.
fn request_for(peer: &PeerName, key: &KeyPair) -> Result<String, CertsError> {
    let params = named(&format!("dialback {} {}", peer.role, peer.name));
    Ok(params.serialize_request(key)?.pem()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certs::{InitOptions, LeafRequest},
        name::Role,
        tls::{CertificateInfo, Credentials},
    };
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa};
    use std::time::SystemTime;

    fn ca_and_site() -> (tempfile::TempDir, CertsDir, CertsDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let (ca, site) = (CertsDir::new(dir.path().join("ca")), dir.path().join("site"));
        ca.init(&InitOptions::default(), SystemTime::now()).expect("a CA");
        (dir, ca, CertsDir::new(site))
    }

    fn warehouse() -> (PeerName, LeafRequest) {
        let peer: PeerName = "agent/warehouse".parse().expect("a peer");
        (peer.clone(), LeafRequest::new(peer.role, peer.name))
    }

    #[test]
    fn a_signed_request_loads_only_with_its_key() {
        let ((_dir, ca, site), now) = (ca_and_site(), SystemTime::now());
        let (peer, wanted) = warehouse();
        let requested = site.request(&peer, false).expect("made");
        let signed = ca.sign(&requested.csr_path, &wanted, now).expect("signed");
        assert_eq!((signed.action, signed.has_key), (Action::Made, false));
        assert!(!site.dir.join("ca.key").exists() && !ca.leaf_path(&peer, "key").exists());
        for file in ["agent-warehouse.pem", "ca.pem", "crl.pem"] {
            fs::copy(ca.dir.join(file), site.dir.join(file)).expect("brought");
        }
        let loaded = Credentials::from_dir(&site.dir, "agent-warehouse").expect("loaded");
        assert_eq!(loaded.identity().serial(), signed.serial);
        assert_eq!(ca.list().expect("listed").len(), 1);
    }

    #[test]
    fn requests_and_their_certificates_are_kept_until_the_key_changes() {
        let ((_dir, ca, site), now) = (ca_and_site(), SystemTime::now());
        let (peer, wanted) = warehouse();
        let ask = |force| {
            let report = site.request(&peer, force).expect("made");
            (report.key, report.csr, report.csr_path)
        };
        let (key, csr, path) = ask(false);
        assert_eq!((key, csr), (Action::Made, Action::Made));
        let sign = || ca.sign(&path, &wanted, now).expect("signed").action;
        assert_eq!((sign(), sign()), (Action::Made, Action::Kept));
        assert_eq!((ask(false).0, ask(false).1), (Action::Kept, Action::Kept));
        assert_eq!(sign(), Action::Kept);
        assert_eq!(ask(true).1, Action::Made);
        assert_eq!((sign(), sign()), (Action::Renewed, Action::Kept));
        fs::remove_file(&path).expect("removed");
        let (key, csr, _) = ask(false);
        assert_eq!((key, csr, sign()), (Action::Kept, Action::Made, Action::Kept));
    }

    #[test]
    fn signing_uses_only_the_public_key_of_a_request() {
        let ((dir, ca, _), now) = (ca_and_site(), SystemTime::now());
        let (_, wanted) = warehouse();
        let key = new_key().expect("a key");
        let mut greedy = CertificateParams::new(vec!["edge-1.example.com".into()]).expect("names");
        greedy
            .subject_alt_names
            .push(super::super::params::uri("spiffe://dialback.local/node/edge-1").expect("a URI"));
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let path = dir.path().join("greedy.csr");
        let csr = greedy.serialize_request(&key).expect("made").pem().expect("PEM");
        assert!(CsrInfo::all_from_pem(csr.as_bytes()).expect("read")[0].wishes.len() >= 2);
        fs::write(&path, csr).expect("written");
        let report = ca.sign(&path, &wanted, now).expect("signed");
        let text = fs::read(report.cert_path).expect("read");
        let info = CertificateInfo::all_from_pem(&text).expect("read").remove(0);
        assert_eq!(info.uri_sans, ["spiffe://dialback.local/agent/warehouse"]);
        assert!(!info.is_ca && info.dns_sans.is_empty() && info.ip_sans.is_empty());
        assert_eq!(info.extended_key_usages, ["client authentication"]);
        assert_eq!(
            (info.key_usages.len(), info.subject.as_str()),
            (1, "CN=dialback agent warehouse")
        );
        assert!(info.has_public_key(&key.subject_public_key_info()));
    }

    #[test]
    fn a_text_that_is_not_a_request_or_lacks_proof_of_its_key_is_not_signed() {
        let ((dir, ca, site), now) = (ca_and_site(), SystemTime::now());
        let (peer, wanted) = warehouse();
        let good = fs::read_to_string(site.request(&peer, false).expect("made").csr_path);
        let good = good.expect("read");
        let path = dir.path().join("odd.csr");
        let message = |text: &[u8]| {
            fs::write(&path, text).expect("written");
            ca.sign(&path, &wanted, now).expect_err("refused").to_string()
        };
        assert!(message(b"").contains("0 certificate requests"));
        assert!(message(format!("{good}{good}").as_bytes()).contains("2 certificate requests"));
        assert!(message(&good.as_bytes()[..good.len() / 2]).contains("damaged"));
        assert!(message(&[0x30, 0x82, 0xff]).contains("-inform der"));
        // One letter of the body changed: the signature is then that of something else.
        let at = good.len() / 3;
        let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
        let bent = format!("{}{other}{}", &good[..at], &good[at + 1..]);
        assert!(message(bent.as_bytes()).contains("damaged"));
        fs::write(&path, &good).expect("written");
        ca.sign(&path, &wanted, now).expect("signed");
        ca.revoke(&peer, now).expect("revoked");
        let message = ca.sign(&path, &wanted, now).expect_err("refused").to_string();
        assert!(message.contains("revoked") && message.contains("--force"), "{message}");
        let renewed = site.request(&peer, true).expect("made").csr_path;
        ca.sign(renewed, &wanted, now).expect("a new key is signed");
        let node = LeafRequest::new(Role::Node, peer.name.clone());
        assert!(ca.sign(&path, &node, now).expect_err("refused").to_string().contains("--san"));
        ca.issue(&wanted, now).expect("issued");
        let message = ca.sign(&path, &wanted, now).expect_err("refused").to_string();
        assert!(message.contains("agent-warehouse.key is not the key of the request"), "{message}");
    }

    fn text(path: &std::path::Path) -> String {
        fs::read_to_string(path).expect("read")
    }

    /// A site with a certificate in use, and the key that goes with it.
    fn site_in_use() -> (tempfile::TempDir, CertsDir, CertsDir, PeerName) {
        let (dir, ca, site) = ca_and_site();
        let (peer, wanted) = warehouse();
        let requested = site.request(&peer, false).expect("made");
        ca.sign(&requested.csr_path, &wanted, SystemTime::now()).expect("signed");
        for file in ["agent-warehouse.pem", "ca.pem", "crl.pem"] {
            fs::copy(ca.dir.join(file), site.dir.join(file)).expect("brought");
        }
        (dir, ca, site, peer)
    }

    fn loads(site: &CertsDir) -> bool {
        Credentials::from_dir(&site.dir, "agent-warehouse").is_ok()
    }

    #[test]
    fn a_forced_request_keeps_the_key_in_use_until_its_certificate_arrives() {
        let (_dir, ca, site, peer) = site_in_use();
        let (cert, key) = site.pair_of(&peer);
        let before = text(&key);
        let requested = site.request(&peer, true).expect("made");
        assert!(requested.is_waiting && requested.key_path != key && loads(&site));
        assert_eq!(text(&key), before);
        // Repeated, it is the same request; forced again, another one.
        let again = site.request(&peer, false).expect("kept");
        assert_eq!((again.key, again.csr, again.is_waiting), (Action::Kept, Action::Kept, true));
        let stale = text(&requested.key_path);
        let forced = site.request(&peer, true).expect("made");
        assert_eq!((forced.key, forced.csr), (Action::Made, Action::Made));
        assert!(text(&forced.key_path) != stale && text(&key) == before && loads(&site));
        assert_eq!(site.waiting_keys().expect("listed"), [(peer, forced.key_path.clone())]);
        // Copied over the one in use, the certificate brings its key into use.
        ca.sign(&forced.csr_path, &warehouse().1, SystemTime::now()).expect("signed");
        let new = text(&forced.key_path);
        fs::copy(ca.dir.join("agent-warehouse.pem"), &cert).expect("brought");
        assert!(loads(&site), "a program that cannot write loads it too");
        assert_eq!(pair::mend_pair(&cert, &key).expect("mended"), pair::Mended::Request);
        assert!(text(&key) == new && !forced.key_path.exists() && loads(&site));
        assert_eq!(pair::mend_pair(&cert, &key).expect("looked"), pair::Mended::Nothing);
    }

    #[test]
    fn a_certificate_of_neither_key_is_refused_and_changes_nothing() {
        let (_dir, ca, site, peer) = site_in_use();
        let (cert, key) = site.pair_of(&peer);
        let before = text(&key);
        let first = site.request(&peer, true).expect("made");
        ca.sign(&first.csr_path, &warehouse().1, SystemTime::now()).expect("signed");
        let second = site.request(&peer, true).expect("made");
        fs::copy(ca.dir.join("agent-warehouse.pem"), &cert).expect("brought");
        let message = Credentials::from_dir(&site.dir, "agent-warehouse").expect_err("refused");
        assert!(message.to_string().contains("is not the key of the certificate"), "{message}");
        assert_eq!(pair::mend_pair(&cert, &key).expect("looked"), pair::Mended::Nothing);
        assert!(text(&key) == before && second.key_path.exists());
    }

    #[test]
    fn a_request_that_is_signed_in_its_own_directory_takes_effect_with_its_key() {
        let (_dir, ca, _) = ca_and_site();
        let ((peer, wanted), now) = (warehouse(), SystemTime::now());
        ca.issue(&wanted, now).expect("issued");
        let requested = ca.request(&peer, true).expect("made");
        let new = text(&requested.key_path);
        assert!(requested.is_waiting && loads(&ca));
        let signed = ca.sign(&requested.csr_path, &wanted, now).expect("signed");
        assert!(loads(&ca) && !requested.key_path.exists());
        assert_eq!(text(&signed.key_path), new);
        assert_eq!(ca.request(&peer, false).expect("kept").key_path, signed.key_path);
    }

    #[cfg(unix)]
    #[test]
    fn a_requested_key_is_read_by_the_same_users_as_the_one_that_it_replaces() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, _ca, site, peer) = site_in_use();
        let key = site.leaf_path(&peer, "key");
        for (mode, wanted) in [(0o600, 0o600), (0o640, 0o640), (0o644, 0o640), (0o666, 0o640)] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("changed");
            let path = site.request(&peer, true).expect("made").key_path;
            let found = fs::metadata(path).expect("there").permissions().mode() & 0o777;
            assert_eq!(found, wanted, "{mode:o} gave {found:o}");
        }
    }
}
