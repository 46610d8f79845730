//! The revocation list of a directory: adds entries, and signs the list again before it expires.

use super::{
    CertsDir, CertsError,
    ca::Ca,
    dir::{Action, CRL, CRL_NUMBER, ISSUED, REVOKED, is_fresh},
    files::{self, Audience},
    issued, revoked,
};
use crate::{
    name::PeerName,
    tls::{self, CertificateInfo, CrlInfo, PemError, RevokedSerial},
};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// Lifetime of a revocation list. It is signed again in its last third.
const CRL_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Action on the revocation list.
#[derive(Debug, Clone)]
pub struct CrlReport {
    /// True if it was signed.
    pub action: Action,
    /// The list.
    pub path: PathBuf,
    /// Its number, which counts up from list to list.
    pub number: u64,
    /// Number of certificates on it.
    pub revoked: usize,
    /// End of its validity.
    pub next_update: Option<SystemTime>,
}

/// Report of [`CertsDir::revoke`].
#[derive(Debug, Clone)]
pub struct RevokeReport {
    /// The peer that they named.
    pub peer: PeerName,
    /// The serial numbers that were revoked now.
    pub revoked: Vec<String>,
    /// Number of those revoked before.
    pub before: usize,
    /// The list that has them.
    pub crl: CrlReport,
}

impl CertsDir {
    /// Signs the revocation list again, with everything that was revoked and the next number.
    pub fn crl(&self, now: SystemTime) -> Result<CrlReport, CertsError> {
        let _held = self.hold()?;
        let ca = self.ca()?;
        let present = self.present_list(&ca)?;
        self.sign_crl(&ca, &present, now)
    }

    /// Revokes every certificate that was issued to a peer here, and signs the list. Repeatable.
    pub fn revoke(&self, peer: &PeerName, now: SystemTime) -> Result<RevokeReport, CertsError> {
        let _held = self.hold()?;
        let ca = self.ca()?;
        let present = self.present_list(&ca)?;
        let issued = self.serials_of(peer, &ca)?;
        if issued.is_empty() {
            return Err(CertsError::NeverIssued { dir: self.dir.clone(), peer: peer.clone() });
        }
        let gone: BTreeSet<_> = present.entries.iter().map(|entry| entry.serial.as_str()).collect();
        let (before, revoked): (Vec<_>, Vec<_>) =
            issued.into_iter().partition(|serial| gone.contains(serial.as_str()));
        for serial in &revoked {
            let entry = RevokedSerial { serial: serial.clone(), since: now };
            revoked::append(&self.at(REVOKED), &ca.info().subject, Some(peer), &entry)?;
        }
        let crl = self.keep_or_sign_crl(&ca, now)?;
        Ok(RevokeReport { peer: peer.clone(), revoked, before: before.len(), crl })
    }

    /// Keeps the list while it is fresh, the last one signed here, and complete.
    pub(super) fn keep_or_sign_crl(
        &self,
        ca: &Ca,
        now: SystemTime,
    ) -> Result<CrlReport, CertsError> {
        let present = self.present_list(ca)?;
        match &present.newest {
            Some(newest) if present.is_current(newest, now) => Ok(CrlReport {
                action: Action::Kept,
                path: self.at(CRL),
                number: newest.number.unwrap_or(0),
                revoked: newest.revoked.len(),
                next_update: newest.next_update,
            }),
            _ => self.sign_crl(ca, &present, now),
        }
    }

    fn sign_crl(
        &self,
        ca: &Ca,
        present: &PresentList,
        now: SystemTime,
    ) -> Result<CrlReport, CertsError> {
        // Lists of a CA that was replaced by force do not apply to this one.
        if present.foreign > 0 && present.newest.is_some() {
            return Err(CertsError::ForeignLists { path: self.at(CRL) });
        }
        // Entries that only the list has are recorded too.
        for entry in &present.unrecorded {
            revoked::append(&self.at(REVOKED), &ca.info().subject, None, entry)?;
        }
        let number = present
            .number
            .checked_add(1)
            .ok_or_else(|| CertsError::BadNumber { path: self.at(CRL_NUMBER) })?;
        let until = now + CRL_LIFE;
        let pem = ca.crl(&present.entries, number, now, until)?;
        revoked::write_number(&self.at(CRL_NUMBER), number)?;
        files::replace(&self.at(CRL), &pem, Audience::All)?;
        Ok(CrlReport {
            action: if present.newest.is_some() { Action::Renewed } else { Action::Made },
            path: self.at(CRL),
            number,
            revoked: present.entries.len(),
            next_update: Some(until),
        })
    }

