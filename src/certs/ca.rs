//! A CA in memory: makes its own certificate, and signs leafs and revocation lists.

use super::{
    CertPem, CertsError, LeafPem, LeafProfile,
    params::{BACKDATED, key_pair, moment, named, new_key, new_serial, uri},
};
use crate::tls::{self, CertificateInfo, PemError, RevokedSerial, hex};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SerialNumber,
    SubjectPublicKeyInfo,
};
use std::{
    fmt,
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// Lifetime of a new CA.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const TRUST_DOMAIN_SCHEME: &str = "spiffe://";

/// A certificate authority with its key.
///
/// Its own certificate has its trust domain as the URI name `spiffe://TRUST-DOMAIN`. Its subject
/// has digits of its key in it, because revocation lists are found by the subject of their CA.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    info: CertificateInfo,
    trust_domain: String,
    /// SHA-256 of its certificate, by which joining peers recognise it.
    pub(super) fingerprint: [u8; tls::DIGEST_BYTES],
}

impl Ca {
    /// Makes a CA that is valid for ten years from `now`.
    pub fn generate(trust_domain: &str, now: SystemTime) -> Result<Self, CertsError> {
        let key = new_key()?;
        let key_id = CertificateParams::default().key_identifier(&key);
        let mark = hex(&key_id[..4]);
        Self::of_subject(&format!("dialback CA {mark}"), trust_domain, key, now)
    }

