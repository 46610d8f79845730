//! `dialback certs`: what it says is what it did, and keys are never shown.

use super::process::Place;
use dialback::Role;
use std::time::{Duration, SystemTime};

#[test]
fn certificates_are_created_once_and_kept() {
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
fn keys_are_never_printed() {
    let place = Place::empty();
    let mut shown = String::new();
    for args in [
        &["init"][..],
        &["issue", "caller", "ops"],
        &["list"],
        &["inspect", "certs/caller-ops.pem"],
        &["inspect", "certs/caller-ops.key"],
        &["request", "agent", "shop"],
        &["inspect", "certs/agent-shop.csr"],
        &["sign", "certs/agent-shop.csr", "agent", "shop"],
        &["renew", "--force"],
        &["revoke", "caller", "ops"],
        &["crl"],
    ] {
        let ended = place.run(&[&["certs"], args].concat());
        shown += &(ended.stdout + &ended.stderr);
    }
    for key in ["certs/ca.key", "certs/caller-ops.key", "certs/agent-shop.key"] {
        let key = place.read(key);
        let secret = key.lines().nth(1).expect("a line of the key");
        assert!(!shown.contains(secret) && !shown.contains("PRIVATE"), "{shown}");
    }
}

/// The first words of each line, in one line.
fn words(place: &Place, args: &[&str]) -> String {
    let out = place.run(&[&["certs"], args].concat()).expect(0, &[]).stdout;
    let words = out.lines().filter_map(|line| line.split_whitespace().next());
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_key_created_on_its_machine_is_signed_at_the_ca_and_links() {
    let place = Place::new();
    let (_node, at) = place.node();
    let ask = ["request", "agent", "shop", "--dir", "site"];
    assert_eq!(words(&place, &ask), "made made next:");
    assert_eq!(words(&place, &ask), "kept kept next:");
    let sign = ["sign", "site/agent-shop.csr", "agent", "shop", "--days", "30"];
    assert_eq!(words(&place, &sign), "made next:");
    assert_eq!(words(&place, &sign), "kept next:");
    assert!(!place.path("certs/agent-shop.key").exists() && !place.path("site/ca.key").exists());
    for file in ["agent-shop.pem", "ca.pem", "crl.pem"] {
        place.write(&format!("site/{file}"), place.read(&format!("certs/{file}")));
    }
    let cert = ["--cert", "site/agent-shop.pem", "--demo", "--node", &at];
    let mut agent = place.start(&[&["agent"][..], &cert].concat());
    agent.said("registered as shop");
}

#[test]
fn a_new_key_waits_for_its_certificate_while_the_old_one_is_in_use() {
    let place = Place::new();
    let (_node, at) = place.node();
    let agent = ["agent", "--demo", "--node", &at];
    let (key, waiting) = ("certs/agent-warehouse.key", "certs/.agent-warehouse.key.requested");
    let before = place.read(key);
    let mut running = place.start(&agent);
    running.said("registered as warehouse");
    assert_eq!(words(&place, &["request", "agent", "warehouse", "--force"]), "made made next:");
    assert_eq!(words(&place, &["request", "agent", "warehouse"]), "kept kept next:");
    let listed = place.run(&["certs", "list"]).expect(0, &[]).stdout;
    assert!(listed.contains("new key of agent/warehouse in certs/.agent-warehouse.key.requested has no certificate yet"), "{listed}");
    // A restart before the certificate is back.
    assert_eq!(place.read(key), before);
    place.start(&agent).said("registered as warehouse");
    // Signed elsewhere, and copied over the one in use while the agent runs.
    for file in ["ca.pem", "ca.key", "issued.jsonl"] {
        std::fs::create_dir_all(place.path("office")).expect("made");
        place.write(&format!("office/{file}"), place.read(&format!("certs/{file}")));
    }
    let sign = ["sign", "certs/agent-warehouse.csr", "agent", "warehouse", "--dir", "office"];
    assert_eq!(words(&place, &sign), "made next:");
    let new = place.read(waiting);
    place.write("certs/agent-warehouse.pem", place.read("office/agent-warehouse.pem"));
    running.said("the key has replaced certs/agent-warehouse.key");
    running.said("registered as warehouse");
    assert!(place.read(key) == new && !place.path(waiting).exists());
    place.start(&agent).said("registered as warehouse");
}

#[test]
fn a_certificate_copied_by_hand_is_paired_with_its_requested_key_at_the_next_start() {
    let place = Place::new();
    let (_node, at) = place.node();
    let old = place.read("certs/caller-ops.pem");
    let old_key = place.read("certs/caller-ops.key");
    assert_eq!(words(&place, &["request", "caller", "ops", "--force"]), "made made next:");
    let waiting = place.read("certs/.caller-ops.key.requested");
    assert_eq!(
        words(&place, &["sign", "certs/caller-ops.csr", "caller", "ops"]),
        "renewed renewed next:"
    );
    // As if the certificate had been signed elsewhere and only it had been brought.
    place.write("certs/.caller-ops.key.requested", waiting);
    place.write("certs/caller-ops.key", old_key);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(place.path("certs/.caller-ops.key.requested"), mode).expect("changed");
    assert_ne!(place.read("certs/caller-ops.pem"), old);
    let call = ["call", "warehouse", "HelloService/Hello", "-d", "\"x\"", "--node", &at];
    place.run(&call).expect(78, &["not attached"]);
    assert!(!place.path("certs/.caller-ops.key.requested").exists());
    place.run(&call).expect(78, &["not attached"]);
}

#[test]
fn a_replacement_interrupted_between_its_files_is_finished_at_the_next_start() {
    let place = Place::new();
    let (_node, at) = place.node();
    let old = place.read("certs/agent-warehouse.pem");
    assert_eq!(words(&place, &["issue", "agent", "warehouse", "--force"]), "renewed renewed next:");
    place.write("certs/.agent-warehouse.pem.next", place.read("certs/agent-warehouse.pem"));
    place.write("certs/agent-warehouse.pem", old);
    let mut agent = place.start(&["agent", "--demo", "--node", &at]);
    agent.said("completed an interrupted replacement");
    agent.said("registered as warehouse");
}

#[test]
fn names_in_a_refusal_are_quoted_once_by_either_side() {
    let place = Place::new();
    place.run(&["certs", "init", "--dir", "b", "--trust-domain", "b.example"]).expect(0, &[]);
    place.run(&["certs", "issue", "caller", "ops", "--dir", "b"]).expect(0, &[]);
    place.write("two.pem", place.read("certs/ca.pem") + &place.read("b/ca.pem"));
    let node = ["node", "--listen", "127.0.0.1:0", "--cert", "certs/node-edge-1.pem"];
    let (mut node, at) = place.listening(&[&node[..], &["--ca", "two.pem"]].concat());
    let domains = "of trust domain \"dialback.local\", and ours is \"b.example\"";
    let call = ["call", "a", "A/b", "--node", &at, "--cert", "b/caller-ops.pem"];
    place.run(&[&call[..], &["--ca", "two.pem"]].concat()).expect(80, &[domains]);
    let line = node.said("refused link from");
    assert!(line.contains(domains), "{line}");
}

/// Runs the script of `make certs-clean` on `certs/` of a place.
fn clean(place: &Place) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/certs-clean.sh");
    std::fs::create_dir_all(place.path("scripts")).expect("made");
    std::fs::copy(script, place.path("scripts/certs-clean.sh")).expect("copied");
    let ended = std::process::Command::new("bash")
        .arg("scripts/certs-clean.sh")
        .current_dir(place.path(""))
        .status();
    assert!(ended.expect("bash runs").success());
}

#[test]
fn certs_clean_removes_only_created_files_tokens_and_pending_keys() {
    let place = Place::new();
    for made in [
        &["token", "create", "ops"][..],
        &["token", "create", "ops", "--file", "certs/more-tokens"],
        &["enroll", "token", "agent", "new", "--ca-dir", "certs"],
        &["certs", "request", "agent", "warehouse", "--force"],
        &["certs", "request", "agent", "shop"],
        &["certs", "revoke", "caller", "ops"],
    ] {
        place.run(made).expect(0, &[]);
    }
    std::fs::remove_file(place.path("certs/agent-warehouse.csr")).expect("removed");
    place.write("certs/.caller-ops.pem.next", "cut off");
    // Somebody else's.
    let kept =
        ["README.md", ".gitignore", "agent-bought.pem", "agent-bought.key", "my-tokens", "notes"];
    kept.iter()
        .for_each(|name| place.write(&format!("certs/{name}"), "# Tokens of another kind\n"));
    clean(&place);
    let left = std::fs::read_dir(place.path("certs")).expect("listed");
    let left = left.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    let mut left: Vec<_> = left.collect();
    left.sort();
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    assert_eq!(left, kept);
    clean(&place);
}

#[test]
fn a_revoked_certificate_is_listed_and_rejected_and_only_a_new_one_is_accepted() {
    let place = Place::new();
    assert_eq!(words(&place, &["revoke", "agent", "warehouse"]), "revoked renewed next:");
    assert_eq!(words(&place, &["revoke", "agent", "warehouse"]), "kept kept next:");
    assert_eq!(words(&place, &["crl"]), "renewed next:");
    let listed = place.run(&["certs", "list"]).expect(0, &[]).stdout;
    let line = |name: &str| listed.lines().find(|line| line.starts_with(name)).expect("a line");
    assert!(line("agent/warehouse").contains("revoked") && line("caller/ops").contains("89 days"));
    let (_node, at) = place.node();
    let agent = ["agent", "--demo", "--node", &at];
    place.start(&agent).said("has been revoked");
    // A timer that renews brings nobody back.
    assert_eq!(words(&place, &["renew", "--force"]), "revoked renewed renewed kept next:");
    place.start(&agent).said("has been revoked");
    assert_eq!(words(&place, &["issue", "agent", "warehouse"]), "renewed renewed next:");
    place.start(&agent).said("registered as warehouse");
}

/// Issues a certificate that expired before now: the record and the file of a party that was
/// retired, or was forgotten.
fn issue_expired(place: &Place, name: &str) {
    use dialback::certs::{CertsDir, LeafRequest};
    let then = SystemTime::now() - Duration::from_secs(10 * 24 * 3600);
    let agent = LeafRequest::new(Role::Agent, name.parse().expect("a name"));
    let request = LeafRequest { days: 5, ..agent };
    CertsDir::new(place.path("certs")).issue(&request, then).expect("issued");
}

#[test]
fn renew_names_an_expired_certificate_and_renews_it_only_with_expired() {
    let place = Place::new();
    issue_expired(&place, "retired");
    let before = place.read("certs/agent-retired.pem");
    for force in [&[][..], &["--force"]] {
        let said = place.run(&[&["certs", "renew"], force].concat()).expect(0, &[]).stdout;
        let line = said.lines().find(|line| line.contains("agent/retired")).expect("a line");
        assert!(line.starts_with("expired ") && line.contains("agent retired --expired"), "{line}");
        assert_eq!(place.read("certs/agent-retired.pem"), before);
    }
    let renew = ["renew", "agent", "retired", "--expired"];
    assert_eq!(words(&place, &renew), "renewed kept next:");
    assert_ne!(place.read("certs/agent-retired.pem"), before);
    // Removing the certificate retires the party: nothing is said of it any more.
    std::fs::remove_file(place.path("certs/agent-retired.pem")).expect("removed");
    let said = place.run(&["certs", "renew"]).expect(0, &[]).stdout;
    assert!(!said.contains("retired"), "{said}");
}

#[test]
fn nodes_may_have_a_separate_ca_and_swapped_files_are_detected() {
    let place = Place::new();
    for step in [
        &["init", "--dir", "nodes"][..],
        &["issue", "node", "edge-9", "--san", "127.0.0.1", "--dir", "nodes"],
    ] {
        place.run(&[&["certs"], step].concat()).expect(0, &[]);
    }
    place.write("lists.pem", place.read("certs/crl.pem") + &place.read("nodes/crl.pem"));
    let node = ["node", "--listen", "127.0.0.1:0", "--cert", "nodes/node-edge-9.pem"];
    let apart = ["--ca", "certs/ca.pem", "--node-ca", "nodes/ca.pem", "--crl", "lists.pem"];
    let (_node, at) = place.listening(&[&node[..], &apart].concat());
    let agent = ["agent", "--demo", "--node", &at, "--cert", "certs/agent-warehouse.pem"];
    place.start(&[&agent[..], &apart].concat()).said("registered as warehouse");
    // The node edge-1 is of the CA of agents: with the CAs apart it is none.
    let edge = ["node", "--listen", "127.0.0.1:0", "--cert", "certs/node-edge-1.pem"];
    place.run(&[&edge[..], &apart].concat()).expect(2, &["each other's place"]);
    let (_false_node, at) = place.listening(&edge);
    let call = ["call", "warehouse", "HelloService/Hello", "--node", &at];
    let call = [&call[..], &["--cert", "certs/caller-ops.pem"]].concat();
    place.run(&[&call[..], &apart].concat()).expect(80, &["of no CA"]);
    let swapped = ["--ca", "nodes/ca.pem", "--node-ca", "certs/ca.pem"];
    place.run(&[&agent[..], &swapped].concat()).expect(2, &["each other's place"]);
    place.run(&[&agent[..], &["--node-ca", "gone.pem"]].concat()).expect(2, &["gone.pem does not"]);
}

#[test]
fn an_unreadable_crl_or_a_scope_without_one_ends_a_start_for_every_role() {
    let place = Place::new();
    let whole = place.read("certs/crl.pem");
    place.write("empty.pem", "");
    place.write("half.pem", &whole[..whole.len() / 2]);
    place.write("body.pem", whole.replacen("\nMI", "\nAA", 1));
    let roles: [&[&str]; 3] = [&["node"], &["agent"], &["call", "warehouse", "HelloService/Hello"]];
    for role in roles {
        let with = |flags: &[&str], text: &str| {
            place.run(&[role, flags].concat()).expect(2, &["error: ", text]);
        };
        with(&["--crl", "gone.pem"], "gone.pem does not exist");
        with(&["--crl", "empty.pem"], "empty.pem holds no revocation list: it is empty");
        with(&["--crl", "half.pem"], "half.pem is damaged");
        with(&["--crl", "body.pem"], "body.pem is damaged");
        with(&["--crl", "certs/ca.pem"], "it holds a certificate");
        with(&["--crl-scope", "leafs"], "leaf");
    }
    std::fs::remove_file(place.path("certs/crl.pem")).expect("removed");
    place.run(&["agent", "--crl-scope", "chain"]).expect(2, &["but no revocation list"]);
}

#[test]
fn certificates_that_cannot_be_created_are_refused_with_a_remedy() {
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
    place.write("note.txt", "not PEM");
    refused(&["inspect", "note.txt"], "neither a certificate");
    refused(&["revoke", "agent", "a"], "nothing was issued to agent/a");
    refused(&["renew", "agent", "a"], "nothing was issued to agent/a");
    refused(&["renew", "agent"], "<NAME>");
    refused(&["sign", "gone.csr", "agent", "a"], "gone.csr");
    refused(&["sign", "certs/ca.pem", "agent", "a"], "certs request");
    refused(&["crl", "--dir", "nowhere"], "certs init");
    refused(&["inspect", "gone.pem"], "gone.pem");
}
