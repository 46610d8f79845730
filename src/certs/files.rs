//! The files of a certificates' directory, as in `crate::files`, with faults that name the file.

use super::CertsError;
use crate::files;
pub(super) use crate::files::Audience;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::Path,
};

/// Replaces a file atomically: a reader sees all of the old one or all of the new one.
pub(super) fn replace(path: &Path, text: &str, audience: Audience) -> Result<(), CertsError> {
    files::replace(path, text, audience).map_err(|error| unwritable(path, error))
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

pub(super) fn read(path: &Path) -> Result<String, CertsError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => CertsError::NotText { path: path.into() },
        _ => CertsError::Unreadable { path: path.into(), source },
    })
}

/// The whole of a text file, or nothing if there is none.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, CertsError> {
    none_if_missing(read(path))
}

/// The bytes of a PEM file, or nothing if there is none. Other text in it need not be UTF-8.
pub(crate) fn read_pem(path: &Path) -> Result<Option<Vec<u8>>, CertsError> {
    none_if_missing(read_bytes(path))
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, CertsError> {
    fs::read(path).map_err(|source| CertsError::Unreadable { path: path.into(), source })
}

fn none_if_missing<T>(read: Result<T, CertsError>) -> Result<Option<T>, CertsError> {
    match read {
        Err(CertsError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Makes the directory if need be and locks it, so that two commands do not each make a CA.
pub(super) fn lock_dir(dir: &Path) -> Result<Option<File>, CertsError> {
    files::lock_dir(dir).map_err(|error| unwritable(dir, error))
}

fn unwritable(path: &Path, source: io::Error) -> CertsError {
    CertsError::Unwritable { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_after_a_partial_line_is_separate() {
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
    fn a_file_in_place_of_the_directory_is_named_in_the_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("certs");
        fs::write(&path, "").expect("written");
        let error = lock_dir(&path).expect_err("refused");
        assert!(error.to_string().contains("certs"), "{error}");
    }
}
