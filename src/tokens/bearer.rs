//! The text of a bearer token: `dbt1_`, 256 random bits, and a checksum that reveals truncation.

use crate::tls::{self, push_hex};
use std::fmt;
use zeroize::Zeroizing;

/// Prefix of every token, so that tokens can be recognised.
const MARK: &str = "dbt1_";

const SECRET_BYTES: usize = 32;

/// One in four thousand million damaged copies passes for a whole one, and is then unknown.
const CHECK_BYTES: usize = 4;

/// The length of every token, in bytes of ASCII.
const TOKEN_BYTES: usize = MARK.len() + 2 * (SECRET_BYTES + CHECK_BYTES);

/// A new token. Its bearer is the caller that it was created for: keep it like a password.
///
/// No `Display`, nothing in `Debug`, wiped when dropped. `dbt1_[0-9a-f]{72}` finds one in a text;
/// the last eight digits are the first of the SHA-256 of the text before them.
pub struct BearerToken(Zeroizing<String>);

impl BearerToken {
    pub(super) fn generate() -> Self {
        let secret: Zeroizing<[u8; SECRET_BYTES]> = Zeroizing::new(tls::random_bytes());
        // Room for the whole at once, so that no half copies stay behind in memory.
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_BYTES));
        text.push_str(MARK);
        push_hex(&mut text, &secret[..]);
        let check = check_of(&text);
        push_hex(&mut text, &check);
        Self(text)
    }

    /// The text that goes into `Authorization: Bearer ...`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id under which the file of tokens lists it.
    pub fn id(&self) -> String {
        super::line::id_of(&self.digest())
    }

    /// Its hash, which the file keeps.
    pub(super) fn digest(&self) -> [u8; tls::DIGEST_BYTES] {
        tls::sha256(self.0.as_bytes())
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("BearerToken")
    }
}

/// The SHA-256 of a shown token, if it is complete.
pub(super) fn digest_of(shown: &str) -> Option<[u8; tls::DIGEST_BYTES]> {
    is_complete(shown).then(|| tls::sha256(shown.as_bytes()))
}

fn is_complete(shown: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    // The length first: of megabytes nothing is hashed.
    if shown.len() != TOKEN_BYTES || !shown.starts_with(MARK) {
        return false;
    }
    if !shown[MARK.len()..].bytes().all(is_digit) {
        return false;
    }
    let (body, check) = shown.split_at(TOKEN_BYTES - 2 * CHECK_BYTES);
    let mut expected = String::with_capacity(2 * CHECK_BYTES);
    push_hex(&mut expected, &check_of(body));
    check == expected
}

fn check_of(body: &str) -> [u8; CHECK_BYTES] {
    let digest = tls::sha256(body.as_bytes());
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognised_by_its_form_and_is_complete() {
        let token = BearerToken::generate();
        let text = token.as_str();
        assert!(text.starts_with("dbt1_") && text.len() == 77, "{text}");
        assert!(
            text[5..].bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
        );
        assert_eq!(digest_of(text), Some(token.digest()));
        assert_eq!(token.0.capacity(), 77, "it never grew, so that no copy lies about");
    }

    #[test]
    fn a_truncated_or_damaged_copy_is_refused() {
        let token = BearerToken::generate();
        let text = token.as_str();
        for at in 0..text.len() {
            assert_eq!(digest_of(&text[..at]), None, "the first {at}");
            assert_eq!(digest_of(&text[at + 1..]), None, "without the first {at}");
            let other = if &text[at..=at] == "0" { "1" } else { "0" };
            let damaged = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(digest_of(&damaged), None, "another digit at {at}");
        }
        for not in [
            String::new(),
            format!("{text} "),
            format!(" {text}"),
            text.to_ascii_uppercase(),
            "é".repeat(38) + "x",
            format!("dbt1_{}", "é".repeat(36)),
        ] {
            assert_eq!(digest_of(&not), None, "{not:?}");
        }
    }

    #[test]
    fn tokens_differ_and_none_shows_itself_when_debugged() {
        let (one, other) = (BearerToken::generate(), BearerToken::generate());
        assert_ne!(one.as_str(), other.as_str());
        assert_eq!(format!("{one:?}"), "BearerToken");
    }
}
