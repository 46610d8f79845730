//! `dialback certs`: its output matches its effect, and keys are never printed.

use super::process::WorkDir;
use dialback::Role;
use std::time::{Duration, SystemTime};

#[test]
fn certificates_are_created_once_and_kept() {
    let dir = WorkDir::empty();
    let run = |args: &[&str]| dir.run(&[&["certs", "--dir", "c"], args].concat());
    let summary = |args: &[&str]| {
        let out = run(args).expect(0, &[]).stdout;
        out.lines().filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(summary(&["init", "--trust-domain", "acme.example"]), "made made made next:");
    assert_eq!(summary(&["init"]), "kept kept kept next:");
    let node = ["issue", "node", "edge-1", "--san", "localhost", "127.0.0.1"];
    assert_eq!(summary(&node), "made made next:");
    assert_eq!(summary(&node), "kept kept next:");
    assert_eq!(summary(&[&node[..], &["--force"]].concat()), "renewed renewed next:");
    assert_eq!(summary(&["issue", "agent", "warehouse", "--days", "30"]), "made made next:");
    let listed = run(&["list"]).expect(0, &[]).stdout;
    assert_eq!(listed.lines().filter(|line| line.starts_with("node/edge-1 ")).count(), 2);
    let shown = run(&["inspect", "c/agent-warehouse.pem"]).expect(0, &[]).stdout;
    assert!(shown.contains("spiffe://acme.example/agent/warehouse"), "{shown}");
}

#[test]
fn keys_are_never_printed() {
    let dir = WorkDir::empty();
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
        let ended = dir.run(&[&["certs"], args].concat());
        shown += &(ended.stdout + &ended.stderr);
    }
    for key in ["certs/ca.key", "certs/caller-ops.key", "certs/agent-shop.key"] {
        let key = dir.read(key);
        let secret = key.lines().nth(1).expect("a line of the key");
        assert!(!shown.contains(secret) && !shown.contains("PRIVATE"), "{shown}");
    }
}

/// The first word of each line, in one line.
fn summary(dir: &WorkDir, args: &[&str]) -> String {
    let out = dir.run(&[&["certs"], args].concat()).expect(0, &[]).stdout;
    let summary = out.lines().filter_map(|line| line.split_whitespace().next());
    summary.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_key_created_on_its_machine_is_signed_at_the_ca_and_links() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let ask = ["request", "agent", "shop", "--dir", "site"];
    assert_eq!(summary(&dir, &ask), "made made next:");
    assert_eq!(summary(&dir, &ask), "kept kept next:");
    let sign = ["sign", "site/agent-shop.csr", "agent", "shop", "--days", "30"];
    assert_eq!(summary(&dir, &sign), "made next:");
    assert_eq!(summary(&dir, &sign), "kept next:");
    assert!(!dir.path("certs/agent-shop.key").exists() && !dir.path("site/ca.key").exists());
    for file in ["agent-shop.pem", "ca.pem", "crl.pem"] {
        dir.write(&format!("site/{file}"), dir.read(&format!("certs/{file}")));
    }
    let cert = ["--cert", "site/agent-shop.pem", "--demo", "--node", &at];
    let mut agent = dir.start(&[&["agent"][..], &cert].concat());
    agent.wait_for_line("registered as shop");
}

#[test]
fn a_new_key_waits_for_its_certificate_while_the_old_one_is_in_use() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let agent = ["agent", "--demo", "--node", &at];
    let (key, waiting) = ("certs/agent-warehouse.key", "certs/.agent-warehouse.key.requested");
    let before = dir.read(key);
    let mut running = dir.start(&agent);
    running.wait_for_line("registered as warehouse");
    assert_eq!(summary(&dir, &["request", "agent", "warehouse", "--force"]), "made made next:");
    assert_eq!(summary(&dir, &["request", "agent", "warehouse"]), "kept kept next:");
    let listed = dir.run(&["certs", "list"]).expect(0, &[]).stdout;
    assert!(listed.contains("new key of agent/warehouse in certs/.agent-warehouse.key.requested has no certificate yet"), "{listed}");
    // A restart before the certificate is back.
    assert_eq!(dir.read(key), before);
    dir.start(&agent).wait_for_line("registered as warehouse");
    // Signed elsewhere and copied over the one in use while the agent runs.
    for file in ["ca.pem", "ca.key", "issued.jsonl"] {
        std::fs::create_dir_all(dir.path("office")).expect("made");
        dir.write(&format!("office/{file}"), dir.read(&format!("certs/{file}")));
    }
    let sign = ["sign", "certs/agent-warehouse.csr", "agent", "warehouse", "--dir", "office"];
    assert_eq!(summary(&dir, &sign), "made next:");
    let new = dir.read(waiting);
    dir.write("certs/agent-warehouse.pem", dir.read("office/agent-warehouse.pem"));
    running.wait_for_line("the key has replaced certs/agent-warehouse.key");
    running.wait_for_line("registered as warehouse");
    assert!(dir.read(key) == new && !dir.path(waiting).exists());
    dir.start(&agent).wait_for_line("registered as warehouse");
}

