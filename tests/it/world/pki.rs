//! A root and intermediates of any validity, and leafs below them.

use dialback::{
    CredentialPem, Credentials, CredentialsError, PeerName, Role,
    certs::{Ca, LeafPem, LeafProfile},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A root CA and the key of one intermediate, which may have any number of certificates.
pub(crate) struct Pki {
    root: Issuer<'static, KeyPair>,
    /// The root's certificate, PEM.
    pub(crate) root_pem: String,
    middle: KeyPair,
    /// A certificate of the intermediate that outlives every leaf, PEM.
    pub(crate) good: String,
}

fn params(name: &str, from: SystemTime, until: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    // A CA of dialback has the trust domain in its certificate.
    let domain = "spiffe://dialback.local".try_into().expect("a URI");
    params.subject_alt_names = vec![SanType::URI(domain)];
    (params.not_before, params.not_after) = (from.into(), until.into());
    params
}

impl Pki {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now();
        Self::rooted(now - 9 * DAY, now + 900 * DAY)
    }

    /// With a root that is valid from and until these times.
    pub(crate) fn rooted(from: SystemTime, until: SystemTime) -> Self {
        super::log::record();
        let [key, middle] = std::array::from_fn(|_| KeyPair::generate().expect("a key"));
        let params = params("Root", from, until);
        let root_pem = params.self_signed(&key).expect("a root").pem();
        let root = Issuer::new(params, key);
        let mut pki = Self { root, root_pem, middle, good: String::new() };
        let now = SystemTime::now();
        pki.good = pki.intermediate(now - 9 * DAY, now + 300 * DAY);
        pki
    }

    /// Another certificate of the intermediate, `CN=Issuing`.
    pub(crate) fn intermediate(&self, from: SystemTime, until: SystemTime) -> String {
        self.signed("Issuing", &self.middle, from, until)
    }

    /// A certificate of another CA of this name, which has signed nothing here.
    pub(crate) fn unrelated(&self, name: &str, until: SystemTime) -> String {
        let key = KeyPair::generate().expect("a key");
        self.signed(name, &key, SystemTime::now() - 9 * DAY, until)
    }

    fn signed(&self, name: &str, key: &KeyPair, from: SystemTime, until: SystemTime) -> String {
        params(name, from, until).signed_by(key, &self.root).expect("signed").pem()
    }

    /// The profile of a valid leaf of the peer.
    pub(crate) fn profile(&self, peer: &str) -> LeafProfile {
        let peer: PeerName = peer.parse().expect("a peer name");
        let hosts: &[&str] =
            if peer.role == Role::Node { &["localhost", "127.0.0.1"] } else { &[] };
        LeafProfile::new("dialback.local", &peer, hosts, SystemTime::now())
    }

    /// A leaf of the intermediate; these certificates follow it in its file.
    pub(crate) fn leaf(&self, profile: &LeafProfile, others: &[&str]) -> LeafPem {
        let ca = Ca::from_pem(&self.good, &self.middle.serialize_pem()).expect("a CA");
        let leaf = ca.leaf(profile).expect("a leaf");
        LeafPem { cert: leaf.cert.clone() + &others.concat(), ..leaf }
    }

    /// Credentials of this leaf that trust these CAs.
    pub(crate) fn load(leaf: &LeafPem, ca: &str) -> Result<Credentials, CredentialsError> {
        let (cert, key) = (leaf.cert.as_bytes(), leaf.key.as_bytes());
        Credentials::from_pem(&CredentialPem { cert, key, ca: ca.as_bytes(), ..Default::default() })
    }

    /// Credentials of a peer whose file continues with these certificates.
    pub(crate) fn credentials(&self, peer: &str, others: &[&str]) -> Credentials {
        let leaf = self.leaf(&self.profile(peer), others);
        Self::load(&leaf, &self.root_pem).expect("credentials")
    }
}
