//! Changes the file of bearer tokens: adds or removes a token atomically, keeps other lines.

use super::{
    BearerToken, TokenInfo, TokensError,
    file::{parse, read_line, read_text},
};
use crate::{
    durable::dir_of,
    files::{self, Audience},
    limits::{BEARER_FILE_BYTES_MAX, BEARER_TOKENS_MAX, BEARER_TTL_MAX},
    name::Name,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Header of a new file.
const HEAD: &str = "\
# Bearer tokens of callers: NAME SHA-256 CREATED EXPIRES, one a line. `dialback token create` adds one.
# The tokens are not in here: only their hashes are.
";

/// A file of tokens, to be changed. Two that change it at once wait for each other.
#[derive(Debug, Clone)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// Names the file. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes a token for a caller, good until `ttl` from `now`, and adds its line. Makes file and
    /// directory if need be, for their owner alone; an existing file keeps owner, mode and other
    /// lines. The returned token is the only copy: the file holds its hash.
    ///
    /// # Errors
    /// No time or more than 366 days, a file that is full or faulty, or one that cannot be written.
    /// Nothing has changed then.
    pub fn create(
        &self,
        name: &Name,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<BearerToken, TokensError> {
        if ttl < Duration::from_secs(1) || ttl > BEARER_TTL_MAX {
            return Err(TokensError::BadTtl);
        }
        let target = self.target();
        let dir = dir_of(&target);
        let _held = files::lock_dir(dir).map_err(|error| unwritable(dir, error))?;
        let mut text = match read_text(&self.path) {
            Err(TokensError::Missing { .. }) => HEAD.as_bytes().to_vec(),
            text => text?,
        };
        if parse(&self.path, &text)?.len() >= BEARER_TOKENS_MAX {
            return Err(TokensError::Full { path: self.path.clone() });
        }
        let token = BearerToken::generate();
        let (name, digest) = (name.clone(), token.digest());
        let line = TokenInfo { name, created: now, expires: now + ttl, digest }.to_string();
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
        if text.len() > BEARER_FILE_BYTES_MAX {
            return Err(TokensError::TooLarge { path: self.path.clone() });
        }
        replace(&target, &text)?;
        Ok(token)
    }

    /// Lists its tokens, in the order of their lines.
    ///
    /// # Errors
    /// As [`Tokens::read`](super::Tokens::read).
    pub fn list(&self) -> Result<Vec<TokenInfo>, TokensError> {
        parse(&self.path, &read_text(&self.path)?)
    }

    /// Removes every token of a caller, or the one with this id, and returns the removed ones.
    /// Takes effect as soon as nodes have read the file again.
    ///
    /// # Errors
    /// The caller has no such token, or the file is faulty or cannot be written. Nothing has
    /// changed then.
    pub fn revoke(&self, name: &Name, id: Option<&str>) -> Result<Vec<TokenInfo>, TokensError> {
        let target = self.target();
        if !target.exists() {
            return Err(TokensError::Missing { path: self.path.clone() });
        }
        let dir = dir_of(&target);
        let _held = files::lock_dir(dir).map_err(|error| unwritable(dir, error))?;
        let text = read_text(&self.path)?;
        let is_meant = |info: &TokenInfo| info.name == *name && id.is_none_or(|id| info.id() == id);
        let revoked: Vec<_> = parse(&self.path, &text)?.into_iter().filter(is_meant).collect();
        if revoked.is_empty() {
            let (name, id) = (name.clone(), id.map(str::to_owned));
            return Err(TokensError::NoneOf { path: self.path.clone(), name, id });
        }
        let stays = |line: &&[u8]| !matches!(read_line(line), Ok(Some(info)) if is_meant(&info));
        let kept: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').filter(stays).collect();
        replace(&target, &kept.concat())?;
        Ok(revoked)
    }

    /// The target of a symbolic link: a rename would put a file in place of the link.
    fn target(&self) -> PathBuf {
        fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone())
    }
}

fn replace(path: &Path, text: &[u8]) -> Result<(), TokensError> {
    files::replace(path, text, Audience::AsBefore).map_err(|error| unwritable(path, error))
}