#[test]
fn a_certificate_copied_by_hand_is_paired_with_its_requested_key_at_the_next_start() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let old = dir.read("certs/caller-ops.pem");
    let old_key = dir.read("certs/caller-ops.key");
    assert_eq!(summary(&dir, &["request", "caller", "ops", "--force"]), "made made next:");
    let waiting = dir.read("certs/.caller-ops.key.requested");
    assert_eq!(
        summary(&dir, &["sign", "certs/caller-ops.csr", "caller", "ops"]),
        "renewed renewed next:"
    );
    // As if the certificate had been signed elsewhere and only it had been copied back.
    dir.write("certs/.caller-ops.key.requested", waiting);
    dir.write("certs/caller-ops.key", old_key);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(dir.path("certs/.caller-ops.key.requested"), mode).expect("changed");
    assert_ne!(dir.read("certs/caller-ops.pem"), old);
    let call = ["call", "warehouse", "HelloService/Hello", "-d", "\"x\"", "--node", &at];
    dir.run(&call).expect(78, &["not attached"]);
    assert!(!dir.path("certs/.caller-ops.key.requested").exists());
    dir.run(&call).expect(78, &["not attached"]);
}

#[test]
fn a_replacement_interrupted_between_its_files_is_finished_at_the_next_start() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let old = dir.read("certs/agent-warehouse.pem");
    assert_eq!(summary(&dir, &["issue", "agent", "warehouse", "--force"]), "renewed renewed next:");
    dir.write("certs/.agent-warehouse.pem.next", dir.read("certs/agent-warehouse.pem"));
    dir.write("certs/agent-warehouse.pem", old);
    let mut agent = dir.start(&["agent", "--demo", "--node", &at]);
    agent.wait_for_line("completed an interrupted replacement");
    agent.wait_for_line("registered as warehouse");
}

#[test]
fn names_in_a_refusal_are_quoted_once_by_either_side() {
    let dir = WorkDir::new();
    dir.run(&["certs", "init", "--dir", "b", "--trust-domain", "b.example"]).expect(0, &[]);
    dir.run(&["certs", "issue", "caller", "ops", "--dir", "b"]).expect(0, &[]);
    dir.write("two.pem", dir.read("certs/ca.pem") + &dir.read("b/ca.pem"));
    let node = ["node", "--listen", "127.0.0.1:0", "--cert", "certs/node-edge-1.pem"];
    let (mut node, at) = dir.listening(&[&node[..], &["--ca", "two.pem"]].concat());
    let domains = "the certificate is of \"dialback.local\", and ours is \"b.example\"";
    let call = ["call", "a", "A/b", "--node", &at, "--cert", "b/caller-ops.pem"];
    dir.run(&[&call[..], &["--ca", "two.pem"]].concat()).expect(80, &[domains]);
    let line = node.wait_for_line("refused link from");
    assert!(line.contains(domains), "{line}");
}

/// Runs the script of `make certs-clean` on `certs/` of a working directory.
fn clean(dir: &WorkDir) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/certs-clean.sh");
    std::fs::create_dir_all(dir.path("scripts")).expect("made");
    std::fs::copy(script, dir.path("scripts/certs-clean.sh")).expect("copied");
    let ended = std::process::Command::new("bash")
        .arg("scripts/certs-clean.sh")
        .current_dir(dir.path(""))
        .status();
    assert!(ended.expect("bash runs").success());
}

