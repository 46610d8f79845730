//! Files that are whole or not there: written beside their place, then moved into it. And who may
//! get at a file.

use crate::{durable, tls};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "certs", feature = "gateway")),
    expect(dead_code, reason = "certificates and tokens are written for audiences of their own")
)]
pub(crate) enum Audience {
    /// Its owner: 0600 from its first byte on.
    Owner,
    /// Everybody, as the umask has it.
    All,
    /// Whoever could read the file that it replaces, with the same owner; its owner alone if there
    /// was none.
    AsBefore,
    /// The same for a private key, without what lets others read it or the group write it.
    KeyAsBefore,
}

/// Replaces a file as one step: a reader sees the old one or the new one, whole.
pub(crate) fn replace(path: &Path, text: &str, audience: Audience) -> io::Result<()> {
    replace_as(path, text, audience, path)
}

/// The same for a file that is going to replace another later: `AsBefore` then means as that one.
pub(crate) fn replace_as(
    path: &Path,
    text: &str,
    audience: Audience,
    model: &Path,
) -> io::Result<()> {
    let beside = name_beside(path);
    let written = write_new(&beside, text, audience)
        .and_then(|file| match audience {
            Audience::AsBefore => made_alike(&file, model, 0o7777),
            Audience::KeyAsBefore => made_alike(&file, model, !0o027),
            Audience::Owner | Audience::All => Ok(()),
        })
        .and_then(|()| durable::rename(&beside, path));
    if written.is_err() {
        // The first fault is the one to tell; a temporary file may stay behind.
        drop(fs::remove_file(&beside));
    }
    written
}

fn name_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mark = u64::from_be_bytes(tls::random_bytes());
    path.with_file_name(format!(".{name}.{mark:016x}.tmp"))
}

fn write_new(path: &Path, text: &str, audience: Audience) -> io::Result<File> {
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
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(file)
}

/// Gives a new file the owner and the mode of the one that it is going to replace: a party that
/// runs as another user goes on reading it.
#[cfg(unix)]
fn made_alike(file: &File, path: &Path, mask: u32) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let old = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        old => old?,
    };
    let new = file.metadata()?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    // After the owner: a change of that may take bits away.
    file.set_permissions(fs::Permissions::from_mode(old.permissions().mode() & mask))
}

#[cfg(not(unix))]
fn made_alike(_: &File, _: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

/// Makes the directory if need be, and holds it until the guard is dropped, so that of two commands
/// that run at once one waits for the other.
pub(crate) fn hold_dir(dir: &Path) -> io::Result<Option<File>> {
    fs::create_dir_all(dir)?;
    // Some systems open no directories and some file systems lock nothing: then nobody is held up.
    let held = File::open(dir).and_then(|opened| opened.lock().map(|()| opened));
    Ok(held.ok())
}

/// The directory of a file: `.` for a bare name.
pub(crate) fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.pem");
        replace(&path, "one", Audience::All).expect("written");
        replace(&path, "two", Audience::All).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), "two");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("taken");
        fs::create_dir(&path).expect("made");
        assert!(replace(&path, "text", Audience::Owner).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_is_its_owners_alone_and_another_file_as_open_as_it_was() {
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
