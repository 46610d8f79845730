//! Files that are whole or not there: written beside their place, then moved into it.

use super::CertsError;
use crate::tls;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Its owner: 0600 from its first byte on.
    Owner,
    /// Everybody, as the umask has it.
    All,
}

/// Replaces a file as one step: a reader sees the old one or the new one, whole.
pub(super) fn replace(path: &Path, text: &str, audience: Audience) -> Result<(), CertsError> {
    let beside = name_beside(path);
    let written = write_new(&beside, text, audience).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first fault is the one to tell; a temporary file may stay behind.
        drop(fs::remove_file(&beside));
    }
    written.map_err(|error| unwritable(path, error))
}

fn name_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mark = u64::from_be_bytes(tls::random_bytes());
    path.with_file_name(format!(".{name}.{mark:016x}.tmp"))
}

fn write_new(path: &Path, text: &str, audience: Audience) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if audience == Audience::Owner {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = audience;
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Adds a line with one write. Half a line that a crash left behind stays a line of its own.
pub(super) fn append_line(path: &Path, line: &str) -> Result<(), CertsError> {
    let append = || {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let start = if ends_in_half_a_line(&mut file)? { "\n" } else { "" };
        file.write_all(format!("{start}{line}\n").as_bytes())?;
        file.sync_all()
    };
    append().map_err(|error| unwritable(path, error))
}

fn ends_in_half_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(io::SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// The whole of a text file.
pub(super) fn read(path: &Path) -> Result<String, CertsError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => CertsError::NotText { path: path.into() },
        _ => CertsError::Unreadable { path: path.into(), source },
    })
}

/// The whole of a text file, or nothing if there is none.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, CertsError> {
    match read(path) {
        Err(CertsError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Makes the directory if need be, and holds it until the guard is dropped, so that two commands
/// that run at once do not each make a CA.
pub(super) fn hold_dir(dir: &Path) -> Result<Option<File>, CertsError> {
    fs::create_dir_all(dir).map_err(|error| unwritable(dir, error))?;
    // Some systems open no directories and some file systems lock nothing: then nobody is held up.
    let held = File::open(dir).and_then(|opened| opened.lock().map(|()| opened));
    Ok(held.ok())
}

fn unwritable(path: &Path, source: io::Error) -> CertsError {
    CertsError::Unwritable { path: path.into(), source }
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
        assert_eq!(read(&path).expect("read"), "two");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_is_its_owners_alone_also_where_an_open_one_lay() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.key");
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        replace(&path, "new", Audience::Owner).expect("written");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_line_after_half_a_line_stands_by_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.jsonl");
        append_line(&path, "one").expect("written");
        append_line(&path, "two").expect("written");
        assert_eq!(read(&path).expect("read"), "one\ntwo\n");
        fs::write(&path, "one\ntw").expect("written");
        append_line(&path, "three").expect("written");
        assert_eq!(read(&path).expect("read"), "one\ntw\nthree\n");
    }

    #[test]
    fn a_directory_that_is_a_file_is_named_in_the_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("certs");
        fs::write(&path, "").expect("written");
        let error = hold_dir(&path).expect_err("refused");
        assert!(error.to_string().contains("certs"), "{error}");
    }
}
