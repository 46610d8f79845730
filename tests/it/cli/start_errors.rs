//! Faults that can be detected without a peer: they end at once with 2 and name a remedy.

use super::process::WorkDir;
use dialback::{PeerName, certs::LeafProfile};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

const CALL: [&str; 3] = ["call", "warehouse", "Demo/Echo"];

#[test]
fn without_certificates_every_role_names_the_command_that_creates_them() {
    let dir = WorkDir::empty();
    for command in [&["node"][..], &["agent"], &CALL, &["agents"], &["services", "warehouse"]] {
        dir.run(command).expect(2, &["error: certs does not exist", "dialback certs init"]);
    }
    fs::create_dir(dir.path("certs")).expect("made");
    dir.run(&CALL).expect(2, &["no certificate of role caller", "dialback certs issue"]);
}

#[test]
fn several_certificates_of_a_role_are_named_and_one_must_be_chosen() {
    let dir = WorkDir::new();
    dir.issue("certs", dialback::Role::Caller, "intern");
    dir.run(&CALL).expect(2, &["caller-intern, caller-ops", "--cert"]);
}

#[test]
fn a_certificate_of_another_role_is_refused_before_anything_is_sent() {
    let dir = WorkDir::new();
    let cert = |command: &[&str], cert: &str, wanted: &str| {
        let ended = dir.run(&[command, &["--cert", cert]].concat());
        ended.expect(2, &["role", wanted]);
    };
    cert(&["node"], "certs/agent-warehouse.pem", "role node is required");
    cert(&["agent"], "certs/caller-ops.pem", "role agent is required");
    cert(&CALL, "certs/agent-warehouse.pem", "role caller is required");
    cert(&["agents"], "certs/node-edge-1.pem", "role caller is required");
}

#[test]
fn unusable_files_are_named_with_the_remedy() {
    let dir = WorkDir::new();
    let with = |flags: &[&str], texts: &[&str]| {
        let ended = dir.run(&[&CALL, flags].concat()).expect(2, texts);
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.lines().count() == 1);
    };
    let ops = "certs/caller-ops.pem";
    with(&["--cert", "certs/gone.pem"], &["certs/gone.pem does not exist"]);
    with(&["--cert", ops, "--key", "gone.key"], &["gone.key does not exist"]);
    with(&["--cert", ops, "--ca", "gone.pem"], &["gone.pem does not exist"]);
    with(&["--cert", ops, "--crl", "gone.pem"], &["gone.pem does not exist"]);
    with(&["--crl", "gone.pem"], &["gone.pem does not exist"]);
    with(&["--key", "certs/ca.key"], &["cert and ca are missing"]);
    with(&["--cert", ops, "--key", "certs/ca.key"], &["is not the key of the certificate"]);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    };
    fs::copy(dir.path(ops), dir.path("no.key")).expect("copied");
    mode(&dir.path("no.key"), 0o600);
    with(&["--cert", ops, "--key", "no.key"], &["holds no private key", "it holds a certificate"]);
    dir.write("certs/note.pem", "not PEM");
    let ops_key = "certs/caller-ops.key";
    let note = ["--cert", "certs/note.pem", "--key", ops_key];
    with(&note, &["certs/note.pem holds no certificate"]);
    mode(&dir.path(ops_key), 0o644);
    with(&[], &["mode 0644", "chmod 600"]);
    mode(&dir.path(ops_key), 0o600);
    fs::rename(dir.path("certs/ca.pem"), dir.path("ca.pem")).expect("moved");
    with(&["--cert", ops], &["ca is missing"]);
}

#[test]
fn certificates_outside_their_validity_are_refused_with_both_dates() {
    let dir = WorkDir::new();
    let day = Duration::from_secs(24 * 3600);
    let now = SystemTime::now();
    let ca = dir.certs("certs").ca().expect("a CA");
    let make = |role: &str, not_before, not_after| {
        let file = format!("certs/{role}");
        let peer: PeerName = role.replace('-', "/").parse().expect("a peer name");
        let profile = LeafProfile::new(ca.trust_domain(), &peer, &[], now);
        let leaf = ca.leaf(&LeafProfile { not_before, not_after, ..profile }).expect("signed");
        dir.write(&format!("{file}.pem"), leaf.cert);
        dir.write(&format!("{file}.key"), leaf.key.as_bytes());
    };
    make("agent-warehouse", now - 9 * day, now - day);
    dir.run(&["agent", "--node", "127.0.0.1:1"])
        .expect(2, &["has expired", "certs issue agent warehouse", "clock"]);
    make("caller-ops", now + day, now + 9 * day);
    dir.run(&["agents", "--node", "127.0.0.1:1"]).expect(2, &["not valid yet", "clock"]);
}

#[test]
fn usage_errors_end_with_2() {
    let dir = WorkDir::new();
    dir.write("latin1.json", b"\"\xe9\"");
    for (args, text) in [
        (&["-d", "hello"][..], "is not JSON"),
        (&["-d", "{"], "is not JSON"),
        (&["-d", "@gone.json"], "cannot read gone.json"),
        (&["-d", "@latin1.json"], "not UTF-8"),
        (&["--timeout", "0"], "--timeout"),
        (&["--timeout", "0s"], "must be above zero"),
        (&["--timeout", "5"], "no unit"),
        (&["--node", "::1"], "[::1]:4433"),
        (&["--node", "https://edge"], "URL"),
        (&["-H", "x"], "key: value"),
        (&["--nod", "x"], "--nod"),
    ] {
        dir.run(&[&CALL, args].concat()).expect(2, &["error: ", text]);
    }
    dir.run(&["call", "Ware", "Demo/Echo"]).expect(2, &["error: ", "Ware"]);
    dir.run(&["call", "warehouse", "Echo"]).expect(2, &["error: ", "Echo"]);
    dir.run(&["call"]).expect(2, &["error: "]);
    dir.run(&["tcp"]).expect(2, &["error: "]);
    dir.run(&[]).expect(2, &["Usage"]);
}

#[test]
fn a_ledger_without_the_demo_or_without_a_directory_is_refused() {
    let dir = WorkDir::new();
    dir.run(&["agent", "--ledger", "l.txt"]).expect(2, &["--demo"]);
    dir.run(&["agent", "--demo", "--ledger", "no/l.txt"]).expect(2, &["no/l.txt"]);
}
