//! Warnings about certificates and revocation lists near expiry.

use super::{Credentials, Utc};
use crate::limits::{CRL_NEAR_EXPIRY, EXPIRY_WARNING_EVERY};
use std::time::{Duration, SystemTime};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Warning {
    /// Less than a third of the life of the certificate, or of its chain, is left.
    EndsSoon,
    HasEnded,
    /// The own revocation lists contain it.
    IsRevoked,
    ListEndsSoon,
    ListHasEnded,
}

fn warnings(
    [not_before, not_after]: [SystemTime; 2],
    list_ends: Option<SystemTime>,
    now: SystemTime,
) -> Vec<Warning> {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let mut found = Vec::new();
    match not_after.duration_since(now) {
        Err(_past) => found.push(Warning::HasEnded),
        Ok(left) if left < life / 3 => found.push(Warning::EndsSoon),
        Ok(_) => {}
    }
    match list_ends.map(|end| end.duration_since(now)) {
        Some(Err(_past)) => found.push(Warning::ListHasEnded),
        Some(Ok(left)) if left < CRL_NEAR_EXPIRY => found.push(Warning::ListEndsSoon),
        _ => {}
    }
    found
}

/// The certificate, chain and list of a warning: reading the same ones again is not new.
type CredentialMarks = (String, SystemTime, Option<SystemTime>);

/// Logs each warning when it is new, and again after a while.
#[derive(Debug, Default)]
pub(crate) struct ExpiryWarnings {
    logged: Option<(CredentialMarks, Vec<Warning>, SystemTime)>,
}

impl ExpiryWarnings {
    pub(crate) fn due(&mut self, credentials: &Credentials, now: SystemTime) -> Vec<String> {
        let (identity, validity) = (credentials.identity(), credentials.validity());
        let found = found(credentials, now);
        let marks: CredentialMarks =
            (identity.serial().into(), validity.ends.at(), credentials.crl_next_update());
        let was_logged = self.logged.as_ref().is_some_and(|(of, logged, when)| {
            let is_recent = now.duration_since(*when).is_ok_and(|ago| ago < EXPIRY_WARNING_EVERY);
            *of == marks && *logged == found && is_recent
        });
        if was_logged {
            return Vec::new();
        }
        let lines = found.iter().map(|warning| line(*warning, credentials, now)).collect();
        self.logged = Some((marks, found, now));
        lines
    }
}

fn found(credentials: &Credentials, now: SystemTime) -> Vec<Warning> {
    let validity = credentials.validity();
    let life = [validity.starts.at(), validity.ends.at()];
    let mut found = warnings(life, credentials.crl_next_update(), now);
    if credentials.is_revoked() {
        found.push(Warning::IsRevoked);
    }
    found
}

fn is_soon(warning: &Warning) -> bool {
    matches!(warning, Warning::EndsSoon | Warning::ListEndsSoon)
}

impl Credentials {
    /// Lines about what has ended or is revoked, so that peers refuse each other, and about what is
    /// about to end.
    pub(crate) fn expiry_lines(&self, now: SystemTime) -> [Vec<String>; 2] {
        let (soon, over): (Vec<_>, Vec<_>) = found(self, now).into_iter().partition(is_soon);
        [over, soon]
            .map(|found| found.into_iter().map(|warning| line(warning, self, now)).collect())
    }
}

/// A certificate or a revocation list that has ended or is about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiryNotice {
    /// True if it is about a revocation list, and not about a certificate.
    pub is_of_list: bool,
    /// True if peers refuse each other because of it.
    pub is_over: bool,
    /// The certificate or the list, and its end.
    pub fact: String,
    /// The remedy.
    pub remedy: String,
}

impl Credentials {
    /// Returns a notice of each certificate or list that has ended, is revoked or is about to end.
    pub fn expiry_notices(&self, now: SystemTime) -> Vec<ExpiryNotice> {
        let notice = |warning| {
            let [fact, remedy] = fact_and_remedy(warning, self, now);
            let is_of_list = matches!(warning, Warning::ListEndsSoon | Warning::ListHasEnded);
            ExpiryNotice { is_of_list, is_over: !is_soon(&warning), fact, remedy }
        };
        found(self, now).into_iter().map(notice).collect()
    }
}

