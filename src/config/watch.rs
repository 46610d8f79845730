//! Watches files for changed contents.
//!
//! Compares contents twice a second: modification times do not change when a mounted secret's
//! directory or link is swapped, and not every mount sends events.

use crate::{
    drain::blocking,
    limits::{RELOAD_CHECK_EVERY, WATCHED_BYTES_MAX},
    tls::open_regular,
};
use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    io::Read,
    path::{Path, PathBuf},
};

/// Runs file reads on the runtime's blocking threads, so that an unresponsive mount delays nothing
/// else. `None` if the work panicked. If dropped, the work continues to its end.
pub async fn read_aside<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    blocking(read).await
}

/// Hash of the contents of all files. A file that cannot be read counts as its error.
fn hash_of(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        read(file, &mut hasher).map_err(|error| error.kind()).hash(&mut hasher);
    }
    hasher.finish()
}

fn read(file: &Path, hasher: &mut impl Hasher) -> std::io::Result<u64> {
    let (mut file, mut bytes) = (open_regular(file)?.take(WATCHED_BYTES_MAX), [0; 16 * 1024]);
    let mut count = 0;
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(count),
            some => {
                hasher.write(&bytes[..some]);
                count += some as u64;
            }
        }
    }
}

#[derive(Debug)]
struct SeenContents {
    reported: u64,
    last: u64,
}

impl SeenContents {
    /// True if the contents are new and stable: certificate and key are not written at once.
    fn look(&mut self, now: u64) -> bool {
        let holds_still = std::mem::replace(&mut self.last, now) == now;
        let is_news = holds_still && now != self.reported;
        if is_news {
            self.reported = now;
        }
        is_news
    }
}

/// Watches files, from before they are first read. Reports each change once; a fix is another.
#[derive(Debug)]
pub struct Watch {
    files: Vec<PathBuf>,
    seen: SeenContents,
}

impl Watch {
    /// Starts with the current contents.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let now = hash_of(&files);
        Self { files, seen: SeenContents { reported: now, last: now } }
    }

    /// Completes when the contents differ from the last report and have been stable for 0.5 s. May
    /// be dropped and called again. Reads every file each half second, on blocking threads.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep(RELOAD_CHECK_EVERY).await;
            let files = self.files.clone();
            let now = blocking(move || hash_of(&files)).await;
            if now.is_some_and(|now| self.seen.look(now)) {
                return;
            }
        }
    }

    /// Takes the present contents as reported; the caller is about to read them.
    pub async fn take(&mut self) {
        self.begin(self.files.clone()).await;
    }

    /// Watches these files from now on. Returns true if they differ from the previous ones, which
    /// then must be read once more, so that no change is missed.
    pub async fn follow(&mut self, files: Vec<PathBuf>) -> bool {
        let are_others = files != self.files;
        if are_others {
            self.begin(files).await;
        }
        are_others
    }

    async fn begin(&mut self, files: Vec<PathBuf>) {
        if let Some(begun) = blocking(move || Self::new(files)).await {
            *self = begun;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_change_is_reported_once_after_it_has_settled() {
        let [a, b, c] = [1, 2, 3];
        let mut seen = SeenContents { reported: a, last: a };
        let reported: Vec<bool> = [a, b, c, c, c, b, c, c, a, a].map(|now| seen.look(now)).into();
        assert_eq!(reported, [false, false, false, true, false, false, false, false, false, true]);
    }

    #[cfg(unix)]
    #[test]
    fn a_swapped_symbolic_link_a_removed_file_and_a_new_file_are_changes() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for (version, text) in [("one", "1"), ("two", "2")] {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("cert"), text).expect("written");
        }
        symlink("one", at("data")).expect("linked");
        let files = [at("data/cert"), at("absent")];
        let mut before = hash_of(&files);
        let mut has_changed = || std::mem::replace(&mut before, hash_of(&files)) != hash_of(&files);
        assert!(!has_changed());
        symlink("two", at("next")).expect("linked");
        fs::rename(at("next"), at("data")).expect("swapped");
        assert!(has_changed());
        fs::write(at("absent"), "").expect("written");
        assert!(has_changed());
        fs::remove_file(at("two/cert")).expect("removed");
        assert!(has_changed() && !has_changed());
    }
}
