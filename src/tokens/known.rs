//! Looks up the caller of a bearer token.

use super::{
    TokenInfo, TokensError, bearer,
    file::{parse, read_text},
};
use crate::{
    name::{PeerName, Role},
    tls::{self, DIGEST_BYTES},
};
use std::{collections::HashMap, fmt, path::Path, time::SystemTime};

/// Error of a bearer token. It contains nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BearerTokenError {
    /// The text does not look like a token, or is incomplete.
    #[error(
        "invalid or incomplete token; copy the whole line that `dialback token create NAME` printed, from dbt1_ to its end"
    )]
    Malformed,
    /// The text looks like a token, and is not in the file.
    #[error("unknown or revoked token")]
    Unknown,
    /// The token has expired.
    #[error("the token has expired; create another with `dialback token create NAME`")]
    Expired,
}

/// All tokens of a file, as they were when it was read: at most 10,000, of about 200 bytes each.
/// Cloning copies them all: hold them in an `Arc`.
#[derive(Clone, Default)]
pub struct Tokens {
    /// By the first eight bytes of the hash: the bearer of a token cannot choose them, and the map
    /// hashes them again with a key of its own.
    by_start: HashMap<[u8; 8], Vec<KnownToken>>,
    count: usize,
}

#[derive(Clone)]
struct KnownToken {
    digest: [u8; DIGEST_BYTES],
    caller: PeerName,
    expires: SystemTime,
}

impl Tokens {
    /// Reads a file. A file without tokens is valid.
    ///
    /// # Errors
    /// A file that is missing, that others can read or the group can write, that is larger than 4
    /// MiB; or all lines that are invalid or duplicates, at once.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TokensError> {
        let path = path.as_ref();
        Ok(Self::of(parse(path, &read_text(path)?)?))
    }

    fn of(lines: Vec<TokenInfo>) -> Self {
        let mut tokens = Self { by_start: HashMap::with_capacity(lines.len()), count: lines.len() };
        for TokenInfo { name, created: _, expires, digest } in lines {
            let known = KnownToken { digest, caller: PeerName::new(Role::Caller, name), expires };
            tokens.by_start.entry(start_of(&digest)).or_default().push(known);
        }
        tokens
    }

    /// Finds the caller of a token.
    ///
    /// Costs at most two SHA-256 of 77 bytes and one look into a map, in constant time however near
    /// the token comes to a known one. Texts of other lengths are not hashed.
    ///
    /// # Errors
    /// The token is invalid, unknown or expired.
    pub fn caller(&self, token: &str, now: SystemTime) -> Result<&PeerName, BearerTokenError> {
        let digest = bearer::digest_of(token).ok_or(BearerTokenError::Malformed)?;
        let candidates = self.by_start.get(&start_of(&digest)).map_or(&[][..], Vec::as_slice);
        let known = candidates.iter().find(|known| tls::is_same(&known.digest, &digest));
        match known {
            None => Err(BearerTokenError::Unknown),
            Some(known) if now > known.expires => Err(BearerTokenError::Expired),
            Some(known) => Ok(&known.caller),
        }
    }

    /// Number of tokens, expired ones included.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by_start: _, count } = self;
        f.debug_struct("Tokens").field("count", count).finish()
    }
}