    /// True if a certificate of any CA was revoked: serial numbers are random and never meet.
    pub(super) fn is_revoked(&self, serial: &str) -> Result<bool, CertsError> {
        Ok(self.revoked_serials()?.contains(serial))
    }

    /// The revoked certificate, of any peer and CA, that had this key (SubjectPublicKeyInfo in
    /// DER). Older lines of the record have no digest of the key; for `peer` its certificate file
    /// is read.
    pub(super) fn revoked_serial_of_key(
        &self,
        peer: &PeerName,
        public_key_der: &[u8],
    ) -> Result<Option<String>, CertsError> {
        let revoked = self.revoked_serials()?;
        if revoked.is_empty() {
            return Ok(None);
        }
        let Some(digest) = tls::key_digest(public_key_der) else {
            return Err(CertsError::Signing { why: "the public key cannot be parsed".into() });
        };
        let listed = issued::read(&self.at(ISSUED))?.into_iter();
        let listed = listed.filter_map(|one| Some((one.serial, one.key_digest?)));
        let present = self.present_leaf(peer)?.and_then(|(leaf, _)| {
            let digest = tls::key_digest(leaf.public_key_der())?;
            Some((leaf.serial, digest))
        });
        let mut known = listed.chain(present);
        Ok(known.find(|(serial, of)| *of == digest && revoked.contains(serial)).map(|(s, _)| s))
    }

    /// The revoked certificate that shares the key of this serial's, as far as the record knows.
    pub(super) fn revoked_serial_sharing_key(
        &self,
        serial: &str,
    ) -> Result<Option<String>, CertsError> {
        let revoked = self.revoked_serials()?;
        let listed = issued::read(&self.at(ISSUED))?;
        let own = listed.iter().find(|one| one.serial == serial);
        let Some(digest) = own.and_then(|one| one.key_digest.as_ref()) else { return Ok(None) };
        let mut same = listed.iter().filter(|one| one.key_digest.as_ref() == Some(digest));
        Ok(same.find(|one| revoked.contains(&one.serial)).map(|one| one.serial.clone()))
    }

    /// Everything that the record and the list know of, whichever CA it was of.
    pub(super) fn all_revoked(&self) -> Result<Vec<RevokedSerial>, CertsError> {
        let mut all = revoked::read(&self.at(REVOKED), None)?;
        all.extend(self.lists()?.into_iter().flat_map(|list| list.revoked));
        Ok(all)
    }

    fn revoked_serials(&self) -> Result<BTreeSet<String>, CertsError> {
        Ok(self.all_revoked()?.into_iter().map(|entry| entry.serial).collect())
    }

    fn lists(&self) -> Result<Vec<CrlInfo>, CertsError> {
        let path = self.at(CRL);
        let text = files::read_pem(&path)?.unwrap_or_default();
        CrlInfo::all_from_pem(&text).map_err(|source| match source {
            PemError::Unusable { why } => CertsError::Unusable { path, why },
            source => CertsError::DamagedList { path, source },
        })
    }

