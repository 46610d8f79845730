//! A certificate and its key, replaced together: a reader finds a pair that does not match for the moment between two renames only.

use super::{
    CertsError,
    ca::key_pair,
    files::{self, Audience},
};
use crate::{durable, files::dir_of, tls::CertificateFacts};
use rcgen::PublicKeyData;
use std::{
    fs,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Makes the directory of a file if need be, and says whether files can be made in it.
pub(crate) fn expect_writable(path: &Path) -> Result<(), CertsError> {
    let dir = dir_of(path);
    drop(files::hold_dir(dir)?);
    let probe = beside(path, "probe");
    files::replace(&probe, "", Audience::Owner)?;
    fs::remove_file(&probe).map_err(|source| CertsError::Unwritable { path: probe, source })
}

/// Replaces certificate and key. Both are whole on the disk before either is in its place.
///
/// A process that ends between the two renames leaves a pair that does not match; [`mend_pair`] finishes its work.
pub(crate) fn replace_pair(
    cert: &Path,
    cert_pem: &str,
    key: &Path,
    key_pem: &str,
) -> Result<(), CertsError> {
    let _held = files::hold_dir(dir_of(cert))?;
    let (next_cert, next_key) = (beside(cert, "next"), beside(key, "next"));
    files::replace(&next_key, key_pem, Audience::Owner)?;
    files::replace(&next_cert, cert_pem, Audience::All)?;
    rename(&next_key, key)?;
    rename(&next_cert, cert)
}

/// Replaces a file that everybody may read: a CA's certificate, a revocation list.
pub(crate) fn replace_public(path: &Path, pem: &str) -> Result<(), CertsError> {
    files::replace(path, pem, Audience::All)
}

/// Finishes what [`replace_pair`] had begun when its process ended. Says whether there was anything to finish.
pub(crate) fn mend_pair(cert: &Path, key: &Path) -> Result<bool, CertsError> {
    let next = beside(cert, "next");
    if !next.exists() {
        return Ok(false);
    }
    let _held = files::hold_dir(dir_of(cert))?;
    let Some(text) = files::read_pem(&next)? else { return Ok(false) };
    let is_pair = is_pair(&text, &Zeroizing::new(files::read_pem(key)?.unwrap_or_default()));
    if is_pair {
        rename(&next, cert)?;
    }
    Ok(is_pair)
}

fn is_pair(cert_pem: &[u8], key_pem: &[u8]) -> bool {
    let leaf = CertificateFacts::all_from_pem(cert_pem).unwrap_or_default();
    let key = key_pair(key_pem).ok().flatten();
    let key = key.map(|key| key.subject_public_key_info());
    leaf.first().zip(key).is_some_and(|(leaf, key)| leaf.has_public_key(&key))
}

/// `.agent-warehouse.pem.next`: no `.pem` at its end, so that it is nobody's certificate yet.
pub(super) fn beside(path: &Path, mark: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{mark}"))
}

fn rename(from: &Path, to: &Path) -> Result<(), CertsError> {
    durable::rename(from, to).map_err(|source| CertsError::Unwritable { path: to.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certs::{Ca, LeafPem, LeafProfile},
        tls::{CredentialPem, Credentials, CrlScope},
    };
    use std::time::SystemTime;

    fn leafs() -> (Ca, [LeafPem; 2]) {
        let now = SystemTime::now();
        let ca = Ca::generate("d", now).expect("made");
        let profile = LeafProfile::new("d", &"agent/a".parse().expect("a party"), &[], now);
        let leafs = std::array::from_fn(|_| ca.leaf(&profile).expect("signed"));
        (ca, leafs)
    }

    fn is_good(dir: &Path, ca: &Ca) -> bool {
        let read = |name| fs::read(dir.join(name)).expect("read");
        let (cert, key) = (read("a.pem"), read("a.key"));
        let ca = ca.pem().as_bytes();
        let pem = CredentialPem {
            cert: &cert,
            key: &key,
            ca,
            node_ca: None,
            crl: None,
            crl_scope: CrlScope::Leaf,
        };
        Credentials::from_pem(&pem).is_ok()
    }

    #[test]
    fn a_pair_is_replaced_and_nothing_stays_beside_it() {
        let (ca, leafs) = leafs();
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        for leaf in &leafs {
            replace_pair(&cert, &leaf.cert, &key, &leaf.key).expect("written");
            assert!(is_good(dir.path(), &ca));
        }
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 2);
        assert!(!mend_pair(&cert, &key).expect("looked"));
    }

    #[test]
    fn a_pair_whose_writer_ended_between_its_renames_is_mended_and_another_is_left_alone() {
        let (ca, [old, new]) = leafs();
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        replace_pair(&cert, &old.cert, &key, &old.key).expect("written");
        fs::write(beside(&cert, "next"), &new.cert).expect("written");
        assert!(!mend_pair(&cert, &key).expect("looked"), "the key is still the old one");
        assert!(is_good(dir.path(), &ca));
        fs::write(&key, new.key.as_bytes()).expect("written");
        assert!(!is_good(dir.path(), &ca), "it does not match now");
        assert!(mend_pair(&cert, &key).expect("mended") && is_good(dir.path(), &ca));
    }

    #[test]
    fn a_directory_is_made_and_one_that_cannot_be_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        expect_writable(&dir.path().join("certs/a.pem")).expect("made");
        assert_eq!(fs::read_dir(dir.path().join("certs")).expect("listed").count(), 0);
        fs::write(dir.path().join("file"), "").expect("written");
        assert!(expect_writable(&dir.path().join("file/a.pem")).is_err());
    }
}
