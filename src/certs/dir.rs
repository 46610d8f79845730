//! A directory of certificates: the CA, its revocation list, the records of issued and revoked
//! certificates, and the files of each peer. Valid files are kept: every command can be repeated.

use super::{
    CertsError,
    ca::Ca,
    files,
    issued::{self, ListedCertificate},
    pair,
};
use crate::tls::Utc;
use std::{fmt, path::PathBuf, time::SystemTime};

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
pub(super) const CRL: &str = "crl.pem";
pub(super) const CRL_NUMBER: &str = "crl.number";
pub(super) const ISSUED: &str = "issued.jsonl";
pub(super) const JOIN_TOKENS: &str = "join-tokens.jsonl";
pub(super) const REVOKED: &str = "revoked.jsonl";

/// The trust domain of a CA for which none was named.
const TRUST_DOMAIN_DEFAULT: &str = "dialback.local";

/// Options of a new CA.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// The trust domain. `None`: that of the CA that is there, or `dialback.local` for a new one.
    pub trust_domain: Option<String>,
    /// Replaces an existing CA. Every leaf of the old one becomes invalid.
    pub force: bool,
}

/// Action on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// No file existed, or it was replaced by force.
    Made,
    /// It existed and was due for renewal.
    Renewed,
    /// It was valid and was kept.
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

/// Report of [`CertsDir::init`].
#[derive(Debug, Clone)]
pub struct InitReport {
    /// Action on the CA.
    pub ca: Action,
    /// Action on the revocation list.
    pub crl: Action,
    /// The CA's trust domain.
    pub trust_domain: String,
    /// The CA's certificate.
    pub ca_path: PathBuf,
    /// The CA's key.
    pub ca_key_path: PathBuf,
    /// The revocation list.
    pub crl_path: PathBuf,
    /// End of the CA's validity.
    pub ca_not_after: SystemTime,
    /// End of the revocation list; run `init` again before.
    pub crl_next_update: Option<SystemTime>,
}

/// A directory that holds a CA and the certificates that it signed.
#[derive(Debug, Clone)]
pub struct CertsDir {
    pub(super) dir: PathBuf,
}

impl CertsDir {
    /// Names a directory, which need not be there yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a CA and an empty revocation list, or keeps those that are good. A list with less than
    /// a third of its life left is signed again with its entries.
    pub fn init(&self, options: &InitOptions, now: SystemTime) -> Result<InitReport, CertsError> {
        let _held = files::lock_dir(&self.dir)?;
        let (ca, action) = self.keep_or_make_ca(options, now)?;
        let crl = self.keep_or_sign_crl(&ca, now)?;
        Ok(InitReport {
            ca: action,
            crl: crl.action,
            trust_domain: ca.trust_domain().into(),
            ca_path: self.at(CA_CERT),
            ca_key_path: self.at(CA_KEY),
            crl_path: self.at(CRL),
            ca_not_after: ca.info().not_after,
            crl_next_update: crl.next_update,
        })
    }

    /// Every leaf that was signed here, oldest first.
    pub fn list(&self) -> Result<Vec<ListedCertificate>, CertsError> {
        if !self.dir.is_dir() {
            return Err(CertsError::NoCa { dir: self.dir.clone() });
        }
        let mut listed = issued::read(&self.at(ISSUED))?;
        let revoked = self.all_revoked()?;
        for one in &mut listed {
            one.revoked = revoked.iter().find(|entry| entry.serial == one.serial).map(|e| e.since);
        }
        Ok(listed)
    }

    /// The CA of this directory, with its key.
    pub fn ca(&self) -> Result<Ca, CertsError> {
        let (cert_path, key_path) = (self.at(CA_CERT), self.at(CA_KEY));
        pair::mend_held(&cert_path, &key_path)?;
        let key = files::read_pem(&key_path)?.map(zeroize::Zeroizing::new);
        match (files::read_pem(&cert_path)?, key) {
            (Some(cert), Some(key)) => {
                Ca::from_bytes(&cert, &key).map_err(|error| error.in_dir(&self.dir))
            }
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
        let make = || self.make_ca(wanted.unwrap_or(TRUST_DOMAIN_DEFAULT), now);
        if options.force {
            // The operator requested a new one: the old files need not be readable.
            return make();
        }
        match self.ca() {
            Err(CertsError::NoCa { .. }) => make(),
            Err(error) => Err(error),
            Ok(ca) => {
                expect_holding(&ca, now)?;
                match wanted.filter(|wanted| *wanted != ca.trust_domain()) {
                    None => Ok((ca, Action::Kept)),
                    Some(wanted) => Err(CertsError::OtherTrustDomain {
                        dir: self.dir.clone(),
                        found: ca.trust_domain().into(),
                        wanted: wanted.into(),
                    }),
                }
            }
        }
    }

    fn make_ca(&self, trust_domain: &str, now: SystemTime) -> Result<(Ca, Action), CertsError> {
        let ca = Ca::generate(trust_domain, now)?;
        pair::replace_held(&self.at(CA_CERT), ca.pem(), &self.at(CA_KEY), &ca.key_pem())?;
        Ok((ca, Action::Made))
    }
}

pub(super) fn expect_holding(ca: &Ca, now: SystemTime) -> Result<(), CertsError> {
    if now <= ca.info().not_after {
        return Ok(());
    }
    Err(CertsError::CaExpired { until: Utc(ca.info().not_after), now: Utc(now) })
}

/// With a clock before the CA's own start, leafs would be valid only in the past.
pub(super) fn expect_valid(ca: &Ca, now: SystemTime) -> Result<(), CertsError> {
    let since = ca.info().not_before;
    if now < since {
        return Err(CertsError::CaNotValidYet { since: Utc(since), now: Utc(now) });
    }
    expect_holding(ca, now)
}

/// True if a validity includes now and has more than a third of its life left.
pub(super) fn is_fresh(from: SystemTime, until: SystemTime, now: SystemTime) -> bool {
    let life = until.duration_since(from).unwrap_or_default();
    let left = until.duration_since(now).unwrap_or_default();
    from <= now && left > life / 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certs::{fixtures::DAY, inspect},
        tls::{CrlInfo, RevokedSerial},
    };
    use std::fs;

