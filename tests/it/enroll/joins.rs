//! A machine without a certificate: it joins once, only as the peer that the token names.

use super::*;
use dialback::{Agent, JoinRefusal, Node, NodePolicy};

const LONG: Duration = Duration::from_secs(90 * 24 * 3600);

#[track_caller]
fn refused(result: Result<JoinedPeer, EnrollError>, wanted: JoinRefusal) {
    match result {
        Err(EnrollError::Refused { code, .. }) => assert_eq!(code, wanted),
        other => panic!("{wanted} was expected, but it was {other:?}"),
    }
}

#[tokio::test]
async fn a_machine_joins_without_the_ca_key_and_links_with_its_certificate() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let joined = site.join(enroller.local_addr(), &site.token("agent/warehouse"), "machine").await;
    let joined = joined.expect("joined");
    assert_eq!(
        names_in(&site.path("machine")),
        ["agent-warehouse.key", "agent-warehouse.pem", "ca.pem", "crl.pem"]
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&joined.files.key).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let node = Node::builder(loads(&site.issued(Role::Node, "edge-1")))
        .listen("127.0.0.1:0")
        .policy(NodePolicy::allow_all());
    let node = node.start().await.expect("a node");
    let agent = Agent::builder(loads(&joined.files)).node(node.local_addr().to_string());
    let agent = agent.start().expect("an agent");
    soon("the new agent registers", agent.registered(1)).await;
}

#[tokio::test]
async fn the_leaf_has_what_the_token_grants_and_is_recorded() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    for peer in ["agent/acme.warehouse-1", "caller/ops"] {
        let joined = site.join(enroller.local_addr(), &site.token(peer), "machine").await;
        let joined = joined.expect("joined");
        let leaf = leaf_of(&joined.files);
        assert_eq!(leaf.uri_sans, [format!("spiffe://dialback.local/{peer}")]);
        assert!(!leaf.is_ca && leaf.dns_sans.is_empty() && leaf.ip_sans.is_empty());
        assert_eq!(leaf.extended_key_usages, ["client authentication"]);
        assert_eq!(leaf.key_usages, ["Digital Signature"]);
        let left = leaf.not_after.duration_since(SystemTime::now()).expect("not over");
        assert!(left > LONG - HOUR && left <= LONG);
        let recorded = site.ca().list().expect("a record").pop().expect("a line");
        assert_eq!((recorded.serial, recorded.peer.to_string()), (leaf.serial, peer.into()));
    }
}

#[tokio::test]
async fn a_token_is_valid_once_even_across_a_restart_of_the_enroller() {
    let site = Site::new();
    let (token, other) = (site.token("agent/a"), site.token("agent/b"));
    let enroller = site.enroller(LONG).await;
    site.join(enroller.local_addr(), &token, "one").await.expect("joined");
    refused(site.join(enroller.local_addr(), &token, "two").await, JoinRefusal::TokenUsed);
    enroller.shutdown().await;
    let enroller = site.enroller(LONG).await;
    refused(site.join(enroller.local_addr(), &token, "two").await, JoinRefusal::TokenUsed);
    assert_eq!(names_in(&site.path("two")), [] as [String; 0], "a refusal leaves nothing");
    site.join(enroller.local_addr(), &other, "two").await.expect("another token is valid");
    assert_eq!(site.ca().list().expect("a record").len(), 2);
}

#[tokio::test]
async fn only_one_of_two_machines_with_the_same_token_joins() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let (token, at) = (site.token("agent/a"), enroller.local_addr());
    let dirs = ["m0", "m1", "m2", "m3"];
    let race = dirs.map(|dir| site.join(at, &token, dir));
    let [a, b, c, d] = race;
    let (a, b, c, d) = tokio::join!(a, b, c, d);
    let (joined, lost): (Vec<_>, Vec<_>) = [a, b, c, d].into_iter().partition(Result::is_ok);
    assert_eq!(joined.len(), 1);
    lost.into_iter().for_each(|result| refused(result, JoinRefusal::TokenUsed));
    assert_eq!(site.ca().list().expect("a record").len(), 1);
}

