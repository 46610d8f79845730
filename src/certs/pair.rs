//! Replaces a certificate and its key with two renames; only between them they do not match.

use super::{
    CertsError,
    files::{self, Audience},
    params::key_pair,
};
use crate::{
    durable,
    durable::dir_of,
    tls::{CertificateInfo, requested_key},
};
use rcgen::PublicKeyData;
use std::{
    fs,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Creates the directory of a file if it is missing, and checks that files can be created in it.
pub(crate) fn expect_writable(path: &Path) -> Result<(), CertsError> {
    let dir = dir_of(path);
    drop(files::lock_dir(dir)?);
    let probe = sibling(path, "probe");
    files::replace(&probe, "", Audience::Owner)?;
    fs::remove_file(&probe).map_err(|source| CertsError::Unwritable { path: probe, source })
}

/// Replaces certificate and key; both are written before either is renamed. [`mend_pair`] finishes
/// the work of a process that is killed between the renames.
pub(crate) fn replace_pair(
    cert: &Path,
    cert_pem: &str,
    key: &Path,
    key_pem: &str,
) -> Result<(), CertsError> {
    let _held = files::lock_dir(dir_of(cert))?;
    replace_held(cert, cert_pem, key, key_pem)
}

/// The same in a directory that is held already.
pub(super) fn replace_held(
    cert: &Path,
    cert_pem: &str,
    key: &Path,
    key_pem: &str,
) -> Result<(), CertsError> {
    let next_key = sibling(key, "next");
    files::replace(&next_key, key_pem, Audience::Owner)?;
    install_held(cert, cert_pem, key, &next_key)
}

/// Installs a certificate together with its requested key, which replaces the key in use.
pub(super) fn install_held(
    cert: &Path,
    cert_pem: &str,
    key: &Path,
    next_key: &Path,
) -> Result<(), CertsError> {
    let next_cert = sibling(cert, "next");
    files::replace(&next_cert, cert_pem, Audience::All)?;
    rename(next_key, key)?;
    rename(&next_cert, cert)
}

/// Writes a requested key next to the one in use, with the same permissions.
pub(super) fn write_requested_held(key: &Path, key_pem: &str) -> Result<(), CertsError> {
    let path = requested_key(key);
    crate::files::replace_as(&path, key_pem, Audience::KeyAsBefore, key)
        .map_err(|source| CertsError::Unwritable { path, source })
}

/// Replaces a world-readable file: a CA's certificate, a revocation list.
pub(crate) fn replace_public(path: &Path, pem: &str) -> Result<(), CertsError> {
    files::replace(path, pem, Audience::All)
}

/// Report of [`mend_pair`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mended {
    /// Nothing was pending.
    Nothing,
    /// A replacement of certificate and key had been interrupted between the two, and is finished.
    Replacement,
    /// The certificate of a requested key has arrived, and that key is now in use.
    Request,
}

/// Finishes an interrupted replacement of certificate and key, or installs a requested key whose
/// certificate has arrived. Must be called before the files are loaded.
///
/// # Errors
/// Files that cannot be read or written.
pub fn mend_pair(cert: &Path, key: &Path) -> Result<Mended, CertsError> {
    if !sibling(cert, "next").exists() && !requested_key(key).exists() {
        return Ok(Mended::Nothing);
    }
    let _held = files::lock_dir(dir_of(cert))?;
    mend_held(cert, key)
}

/// The same in a directory that is held already.
pub(super) fn mend_held(cert: &Path, key: &Path) -> Result<Mended, CertsError> {
    let (next, requested) = (sibling(cert, "next"), requested_key(key));
    if is_pair(&next, key)? {
        rename(&next, cert)?;
        return Ok(Mended::Replacement);
    }
    if is_pair(cert, &requested)? {
        rename(&requested, key)?;
        return Ok(Mended::Request);
    }
    Ok(Mended::Nothing)
}

fn is_pair(cert: &Path, key: &Path) -> Result<bool, CertsError> {
    let Some(cert) = files::read_pem(cert)? else { return Ok(false) };
    let Some(key) = files::read_pem(key)?.map(Zeroizing::new) else { return Ok(false) };
    let leaf = CertificateInfo::all_from_pem(&cert).unwrap_or_default();
    let key = key_pair(&key).ok().flatten().map(|key| key.subject_public_key_info());
    Ok(leaf.first().zip(key).is_some_and(|(leaf, key)| leaf.has_public_key(&key)))
}

/// `.agent-warehouse.pem.next`: does not end in `.pem`, so that it is not taken for a certificate.
pub(super) fn sibling(path: &Path, mark: &str) -> PathBuf {
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
        let profile = LeafProfile::new("d", &"agent/a".parse().expect("a peer"), &[], now);
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
    fn a_pair_is_replaced_and_no_temporary_file_stays() {
        let (ca, leafs) = leafs();
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        for leaf in &leafs {
            replace_pair(&cert, &leaf.cert, &key, &leaf.key).expect("written");
            assert!(is_good(dir.path(), &ca));
        }
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 2);
        assert_eq!(mend_pair(&cert, &key).expect("looked"), Mended::Nothing);
    }

    #[test]
    fn a_pair_whose_writer_ended_between_its_renames_is_mended_and_another_is_left_alone() {
        let (ca, [old, new]) = leafs();
        let dir = tempfile::tempdir().expect("a directory");
        let (cert, key) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        replace_pair(&cert, &old.cert, &key, &old.key).expect("written");
        fs::write(sibling(&cert, "next"), &new.cert).expect("written");
        assert_eq!(mend_pair(&cert, &key).expect("looked"), Mended::Nothing);
        assert!(is_good(dir.path(), &ca));
        fs::write(&key, new.key.as_bytes()).expect("written");
        assert!(!is_good(dir.path(), &ca), "it does not match now");
        assert_eq!(mend_pair(&cert, &key).expect("mended"), Mended::Replacement);
        assert!(is_good(dir.path(), &ca));
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
