//! `dialback certs`: what it says is what it did, and keys are never shown.

use super::process::Place;

#[test]
fn certificates_are_made_once_and_kept_after() {
    let place = Place::empty();
    let run = |args: &[&str]| place.run(&[&["certs", "--dir", "c"], args].concat());
    let words = |args: &[&str]| {
        let out = run(args).expect(0, &[]).stdout;
        out.lines().filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words(&["init", "--trust-domain", "acme.example"]), "made made made next:");
    assert_eq!(words(&["init"]), "kept kept kept next:");
    let node = ["issue", "node", "edge-1", "--san", "localhost", "127.0.0.1"];
    assert_eq!(words(&node), "made made next:");
    assert_eq!(words(&node), "kept kept next:");
    assert_eq!(words(&[&node[..], &["--force"]].concat()), "renewed renewed next:");
    assert_eq!(words(&["issue", "agent", "warehouse", "--days", "30"]), "made made next:");
    let listed = run(&["list"]).expect(0, &[]).stdout;
    assert_eq!(listed.lines().filter(|line| line.starts_with("node/edge-1 ")).count(), 2);
    let shown = run(&["inspect", "c/agent-warehouse.pem"]).expect(0, &[]).stdout;
    assert!(shown.contains("spiffe://acme.example/agent/warehouse"), "{shown}");
}

#[test]
fn keys_are_never_shown() {
    let place = Place::empty();
    let mut shown = String::new();
    for args in [
        &["init"][..],
        &["issue", "caller", "ops"],
        &["list"],
        &["inspect", "certs/caller-ops.pem"],
        &["inspect", "certs/caller-ops.key"],
    ] {
        let ended = place.run(&[&["certs"], args].concat());
        shown += &(ended.stdout + &ended.stderr);
    }
    for key in ["certs/ca.key", "certs/caller-ops.key"] {
        let key = place.read(key);
        let secret = key.lines().nth(1).expect("a line of the key");
        assert!(!shown.contains(secret) && !shown.contains("PRIVATE"), "{shown}");
    }
}

#[test]
fn what_cannot_be_made_is_refused_with_the_way_out() {
    let place = Place::empty();
    let refused = |args: &[&str], text: &str| {
        place.run(&[&["certs"], args].concat()).expect(2, &["error: ", text]);
    };
    refused(&["issue", "agent", "a"], "certs init");
    refused(&["list"], "certs init");
    place.make_ca("certs");
    refused(&["issue", "node", "edge-1"], "--san");
    refused(&["issue", "node", "edge-1", "--san", "a:4433"], "a:4433");
    refused(&["issue", "agent", "a", "--san", "localhost"], "--san");
    refused(&["issue", "agent", "A"], "A");
    refused(&["issue", "boss", "a"], "node, agent, caller");
    refused(&["issue", "agent", "a", "--days", "0"], "--days");
    refused(&["init", "--trust-domain", "other.example"], "--force");
    refused(&["inspect", "certs/ca.key"], "neither a certificate");
    refused(&["inspect", "gone.pem"], "gone.pem");
}
