//! The key of an enrolment without a certificate yet, kept so that a lost answer can be requested.

use super::{
    CertsError, KeyRequest,
    files::{self, Audience},
    pair,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The file of such a key: `.agent-warehouse.key.pending`, which is not mistaken for a key in use.
pub(crate) struct PendingKey {
    path: PathBuf,
}

impl PendingKey {
    pub(crate) fn for_key(key: &Path) -> Self {
        Self { path: pair::sibling(key, "pending") }
    }

    /// The key that an earlier run kept, if there is one.
    pub(crate) fn load(&self) -> Result<Option<KeyRequest>, CertsError> {
        let kept = files::read_if_there(&self.path)?.map(Zeroizing::new);
        Ok(kept.and_then(|pem| KeyRequest::from_pem(&pem).ok()))
    }

    /// Makes a new key, which is kept from here on. A file that is there is replaced.
    pub(crate) fn make(&self) -> Result<KeyRequest, CertsError> {
        let key = KeyRequest::generate()?;
        files::replace(&self.path, &key.key_pem, Audience::Owner)?;
        Ok(key)
    }

    /// Removes it: its certificate is installed, or was refused.
    pub(crate) fn remove(&self) -> Result<(), CertsError> {
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CertsError::Unwritable { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_key_stays_the_same_until_it_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let pending = PendingKey::for_key(&dir.path().join("agent-a.key"));
        assert!(pending.load().expect("looked").is_none());
        let first = pending.make().expect("made");
        let again = pending.load().expect("looked").expect("kept");
        assert_eq!(*first.key_pem, *again.key_pem);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&pending.path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        pending.remove().expect("removed");
        pending.remove().expect("nothing to remove");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 0);
        assert_ne!(*pending.make().expect("made").key_pem, *first.key_pem);
    }

    #[test]
    fn a_pending_file_without_a_key_holds_none_and_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let pending = PendingKey::for_key(&dir.path().join("agent-a.key"));
        fs::write(&pending.path, "half a k").expect("written");
        assert!(pending.load().expect("looked").is_none());
        let made = pending.make().expect("made");
        let kept = pending.load().expect("looked").expect("kept");
        assert_eq!(*kept.key_pem, *made.key_pem);
    }
}
