//! Explains a failed handshake to an operator: what is wrong, on which side, and the remedy.

use super::{certificate_info::Utc, verifiers::UNFIT_MARK};
use crate::printable::printable;
use std::time::{Duration, SystemTime};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RejectedBy {
    Us,
    Peer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explanation {
    /// A certificate was rejected (UNAUTHENTICATED). Otherwise a retry or upgrade may help.
    pub is_identity: bool,
    /// Rejected because it is not valid yet by the clock of the side that rejected it.
    pub is_not_valid_yet: bool,
    pub reason: String,
    pub remedy: &'static str,
}

/// Explains a handshake that this side or the peer ended.
///
/// `alert` is that of TLS: RFC 8446 section 6; in QUIC the error code less 0x100. `text` is the error
/// of rustls, of this side or of the peer, whose text is only a hint.
pub(crate) fn explain(rejected_by: RejectedBy, alert: u8, text: &str) -> Explanation {
    let cause = RejectionCause::of(alert, text);
    let fact = cause.fact(rejected_by);
    let is_about_time = matches!(cause, RejectionCause::Expired | RejectionCause::NotValidYet);
    let reason = match detail(&if is_about_time { dated(text) } else { text.into() }) {
        detail if detail.is_empty() => fact,
        detail => format!("{fact} ({detail})"),
    };
    Explanation {
        is_identity: !matches!(cause, RejectionCause::OtherVersion | RejectionCause::Unknown),
        is_not_valid_yet: cause == RejectionCause::NotValidYet,
        reason,
        remedy: cause.remedy(rejected_by),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RejectionCause {
    Expired,
    NotValidYet,
    UnknownIssuer,
    Revoked,
    CrlExpired,
    CrlSilent,
    WrongHost,
    Unfit,
    WrongUsage,
    BadSignature,
    Unreadable,
    NoCertificate,
    OtherVersion,
    Unknown,
}

impl RejectionCause {
    /// The alert decides the class; the text, which proves nothing, only refines it. Which error
    /// gives which alert: rustls, `impl From<CertificateError> for AlertDescription`.
    fn of(alert: u8, text: &str) -> Self {
        match alert {
            42 if has(text, &["not valid for name", "NotValidForName"]) => Self::WrongHost,
            42 if has(text, &["BadEncoding", "UnhandledCritical"]) => Self::Unreadable,
            // Without a text, a mismatch of the dialled name is by far the likeliest.
            42 => Self::WrongHost,
            43 => Self::WrongUsage,
            44 => Self::Revoked,
            45 if has(text, &["not valid yet", "NotValidYet"]) => Self::NotValidYet,
            45 => Self::Expired,
            46 | 49 => Self::Unfit,
            48 if has(text, &["revocation list expired", "ExpiredRevocationList"]) => {
                Self::CrlExpired
            }
            48 if has(text, &["UnknownRevocationStatus"]) => Self::CrlSilent,
            48 => Self::UnknownIssuer,
            51 => Self::BadSignature,
            70 | 120 => Self::OtherVersion,
            116 => Self::NoCertificate,
            // rustls has no alert of its own for a list whose signature is wrong.
            _ if has(text, &["invalid certificate revocation list"]) => Self::CrlSilent,
            _ => Self::Unknown,
        }
    }

    fn fact(self, rejected_by: RejectedBy) -> String {
        let description = self.description(rejected_by);
        let (peer, certificate) = match rejected_by {
            RejectedBy::Us => ("rejected the peer", "rejected the peer's certificate"),
            RejectedBy::Peer => ("the peer rejected us", "the peer rejected our certificate"),
        };
        match self {
            Self::OtherVersion | Self::Unknown => description.into(),
            Self::NoCertificate => format!("{peer}: {description}"),
            _ => format!("{certificate}: {description}"),
        }
    }

    const fn description(self, rejected_by: RejectedBy) -> &'static str {
        match (self, rejected_by) {
            (Self::Expired, _) => "certificate expired, or an intermediate in its chain",
            (Self::NotValidYet, _) => "certificate not valid yet, or an intermediate in its chain",
            (Self::UnknownIssuer, _) => "unknown CA",
            (Self::Revoked, _) => "certificate revoked",
            (Self::CrlExpired, RejectedBy::Us) => {
                "our revocation list has expired, so no certificate can be verified"
            }
            (Self::CrlExpired, RejectedBy::Peer) => {
                "its revocation list has expired, so no certificate can be verified"
            }
            (Self::CrlSilent, RejectedBy::Us) => "no revocation list here covers its CA",
            (Self::CrlSilent, RejectedBy::Peer) => "no revocation list there covers its CA",
            (Self::WrongHost, _) => "not valid for the host name or address that was dialled",
            (Self::Unfit, _) => "wrong role, name or trust domain",
            (Self::WrongUsage, _) => "not valid for this use (key usage); wrong role, perhaps",
            (Self::BadSignature, _) => {
                "bad signature of the certificate, or of the proof of its key"
            }
            (Self::Unreadable, _) => "it cannot be parsed",
            (Self::NoCertificate, _) => "no certificate was shown, and one is required",
            (Self::OtherVersion, _) => "handshake failed: no common protocol version",
            (Self::Unknown, _) => "the TLS handshake failed",
        }
    }

    const fn remedy(self, rejected_by: RejectedBy) -> &'static str {
        let [by_us, by_peer] = match self {
            Self::Expired => [
                "issue the peer's certificate again with `dialback certs issue ROLE NAME`, or check the clock here",
                "issue our certificate again with `dialback certs issue ROLE NAME`, or check the peer's clock",
            ],
            Self::NotValidYet => [
                "the clock here may be behind: check it, and the one where the certificate was made",
                "the peer's clock may be behind: check it, and the one where the certificate was made",
            ],
            Self::UnknownIssuer => [
                "compare our ca.pem (for a node: node_ca, if it is set) with the CA that signed the peer's certificate",
                "compare the peer's ca.pem (for a node: node_ca, if it is set) with the CA that signed our certificate",
            ],
            Self::Revoked => [
                "if that was not intended, issue a new certificate for the peer",
                "ask the operator of the CA for a new certificate",
            ],
            Self::CrlExpired => [
                "sign the list again with `dialback certs crl` and install the new crl.pem here",
                "sign the list again with `dialback certs crl` and install the new crl.pem at the peer",
            ],
            Self::CrlSilent => [
                "add the revocation list of that CA to our crl.pem",
                "add the revocation list of our CA to the peer's crl.pem",
            ],
            Self::WrongHost => [
                "dial a name that it contains, or issue it again with `dialback certs issue node NAME --san HOST`",
                "issue it again with `dialback certs issue node NAME --san HOST`, where HOST is what is dialled",
            ],
            Self::Unfit | Self::WrongUsage => [
                "check the address that was dialled, and that the peer was started with a certificate of its own role",
                "start this side with a certificate of its own role and of the peer's trust domain",
            ],
            Self::BadSignature | Self::Unreadable => {
                ["make the certificate and its key again with `dialback certs issue ROLE NAME --force`";
                    2]
            }
            Self::NoCertificate => {
                ["start the peer with --cert and --key", "start this side with --cert and --key"]
            }
            Self::OtherVersion => {
                ["check that dialback listens on the port, and run one release on both sides"; 2]
            }
            Self::Unknown => ["try again; if it persists, see the log of the other side"; 2],
        };
        match rejected_by {
            RejectedBy::Us => by_us,
            RejectedBy::Peer => by_peer,
        }
    }
}

/// Writes Unix times, which rustls reports in seconds, as dates.
fn dated(text: &str) -> String {
    let is_moment = |word: &str| word.len() == 10 && word.bytes().all(|b| b.is_ascii_digit());
    let description = text.split(' ').filter(|word| !word.starts_with("(UNIX)"));
    let description = description.map(|word| match word.trim_end_matches(',') {
        number if is_moment(number) => match number.parse() {
            Ok(seconds) => Utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string(),
            Err(_) => word.to_owned(),
        },
        _ => word.to_owned(),
    });
    description.collect::<Vec<_>>().join(" ")
}

fn has(text: &str, any: &[&str]) -> bool {
    any.iter().any(|part| text.contains(part))
}

/// The part of rustls' text that adds information, on one line and of limited length.
fn detail(text: &str) -> String {
    let ours = text.split_once(UNFIT_MARK).map(|(_, after)| after.trim_end_matches(')'));
    let description = ours.unwrap_or_else(|| text.trim_start_matches("invalid peer certificate: "));
    printable(&description.chars().take(300).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::{explain as explained, *};

    #[test]
    fn every_alert_of_a_certificate_is_about_identity_and_alpn_is_about_the_protocol() {
        for alert in [42, 43, 44, 45, 46, 48, 49, 51, 116] {
            assert!(explained(RejectedBy::Peer, alert, "").is_identity, "alert {alert}");
        }
        for (alert, reason) in [(120, "no common protocol version"), (40, "TLS handshake failed")] {
            let explained = explained(RejectedBy::Peer, alert, "");
            assert!(!explained.is_identity && explained.reason.contains(reason), "{explained:?}");
        }
    }

    #[test]
    fn times_are_shown_as_dates_if_the_time_is_at_fault() {
        let text = "invalid peer certificate: certificate expired: verification time 1795943790 (UNIX), but certificate is not valid after 1795857390 (86400 seconds ago)";
        let (again, explained) = (explained, explained(RejectedBy::Us, 45, text));
        for part in ["time 2026-11-29T09:16:30Z but", "after 2026-11-28T09:16:30Z (86400 seconds"] {
            assert!(explained.reason.contains(part), "{}", explained.reason);
        }
        assert!(!explained.reason.contains("UNIX"), "{}", explained.reason);
        let other = "invalid peer certificate: UnknownIssuer 1795857390 (UNIX)";
        assert!(again(RejectedBy::Us, 48, other).reason.contains("1795857390 (UNIX)"));
    }

    #[test]
    fn the_explanation_depends_on_the_side_that_rejected() {
        let (ours, theirs) =
            (explained(RejectedBy::Us, 48, ""), explained(RejectedBy::Peer, 48, ""));
        assert!(ours.reason.starts_with("rejected the peer's certificate: unknown CA"));
        assert!(theirs.reason.starts_with("the peer rejected our certificate: unknown CA"));
        assert!(theirs.remedy.contains("the peer's ca.pem"));
    }

    #[test]
    fn the_text_of_a_peer_refines_the_alert_and_never_overrides_it() {
        assert!(
            explained(RejectedBy::Peer, 48, "ExpiredRevocationList")
                .reason
                .contains("revocation list")
        );
        assert!(
            explained(RejectedBy::Peer, 44, "ExpiredRevocationList").reason.contains("revoked")
        );
    }

    #[test]
    fn control_characters_of_a_peer_are_escaped_and_long_texts_are_truncated() {
        let explained =
            explained(RejectedBy::Peer, 48, &format!("\x1b[31m\n{}", "a".repeat(1_000)));
        assert!(!explained.reason.chars().any(char::is_control));
        assert!(explained.reason.len() < 500);
    }
}
