//! A key and a request for its certificate, made where the key will stay.

use super::{
    CertsDir, CertsError,
    ca::new_key,
    dir::Action,
    files::{self, Audience},
};
use crate::{name::PeerName, tls::CsrFacts};
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// What [`CertsDir::request`] did.
#[derive(Debug, Clone)]
pub struct RequestReport {
    /// Whose they are.
    pub party: PeerName,
    /// What was done about the key.
    pub key: Action,
    /// The key, which stays here.
    pub key_path: PathBuf,
    /// What was done about the request.
    pub csr: Action,
    /// The request, which goes to the CA.
    pub csr_path: PathBuf,
}

impl CertsDir {
    /// Makes a key and a request for its certificate, or keeps those that are there; the directory is made if need be and needs no CA.
    /// `force` makes a new key: a certificate that was signed for the old one then fits no longer.
    pub fn request(&self, party: &PeerName, force: bool) -> Result<RequestReport, CertsError> {
        let _held = files::hold_dir(&self.dir)?;
        let (key_path, csr_path) = (self.leaf_path(party, "key"), self.leaf_path(party, "csr"));
        let there = if force { None } else { self.key_at(&key_path)? };
        let (key, action) = match there {
            Some(key) => (key, Action::Kept),
            None => (self.store_key(&key_path)?, Action::Made),
        };
        let text = files::read_pem(&csr_path)?.unwrap_or_default();
        let requests = CsrFacts::all_from_pem(&text).unwrap_or_default();
        let csr = match requests.as_slice() {
            [one] if one.public_key_der() == key.subject_public_key_info() => Action::Kept,
            _ => {
                files::replace(&csr_path, &request_for(party, &key)?, Audience::All)?;
                Action::Made
            }
        };
        Ok(RequestReport { party: party.clone(), key: action, key_path, csr, csr_path })
    }

    fn store_key(&self, path: &std::path::Path) -> Result<KeyPair, CertsError> {
        let key = new_key()?;
        files::replace(path, &Zeroizing::new(key.serialize_pem()), Audience::Owner)?;
        Ok(key)
    }
}

