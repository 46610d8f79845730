//! One line of the file of bearer tokens: caller, hash of the token, creation and end.

use crate::{
    name::Name,
    tls::{DIGEST_BYTES, Utc, from_hex, hex},
};
use std::{fmt, time::SystemTime};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Digits of the hash in an id.
const ID_DIGITS: usize = 12;

const HASH_MARK: &str = "sha256:";

/// Record of one token, with its hash and without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// The caller that its bearer becomes.
    pub name: Name,
    /// Time of its creation.
    pub created: SystemTime,
    /// End of its validity, to the second.
    pub expires: SystemTime,
    pub(super) digest: [u8; DIGEST_BYTES],
}

impl TokenInfo {
    /// Twelve digits that name the token: the first of its SHA-256, nothing of the token itself.
    pub fn id(&self) -> String {
        id_of(&self.digest)
    }

    /// True if it has expired.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now > self.expires
    }

    /// Reads a line that is neither empty nor a remark. Errors do not quote it: a token in the
    /// wrong field must not appear in a log.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, hash, created, expires] = fields[..] else {
            let count = fields.len();
            return Err(format!(
                "has {count} fields, and four are required: NAME sha256:HASH CREATED EXPIRES; `dialback token create NAME` writes such a line"
            ));
        };
        let name = name.parse::<Name>().map_err(|_| {
            "the first field is not a caller's name: labels of a-z, 0-9 and -, joined by dots, without a role"
        })?;
        let (created, expires) = (moment("was created", created)?, moment("expires", expires)?);
        if expires < created {
            return Err(format!("a token of {name} expires before it was created"));
        }
        Ok(Self { name, created, expires, digest: digest(hash)? })
    }
}

/// The line in the file.
impl fmt::Display for TokenInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, created, expires, digest } = self;
        write!(f, "{name} {HASH_MARK}{} {} {}", hex(digest), Utc(*created), Utc(*expires))
    }
}

pub(super) fn id_of(digest: &[u8; DIGEST_BYTES]) -> String {
    let mut id = hex(digest);
    id.truncate(ID_DIGITS);
    id
}

fn digest(text: &str) -> Result<[u8; DIGEST_BYTES], String> {
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let digest = text.strip_prefix(HASH_MARK).filter(|_| is_lower).and_then(from_hex);
    digest.ok_or_else(|| {
        "the second field is not a hash: sha256: and 64 lower-case hexadecimal digits; `printf %s TOKEN | sha256sum` prints it"
            .into()
    })
}

fn moment(what: &str, text: &str) -> Result<SystemTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map(SystemTime::from).map_err(|_| {
        format!("the time when the token {what} is invalid; write it as 2027-01-31T00:00:00Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HASH: &str = "ab00000000000000000000000000000000000000000000000000000000000019";

    fn line() -> String {
        format!("billing sha256:{HASH} 2026-11-25T13:00:00Z 2026-12-25T13:00:00Z")
    }

    #[test]
    fn a_line_comes_back_as_it_was() {
        let info = TokenInfo::parse(&line()).expect("a line");
        assert_eq!(info.to_string(), line());
        assert_eq!(
            (info.id().as_str(), info.digest[0], info.digest[31]),
            ("ab0000000000", 0xab, 0x19)
        );
        let days = Duration::from_secs(30 * 24 * 3600);
        assert_eq!(info.expires, info.created + days);
        assert!(!info.is_expired(info.expires));
        assert!(info.is_expired(info.expires + Duration::from_secs(1)));
        let spaced = format!("\t{}  \r", line().replace(' ', "\t "));
        assert_eq!(TokenInfo::parse(&spaced), Ok(info));
    }

    #[track_caller]
    fn check_refused(line: &str, text: &str) {
        let message = TokenInfo::parse(line).expect_err("refused");
        assert!(message.contains(text), "{message}");
    }

    #[test]
    fn an_incomplete_line_is_refused_with_its_fault() {
        check_refused("billing", "1 fields");
        check_refused(&format!("{} more", line()), "5 fields");
        check_refused(&line().replace("billing", "Billing"), "not a caller's name");
        check_refused(&line().replace("billing", "agent/billing"), "not a caller's name");
        check_refused(&line().replace("sha256:", ""), "not a hash");
        check_refused(&line().replace("ab", "AB"), "not a hash");
        check_refused(&line().replace("ab", "a"), "not a hash");
        check_refused(&line().replace("ab", "ag"), "not a hash");
        check_refused(&line().replace("2026-11-25T13:00:00Z", "today"), "was created is invalid");
        check_refused(
            &line().replace("2026-12-25T13:00:00Z", "2026-13-25T13:00:00Z"),
            "expires is invalid",
        );
        check_refused(&line().replace("2026-12-25", "2026-11-24"), "before it was created");
    }

    #[test]
    fn a_token_in_the_wrong_field_is_not_repeated_in_the_error() {
        let token = format!("dbt1_{}", "7".repeat(72));
        for field in line().split(' ') {
            let message = TokenInfo::parse(&line().replace(field, &token)).expect_err("refused");
            assert!(!message.contains("777"), "{message}");
        }
    }
}