    fn empty() -> (tempfile::TempDir, CertsDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let certs = CertsDir::new(dir.path().join("certs"));
        (dir, certs)
    }

    fn init(certs: &CertsDir, now: SystemTime) -> InitReport {
        certs.init(&InitOptions::default(), now).expect("made or kept")
    }

    fn newest_list(certs: &CertsDir) -> CrlInfo {
        let text = fs::read(certs.at(CRL)).expect("read");
        CrlInfo::all_from_pem(&text).expect("lists").remove(0)
    }

    #[test]
    fn init_makes_a_ca_and_an_empty_list_and_then_keeps_both() {
        let ((_dir, certs), now) = (empty(), SystemTime::now());
        let first = init(&certs, now);
        assert_eq!((first.ca, first.crl), (Action::Made, Action::Made));
        assert_eq!(first.trust_domain, "dialback.local");
        let ca = fs::read(&first.ca_path).expect("read");
        let second = init(&certs, now + DAY);
        assert_eq!((second.ca, second.crl), (Action::Kept, Action::Kept));
        assert_eq!(fs::read(&first.ca_path).expect("read"), ca);
        let list = newest_list(&certs);
        assert_eq!((list.number, list.revoked.len()), (Some(1), 0));
    }

    #[test]
    fn a_list_is_signed_again_in_its_last_third_with_its_entries_and_the_next_number() {
        let ((_dir, certs), now) = (empty(), SystemTime::now());
        init(&certs, now);
        let entry = RevokedSerial { serial: "40aa".into(), since: now - DAY };
        let ca = certs.ca().expect("a CA");
        let five = ca.crl(&[entry], 5, now, now + 30 * DAY).expect("signed");
        fs::write(certs.at(CRL), five).expect("written");
        assert_eq!(init(&certs, now + 19 * DAY).crl, Action::Kept);
        assert_eq!(init(&certs, now + 21 * DAY).crl, Action::Renewed);
        let list = newest_list(&certs);
        assert_eq!((list.number, list.revoked[0].serial.as_str()), (Some(6), "40aa"));
    }

    #[test]
    fn a_ca_is_replaced_by_force_only() {
        let ((_dir, certs), now) = (empty(), SystemTime::now());
        let before = fs::read(init(&certs, now).ca_key_path).expect("read");
        let forced = InitOptions { force: true, trust_domain: Some("acme.example".into()) };
        let mild = InitOptions { force: false, ..forced.clone() };
        let message = certs.init(&mild, now).expect_err("refused").to_string();
        assert!(message.contains("acme.example") && message.contains("--force"), "{message}");
        let report = certs.init(&forced, now).expect("made");
        assert_eq!((report.ca, report.crl), (Action::Made, Action::Made));
        assert_eq!(certs.ca().expect("a CA").trust_domain(), "acme.example");
        assert_ne!(fs::read(report.ca_key_path).expect("read"), before);
        assert_eq!(newest_list(&certs).issuer, certs.ca().expect("a CA").info().subject);
    }

    #[test]
    fn half_a_ca_is_named_and_not_written_over() {
        let ((_dir, certs), now) = (empty(), SystemTime::now());
        let paths = init(&certs, now);
        for (gone, kept) in
            [(&paths.ca_path, &paths.ca_key_path), (&paths.ca_key_path, &paths.ca_path)]
        {
            let text = fs::read(gone).expect("read");
            fs::remove_file(gone).expect("removed");
            let message =
                certs.init(&InitOptions::default(), now).expect_err("refused").to_string();
            assert!(
                message.contains("is missing beside") && kept.exists() && !gone.exists(),
                "{message}"
            );
            fs::write(gone, text).expect("put back");
        }
        assert_eq!(init(&certs, now).ca, Action::Kept);
    }

    #[test]
    fn an_expired_ca_is_refused_and_replaced_only_by_force() {
        let ((_dir, certs), now) = (empty(), SystemTime::now());
        init(&certs, now);
        let message = certs.init(&InitOptions::default(), now + 4_000 * DAY).expect_err("refused");
        assert!(message.to_string().contains("clock"), "{message}");
    }

    #[test]
    fn inspect_shows_certificates_and_lists_and_reports_a_file_without_any() {
        let ((_dir, certs), now) = (empty(), SystemTime::now());
        let paths = init(&certs, now);
        let shown = |path| inspect(path).expect("read")[0].to_string();
        assert!(shown(&paths.ca_path).contains("CA certificate (path length 0)"));
        assert!(shown(&paths.crl_path).contains("certificate revocation list"));
        let key = shown(&paths.ca_key_path);
        assert!(key.starts_with("private key") && !key.contains("PRIVATE"), "{key}");
        for text in ["", "nothing here", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
            fs::write(certs.dir.join("odd"), text).expect("written");
            assert!(inspect(certs.dir.join("odd")).is_err(), "{text:?} was shown");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_key_of_the_ca() {
        use std::os::unix::fs::PermissionsExt;
        let ((_dir, certs), now) = (empty(), SystemTime::now());
        let mode = fs::metadata(init(&certs, now).ca_key_path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