/// The subject is for people. It asks for nothing: who signs it decides.
fn request_for(party: &PeerName, key: &KeyPair) -> Result<String, CertsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name: String = format!("dialback {} {}", party.role, party.name);
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    Ok(params.serialize_request(key)?.pem()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certs::{InitOptions, LeafRequest},
        name::Role,
        tls::{CertificateFacts, Credentials},
    };
    use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa};
    use std::{fs, time::SystemTime};

    fn places() -> (tempfile::TempDir, CertsDir, CertsDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let (ca, site) = (CertsDir::new(dir.path().join("ca")), dir.path().join("site"));
        ca.init(&InitOptions::default(), SystemTime::now()).expect("a CA");
        (dir, ca, CertsDir::new(site))
    }

    fn warehouse() -> (PeerName, LeafRequest) {
        let party: PeerName = "agent/warehouse".parse().expect("a party");
        (party.clone(), LeafRequest::new(party.role, party.name))
    }

    #[test]
    fn a_request_that_was_signed_is_a_credential_where_its_key_is_and_nowhere_else() {
        let ((_dir, ca, site), now) = (places(), SystemTime::now());
        let (party, wanted) = warehouse();
        let asked = site.request(&party, false).expect("made");
        let signed = ca.sign(&asked.csr_path, &wanted, now).expect("signed");
        assert_eq!((signed.action, signed.has_key), (Action::Made, false));
        assert!(!site.dir.join("ca.key").exists() && !ca.leaf_path(&party, "key").exists());
        for file in ["agent-warehouse.pem", "ca.pem", "crl.pem"] {
            fs::copy(ca.dir.join(file), site.dir.join(file)).expect("brought");
        }
        let loaded = Credentials::from_dir(&site.dir, "agent-warehouse").expect("loaded");
        assert_eq!(loaded.identity().serial(), signed.serial);
        assert_eq!(ca.list().expect("listed").len(), 1);
    }

    #[test]
    fn requests_and_what_was_signed_for_them_are_kept_until_the_key_is_another() {
        let ((_dir, ca, site), now) = (places(), SystemTime::now());
        let (party, wanted) = warehouse();
        let ask = |force| {
            let report = site.request(&party, force).expect("made");
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
    fn of_a_request_that_wishes_to_be_a_ca_a_node_and_another_only_the_key_is_taken() {
        let ((dir, ca, _), now) = (places(), SystemTime::now());
        let (_, wanted) = warehouse();
        let key = new_key().expect("a key");
        let mut greedy = CertificateParams::new(vec!["edge-1.example.com".into()]).expect("names");
        greedy
            .subject_alt_names
            .push(super::super::ca::uri("spiffe://dialback.local/node/edge-1").expect("a URI"));
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let path = dir.path().join("greedy.csr");
        let csr = greedy.serialize_request(&key).expect("made").pem().expect("PEM");
        assert!(CsrFacts::all_from_pem(csr.as_bytes()).expect("read")[0].wishes.len() >= 2);
        fs::write(&path, csr).expect("written");
        let report = ca.sign(&path, &wanted, now).expect("signed");
        let text = fs::read(report.cert_path).expect("read");
        let facts = CertificateFacts::all_from_pem(&text).expect("read").remove(0);
        assert_eq!(facts.uri_sans, ["spiffe://dialback.local/agent/warehouse"]);
        assert!(!facts.is_ca && facts.dns_sans.is_empty() && facts.ip_sans.is_empty());
        assert_eq!(facts.extended_key_usages, ["client authentication"]);
        assert_eq!(
            (facts.key_usages.len(), facts.subject.as_str()),
            (1, "CN=dialback agent warehouse")
        );
        assert!(facts.has_public_key(&key.subject_public_key_info()));
    }

    #[test]
    fn what_is_no_request_or_not_of_its_own_key_is_not_signed() {
        let ((dir, ca, site), now) = (places(), SystemTime::now());
        let (party, wanted) = warehouse();
        let good = fs::read_to_string(site.request(&party, false).expect("made").csr_path);
        let good = good.expect("read");
        let path = dir.path().join("odd.csr");
        let told = |text: &[u8]| {
            fs::write(&path, text).expect("written");
            ca.sign(&path, &wanted, now).expect_err("refused").to_string()
        };
        assert!(told(b"").contains("0 certificate requests"));
        assert!(told(format!("{good}{good}").as_bytes()).contains("2 certificate requests"));
        assert!(told(&good.as_bytes()[..good.len() / 2]).contains("damaged"));
        assert!(told(&[0x30, 0x82, 0xff]).contains("-inform der"));
        // One letter of the body changed: the signature is then that of something else.
        let at = good.len() / 3;
        let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
        let bent = format!("{}{other}{}", &good[..at], &good[at + 1..]);
        assert!(told(bent.as_bytes()).contains("damaged"));
        fs::write(&path, &good).expect("written");
        ca.sign(&path, &wanted, now).expect("signed");
        ca.revoke(&party, now).expect("revoked");
        let told = ca.sign(&path, &wanted, now).expect_err("refused").to_string();
        assert!(told.contains("revoked") && told.contains("--force"), "{told}");
        let renewed = site.request(&party, true).expect("made").csr_path;
        ca.sign(renewed, &wanted, now).expect("a new key is signed");
        let node = LeafRequest::new(Role::Node, party.name.clone());
        assert!(ca.sign(&path, &node, now).expect_err("refused").to_string().contains("--san"));
        ca.issue(&wanted, now).expect("issued");
        let told = ca.sign(&path, &wanted, now).expect_err("refused").to_string();
        assert!(told.contains("agent-warehouse.key is not the key of the request"), "{told}");
    }
}
