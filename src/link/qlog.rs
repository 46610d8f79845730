//! qlog: the packets and the recovery of each QUIC connection, for qvis and Wireshark
//! (<https://datatracker.ietf.org/doc/draft-ietf-quic-qlog-main-schema/>). Only if asked for.

use crate::limits::{QLOG_FILE_BYTES_MAX, QLOG_FILES_MAX};
use quinn::{QlogConfig, TransportConfig};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

/// Of the process. Set before a connection is made, it holds for all of them.
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
static FILES: AtomicU32 = AtomicU32::new(0);

/// Writes what QUIC does on all links that this process makes from now on to files in a directory,
/// one a connection: `PID-NUMBER.sqlog`, with mode 0600.
///
/// For a diagnosis, and not for production: connections wait for the file system. The files show
/// when and how much peers send, and not what. Each has 64 MiB at most, and the first 1,000
/// connections have one, of clients that are not authenticated too.
///
/// # Errors
/// The directory cannot be made or written, or another one is in use.
pub fn write_qlog(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let probe = directory.join(format!("{}-probe.sqlog", std::process::id()));
    drop(open(&probe)?);
    fs::remove_file(&probe)?;
    let set = DIRECTORY.set(directory.into());
    set.map_err(|_| io::Error::other("qlog is written to another directory already"))?;
    tracing::warn!(
        directory = %directory.display(),
        "qlog of every link is written to {}: its files show who sends how much and when, they grow with the traffic, and connections wait for them; remove them when the diagnosis is over",
        directory.display()
    );
    Ok(())
}

/// Has a connection with these settings write its file, if that was asked for.
pub(super) fn attach(transport: &mut TransportConfig) {
    let Some(directory) = DIRECTORY.get() else { return };
    let number = FILES.fetch_add(1, Relaxed);
    if number >= QLOG_FILES_MAX {
        if number == QLOG_FILES_MAX {
            tracing::warn!(
                files = QLOG_FILES_MAX,
                "no more qlog files are written: {QLOG_FILES_MAX} were"
            );
        }
        return;
    }
    let path = directory.join(format!("{}-{number}.sqlog", std::process::id()));
    match open(&path) {
        Ok(file) => {
            let mut config = QlogConfig::default();
            config.writer(Box::new(BoundedFile::new(file))).title(Some("dialback".into()));
            transport.qlog_stream(config.into_stream());
        }
        Err(error) => tracing::warn!(
            file = %path.display(),
            reason = %error,
            "qlog file {} is not written: {error}",
            path.display()
        ),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A file that takes only so many bytes. The rest is left out.
struct BoundedFile {
    file: BufWriter<File>,
    left: u64,
}

impl BoundedFile {
    fn new(file: File) -> Self {
        Self { file: BufWriter::new(file), left: QLOG_FILE_BYTES_MAX }
    }
}

impl Write for BoundedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                self.left = left;
                self.file.write_all(bytes)?;
            }
            // Not a later and shorter piece either.
            None => self.left = 0,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_so_many_bytes_and_leaves_out_the_rest() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.sqlog");
        let mut file = BoundedFile { left: 4, ..BoundedFile::new(open(&path).expect("a file")) };
        for piece in ["abc", "de", "f"] {
            file.write_all(piece.as_bytes()).expect("taken");
        }
        drop(file);
        assert_eq!(fs::read_to_string(&path).expect("a text"), "abc");
        assert!(open(&path).is_err(), "an older file is not written over");
    }
}
