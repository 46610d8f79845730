//! A join token, one line of text: peer, end, secret, and fingerprint of the enroller's CA.

use crate::{
    name::PeerName,
    tls::{self, from_hex, hex},
};
use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// Prefix of every token, so that tokens can be recognised.
const MARK: &str = "djt1";

pub(super) const SECRET_BYTES: usize = 16;

/// Lets one machine join once, as one peer. It is a secret like a password: it has no `Display`,
/// and `Debug` shows none of it; [`JoinToken::to_line`] gives the text, and `parse` reads it.
#[derive(Clone)]
pub struct JoinToken {
    peer: PeerName,
    not_after: SystemTime,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    ca_fingerprint: [u8; tls::DIGEST_BYTES],
}

impl JoinToken {
    /// Makes a token with a new secret.
    pub(super) fn new(
        peer: PeerName,
        not_after: SystemTime,
        ca_fingerprint: [u8; tls::DIGEST_BYTES],
    ) -> Self {
        Self { peer, not_after, secret: Zeroizing::new(tls::random_bytes()), ca_fingerprint }
    }

    /// The peer that its bearer becomes.
    pub fn peer(&self) -> &PeerName {
        &self.peer
    }

    /// End of its validity, to the second.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret[..]
    }

    /// SHA-256 of the certificate (DER) of the CA whose enroller takes it.
    pub(crate) fn ca_fingerprint(&self) -> &[u8; tls::DIGEST_BYTES] {
        &self.ca_fingerprint
    }

    /// The token as handed over: `djt1:ROLE/NAME:SECONDS:SECRET:FINGERPRINT`. Wiped when dropped.
    pub fn to_line(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex(&self.secret[..]));
        let (until, ca) = (unix_seconds(self.not_after), hex(&self.ca_fingerprint));
        Zeroizing::new(format!("{MARK}:{}:{until}:{}:{ca}", self.peer, *secret))
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.trim().split(':');
        let mut next = || parts.next();
        if next()? != MARK {
            return None;
        }
        let peer = next()?.parse().ok()?;
        let until = Duration::from_secs(next()?.parse().ok()?);
        let secret = Zeroizing::new(from_hex(next()?)?);
        let ca_fingerprint = from_hex(next()?)?;
        let not_after = SystemTime::UNIX_EPOCH.checked_add(until)?;
        parts.next().is_none().then_some(Self { peer, not_after, secret, ca_fingerprint })
    }
}

/// A text that is not a join token. The text is a secret, so it is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid or incomplete join token; copy the whole line that `dialback enroll token ROLE NAME` printed, from {MARK}: to its end"
)]
#[non_exhaustive]
pub struct JoinTokenError;

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        Self::read(text).ok_or(JoinTokenError)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, not_after, secret: _, ca_fingerprint: _ } = self;
        f.debug_struct("JoinToken").field("party", peer).field("not_after", not_after).finish()
    }
}

pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        JoinToken::new("agent/acme.warehouse-1".parse().expect("a peer"), until, [0xab; 32])
    }

    #[test]
    fn a_token_is_one_line_and_comes_back_from_it() {
        let token = token();
        let line = token.to_line();
        assert!(line.starts_with("djt1:agent/acme.warehouse-1:1800000000:"), "{}", *line);
        assert_eq!(line.lines().count(), 1);
        let back: JoinToken = format!(" {}\n", *line).parse().expect("a token");
        assert_eq!((back.peer(), back.not_after()), (token.peer(), token.not_after()));
        assert_eq!(back.secret(), token.secret());
        assert_eq!(back.ca_fingerprint(), token.ca_fingerprint());
    }

    #[test]
    fn a_truncated_or_altered_token_is_refused_and_not_repeated_in_the_error() {
        let line = token().to_line();
        let secret = line.split(':').nth(3).expect("a secret");
        for bad in [
            "",
            "djt1",
            &line[..line.len() - 1],
            &line[1..],
            &format!("{}0", *line),
            &format!("{}:x", *line),
            &line.replace("agent/", "boss/"),
            &line.replace("1800000000", "soon"),
            &line.replace("1800000000", "99999999999999999999"),
            &line.replace(secret, &"g".repeat(32)),
        ] {
            let message = bad.parse::<JoinToken>().expect_err("refused").to_string();
            assert!(
                !message.contains(secret) && message.contains("dialback enroll token"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_token_shows_no_secret_when_debugged() {
        let token = token();
        assert!(!format!("{token:?}").contains(&hex(token.secret())));
    }

    #[test]
    fn secrets_are_not_the_same_twice() {
        assert_ne!(token().secret(), token().secret());
    }
}