    fn of_subject(
        name: &str,
        trust_domain: &str,
        key: KeyPair,
        now: SystemTime,
    ) -> Result<Self, CertsError> {
        tls::check_trust_domain(trust_domain)?;
        let mut params = named(name);
        params.subject_alt_names = vec![uri(&format!("{TRUST_DOMAIN_SCHEME}{trust_domain}"))?];
        params.serial_number = Some(new_serial());
        params.not_before = moment(now - BACKDATED)?;
        params.not_after = moment(now + CA_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let pem = params.self_signed(&key)?.pem();
        Self::joined(pem, key)
    }

    /// Takes a CA from its certificate and key in PEM, made here or elsewhere.
    pub fn from_pem(cert: &str, key: &str) -> Result<Self, CertsError> {
        Self::from_bytes(cert.as_bytes(), key.as_bytes())
    }

    /// Reads a CA from files, in which other text, also not UTF-8, may precede the blocks.
    pub(super) fn from_bytes(cert: &[u8], key: &[u8]) -> Result<Self, CertsError> {
        let at = |name: &str, source: PemError| match source {
            PemError::Unusable { why } => CertsError::Unusable { path: name.into(), why },
            source => CertsError::UnfitCa { path: name.into(), why: source.to_string() },
        };
        let key = key_pair(key).map_err(|source| at("ca.key", source))?.ok_or_else(|| {
            let why = "the file has no private key".into();
            CertsError::UnfitCa { path: "ca.key".into(), why }
        })?;
        tls::fingerprints(cert).map_err(|source| at("ca.pem", source))?;
        // Joining peers receive the text: remove the byte order mark, which only this reader skips.
        let text = String::from_utf8_lossy(cert).replace('\u{feff}', "");
        Self::joined(text, key)
    }

    fn joined(pem: String, key: KeyPair) -> Result<Self, CertsError> {
        let bodies = tls::pem_bodies(pem.as_bytes(), tls::PemKind::Certificate)
            .map_err(|error| unfit(error.to_string()))?;
        let der = bodies.first().ok_or_else(|| unfit("the file has no certificate"))?;
        let info = CertificateInfo::from_der(der).map_err(|error| unfit(error.to_string()))?;
        if !info.is_ca {
            return Err(unfit("it is not a CA certificate"));
        }
        if !info.has_public_key(&key.subject_public_key_info()) {
            return Err(unfit("the key is not the key of the CA certificate"));
        }
        let trust_domain = trust_domain_of(&info)?;
        let issuer = Issuer::from_ca_cert_der(&der.as_slice().into(), key)?;
        Ok(Self { issuer, pem, info, trust_domain, fingerprint: tls::sha256(der) })
    }

    /// The CA's certificate, which is public.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The CA's key, which is secret.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// The trust domain of everything that it signs.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Information in its certificate.
    pub fn info(&self) -> &CertificateInfo {
        &self.info
    }

    /// Makes a key and signs a leaf for it.
    pub fn leaf(&self, profile: &LeafProfile) -> Result<LeafPem, CertsError> {
        let key = new_key()?;
        let CertPem { cert, serial } = self.signed(profile, &key)?;
        Ok(LeafPem { cert, key: Zeroizing::new(key.serialize_pem()), serial })
    }

    /// Signs a leaf of this profile for a public key, given as SubjectPublicKeyInfo in DER.
    pub fn leaf_for_key(
        &self,
        profile: &LeafProfile,
        public_key_der: &[u8],
    ) -> Result<CertPem, CertsError> {
        self.signed(profile, &SubjectPublicKeyInfo::from_der(public_key_der)?)
    }

    fn signed(
        &self,
        profile: &LeafProfile,
        key: &impl PublicKeyData,
    ) -> Result<CertPem, CertsError> {
        let serial = new_serial();
        let mut params = profile.params()?;
        params.serial_number = Some(serial.clone());
        let cert = params.signed_by(key, &self.issuer)?.pem();
        let serial = hex(serial.as_ref());
        Ok(CertPem { cert, serial })
    }

    /// Signs a revocation list. Numbers must count up from list to list.
    pub fn crl(
        &self,
        revoked: &[RevokedSerial],
        number: u64,
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> Result<String, CertsError> {
        let list = CertificateRevocationListParams {
            this_update: moment(this_update)?,
            next_update: moment(next_update)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(revoked_entry).collect::<Result<_, _>>()?,
            key_identifier_method: self.key_id_method(),
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// A CA from elsewhere may derive its key's identifier in another way: use its certificate's.
    fn key_id_method(&self) -> KeyIdMethod {
        let stated = self.info.subject_key_id.as_deref().and_then(|id| from_hex(id).ok());
        stated.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified)
    }

    /// True if a certificate names this CA and this CA's key as its signer.
    pub(super) fn is_issuer_of(&self, leaf: &CertificateInfo) -> bool {
        leaf.issuer == self.info.subject && leaf.authority_key_id == self.info.subject_key_id
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { issuer: _, pem: _, info, trust_domain, fingerprint: _ } = self;
        f.debug_struct("Ca")
            .field("subject", &info.subject)
            .field("trust_domain", trust_domain)
            .finish()
    }
}

fn trust_domain_of(info: &CertificateInfo) -> Result<String, CertsError> {
    let mut domains = info.uri_sans.iter().filter_map(|uri| uri.strip_prefix(TRUST_DOMAIN_SCHEME));
    match (domains.next(), domains.next()) {
        (Some(domain), None) if tls::check_trust_domain(domain).is_ok() => Ok(domain.to_owned()),
        _ => Err(unfit(
            "the CA's certificate names no trust domain (one URI name spiffe://TRUST-DOMAIN)",
        )),
    }
}

fn revoked_entry(entry: &RevokedSerial) -> Result<RevokedCertParams, CertsError> {
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from(from_hex(&entry.serial)?),
        revocation_time: moment(entry.since)?,
        reason_code: None,
        invalidity_date: None,
    })
}

fn from_hex(text: &str) -> Result<Vec<u8>, CertsError> {
    let mut bytes = vec![0; text.len() / 2];
    match tls::fill_from_hex(text, &mut bytes) {
        Some(()) if !bytes.is_empty() => Ok(bytes),
        _ => Err(CertsError::Signing {
            why: format!("{text:?} is not a serial number in hexadecimal"),
        }),
    }
}

fn unfit(why: impl Into<String>) -> CertsError {
    CertsError::UnfitCa { path: "ca.pem".into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CrlInfo;

    #[test]
    fn a_ca_names_its_trust_domain_signs_only_leafs_and_has_a_unique_name() {
        let now = SystemTime::now();
        let ca = Ca::generate("acme.example", now).expect("made");
        let other = Ca::generate("acme.example", now).expect("made");
        let info = ca.info();
        assert_eq!(info.uri_sans, ["spiffe://acme.example"]);
        assert_eq!((info.is_ca, info.path_len), (true, Some(0)));
        assert_eq!(info.key_usages, ["Key Cert Sign", "CRL Sign"]);
        assert!(info.not_before < now && info.not_after > now + CA_LIFE - Duration::from_secs(2));
        assert_ne!(info.subject, other.info().subject);
        assert!(Ca::generate("Acme", now).is_err());
    }

    #[test]
    fn a_ca_comes_back_from_its_pem_and_not_with_another_key() {
        let ca = Ca::generate("d", SystemTime::now()).expect("made");
        let other = Ca::generate("d", SystemTime::now()).expect("made");
        let back = Ca::from_pem(ca.pem(), &ca.key_pem()).expect("read");
        assert_eq!((back.trust_domain(), back.info()), ("d", ca.info()));
        assert!(Ca::from_pem(ca.pem(), &other.key_pem()).is_err());
    }

    #[test]
    fn a_revocation_list_has_the_given_dates_number_and_entries() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let ca = Ca::generate("d", now).expect("made");
        let revoked = [RevokedSerial { serial: "40ff00".into(), since: now }];
        let pem = ca.crl(&revoked, 7, now, now + CA_LIFE).expect("signed");
        let info = CrlInfo::all_from_pem(pem.as_bytes()).expect("read").remove(0);
        assert_eq!((info.number, info.this_update), (Some(7), now));
        assert_eq!(
            (info.next_update, info.revoked.as_slice()),
            (Some(now + CA_LIFE), &revoked[..])
        );
        assert_eq!(info.issuer, ca.info().subject);
    }

    #[test]
    fn serials_are_sixteen_bytes_and_positive() {
        for _ in 0..64 {
            let serial = new_serial();
            assert_eq!((serial.len(), serial.as_ref()[0] & 0xc0), (16, 0x40));
        }
    }

    #[test]
    fn two_cas_of_one_name_are_refused_together_and_each_is_taken_alone() {
        let now = SystemTime::now();
        let namesake = || Ca::of_subject("CA", "d", new_key().expect("a key"), now).expect("made");
        let (one, two) = (namesake(), namesake());
        let peer = "agent/a".parse().expect("a peer");
        let leaf = one.leaf(&LeafProfile::new("d", &peer, &[], now)).expect("signed");
        let load = |ca: &str| {
            let (cert, key) = (leaf.cert.as_bytes(), leaf.key.as_bytes());
            let pem = tls::CredentialPem { cert, key, ca: ca.as_bytes(), ..Default::default() };
            tls::Credentials::from_pem(&pem)
        };
        assert!(load(one.pem()).is_ok() && load(two.pem()).is_ok());
        let message =
            load(&format!("{}{}", one.pem(), two.pem())).expect_err("refused").to_string();
        assert!(message.contains("two CAs with the same name"), "{message}");
        let apart = tls::CredentialPem {
            cert: leaf.cert.as_bytes(),
            key: leaf.key.as_bytes(),
            ca: one.pem().as_bytes(),
            node_ca: Some(two.pem().as_bytes()),
            ..Default::default()
        };
        let message = tls::Credentials::from_pem(&apart).expect_err("refused").to_string();
        assert!(message.contains("two CAs with the same name"), "{message}");
    }

    #[test]
    fn a_ca_shows_no_key_when_debugged() {
        let ca = Ca::generate("d", SystemTime::now()).expect("made");
        assert!(!format!("{ca:?}").contains("PRIVATE"));
    }
}