#[test]
fn certs_clean_removes_only_created_files_tokens_and_pending_keys() {
    let dir = WorkDir::new();
    for made in [
        &["token", "create", "ops"][..],
        &["token", "create", "ops", "--file", "certs/more-tokens"],
        &["enroll", "token", "agent", "new", "--ca-dir", "certs"],
        &["certs", "request", "agent", "warehouse", "--force"],
        &["certs", "request", "agent", "shop"],
        &["certs", "revoke", "caller", "ops"],
    ] {
        dir.run(made).expect(0, &[]);
    }
    std::fs::remove_file(dir.path("certs/agent-warehouse.csr")).expect("removed");
    dir.write("certs/.caller-ops.pem.next", "cut off");
    // A file of another tool.
    let kept =
        ["README.md", ".gitignore", "agent-bought.pem", "agent-bought.key", "my-tokens", "notes"];
    kept.iter().for_each(|name| dir.write(&format!("certs/{name}"), "# Tokens of another kind\n"));
    clean(&dir);
    let left = std::fs::read_dir(dir.path("certs")).expect("listed");
    let left = left.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    let mut left: Vec<_> = left.collect();
    left.sort();
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    assert_eq!(left, kept);
    clean(&dir);
}

#[test]
fn a_revoked_certificate_is_listed_and_rejected_and_only_a_new_one_is_accepted() {
    let dir = WorkDir::new();
    assert_eq!(summary(&dir, &["revoke", "agent", "warehouse"]), "revoked renewed next:");
    assert_eq!(summary(&dir, &["revoke", "agent", "warehouse"]), "kept kept next:");
    assert_eq!(summary(&dir, &["crl"]), "renewed next:");
    let listed = dir.run(&["certs", "list"]).expect(0, &[]).stdout;
    let line = |name: &str| listed.lines().find(|line| line.starts_with(name)).expect("a line");
    assert!(line("agent/warehouse").contains("revoked") && line("caller/ops").contains("89 days"));
    let (_node, at) = dir.node();
    let agent = ["agent", "--demo", "--node", &at];
    dir.start(&agent).wait_for_line("certificate revoked");
    // A renewal timer does not restore a revoked certificate.
    assert_eq!(summary(&dir, &["renew", "--force"]), "revoked renewed renewed kept next:");
    dir.start(&agent).wait_for_line("certificate revoked");
    assert_eq!(summary(&dir, &["issue", "agent", "warehouse"]), "renewed renewed next:");
    dir.start(&agent).wait_for_line("registered as warehouse");
}

/// Issues a certificate that has expired: the record and the file of a peer that was retired or
/// forgotten.
fn issue_expired(dir: &WorkDir, name: &str) {
    use dialback::certs::{CertsDir, LeafRequest};
    let then = SystemTime::now() - Duration::from_secs(10 * 24 * 3600);
    let agent = LeafRequest::new(Role::Agent, name.parse().expect("a name"));
    let request = LeafRequest { days: 5, ..agent };
    CertsDir::new(dir.path("certs")).issue(&request, then).expect("issued");
}

#[test]
fn renew_names_an_expired_certificate_and_renews_it_only_with_expired() {
    let dir = WorkDir::new();
    issue_expired(&dir, "retired");
    let before = dir.read("certs/agent-retired.pem");
    for force in [&[][..], &["--force"]] {
        let output = dir.run(&[&["certs", "renew"], force].concat()).expect(0, &[]).stdout;
        let line = output.lines().find(|line| line.contains("agent/retired")).expect("a line");
        assert!(line.starts_with("expired ") && line.contains("agent retired --expired"), "{line}");
        assert_eq!(dir.read("certs/agent-retired.pem"), before);
    }
    let renew = ["renew", "agent", "retired", "--expired"];
    assert_eq!(summary(&dir, &renew), "renewed kept next:");
    assert_ne!(dir.read("certs/agent-retired.pem"), before);
    // Removing the certificate retires the peer: it is not mentioned any more.
    std::fs::remove_file(dir.path("certs/agent-retired.pem")).expect("removed");
    let output = dir.run(&["certs", "renew"]).expect(0, &[]).stdout;
    assert!(!output.contains("retired"), "{output}");
}