#[tokio::test]
async fn an_expired_foreign_or_altered_token_is_refused() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let at = enroller.local_addr();
    let peer = "agent/a".parse().expect("a peer name");
    // Created two hours ago for one hour. The machine's own clock would detect that first, so its
    // text claims more time than the enroller knows of.
    let then = SystemTime::now() - 2 * HOUR;
    let over = site.ca().make_token(&peer, HOUR, then).expect("a token");
    let error = site.join(at, &over, "m").await.expect_err("refused");
    assert!(matches!(error, EnrollError::TokenOver { .. }), "{error}");
    refused(site.join(at, &changed(&over, 2, "9999999999"), "m").await, JoinRefusal::TokenExpired);
    let token = site.token("agent/a");
    for (part, text, wanted) in [
        (1, "agent/b", JoinRefusal::OtherPeer),
        (1, "caller/a", JoinRefusal::OtherPeer),
        (1, "node/a", JoinRefusal::OtherPeer),
        (3, "00112233445566778899aabbccddeeff", JoinRefusal::TokenUnknown),
    ] {
        refused(site.join(at, &changed(&token, part, text), "m").await, wanted);
    }
    let error = site.join(at, &changed(&token, 4, &"ab".repeat(32)), "m").await;
    let error = error.expect_err("refused");
    assert!(matches!(&error, EnrollError::Untrusted { .. }), "{error}");
    assert_eq!(names_in(&site.path("m")), [] as [String; 0]);
    site.join(at, &token, "m").await.expect("the unchanged token is still valid");
}

#[tokio::test]
async fn a_machine_that_stopped_before_the_answer_joins_by_the_same_command() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let (at, token) = (enroller.local_addr(), site.token("agent/a"));
    let first = site.join(at, &token, "first").await.expect("joined");
    // The state that a process leaves when it stops before the answer.
    fs::create_dir(site.path("again")).expect("made");
    fs::copy(&first.files.key, site.path("again/.agent-a.key.pending")).expect("copied");
    let again = site.join(at, &token, "again").await.expect("joined by the same token");
    assert_eq!((&again.serial, &again.peer), (&first.serial, &first.peer));
    loads(&again.files);
    let wanted = ["agent-a.key", "agent-a.pem", "ca.pem", "crl.pem"];
    assert_eq!(names_in(&site.path("again")), wanted, "no pending key remains");
    assert_eq!(site.ca().list().expect("a record").len(), 1);
}

#[tokio::test]
async fn a_pending_key_survives_an_unreachable_enroller_and_a_wrong_token() {
    let site = Site::new();
    let node = Node::builder(loads(&site.issued(Role::Node, "edge-1"))).listen("127.0.0.1:0");
    let node = node.start().await.expect("a node");
    let token = site.token("agent/a");
    let error = site.join(node.local_addr(), &token, "m").await.expect_err("refused").to_string();
    assert!(error.contains("run the same command again"), "{error}");
    let read = || fs::read_to_string(site.path("m/.agent-a.key.pending")).expect("kept");
    let kept = read();
    site.join(node.local_addr(), &token, "m").await.expect_err("refused");
    assert_eq!(read(), kept, "the next run asks with the same key");
    let enroller = site.enroller(LONG).await;
    let unknown = changed(&token, 3, "00112233445566778899aabbccddeeff");
    refused(site.join(enroller.local_addr(), &unknown, "m").await, JoinRefusal::TokenUnknown);
    assert_eq!(read(), kept, "it may have its certificate under another token");
    site.join(enroller.local_addr(), &token, "m").await.expect("joined");
    assert!(!names_in(&site.path("m")).iter().any(|name| name.ends_with(".pending")));
    refused(site.join(enroller.local_addr(), &unknown, "n").await, JoinRefusal::TokenUnknown);
    assert_eq!(names_in(&site.path("n")), [] as [String; 0], "an unknown key");
}

