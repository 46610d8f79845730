//! Renews the certificates that were issued here.

use super::{
    CertsDir, CertsError, CrlReport,
    ca::Ca,
    dir::{Action, ISSUED, expect_valid, is_fresh},
    issue::{IssueReport, Plan, hosts_of},
    issued,
    params::BACKDATED,
};
use crate::{
    name::PeerName,
    tls::{CertificateInfo, Utc},
};
use std::time::{Duration, SystemTime};

/// Result of a renewal for one peer.
#[derive(Debug, Clone)]
pub enum PeerRenewal {
    /// It was kept or renewed.
    Done(IssueReport),
    /// It was revoked, or shares a revoked key: only issuing it by name with a new key renews it.
    Revoked(PeerName),
    /// It expired and so may be of a retired peer. [`RenewOptions::expired`] renews it.
    Expired {
        /// The peer that it names.
        peer: PeerName,
        /// End of its validity.
        not_after: SystemTime,
    },
}

/// Which certificates [`CertsDir::renew`] renews.
#[derive(Debug, Clone, Default)]
pub struct RenewOptions {
    /// One peer. `None`: all of them.
    pub only: Option<PeerName>,
    /// Does not wait for the last third of their life.
    pub force: bool,
    /// Renews expired certificates too.
    pub expired: bool,
}

/// Report of [`CertsDir::renew`].
#[derive(Debug, Clone)]
pub struct RenewReport {
    /// Every peer whose certificate lies here, in the order of their names.
    pub peers: Vec<PeerRenewal>,
    /// Action on the revocation list.
    pub crl: CrlReport,
    /// End of the CA's validity.
    pub ca_not_after: SystemTime,
    /// True if the CA is in the last third of its life, and a change-over is due.
    pub is_ca_old: bool,
}

impl CertsDir {
    /// Renews certificates in the last third of their life, with the hosts and the length of life
    /// that they have, and the revocation list if due. Skips revoked certificates, and expired ones
    /// unless the options name them. A key in this directory is replaced; one elsewhere is signed
    /// again.
    pub fn renew(
        &self,
        options: &RenewOptions,
        now: SystemTime,
    ) -> Result<RenewReport, CertsError> {
        let only = options.only.as_ref();
        let _held = self.hold()?;
        let ca = self.ca()?;
        expect_valid(&ca, now)?;
        let mut peers = vec![];
        for peer in self.issued_peers(only)? {
            peers.extend(self.renew_one(&ca, &peer, options, now)?);
        }
        if let (true, Some(peer)) = (peers.is_empty(), only) {
            return Err(CertsError::NeverIssued { dir: self.dir.clone(), peer: peer.clone() });
        }
        let crl = self.keep_or_sign_crl(&ca, now)?;
        let (from, until) = (ca.info().not_before, ca.info().not_after);
        let is_ca_old = !is_fresh(from, until, now);
        Ok(RenewReport { peers, crl, ca_not_after: until, is_ca_old })
    }

    /// Peers in the record: a certificate that was issued elsewhere is not renewed.
    fn issued_peers(&self, only: Option<&PeerName>) -> Result<Vec<PeerName>, CertsError> {
        let listed = issued::read(&self.at(ISSUED))?;
        let peers = listed.into_iter().map(|one| one.peer);
        let mut wanted: Vec<_> =
            peers.filter(|peer| only.is_none_or(|only| only == peer)).collect();
        wanted.sort_by_key(ToString::to_string);
        wanted.dedup();
        Ok(wanted)
    }

