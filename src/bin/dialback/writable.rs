//! Directories that the process has to write to.

#[cfg(not(unix))]
use std::fs;
use std::path::Path;

/// Why a node cannot keep state in a directory, and the remedy; `None` if it can, or can make it.
pub(crate) fn state_fault(dir: &Path) -> Option<[String; 2]> {
    let existing =
        dir.ancestors().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let existing = existing.into_iter().find(|dir| dir.exists()).unwrap_or(dir);
    let (dir, found) = (dir.display(), existing.display());
    (!is_writable(existing)).then(|| {
        [
            format!("{found} is not a directory that this user can write to"),
            format!("create {dir} for the user of the node, or choose another with --state"),
        ]
    })
}

#[cfg(unix)]
pub(crate) fn is_writable(dir: &Path) -> bool {
    use rustix::fs::{Access, access};
    dir.is_dir() && access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
pub(crate) fn is_writable(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|found| found.is_dir() && !found.permissions().readonly())
}