    fn present_list(&self, ca: &Ca) -> Result<PresentList, CertsError> {
        let subject = &ca.info().subject;
        let (mut own, foreign): (Vec<_>, Vec<_>) =
            self.lists()?.into_iter().partition(|list| list.issuer == *subject);
        own.sort_by_key(|list| (list.number, list.this_update));
        let mut entries = revoked::read(&self.at(REVOKED), Some(subject))?;
        let recorded = entries.len();
        for entry in own.iter().flat_map(|list| &list.revoked) {
            if !entries.iter().any(|known| known.serial == entry.serial) {
                entries.push(entry.clone());
            }
        }
        let newest = own.pop();
        let in_list = newest.as_ref().and_then(|list| list.number).unwrap_or(0);
        Ok(PresentList {
            number: in_list.max(revoked::read_number(&self.at(CRL_NUMBER))?),
            unrecorded: entries[recorded..].to_vec(),
            entries,
            newest,
            foreign: foreign.len(),
        })
    }

    /// By the record, and by the file that is there in case the record was lost.
    fn serials_of(&self, peer: &PeerName, ca: &Ca) -> Result<BTreeSet<String>, CertsError> {
        let listed = issued::read(&self.at(ISSUED))?;
        let listed = listed.into_iter().filter(|one| one.peer == *peer).map(|one| one.serial);
        let text = files::read_pem(&self.leaf_path(peer, "pem"))?.unwrap_or_default();
        let there = CertificateInfo::all_from_pem(&text).unwrap_or_default();
        let there = there.into_iter().filter(|leaf| ca.is_issuer_of(leaf)).map(|leaf| leaf.serial);
        Ok(listed.chain(there).collect())
    }

    /// True if a list was ever signed here.
    pub(super) fn has_list_number(&self) -> bool {
        self.at(CRL_NUMBER).exists()
    }
}

struct PresentList {
    /// The newest list of this CA.
    newest: Option<CrlInfo>,
    /// Number of lists of other CAs in the file.
    foreign: usize,
    /// Everything that is revoked, by the record and by the lists.
    entries: Vec<RevokedSerial>,
    /// Entries that only the lists have.
    unrecorded: Vec<RevokedSerial>,
    /// The highest number that was ever given.
    number: u64,
}