fn start_of(digest: &[u8; DIGEST_BYTES]) -> [u8; 8] {
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::{BEARER_FILE_BYTES_MAX, BEARER_TOKENS_MAX},
        tokens::BearerToken,
    };
    use std::{fs, time::Duration};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// The file counts whole seconds.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    /// A token, and the line for it.
    fn made(name: &str, expires: SystemTime) -> (BearerToken, String) {
        let token = BearerToken::generate();
        let name = name.parse().expect("a name");
        let info = TokenInfo { name, created: now() - DAY, expires, digest: token.digest() };
        (token, info.to_string())
    }

    fn tokens(text: &str) -> Result<Tokens, TokensError> {
        parse(Path::new("tokens"), text.as_bytes()).map(Tokens::of)
    }

    #[test]
    fn a_token_names_its_caller_until_it_expires() {
        let (billing, first) = made("billing", now());
        let (ops, second) = made("ops", now() + DAY);
        let (unknown, _) = made("billing", now() + DAY);
        let tokens = tokens(&format!("# who\n\n{first}\r\n  {second}")).expect("tokens");
        let caller =
            |token: &BearerToken, at| tokens.caller(token.as_str(), at).map(ToString::to_string);
        assert_eq!(tokens.len(), 2);
        assert_eq!(caller(&billing, now()), Ok("caller/billing".into()));
        assert_eq!(caller(&ops, now() + DAY), Ok("caller/ops".into()));
        let late = now() + Duration::from_secs(1);
        assert_eq!(caller(&billing, late), Err(BearerTokenError::Expired));
        assert_eq!(caller(&unknown, now()), Err(BearerTokenError::Unknown));
        for shown in ["", "dbt1_", &billing.as_str()[..76], "hunter2"] {
            assert_eq!(tokens.caller(shown, now()), Err(BearerTokenError::Malformed), "{shown}");
        }
        let nobody = Tokens::default();
        assert_eq!(nobody.caller(ops.as_str(), now()), Err(BearerTokenError::Unknown));
    }

    #[test]
    fn tokens_whose_hashes_share_a_prefix_are_distinguished() {
        let (token, line) = made("billing", now());
        let digest = token.digest();
        let mut alike = digest;
        alike[31] ^= 1;
        let mut other = TokenInfo::parse(&line).expect("a line");
        (other.digest, other.name) = (alike, "ops".parse().expect("a name"));
        let tokens = tokens(&format!("{other}\n{line}")).expect("tokens");
        assert_eq!(tokens.by_start.len(), 1);
        let caller = tokens.caller(token.as_str(), now()).expect("known");
        assert_eq!(caller.to_string(), "caller/billing");
    }

    #[test]
    fn all_faults_are_reported_together_with_their_lines() {
        let (_, line) = made("billing", now());
        let text = format!("{line}\nbilling\n# fine\n{line}\nA b c d\n");
        let message = tokens(&text).expect_err("refused").to_string();
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(lines.len(), 3, "{message}");
        assert!(lines[0].starts_with("tokens:2: has 1 fields"), "{message}");
        assert!(
            lines[1].starts_with("tokens:4: duplicate token: it is also in line 1"),
            "{message}"
        );
        assert!(lines[2].starts_with("tokens:5: "), "{message}");
        let not_text = [line.as_bytes(), b"\n\xff\xfe\n"].concat();
        let message = parse(Path::new("tokens"), &not_text).expect_err("refused").to_string();
        assert!(message.starts_with("tokens:2: is not UTF-8 text"), "{message}");
    }

    #[test]
    fn the_last_token_that_fits_is_taken_and_one_more_is_refused() {
        let (_, line) = made("billing", now());
        let mut info = TokenInfo::parse(&line).expect("a line");
        let mut text = String::new();
        for n in 0..BEARER_TOKENS_MAX as u64 {
            info.digest[..8].copy_from_slice(&n.to_be_bytes());
            text += &format!("{info}\n");
        }
        assert_eq!(tokens(&text).expect("tokens").len(), BEARER_TOKENS_MAX);
        assert!(text.len() < BEARER_FILE_BYTES_MAX, "the bound on bytes is not met first");
        let message = tokens(&format!("{text}{line}\n")).expect_err("refused").to_string();
        assert!(message.contains("tokens:10001: "), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_with_an_open_mode_and_a_directory_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("tokens");
        let refused = || Tokens::read(&path).expect_err("refused").to_string();
        assert!(refused().contains("dialback token create"), "{}", refused());
        fs::write(&path, format!("{}\n", made("billing", now()).1)).expect("written");
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        for unfit in [0o644, 0o660, 0o602] {
            set(unfit).expect("changed");
            assert!(refused().contains("chmod 600"), "{}", refused());
        }
        for fit in [0o600, 0o640, 0o400] {
            set(fit).expect("changed");
            assert_eq!(Tokens::read(&path).expect("read").len(), 1);
        }
        set(0o600).expect("changed");
        fs::write(&path, "#".repeat(BEARER_FILE_BYTES_MAX)).expect("written");
        assert!(Tokens::read(&path).expect("read").is_empty());
        fs::write(&path, "#".repeat(BEARER_FILE_BYTES_MAX + 1)).expect("written");
        assert!(refused().contains("more than 4 MiB"), "{}", refused());
        let message = Tokens::read(dir.path());
        assert!(matches!(message, Err(TokensError::Unreadable { .. })), "{message:?}");
    }
}