#[test]
fn nodes_may_have_a_separate_ca_and_swapped_files_are_detected() {
    let dir = WorkDir::new();
    for step in [
        &["init", "--dir", "nodes"][..],
        &["issue", "node", "edge-9", "--san", "127.0.0.1", "--dir", "nodes"],
    ] {
        dir.run(&[&["certs"], step].concat()).expect(0, &[]);
    }
    dir.write("lists.pem", dir.read("certs/crl.pem") + &dir.read("nodes/crl.pem"));
    let node = ["node", "--listen", "127.0.0.1:0", "--cert", "nodes/node-edge-9.pem"];
    let apart = ["--ca", "certs/ca.pem", "--node-ca", "nodes/ca.pem", "--crl", "lists.pem"];
    let (_node, at) = dir.listening(&[&node[..], &apart].concat());
    let agent = ["agent", "--demo", "--node", &at, "--cert", "certs/agent-warehouse.pem"];
    dir.start(&[&agent[..], &apart].concat()).wait_for_line("registered as warehouse");
    // The node edge-1 is of the CA of agents: with separate CAs it is not a node.
    let edge = ["node", "--listen", "127.0.0.1:0", "--cert", "certs/node-edge-1.pem"];
    dir.run(&[&edge[..], &apart].concat()).expect(2, &["are not swapped"]);
    let (_false_node, at) = dir.listening(&edge);
    let call = ["call", "warehouse", "HelloService/Hello", "--node", &at];
    let call = [&call[..], &["--cert", "certs/caller-ops.pem"]].concat();
    dir.run(&[&call[..], &apart].concat()).expect(80, &["unknown CA"]);
    let swapped = ["--ca", "nodes/ca.pem", "--node-ca", "certs/ca.pem"];
    dir.run(&[&agent[..], &swapped].concat()).expect(2, &["are not swapped"]);
    dir.run(&[&agent[..], &["--node-ca", "gone.pem"]].concat()).expect(2, &["gone.pem does not"]);
}

#[test]
fn an_unreadable_crl_or_a_scope_without_one_ends_a_start_for_every_role() {
    let dir = WorkDir::new();
    let whole = dir.read("certs/crl.pem");
    dir.write("empty.pem", "");
    dir.write("half.pem", &whole[..whole.len() / 2]);
    dir.write("body.pem", whole.replacen("\nMI", "\nAA", 1));
    let roles: [&[&str]; 3] = [&["node"], &["agent"], &["call", "warehouse", "HelloService/Hello"]];
    for role in roles {
        let with = |flags: &[&str], text: &str| {
            dir.run(&[role, flags].concat()).expect(2, &["error: ", text]);
        };
        with(&["--crl", "gone.pem"], "gone.pem does not exist");
        with(&["--crl", "empty.pem"], "empty.pem holds no revocation list: it is empty");
        with(&["--crl", "half.pem"], "half.pem is damaged");
        with(&["--crl", "body.pem"], "body.pem is damaged");
        with(&["--crl", "certs/ca.pem"], "it holds a certificate");
        with(&["--crl-scope", "leafs"], "leaf");
    }
    std::fs::remove_file(dir.path("certs/crl.pem")).expect("removed");
    dir.run(&["agent", "--crl-scope", "chain"]).expect(2, &["but no revocation list"]);
}

#[test]
fn certificates_that_cannot_be_created_are_refused_with_a_remedy() {
    let dir = WorkDir::empty();
    let refused = |args: &[&str], text: &str| {
        dir.run(&[&["certs"], args].concat()).expect(2, &["error: ", text]);
    };
    refused(&["issue", "agent", "a"], "certs init");
    refused(&["list"], "certs init");
    dir.make_ca("certs");
    refused(&["issue", "node", "edge-1"], "--san");
    refused(&["issue", "node", "edge-1", "--san", "a:4433"], "a:4433");
    refused(&["issue", "agent", "a", "--san", "localhost"], "--san");
    refused(&["issue", "agent", "A"], "A");
    refused(&["issue", "boss", "a"], "node, agent, caller");
    refused(&["issue", "agent", "a", "--days", "0"], "--days");
    refused(&["init", "--trust-domain", "other.example"], "--force");
    dir.write("note.txt", "not PEM");
    refused(&["inspect", "note.txt"], "neither a certificate");
    refused(&["revoke", "agent", "a"], "nothing was issued to agent/a");
    refused(&["renew", "agent", "a"], "nothing was issued to agent/a");
    refused(&["renew", "agent"], "<NAME>");
    refused(&["sign", "gone.csr", "agent", "a"], "gone.csr");
    refused(&["sign", "certs/ca.pem", "agent", "a"], "certs request");
    refused(&["crl", "--dir", "nowhere"], "certs init");
    refused(&["inspect", "gone.pem"], "gone.pem");
}