    /// `None` where the certificate was removed from here.
    fn renew_one(
        &self,
        ca: &Ca,
        peer: &PeerName,
        options: &RenewOptions,
        now: SystemTime,
    ) -> Result<Option<PeerRenewal>, CertsError> {
        let Some((info, has_key)) = self.present_leaf(peer)? else { return Ok(None) };
        if self.is_revoked(&info.serial)? {
            return Ok(Some(PeerRenewal::Revoked(peer.clone())));
        }
        if now > info.not_after && !options.expired {
            let (peer, not_after) = (peer.clone(), info.not_after);
            return Ok(Some(PeerRenewal::Expired { peer, not_after }));
        }
        if now < info.not_before && !options.force {
            let (peer, since, now) = (peer.clone(), Utc(info.not_before), Utc(now));
            return Err(CertsError::ClockBehind { peer, since, now });
        }
        let is_due = !ca.is_issuer_of(&info) || !is_fresh(info.not_before, info.not_after, now);
        if !is_due && !options.force {
            return Ok(Some(PeerRenewal::Done(self.report(Action::Kept, peer, &info))));
        }
        if !has_key && self.revoked_serial_of_key(peer, info.public_key_der())?.is_some() {
            return Ok(Some(PeerRenewal::Revoked(peer.clone())));
        }
        let hosts = hosts_of(&info);
        let not_after = (now + life_of(&info)).min(ca.info().not_after);
        let plan = Plan { peer, hosts: &hosts, not_after };
        let key = (!has_key).then(|| info.public_key_der());
        let renewed = self.make(ca, &plan, key, now)?;
        Ok(Some(PeerRenewal::Done(self.report(Action::Renewed, peer, &renewed))))
    }
}