impl PresentList {
    fn is_current(&self, newest: &CrlInfo, now: SystemTime) -> bool {
        let is_fresh =
            newest.next_update.is_some_and(|until| is_fresh(newest.this_update, until, now));
        let is_last = newest.number.unwrap_or(0) == self.number;
        is_fresh && is_last && newest.revoked.len() == self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{
        InitOptions, LeafRequest,
        fixtures::{DAY, now, peer, with_ca},
    };
    use std::fs;

    fn issue(certs: &CertsDir, who: &str, force: bool) -> (Action, String) {
        let PeerName { role, name } = peer(who);
        let request = LeafRequest { force, ..LeafRequest::new(role, name) };
        let report = certs.issue(&request, now()).expect("issued");
        (report.action, report.serial)
    }

    fn on_list(certs: &CertsDir) -> (u64, BTreeSet<String>) {
        let list = certs.lists().expect("read").remove(0);
        (list.number.expect("a number"), list.revoked.into_iter().map(|e| e.serial).collect())
    }

    #[test]
    fn a_peer_is_revoked_with_all_its_serials_and_others_are_not() {
        let (_dir, certs) = with_ca();
        let serials: BTreeSet<_> =
            [false, true, true].map(|force| issue(&certs, "agent/a", force).1).into();
        let (_, other) = issue(&certs, "caller/a", false);
        let report = certs.revoke(&peer("agent/a"), now()).expect("revoked");
        assert_eq!((report.revoked.len(), report.before, report.crl.revoked), (3, 0, 3));
        assert_eq!(on_list(&certs), (2, serials));
        let again = certs.revoke(&peer("agent/a"), now()).expect("nothing to do");
        assert_eq!((again.revoked.len(), again.before, again.crl.action), (0, 3, Action::Kept));
        let listed = certs.list().expect("listed");
        let revoked =
            |serial: &str| listed.iter().any(|l| l.serial == serial && l.revoked.is_some());
        assert!(!revoked(&other) && listed.iter().filter(|l| l.revoked.is_some()).count() == 3);
        let message = certs.revoke(&peer("agent/b"), now()).expect_err("refused").to_string();
        assert!(message.contains("agent/b") && message.contains("certs list"), "{message}");
    }

    #[test]
    fn a_revoked_peer_gets_a_new_certificate_when_it_is_issued_again() {
        let (_dir, certs) = with_ca();
        let (_, old) = issue(&certs, "agent/a", false);
        assert_eq!(issue(&certs, "agent/a", false), (Action::Kept, old.clone()));
        certs.revoke(&peer("agent/a"), now()).expect("revoked");
        let (action, new) = issue(&certs, "agent/a", false);
        assert_eq!(action, Action::Renewed);
        assert!(!on_list(&certs).1.contains(&new) && new != old);
        assert_eq!(issue(&certs, "agent/a", false), (Action::Kept, new));
    }

    #[test]
    fn the_number_never_decreases_and_no_entry_is_lost_when_the_list_is_lost() {
        let (_dir, certs) = with_ca();
        let first = fs::read(certs.at(CRL)).expect("read");
        let (_, serial) = issue(&certs, "agent/a", false);
        certs.revoke(&peer("agent/a"), now()).expect("revoked");
        assert_eq!(certs.crl(now()).expect("signed").number, 3);
        let expected = |number| (number, BTreeSet::from([serial.clone()]));
        fs::remove_file(certs.at(CRL)).expect("removed");
        let report = certs.crl(now()).expect("signed");
        assert_eq!((report.number, report.action), (4, Action::Made));
        assert_eq!(on_list(&certs), expected(4));
        fs::write(certs.at(CRL), first).expect("put back");
        certs.init(&InitOptions::default(), now()).expect("mended");
        assert_eq!(on_list(&certs), expected(5), "an old list was kept");
        fs::remove_file(certs.at(CRL_NUMBER)).expect("removed");
        assert_eq!(certs.crl(now()).expect("signed").number, 6);
        fs::remove_file(certs.at(REVOKED)).expect("removed");
        certs.crl(now()).expect("signed");
        fs::remove_file(certs.at(CRL)).expect("removed");
        certs.crl(now()).expect("signed");
        assert_eq!(on_list(&certs), expected(8), "what only the list knew was not recorded");
    }

    #[test]
    fn an_unreadable_list_or_number_is_named_with_its_remedy() {
        let (_dir, certs) = with_ca();
        let message = || certs.crl(now()).expect_err("refused").to_string();
        let good = fs::read_to_string(certs.at(CRL)).expect("read");
        fs::write(certs.at(CRL), &good[..good.len() / 2]).expect("written");
        assert!(message().contains("crl.pem") && message().contains("remove it"), "{}", message());
        fs::write(certs.at(CRL), good).expect("written");
        fs::write(certs.at(CRL_NUMBER), "seven").expect("written");
        assert!(message().contains("crl.number"), "{}", message());
        fs::write(certs.at(CRL_NUMBER), "7\n").expect("written");
        assert_eq!(certs.crl(now()).expect("signed").number, 8);
    }

    #[test]
    fn a_new_ca_continues_the_numbers_and_does_not_list_leafs_of_the_old_one() {
        let (_dir, certs) = with_ca();
        issue(&certs, "agent/a", false);
        certs.revoke(&peer("agent/a"), now()).expect("revoked");
        let forced = InitOptions { force: true, ..InitOptions::default() };
        certs.init(&forced, now() + DAY).expect("a new CA");
        assert_eq!(on_list(&certs), (3, BTreeSet::new()));
        assert!(certs.list().expect("listed")[0].revoked.is_some());
    }

    #[test]
    fn commands_that_run_at_once_lose_nothing() {
        let (_dir, certs) = with_ca();
        std::thread::scope(|scope| {
            for at in 0..8 {
                let certs = &certs;
                scope.spawn(move || {
                    issue(certs, &format!("agent/a{at}"), false);
                    certs.revoke(&peer(&format!("agent/a{at}")), now()).expect("revoked");
                });
            }
        });
        assert_eq!(certs.list().expect("listed").len(), 8);
        let (number, serials) = on_list(&certs);
        assert_eq!((number, serials.len()), (9, 8));
    }
}
