//! Checks of the files of credentials: certificate, role, key and revocation list.

use super::check::{Check, CheckState};
use crate::{
    credentials::{self, NO_LIST},
    exit::{Failure, chain},
    output::{count, show_path},
};
use dialback::{CredentialFiles, Credentials, CredentialsError, Role, Utc};
use std::time::SystemTime;

/// Checks of the files of credentials, and the credentials themselves.
pub(super) struct FilesFound {
    pub(super) checks: Vec<Check>,
    /// `None`: they cannot be used.
    pub(super) credentials: Option<Credentials>,
    /// The certificate is not valid yet by the clock of this machine.
    pub(super) is_not_valid_yet: bool,
}

pub(super) fn examine(role: Role, located: Result<CredentialFiles, Failure>) -> FilesFound {
    let failed = |check, is_not_valid_yet| FilesFound {
        checks: vec![check],
        credentials: None,
        is_not_valid_yet,
    };
    let files = match located {
        Ok(files) => files,
        Err(failure) => return failed(Check::of_failure("certificate", &failure), false),
    };
    match credentials::read(role, &files) {
        Ok(credentials) => {
            let checks = checks_of(&files, &credentials, SystemTime::now());
            FilesFound { checks, credentials: Some(credentials), is_not_valid_yet: false }
        }
        Err(error) => {
            let check = Check::of_text(subject(&error), CheckState::Failure, &chain(&error));
            failed(check, matches!(error, CredentialsError::NotValidYet { .. }))
        }
    }
}

/// The check that an error belongs to.
const fn subject(error: &CredentialsError) -> &'static str {
    use CredentialsError as E;
    match error {
        E::WrongRole { .. } => "role",
        E::ExposedKey { .. } | E::KeyMismatch { .. } => "key",
        E::MissingList { .. }
        | E::ForeignLists { .. }
        | E::ForgedList { .. }
        | E::OlderList { .. } => "revocation list",
        _ => "certificate",
    }
}

fn checks_of(files: &CredentialFiles, credentials: &Credentials, now: SystemTime) -> Vec<Check> {
    let (peer, domain) = (credentials.peer_name(), credentials.trust_domain());
    let (cert, key) = (show_path(&files.cert), show_path(&files.key));
    let left = days_left(credentials.validity().ends.at(), now);
    let list = match (credentials.crl_next_update(), &files.crl) {
        (Some(end), Some(list)) => {
            Check::ok("revocation list", format!("{}, until {}", show_path(list), Utc(end)))
        }
        _ => Check::of_text("revocation list", CheckState::Warning, NO_LIST),
    };
    let notices = credentials.expiry_notices(now);
    let of = |of_list, usual| {
        let found = notices.iter().filter(|notice| notice.is_of_list == of_list);
        let found = found.map(|notice| {
            let check = if of_list { "revocation list" } else { "certificate" };
            match notice.is_over {
                true => Check::failure(check, notice.fact.clone(), notice.remedy.clone()),
                false => Check::warning(check, notice.fact.clone(), notice.remedy.clone()),
            }
        });
        let found: Vec<_> = found.collect();
        if found.is_empty() { vec![usual] } else { found }
    };
    let certificate = Check::ok("certificate", format!("{peer} of {domain} in {cert}, {left}"));
    let mut checks = of(false, certificate);
    checks.push(Check::ok("role", format!("{peer} is of role {}", peer.role)));
    checks.push(Check::ok("key", format!("{key} fits, and other users cannot read it")));
    checks.extend(of(true, list));
    checks
}

/// `89 days left`, `5 hours left`.
pub(super) fn days_left(end: SystemTime, now: SystemTime) -> String {
    let hours = end.duration_since(now).unwrap_or_default().as_secs() / 3_600;
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let left =
        if hours < 48 { count(whole(hours), "hour") } else { count(whole(hours / 24), "day") };
    format!("{left} left")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_left_is_shown_in_days_or_hours() {
        let now = SystemTime::now();
        let left = |hours: u64| days_left(now + Duration::from_secs(hours * 3_600), now);
        assert_eq!(
            (left(1), left(47), left(48)),
            ("1 hour left".into(), "47 hours left".into(), "2 days left".into())
        );
        assert_eq!(days_left(now, now + Duration::from_secs(1)), "0 hours left");
    }
}
