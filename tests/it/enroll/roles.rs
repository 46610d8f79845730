//! The role matrix at an enroller: every kind of certificate of a renewing peer, and of a listener
//! that a renewing peer dials. The rest of the matrix is in `roles.rs`.

use super::*;
use crate::roles::KINDS;
use dialback::{
    JoinRefusal, RevokedSerial,
    certs::{LeafPem, LeafProfile, Usage},
    enroll::Renewal,
};

/// A leaf of a peer with all extensions of a node's, signed without a record.
fn node_like(peer: &str) -> LeafProfile {
    let peer = peer.parse().expect("a peer name");
    let hosts = ["localhost", "127.0.0.1"];
    LeafProfile::new("dialback.local", &peer, &hosts, SystemTime::now())
}

/// Writes a leaf and its key, and the CA next to them, as `dir/x.pem` and so on.
fn written(site: &Site, dir: &str, leaf: &LeafPem) -> CredentialFiles {
    let dir = site.path(dir);
    fs::create_dir_all(&dir).expect("made");
    let files = CredentialFiles::in_dir(&dir, "x");
    fs::write(&files.cert, &leaf.cert).expect("written");
    fs::write(&files.key, leaf.key.as_bytes()).expect("written");
    #[cfg(unix)]
    fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("changed");
    fs::copy(site.path("ca/ca.pem"), &files.ca).expect("copied");
    files
}

#[tokio::test]
async fn only_certificates_of_agents_and_callers_of_the_ca_can_be_renewed() {
    let (site, other_ca) = (Site::new(), Site::new());
    let enroller = site.enroller(24 * HOUR).await;
    let (ca, now) = (site.ca().ca().expect("a CA"), SystemTime::now());
    let foreign = other_ca.ca().ca().expect("a CA");
    let mut rows = vec![];
    let mut revoked = vec![];
    for peer in ["agent/x", "caller/x", "node/x"] {
        let is_peer = peer != "node/x";
        for (kind, change, [dials, _]) in KINDS {
            let mut profile = node_like(peer);
            change(&mut profile);
            rows.push((peer, kind, ca.leaf(&profile).expect("a leaf"), is_peer && dials));
        }
        let other = foreign.leaf(&node_like(peer)).expect("a leaf");
        rows.push((peer, "another CA", other, false));
        let revoked_leaf = ca.leaf(&node_like(peer)).expect("a leaf");
        revoked.push(RevokedSerial { serial: revoked_leaf.serial.clone(), since: now });
        rows.push((peer, "revoked", revoked_leaf, false));
    }
    let list = ca.crl(&revoked, 2, now, now + 24 * HOUR).expect("signed");
    fs::write(site.path("ca/crl.pem"), list).expect("written");
    let renewal = raw::request(2, b"csr", "", &[]);
    let mut wrong = vec![];
    for (peer, kind, leaf, passes) in rows {
        let presented = written(&site, "shown", &leaf);
        let answer =
            raw::RawClient::new(Some(&presented)).send(enroller.local_addr(), &renewal).await;
        // Only a peer that may renew learns that its leaf is too young.
        let code = answer.map(|answer| raw::EnrollReply::read(&answer).code());
        if (code == Some(JoinRefusal::TooEarly.number())) != passes {
            wrong.push(format!("{peer}, {kind}: {code:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn only_an_enrollers_name_is_accepted_by_a_renewing_client() {
    let site = Site::new();
    let ca = site.ca().ca().expect("a CA");
    let mut due = node_like("agent/a");
    due.not_before = SystemTime::now() - 9 * HOUR;
    due.not_after = SystemTime::now() + HOUR;
    let files = written(&site, "a", &ca.leaf(&due).expect("a leaf"));
    let is_believed = async |presented: &LeafPem| {
        let presented = written(&site, "shown", presented);
        let at = raw::impostor(&presented);
        let renewal = Renewal::new(address(at.local_addr().expect("an address")), files.clone());
        let error =
            soon("it ends", renewal.once()).await.expect_err("the impostor does not answer");
        assert!(!matches!(error, EnrollError::Credentials(_)), "no request was sent: {error}");
        !matches!(error, EnrollError::Untrusted { .. })
    };
    let mut wrong = vec![];
    for peer in ["agent/x", "caller/x", "node/x"] {
        for (kind, change, _) in KINDS {
            let mut profile = node_like(peer);
            change(&mut profile);
            let is_one = profile.uris == ["spiffe://dialback.local/enroller"];
            let is_good = is_one && profile.usages.contains(&Usage::ServerAuth);
            if is_believed(&ca.leaf(&profile).expect("a leaf")).await != is_good {
                wrong.push(format!("{peer}, {kind}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let named = |uri: &str| {
        let mut profile = node_like("node/x");
        profile.usages = vec![Usage::ServerAuth];
        profile.uris = vec![uri.into()];
        ca.leaf(&profile).expect("a leaf")
    };
    assert!(!is_believed(&named("spiffe://other.local/enroller")).await);
    assert!(is_believed(&named("spiffe://dialback.local/enroller")).await);
}
