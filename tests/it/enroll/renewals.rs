//! Renewal: automatic, with a new key, as long as the certificate is valid.

use super::*;
use crate::world::until;
use dialback::{
    JoinRefusal, RevokedSerial,
    enroll::{Renewal, Renewed},
};

/// Leafs that are due five seconds after they were signed, which leaves three to a busy machine.
const SHORT: Duration = Duration::from_secs(8);

async fn joined(site: &Site, at: SocketAddr) -> JoinedPeer {
    site.join(at, &site.token("agent/a"), "m").await.expect("joined")
}

/// Revokes a serial, as `dialback certs` does it.
fn revoke(site: &Site, serial: &str) {
    let now = SystemTime::now();
    let revoked = [RevokedSerial { serial: serial.into(), since: now }];
    let ca = site.ca().ca().expect("a CA");
    let list = ca.crl(&revoked, 2, now, now + 24 * HOUR).expect("signed");
    fs::write(site.path("ca/crl.pem"), list).expect("written");
}

#[tokio::test]
async fn a_short_leaf_is_renewed_repeatedly_with_a_new_key_each_time() {
    let site = Site::new();
    let enroller = site.enroller(SHORT).await;
    let first = joined(&site, enroller.local_addr()).await;
    let files = first.files.clone();
    let key = fs::read(&files.key).expect("a key");
    let renewing = Renewal::new(address(enroller.local_addr()), files.clone()).start();
    let mut serials = vec![first.serial.clone()];
    for round in 0..2 {
        until(&format!("the leaf is renewed, round {round}"), || {
            Credentials::from_files(&files)
                .is_ok_and(|now| !serials.contains(&now.identity().serial().to_owned()))
        })
        .await;
        let now = loads(&files);
        assert_eq!(now.peer_name().to_string(), "agent/a");
        serials.push(now.identity().serial().into());
    }
    drop(renewing);
    assert_ne!(fs::read(&files.key).expect("a key"), key);
    let recorded = site.ca().list().expect("a record");
    assert!(serials.iter().all(|serial| recorded.iter().any(|one| one.serial == *serial)));
    let names = names_in(&site.path("m"));
    assert_eq!(names, ["agent-a.key", "agent-a.pem", "ca.pem", "crl.pem"], "nothing else remains");
}

#[tokio::test]
async fn a_young_leaf_is_kept_without_contacting_the_enroller() {
    let site = Site::new();
    let enroller = site.enroller(24 * HOUR).await;
    let at = enroller.local_addr();
    let joined = joined(&site, at).await;
    enroller.shutdown().await;
    let kept = Renewal::new(address(at), joined.files.clone()).once().await.expect("kept");
    let Renewed::Kept { due, .. } = kept else { panic!("{kept:?}") };
    let left = due.duration_since(SystemTime::now()).expect("later");
    assert!(left > 14 * HOUR && left < 18 * HOUR, "{left:?}");
    assert_eq!(leaf_of(&joined.files).serial, joined.serial);
}

#[tokio::test]
async fn a_revoked_certificate_is_not_renewed_as_soon_as_the_crl_lists_it() {
    let site = Site::new();
    let enroller = site.enroller(24 * HOUR).await;
    let at = enroller.local_addr();
    let (joined, other) = (joined(&site, at).await, site.issued(Role::Agent, "b"));
    let (renew, list) = (raw::request(2, b"csr", "", &[]), raw::request(3, &[], "", &[]));
    let code = |presented: CredentialFiles, request_body: Vec<u8>| async move {
        raw::RawClient::new(Some(&presented)).ask(at, &request_body).await.code()
    };
    assert_eq!(code(joined.files.clone(), renew.clone()).await, JoinRefusal::TooEarly.number());
    revoke(&site, &joined.serial);
    assert_eq!(code(joined.files.clone(), renew.clone()).await, JoinRefusal::Revoked.number());
    assert_eq!(code(joined.files, list.clone()).await, JoinRefusal::Revoked.number());
    assert_eq!(code(other.clone(), list.clone()).await, 0);
    // A missing CRL must not accept revoked peers again.
    fs::remove_file(site.path("ca/crl.pem")).expect("removed");
    assert_eq!(code(other, list).await, JoinRefusal::Internal.number());
}

#[tokio::test]
async fn after_too_long_offline_a_renewal_is_refused_with_the_remedy_and_a_new_token_works() {
    let site = Site::new();
    let enroller = site.enroller(Duration::from_secs(3)).await;
    let first = joined(&site, enroller.local_addr()).await;
    until("it has ended", || SystemTime::now() > first.not_after).await;
    let renewal = Renewal::new(address(enroller.local_addr()), first.files.clone());
    let error = renewal.once().await.expect_err("too late").to_string();
    for part in ["agent-a.pem", "dialback enroll token agent a", "dialback agent join --enroll"] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    assert_ne!(joined(&site, enroller.local_addr()).await.serial, first.serial);
}

/// Puts a CRL that is due for an update next to the machine's certificate.
fn put_old_list(site: &Site) -> PathBuf {
    let (now, path) = (SystemTime::now(), site.path("m/crl.pem"));
    let ca = site.ca().ca().expect("a CA");
    let old = ca.crl(&[], 0, now - 29 * 24 * HOUR, now + 24 * HOUR).expect("signed");
    fs::write(&path, old).expect("written");
    path
}

#[tokio::test]
async fn an_old_crl_next_to_the_certificate_is_replaced_by_the_enrollers() {
    let site = Site::new();
    let enroller = site.enroller(24 * HOUR).await;
    let joined = joined(&site, enroller.local_addr()).await;
    let path = put_old_list(&site);
    let renewal = Renewal::new(address(enroller.local_addr()), joined.files.clone());
    assert!(matches!(renewal.once().await, Ok(Renewed::Kept { .. })));
    let enrollers = fs::read(site.path("ca/crl.pem")).expect("a list");
    assert_eq!(fs::read(&path).expect("a list"), enrollers);
}

#[tokio::test]
async fn no_node_or_agent_of_the_same_ca_is_accepted_as_the_enroller_of_a_renewal() {
    let site = Site::new();
    let enroller = site.enroller(24 * HOUR).await;
    let joined = joined(&site, enroller.local_addr()).await;
    let path = put_old_list(&site);
    let old = fs::read(&path).expect("a list");
    for presented in [site.issued(Role::Node, "edge-1"), site.issued(Role::Agent, "b")] {
        let impostor = raw::impostor(&presented);
        let at = impostor.local_addr().expect("an address");
        let error = Renewal::new(address(at), joined.files.clone()).once().await;
        let error = error.expect_err("refused");
        assert!(matches!(error, EnrollError::Untrusted { .. }), "{error}");
        assert_eq!(fs::read(&path).expect("a list"), old);
    }
    let renewal = Renewal::new(address(enroller.local_addr()), joined.files.clone());
    assert!(renewal.once().await.is_ok());
    assert_ne!(fs::read(&path).expect("a list"), old, "the enroller itself is accepted");
}