fn unwritable(path: &Path, source: io::Error) -> TokensError {
    TokensError::Unwritable { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::{super::Tokens, *};
    use crate::tokens::BearerTokenError;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn place() -> (tempfile::TempDir, TokenFile) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = TokenFile::new(dir.path().join("certs/tokens"));
        (dir, file)
    }

    fn text(file: &TokenFile) -> String {
        fs::read_to_string(&file.path).expect("read")
    }

    #[test]
    fn a_token_that_was_made_is_known_and_its_file_has_only_its_hash() {
        let (_dir, file) = place();
        let token = file.create(&name("billing"), DAY, now()).expect("made");
        let tokens = Tokens::read(&file.path).expect("read");
        let caller = tokens.caller(token.as_str(), now() + DAY).expect("known");
        assert_eq!(caller.to_string(), "caller/billing");
        let secret = &token.as_str()[5..];
        assert!(!text(&file).contains(&secret[..16]), "{}", text(&file));
        assert!(text(&file).starts_with("# Bearer tokens"), "{}", text(&file));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&file.path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_revoked_token_is_unknown_and_all_other_lines_stay() {
        let (_dir, file) = place();
        let make = |whose| file.create(&name(whose), DAY, now()).expect("made");
        let (first, other, second) = (make("billing"), make("ops"), make("billing"));
        let with_remark = text(&file) + "\n  # of the night shift, no newline";
        fs::write(&file.path, &with_remark).expect("written");
        let list = file.list().expect("listed");
        let ids: Vec<_> = list.iter().map(TokenInfo::id).collect();
        let revoked = file.revoke(&name("billing"), Some(&ids[2])).expect("revoked");
        assert_eq!(revoked, [list[2].clone()]);
        let knows = |token: &BearerToken| {
            Tokens::read(&file.path).expect("read").caller(token.as_str(), now()).is_ok()
        };
        assert_eq!([&first, &other, &second].map(knows), [true, true, false]);
        assert_eq!(text(&file), with_remark.replace(&format!("{}\n", list[2]), ""));
        make("billing");
        assert!(text(&file).contains("no newline\nbilling sha256:"), "{}", text(&file));
        assert_eq!(file.revoke(&name("billing"), None).expect("revoked").len(), 2);
        assert_eq!([&first, &other, &second].map(knows), [false, true, false]);
        let gone = Tokens::read(&file.path).expect("read").caller(first.as_str(), now()).err();
        assert_eq!(gone, Some(BearerTokenError::Unknown));
    }

    #[test]
    fn revoking_an_unknown_token_fails_and_changes_nothing() {
        let (_dir, file) = place();
        let refused = |whose, id| file.revoke(&name(whose), id).expect_err("refused").to_string();
        assert!(refused("billing", None).contains("does not exist"));
        assert!(!dir_of(&file.path).exists());
        file.create(&name("billing"), DAY, now()).expect("made");
        let (before, id) = (text(&file), file.list().expect("listed")[0].id());
        assert!(refused("ops", None).contains("no token of ops;"));
        assert!(refused("ops", Some(&id)).contains(&id), "of another name");
        assert!(refused("billing", Some("ab")).contains("with the id ab"));
        assert_eq!(text(&file), before);
    }

    #[test]
    fn a_token_needs_some_time_and_not_too_much_of_it() {
        let (_dir, file) = place();
        let make = |ttl| file.create(&name("billing"), ttl, now());
        for ttl in [Duration::ZERO, Duration::from_millis(999), BEARER_TTL_MAX + DAY] {
            assert!(make(ttl).expect_err("refused").to_string().contains("--ttl"));
        }
        assert!(!file.path.exists());
        assert!(make(Duration::from_secs(1)).is_ok() && make(BEARER_TTL_MAX).is_ok());
    }

    #[test]
    fn a_faulty_file_is_not_added_to() {
        let (_dir, file) = place();
        file.create(&name("billing"), DAY, now()).expect("made");
        let faulty = text(&file) + "ops\n";
        fs::write(&file.path, &faulty).expect("written");
        let message = file.create(&name("ops"), DAY, now()).expect_err("refused").to_string();
        assert!(message.contains("tokens:4: "), "{message}");
        assert!(file.revoke(&name("billing"), None).is_err());
        assert_eq!(text(&file), faulty);
    }

    #[test]
    fn concurrent_additions_all_reach_the_file() {
        let (_dir, file) = place();
        let make = || file.create(&name("billing"), DAY, now()).expect("made");
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().expect("ended")).collect()
        });
        let tokens = Tokens::read(&file.path).expect("read");
        assert!(made.iter().all(|token| tokens.caller(token.as_str(), now()).is_ok()));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_behind_a_link_is_changed_and_the_link_stays() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (dir, file) = place();
        file.create(&name("billing"), DAY, now()).expect("made");
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o640)).expect("changed");
        let link = TokenFile::new(dir.path().join("link"));
        symlink(&file.path, &link.path).expect("linked");
        link.create(&name("ops"), DAY, now()).expect("made");
        assert!(link.path.is_symlink());
        assert_eq!(file.list().expect("listed").len(), 2);
        let mode = fs::metadata(&file.path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "the group can still read it");
    }
}