/// Lifetime that was requested: the certificate began an hour before it was signed.
fn life_of(info: &CertificateInfo) -> Duration {
    let lifetime = info.not_after.duration_since(info.not_before).unwrap_or_default();
    lifetime.saturating_sub(BACKDATED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certs::{
            InitOptions, LeafRequest,
            fixtures::{DAY, now, with_ca},
        },
        name::Role,
    };
    use std::fs;

    fn request(role: Role, name: &str, days: u32) -> LeafRequest {
        let sans =
            if role == Role::Node { vec!["b.example".into(), "10.0.0.1".into()] } else { vec![] };
        LeafRequest { sans, days, ..LeafRequest::new(role, name.parse().expect("a name")) }
    }

    fn renewed(certs: &CertsDir, after: Duration) -> Vec<(String, Action, u64)> {
        let report = certs.renew(&RenewOptions::default(), now() + after).expect("renewed");
        let days = |until: SystemTime| {
            until.duration_since(now() + after).expect("later").as_secs() / 86_400
        };
        let peers = report.peers.into_iter().map(|one| match one {
            PeerRenewal::Done(r) => (r.peer.to_string(), r.action, days(r.not_after)),
            other => panic!("not renewed: {other:?}"),
        });
        peers.collect()
    }

    #[test]
    fn certificates_in_their_last_third_are_renewed_unchanged_and_others_are_kept() {
        let (_dir, certs) = with_ca();
        certs.issue(&request(Role::Agent, "a", 30), now()).expect("issued");
        certs.issue(&request(Role::Node, "n", 90), now()).expect("issued");
        let name = |text: &str| text.to_owned();
        let (a, n) = (name("agent/a"), name("node/n"));
        assert_eq!(
            renewed(&certs, 10 * DAY),
            [(a.clone(), Action::Kept, 20), (n.clone(), Action::Kept, 80)]
        );
        assert_eq!(
            renewed(&certs, 21 * DAY),
            [(a, Action::Renewed, 30), (n.clone(), Action::Kept, 69)]
        );
        assert_eq!(renewed(&certs, 45 * DAY)[0].1, Action::Renewed);
        assert_eq!(renewed(&certs, 61 * DAY)[1], (n, Action::Renewed, 90));
        let peer = "node/n".parse().expect("a peer");
        let (info, has_key) = certs.present_leaf(&peer).expect("read").expect("there");
        assert!(has_key);
        assert_eq!(
            (info.dns_sans.as_slice(), info.ip_sans.len()),
            (&["b.example".to_owned()][..], 1)
        );
    }

    #[test]
    fn a_certificate_whose_key_is_elsewhere_is_signed_again_for_the_same_key() {
        let (dir, certs) = with_ca();
        let site = CertsDir::new(dir.path().join("site"));
        let peer: PeerName = "agent/a".parse().expect("a peer");
        let csr = site.request(&peer, false).expect("made").csr_path;
        certs.sign(csr, &request(Role::Agent, "a", 90), now()).expect("signed");
        let leaf = || certs.present_leaf(&peer).expect("read").expect("there").0;
        let before = leaf();
        assert_eq!(renewed(&certs, 61 * DAY)[0].1, Action::Renewed);
        assert_ne!(leaf().serial, before.serial);
        assert!(leaf().has_public_key(before.public_key_der()));
    }

    #[test]
    fn one_peer_is_renewed_by_name_a_revoked_one_never_and_none_beyond_the_end_of_the_ca() {
        let (_dir, certs) = with_ca();
        for name in ["a", "b"] {
            certs.issue(&request(Role::Agent, name, 90), now()).expect("issued");
        }
        let [a, b, c] =
            ["agent/a", "agent/b", "agent/c"].map(|p| p.parse::<PeerName>().expect("a peer"));
        let only = |peer: &PeerName| RenewOptions {
            only: Some(peer.clone()),
            force: true,
            ..RenewOptions::default()
        };
        let report = certs.renew(&only(&a), now()).expect("renewed");
        assert!(
            matches!(&report.peers[..], [PeerRenewal::Done(r)] if r.action == Action::Renewed && r.peer == a)
        );
        assert!(
            certs.renew(&only(&c), now()).expect_err("refused").to_string().contains("agent/c")
        );
        certs.revoke(&b, now()).expect("revoked");
        let all = RenewOptions { force: true, ..RenewOptions::default() };
        let report = certs.renew(&all, now()).expect("renewed");
        assert!(
            matches!(&report.peers[..], [PeerRenewal::Done(_), PeerRenewal::Revoked(p)] if *p == b)
        );
        let late = now() + 3_640 * DAY;
        let expired = RenewOptions { only: Some(a.clone()), force: false, expired: true };
        let report = certs.renew(&expired, late).expect("renewed");
        assert!(report.is_ca_old);
        assert!(
            matches!(&report.peers[..], [PeerRenewal::Done(r)] if r.not_after == report.ca_not_after)
        );
        fs::remove_file(certs.leaf_path(&a, "pem")).expect("removed");
        assert!(certs.renew(&only(&a), now()).is_err());
    }

    #[test]
    fn an_expired_certificate_is_renewed_only_with_the_option_expired() {
        let (_dir, certs) = with_ca();
        certs.issue(&request(Role::Agent, "a", 30), now()).expect("issued");
        certs.issue(&request(Role::Agent, "b", 90), now()).expect("issued");
        let serial = |peer: &str| {
            let peer = peer.parse().expect("a peer");
            certs.present_leaf(&peer).expect("read").expect("there").0.serial
        };
        let (before, end) = (serial("agent/a"), now() + 30 * DAY);
        for force in [false, true] {
            let options = RenewOptions { force, ..RenewOptions::default() };
            let report = certs.renew(&options, end + Duration::from_secs(1)).expect("renewed");
            assert!(
                matches!(
                    &report.peers[..],
                    [PeerRenewal::Expired { peer, not_after }, PeerRenewal::Done(_)]
                        if peer.name.as_str() == "a" && *not_after == end
                ),
                "{report:?}"
            );
            assert_eq!(serial("agent/a"), before);
        }
        let expired = RenewOptions { expired: true, ..RenewOptions::default() };
        let report = certs.renew(&expired, end + DAY).expect("renewed");
        assert!(
            matches!(&report.peers[0], PeerRenewal::Done(r) if r.action == Action::Renewed),
            "{report:?}"
        );
        assert_ne!(serial("agent/a"), before);
    }

    #[test]
    fn the_key_of_a_revoked_certificate_is_not_signed_under_another_name_nor_after_another_key() {
        let (dir, certs) = with_ca();
        let key = |name: &str| {
            let site = CertsDir::new(dir.path().join(name));
            site.request(&"agent/a".parse().expect("a peer"), false).expect("made").csr_path
        };
        let (stolen, other) = (key("stolen"), key("other"));
        let sign = |csr, name| certs.sign(csr, &request(Role::Agent, name, 90), now());
        sign(&stolen, "a").expect("signed");
        sign(&stolen, "shared").expect("one key may have two names");
        certs.revoke(&"agent/a".parse().expect("a peer"), now()).expect("revoked");
        sign(&other, "a").expect("another key is signed");
        for name in ["a", "b", "shared"] {
            let message = sign(&stolen, name).expect_err("refused").to_string();
            assert!(
                message.contains("revoked") && message.contains("certs request agent"),
                "{message}"
            );
        }
        // Nor where the present certificate is shown for another key.
        let listed = certs.list().expect("listed");
        let of = |name: &str| {
            let mut of = listed.iter().filter(|one| one.peer.name.as_str() == name);
            let serial = of.next_back().expect("issued").serial.clone();
            certs.revoked_serial_sharing_key(&serial).expect("looked")
        };
        assert_eq!(of("shared").as_ref(), Some(&listed[0].serial));
        assert_eq!(of("a"), None, "its key is another now");
        // Renewing its certificate under another name is refused too.
        let options = RenewOptions { force: true, ..RenewOptions::default() };
        let report = certs.renew(&options, now()).expect("renewed");
        assert!(
            matches!(&report.peers[..], [PeerRenewal::Done(_), PeerRenewal::Revoked(peer)] if peer.name.as_str() == "shared"),
            "{report:?}"
        );
        certs.issue(&request(Role::Agent, "shared", 90), now()).expect("a new key");
        let report = certs.renew(&options, now()).expect("renewed");
        assert!(
            matches!(&report.peers[..], [PeerRenewal::Done(_), PeerRenewal::Done(_)]),
            "{report:?}"
        );
    }

    #[test]
    fn a_revoked_key_that_an_older_record_does_not_hold_is_known_by_its_certificate_file() {
        let (dir, certs) = with_ca();
        let peer: PeerName = "agent/a".parse().expect("a peer");
        let site = CertsDir::new(dir.path().join("site"));
        let csr = site.request(&peer, false).expect("made").csr_path;
        let sign = || certs.sign(&csr, &request(Role::Agent, "a", 90), now());
        sign().expect("signed");
        let record = fs::read_to_string(certs.at(ISSUED)).expect("read");
        let at = record.find(",\"key_sha256\"").expect("a digest");
        fs::write(certs.at(ISSUED), format!("{}}}\n", &record[..at])).expect("written");
        assert_eq!(certs.list().expect("listed").len(), 1);
        certs.revoke(&peer, now()).expect("revoked");
        let message = sign().expect_err("refused").to_string();
        assert!(message.contains("revoked"), "{message}");
    }

    #[test]
    fn a_clock_that_is_behind_renews_no_valid_certificate_except_by_force() {
        let (_dir, certs) = with_ca();
        certs.issue(&request(Role::Agent, "a", 30), now() + 500 * DAY).expect("issued");
        let behind = now() + 100 * DAY;
        let message =
            certs.renew(&RenewOptions::default(), behind).expect_err("refused").to_string();
        assert!(
            message.contains("agent/a is not valid yet") && message.contains("clock"),
            "{message}"
        );
        assert_eq!(renewed(&certs, 501 * DAY)[0].1, Action::Kept, "it is the one that it was");
        let options = RenewOptions { force: true, ..RenewOptions::default() };
        certs.renew(&options, behind).expect("renewed by force");
        // Before the CA's own start nothing is renewed at all.
        let message = certs.renew(&options, now() - 400 * DAY).expect_err("refused").to_string();
        assert!(message.contains("the CA is not valid yet"), "{message}");
    }

    #[test]
    fn a_certificate_is_renewed_up_to_its_last_second() {
        let (_dir, certs) = with_ca();
        certs.issue(&request(Role::Agent, "a", 30), now()).expect("issued");
        assert_eq!(renewed(&certs, 30 * DAY)[0].1, Action::Renewed);
    }

    #[test]
    fn after_a_new_ca_all_certificates_and_the_list_are_renewed() {
        let (_dir, certs) = with_ca();
        certs.issue(&request(Role::Agent, "a", 90), now()).expect("issued");
        certs
            .init(&InitOptions { force: true, ..InitOptions::default() }, now())
            .expect("a new CA");
        assert_eq!(renewed(&certs, Duration::ZERO)[0].1, Action::Renewed);
        let report = certs.renew(&RenewOptions::default(), now() + 25 * DAY).expect("renewed");
        assert_eq!((report.crl.action, report.crl.number), (Action::Renewed, 3));
    }
}
