//! The revocation list of a peer: fetched from the enroller before it expires, and not touched if
//! another program manages it.

use super::{error::EnrollError, schedule};
use crate::{
    certs::{read_pem, replace_public},
    tls::{CredentialFiles, CrlInfo},
};
use std::{fs, path::Path, time::SystemTime};

/// Time at which the list in a peer's files is fetched again; never without one from an enroller.
pub(super) fn due(files: &CredentialFiles) -> Option<SystemTime> {
    let there = only(&fs::read(files.crl.as_deref()?).ok()?)?;
    Some(schedule::due(there.this_update, there.next_update?, 0.0))
}

/// Installs a list, if none exists or an older one of the same CA. Returns true if it did.
pub(super) fn take(path: &Path, pem: &str) -> Result<bool, EnrollError> {
    let Some(new) = only(pem.as_bytes()) else { return Ok(false) };
    let is_wanted =
        read_pem(path)?.is_none_or(|text| only(&text).is_some_and(|old| is_newer(&new, &old)));
    if is_wanted {
        replace_public(path, pem)?;
    }
    Ok(is_wanted)
}

/// The one list of a text. Several are a bundle that an operator made, and who made it keeps it.
fn only(pem: &[u8]) -> Option<CrlInfo> {
    let mut lists = CrlInfo::all_from_pem(pem).ok()?;
    let last = lists.pop();
    last.filter(|_| lists.is_empty())
}

fn is_newer(new: &CrlInfo, old: &CrlInfo) -> bool {
    let order = |list: &CrlInfo| (list.number, list.this_update);
    new.issuer == old.issuer && order(new) > order(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::Ca;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn list(ca: &Ca, number: u64, now: SystemTime) -> String {
        ca.crl(&[], number, now, now + 30 * DAY).expect("signed")
    }

    #[test]
    fn a_list_is_replaced_only_by_a_newer_one_of_its_ca() {
        let now = SystemTime::now();
        let [ca, other] = std::array::from_fn(|_| Ca::generate("d", now).expect("made"));
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("crl.pem");
        let take = |pem: &str| take(&path, pem).expect("readable");
        assert!(!take("") && !path.exists());
        assert!(take(&list(&ca, 3, now)));
        assert!(!take(&list(&ca, 2, now)) && !take(&list(&ca, 3, now)));
        assert!(!take(&list(&other, 9, now)));
        assert!(take(&list(&ca, 4, now)));
        let bundle = list(&ca, 4, now) + &list(&other, 1, now);
        fs::write(&path, &bundle).expect("written");
        assert!(!take(&list(&ca, 5, now)), "a bundle is its maker's");
        assert_eq!(fs::read_to_string(&path).expect("read"), bundle);
    }

    #[test]
    fn a_list_is_due_at_two_thirds_and_a_missing_one_never() {
        let now = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let ca = Ca::generate("d", now).expect("made");
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = CredentialFiles::in_dir(dir.path(), "agent-a");
        assert_eq!(due(&files), None);
        fs::write(dir.path().join("crl.pem"), list(&ca, 1, now)).expect("written");
        files = CredentialFiles::in_dir(dir.path(), "agent-a");
        assert!(due(&files).is_some_and(|due| due > now + 19 * DAY && due < now + 20 * DAY));
    }
}
