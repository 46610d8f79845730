//! Logs the keys of links and tunnels for Wireshark, in the format that NSS introduced
//! (<https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-05.html>). Only if asked for.

use super::hex::push_hex;
use rustls::{KeyLog, NoKeyLog};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Of the process. Set before a configuration is made, it holds for all of them.
static KEY_LOG: OnceLock<Arc<dyn KeyLog>> = OnceLock::new();

/// What new TLS configurations of links and tunnels log their keys to.
pub(super) fn key_log() -> Arc<dyn KeyLog> {
    KEY_LOG.get().cloned().unwrap_or_else(|| Arc::new(NoKeyLog {}))
}

/// Appends the TLS keys of all links and tunnels that this process makes from now on to a file,
/// with which Wireshark decrypts a recording of them.
///
/// For a diagnosis, and not for production: everyone who has the file reads and, while a link is
/// up, can forge everything on it. The file is created with mode 0600. Keys of HTTPS at the
/// gateway, of HTTPS to upstreams and of enrolment are not in it.
///
/// # Errors
/// The file cannot be opened, others may read it, or keys are logged already.
pub fn log_tls_keys(path: &Path) -> io::Result<()> {
    let log = KeyFile { file: open(path)?, has_failed: AtomicBool::new(false) };
    let set = KEY_LOG.set(Arc::new(log));
    set.map_err(|_| io::Error::other("TLS keys are logged to another file already"))?;
    tracing::warn!(
        file = %path.display(),
        "the TLS keys of links and tunnels are logged to {}: everyone who has this file can decrypt all that is sent on them, also from a recording; remove it when the diagnosis is over",
        path.display()
    );
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions());
        if mode & 0o077 != 0 {
            let text = format!("other users may open it (mode {:o}); run chmod 600", mode & 0o777);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    Ok(file)
}

#[derive(Debug)]
struct KeyFile {
    file: File,
    /// True once the log has a line about it.
    has_failed: AtomicBool,
}

impl KeyLog for KeyFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let bytes = label.len() + 2 * (client_random.len() + secret.len()) + 3;
        let mut line = String::with_capacity(bytes);
        line.push_str(label);
        for part in [client_random, secret] {
            line.push(' ');
            push_hex(&mut line, part);
        }
        line.push('\n');
        // In one write: lines of other handshakes do not come between.
        if let Err(error) = (&self.file).write_all(line.as_bytes())
            && !self.has_failed.swap(true, Relaxed)
        {
            tracing::warn!(reason = %error, "TLS keys cannot be logged: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_label_client_random_and_secret() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        let log = KeyFile { file: open(&path).expect("a file"), has_failed: AtomicBool::default() };
        log.log("CLIENT_RANDOM", &[0xab; 2], &[1, 2]);
        log.log("EXPORTER_SECRET", &[0], &[0xff]);
        let text = std::fs::read_to_string(&path).expect("a text");
        assert_eq!(text, "CLIENT_RANDOM abab 0102\nEXPORTER_SECRET 00 ff\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_of_its_owner_alone_and_one_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        drop(open(&path).expect("a file"));
        let mode = |path: &Path| std::fs::metadata(path).expect("it").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        let fault = open(&path).expect_err("refused").to_string();
        assert!(fault.contains("mode 640") && fault.contains("chmod 600"), "{fault}");
    }
}
