//! Files that are replaced in one step, as a temporary file that is renamed, and their permissions.

use crate::{durable, tls};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Users who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "certs", feature = "gateway")),
    expect(dead_code, reason = "certificates and tokens are written for audiences of their own")
)]
pub(crate) enum Audience {
    /// The owner: mode 0600 from the first byte on.
    Owner,
    /// All users, subject to the umask.
    All,
    /// The users who could read the replaced file, with the same owner; only the owner if there was
    /// none.
    AsBefore,
    /// The same for a private key, without read access for others and write access for the group.
    KeyAsBefore,
}

/// Replaces a file in one step: a reader sees the complete old one or the complete new one.
pub(crate) fn replace(
    path: &Path,
    contents: impl AsRef<[u8]>,
    audience: Audience,
) -> io::Result<()> {
    replace_as(path, contents, audience, path)
}

/// As [`replace`], for a file that will replace `model`, the source of `AsBefore`'s owner and mode.
pub(crate) fn replace_as(
    path: &Path,
    contents: impl AsRef<[u8]>,
    audience: Audience,
    model: &Path,
) -> io::Result<()> {
    let temporary = temporary_name(path);
    let written = write_new(&temporary, contents.as_ref(), audience)
        .and_then(|file| match audience {
            Audience::AsBefore => copy_owner_and_mode(&file, model, 0o7777),
            Audience::KeyAsBefore => copy_owner_and_mode(&file, model, !0o027),
            Audience::Owner | Audience::All => Ok(()),
        })
        .and_then(|()| durable::rename(&temporary, path));
    if written.is_err() {
        // The first error is returned; a temporary file may be left.
        drop(fs::remove_file(&temporary));
    }
    written
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mark = u64::from_be_bytes(tls::random_bytes());
    path.with_file_name(format!(".{name}.{mark:016x}.tmp"))
}

fn write_new(path: &Path, contents: &[u8], audience: Audience) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if audience != Audience::All {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = audience;
    let mut file = options.open(path)?;
    file.write_all(contents)?;
    file.sync_all()?;
    Ok(file)
}

/// Gives a new file the owner and mode of the replaced one, for processes of another user.
#[cfg(unix)]
fn copy_owner_and_mode(file: &File, path: &Path, mask: u32) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let old = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        old => old?,
    };
    let new = file.metadata()?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    // After the owner, because changing the owner may clear mode bits.
    file.set_permissions(fs::Permissions::from_mode(old.permissions().mode() & mask))
}

#[cfg(not(unix))]
fn copy_owner_and_mode(_: &File, _: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

/// Creates a directory if it is missing, and locks it until the guard is dropped, so that of two
/// commands at once one waits for the other.
#[cfg(any(feature = "certs", feature = "gateway"))]
pub(crate) fn lock_dir(dir: &Path) -> io::Result<Option<File>> {
    fs::create_dir_all(dir)?;
    Ok(locked(dir).ok())
}

/// Fails on file systems without locks.
#[cfg(all(unix, any(feature = "certs", feature = "gateway")))]
fn locked(dir: &Path) -> io::Result<File> {
    use rustix::fs::{FlockOperation, flock};
    let opened = File::open(dir)?;
    flock(&opened, FlockOperation::LockExclusive)?;
    Ok(opened)
}

/// Directories do not open as files here.
#[cfg(all(not(unix), any(feature = "certs", feature = "gateway")))]
fn locked(_: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_complete_and_no_temporary_file_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.pem");
        replace(&path, "one", Audience::All).expect("written");
        replace(&path, "two", Audience::All).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), "two");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_failed_replacement_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("taken");
        fs::create_dir(&path).expect("made");
        assert!(replace(&path, "text", Audience::Owner).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_replaced_file_keeps_its_mode_and_a_key_stays_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.key");
        let mode_after = |audience| {
            replace(&path, "new", audience).expect("written");
            fs::metadata(&path).expect("there").permissions().mode() & 0o777
        };
        assert_eq!(mode_after(Audience::AsBefore), 0o600, "nothing was there");
        for before in [0o644, 0o640, 0o400] {
            let mode = fs::Permissions::from_mode(before);
            fs::set_permissions(&path, mode.clone()).expect("changed");
            assert_eq!(mode_after(Audience::AsBefore), before);
            assert_eq!(mode_after(Audience::KeyAsBefore), before & 0o640);
            fs::set_permissions(&path, mode).expect("changed");
            assert_eq!(mode_after(Audience::Owner), 0o600);
        }
    }
}
