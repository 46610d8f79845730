//! Reads the file of a proxy's password, after a check of its mode as for private keys.

use crate::{limits::PROXY_PASSWORD_BYTES_MAX, tls};
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Error of the file of a proxy's password, with the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyPasswordError {
    /// The URL of the proxy has no user.
    #[error(
        "the proxy's password in {} is for no user; write the proxy as http://USER@HOST:PORT", path.display()
    )]
    NoUser {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("the proxy's password: cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Other users can read the password, or the group can replace it.
    #[error(
        "{path} has mode {mode:04o}, so other users can access the proxy's password; fix it with `chmod 600 {path}`",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is not the file of a password.
    #[error(
        "{} is too large for the file of a password: more than {} KiB", path.display(), PROXY_PASSWORD_BYTES_MAX >> 10
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// Returns the text of a file without the line ends after it.
pub(super) fn read_password(path: &Path) -> Result<String, ProxyPasswordError> {
    let unreadable = |source| ProxyPasswordError::Unreadable { path: path.into(), source };
    let file = tls::open_regular(path).map_err(unreadable)?;
    if let Some(mode) = tls::exposed_mode(&file).map_err(unreadable)? {
        return Err(ProxyPasswordError::Exposed { path: path.into(), mode });
    }
    let mut text = String::new();
    file.take(PROXY_PASSWORD_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > PROXY_PASSWORD_BYTES_MAX {
        return Err(ProxyPasswordError::TooLarge { path: path.into() });
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A file with these contents that only its owner may read.
    fn password_file(contents: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("password");
        fs::write(&path, contents).expect("written");
        set_mode(&path, 0o600);
        (dir, path)
    }

    #[cfg(unix)]
    fn set_mode(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    }

    #[cfg(not(unix))]
    fn set_mode(_: &Path, _: u32) {}

    #[test]
    fn line_ends_are_removed_and_spaces_stay() {
        let (_dir, path) = password_file(b" p:w \r\n\n");
        assert_eq!(read_password(&path).expect("a password"), " p:w ");
    }

    #[test]
    fn a_file_over_the_limit_is_refused_and_one_at_it_is_read() {
        let most = usize::try_from(PROXY_PASSWORD_BYTES_MAX).expect("a size");
        let (_dir, path) = password_file(&vec![b'x'; most]);
        assert_eq!(read_password(&path).expect("a password").len(), most);
        let (_dir, path) = password_file(&vec![b'x'; most + 1]);
        let error = read_password(&path).expect_err("refused").to_string();
        assert!(error.contains("more than 4 KiB"), "{error}");
    }

    #[test]
    fn a_missing_file_a_directory_and_other_bytes_are_named() {
        let (dir, path) = password_file(&[0xff]);
        for unreadable in [dir.path(), &path, &dir.path().join("gone")] {
            let error = read_password(unreadable).expect_err("refused");
            assert!(matches!(error, ProxyPasswordError::Unreadable { .. }), "{error}");
            let path = unreadable.display().to_string();
            assert!(error.to_string().contains(&path), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_password_that_others_can_read_or_the_group_can_replace_is_refused() {
        let (_dir, path) = password_file(b"secret");
        for fit in [0o600, 0o640, 0o400, 0o440] {
            set_mode(&path, fit);
            assert!(read_password(&path).is_ok(), "{fit:o} was refused");
        }
        for unfit in [0o644, 0o660, 0o604, 0o602, 0o666] {
            set_mode(&path, unfit);
            let error = read_password(&path).expect_err("refused").to_string();
            assert!(error.contains(&format!("mode {unfit:04o}")), "{error}");
            assert!(error.contains("chmod 600") && !error.contains("secret"), "{error}");
        }
    }
}
