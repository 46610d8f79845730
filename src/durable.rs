//! Renames that survive a power loss.

use std::{fs, io, path::Path};

/// Renames a file and syncs the directory; without that a power failure may undo it (fsync(2)). If
/// only the sync failed, the file already has its new name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(dir_of(to))
}

/// Directory of a file: `.` for a bare name.
pub(crate) fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    match fs::File::open(dir)?.sync_all() {
        // Some file systems cannot sync a directory.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// Other systems do not open directories as files.
#[cfg(not(unix))]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_renamed_and_a_missing_one_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "text").expect("written");
        rename(&from, &to).expect("renamed");
        assert_eq!(fs::read_to_string(&to).expect("there"), "text");
        assert_eq!(rename(&from, &to).map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
    }
}