#[tokio::test]
async fn neither_a_node_nor_another_ca_is_accepted_as_the_enroller() {
    let site = Site::new();
    let token = site.token("agent/a");
    let node = Node::builder(loads(&site.issued(Role::Node, "edge-1"))).listen("127.0.0.1:0");
    let node = node.start().await.expect("a node");
    let error = site.join(node.local_addr(), &token, "m").await.expect_err("refused").to_string();
    assert!(error.contains("cannot reach the enroller") && error.contains("port"), "{error}");
    let other = Site::new();
    let foreign = other.enroller(LONG).await;
    let error = site.join(foreign.local_addr(), &token, "m").await.expect_err("refused");
    assert!(matches!(&error, EnrollError::Untrusted { .. }), "{error}");
    let enroller = site.enroller(LONG).await;
    site.join(enroller.local_addr(), &token, "m").await.expect("the right secret is accepted");
}

#[tokio::test]
async fn a_valid_certificate_is_not_replaced_unasked_and_the_token_stays_valid() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let at = enroller.local_addr();
    let first = site.join(at, &site.token("agent/a"), "m").await.expect("joined");
    let token = site.token("agent/a");
    let error = site.join(at, &token, "m").await.expect_err("refused");
    assert!(matches!(error, EnrollError::AlreadyThere { .. }), "{error}");
    assert_eq!(leaf_of(&first.files).serial, first.serial);
    let forced = Join::new(address(at), token, site.path("m")).force(true).run().await;
    let forced = forced.expect("joined again");
    assert_ne!(forced.serial, first.serial);
    assert_eq!(loads(&forced.files).identity().serial(), forced.serial);
}

#[tokio::test]
async fn joining_does_not_change_the_trusted_cas_of_a_directory() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let token = site.token("agent/a");
    fs::create_dir(site.path("m")).expect("made");
    let other = Site::new();
    let foreign = fs::read(other.path("ca/ca.pem")).expect("a CA");
    fs::write(site.path("m/ca.pem"), &foreign).expect("written");
    let error = site.join(enroller.local_addr(), &token, "m").await.expect_err("refused");
    assert!(matches!(error, EnrollError::OtherCa { .. }), "{error}");
    let bundle = [foreign, fs::read(site.path("ca/ca.pem")).expect("a CA")].concat();
    fs::write(site.path("m/ca.pem"), &bundle).expect("written");
    site.join(enroller.local_addr(), &token, "m").await.expect("joined");
    assert_eq!(fs::read(site.path("m/ca.pem")).expect("read"), bundle);
}

#[tokio::test]
async fn an_enroller_needs_a_ca_that_can_sign_and_leafs_that_verify() {
    let site = Site::new();
    let start =
        |dir: CertsDir, life| Enroller::builder(dir).listen("127.0.0.1:0").leaf_life(life).start();
    assert!(start(site.ca(), Duration::from_secs(3)).await.is_ok());
    let error = start(site.ca(), Duration::from_secs(2)).await.err().expect("refused").to_string();
    assert!(error.contains("--leaf-ttl"), "{error}");
    let error =
        start(CertsDir::new(site.path("no")), LONG).await.err().expect("refused").to_string();
    assert!(error.contains("certs init"), "{error}");
    fs::write(site.path("ca/crl.pem"), "half a list").expect("written");
    assert!(start(site.ca(), LONG).await.is_err(), "a damaged CRL would accept revoked peers");
    fs::remove_file(site.path("ca/crl.pem")).expect("removed");
    let error = start(site.ca(), LONG).await.err().expect("refused").to_string();
    assert!(error.contains("crl.pem does not exist") && error.contains("certs crl"), "{error}");
    site.ca().crl(SystemTime::now()).expect("created again");
    assert!(start(site.ca(), LONG).await.is_ok());
}