fn line(warning: Warning, credentials: &Credentials, now: SystemTime) -> String {
    let [fact, remedy] = fact_and_remedy(warning, credentials, now);
    let mark = if is_soon(&warning) { ':' } else { ';' };
    format!("{fact}{mark} {remedy}")
}

fn fact_and_remedy(warning: Warning, credentials: &Credentials, now: SystemTime) -> [String; 2] {
    let (peer, ends) = (credentials.peer_name(), &credentials.validity().ends);
    let what = ends.subject(&format!("the certificate of {peer}"));
    let (left, end) = (rough(ends.at(), now), Utc(ends.at()));
    let list_ends = credentials.crl_next_update().unwrap_or(now);
    let (list_left, list_end) = (rough(list_ends, now), Utc(list_ends));
    let remedy = match ends.intermediate() {
        None if warning == Warning::HasEnded => format!(
            "renew it with `dialback certs renew {} {} --expired`, or join again by a token",
            peer.role, peer.name
        ),
        None => "renew it with `dialback certs renew`".to_owned(),
        Some(_) => "append the current certificate of that CA to the leaf in the file".to_owned(),
    };
    let loaded = "the new one is loaded without a restart";
    match warning {
        Warning::EndsSoon => {
            [format!("{what} ends in {left}, at {end}"), format!("{remedy}; {loaded}")]
        }
        Warning::HasEnded => {
            [format!("{what} expired at {end}: no peer accepts it"), format!("{remedy}; {loaded}")]
        }
        Warning::IsRevoked => [
            format!(
                "the certificate of {peer} is revoked by the revocation list here: peers with that list reject it"
            ),
            "issue another with `dialback certs issue`; it is loaded without a restart".into(),
        ],
        Warning::ListEndsSoon => [
            format!("the revocation list ends in {list_left}, at {list_end}"),
            "create the next one with `dialback certs crl`; it is loaded without a restart".into(),
        ],
        Warning::ListHasEnded => [
            format!(
                "the revocation list expired at {list_end}: new links are rejected until there is a new one"
            ),
            "create it with `dialback certs crl`".into(),
        ],
    }
}

/// `17 days`, `5 h`, `40 min`, `12 s`.
fn rough(end: SystemTime, now: SystemTime) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    let seconds = end.duration_since(now).unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        _ if seconds < 48 * HOUR => format!("{} h", seconds / HOUR),
        _ => format!("{} days", seconds / (24 * HOUR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_last_third_of_a_lifetime_is_warned_about_and_the_time_before_is_not() {
        let start = SystemTime::UNIX_EPOCH + 1_000_000 * HOUR;
        let life = [start, start + 90 * HOUR];
        assert_eq!(warnings(life, None, start + 59 * HOUR), []);
        assert_eq!(warnings(life, None, start + 61 * HOUR), [Warning::EndsSoon]);
        assert_eq!(warnings(life, None, start + 91 * HOUR), [Warning::HasEnded]);
    }

    #[test]
    fn a_revocation_list_near_expiry_is_warned_about() {
        let start = SystemTime::UNIX_EPOCH + 1_000_000 * HOUR;
        let life = [start, start + 900 * HOUR];
        let with = |end| warnings(life, Some(end), start);
        assert_eq!(with(start + CRL_NEAR_EXPIRY + HOUR), []);
        assert_eq!(with(start + HOUR), [Warning::ListEndsSoon]);
        assert_eq!(with(start - HOUR), [Warning::ListHasEnded]);
    }

    #[test]
    fn the_remaining_time_is_rounded() {
        let now = SystemTime::UNIX_EPOCH + 1_000_000 * HOUR;
        let shown = |left| rough(now + left, now);
        assert_eq!(shown(Duration::from_secs(12)), "12 s");
        assert_eq!(shown(HOUR - Duration::from_secs(1)), "59 min");
        assert_eq!((shown(47 * HOUR), shown(49 * HOUR)), ("47 h".into(), "2 days".into()));
        assert_eq!(rough(now - HOUR, now), "0 s");
    }
}
