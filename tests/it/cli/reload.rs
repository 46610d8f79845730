//! Files that change while a node and an agent run: reloaded within two seconds or at SIGHUP, or
//! rejected with a log line.

use super::process::{CommandOutput, DialbackProcess, WorkDir};
use dialback::{Caller, Credentials, RevokedSerial, Role, certs::LeafRequest};
use rustix::process::Signal;
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::task::JoinSet;

const OPEN: &str = "[[allow]]\ncaller = \"ops\"\nagent = \"**\"\nmethod = \"*/*\"\n";
const SHUT: &str = "[[allow]]\ncaller = \"nobody\"\nagent = \"**\"\nmethod = \"*/*\"\n";

fn hello(dir: &WorkDir, at: &str) -> CommandOutput {
    dir.run(&["call", "--node", at, "warehouse", "HelloService/Hello", "-d", "\"x\""])
}

/// Calls until it ends with this code. A change is reloaded within two seconds; a busy machine gets
/// more.
#[track_caller]
fn until_ends_with(code: i32, call: impl Fn() -> CommandOutput) {
    let began = Instant::now();
    loop {
        let ended = call();
        if ended.code == Some(code) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it never reached {code}: {ended:?}");
    }
}

fn started(dir: &WorkDir) -> (DialbackProcess, DialbackProcess, String) {
    let (node, at) = dir.node();
    let agent = dir.agent(&at);
    hello(dir, &at).expect_out("\"hello:x\"\n");
    (node, agent, at)
}

#[test]
fn edited_rules_are_reloaded_and_broken_ones_are_reported_with_their_line_and_not_applied() {
    let dir = WorkDir::new();
    let (mut node, _agent, at) = started(&dir);
    dir.write("rules.toml", SHUT);
    until_ends_with(71, || hello(&dir, &at));
    dir.write("rules.toml", format!("{OPEN}\n[[allow]]\ncaller = \"ops\"\nagnet = \"**\"\n"));
    let line = node.wait_for_line("reload failed, keeping the previous settings");
    assert!(line.contains("ERROR") && line.contains("rules.toml:"), "{line}");
    hello(&dir, &at).expect(71, &["PERMISSION_DENIED"]);
    dir.write("rules.toml", "");
    node.wait_for_line("rules.toml: is empty");
    hello(&dir, &at).expect(71, &["PERMISSION_DENIED"]);
    dir.write("rules.toml", OPEN);
    until_ends_with(0, || hello(&dir, &at));
}

#[test]
fn an_agent_whose_rules_are_all_removed_keeps_the_old_ones() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let rule = |caller: &str| {
        let rule = "node = \"**\"\nmethod = \"*/*\"\n";
        format!("demo = true\nnodes = [\"{at}\"]\n[[allow]]\ncaller = \"{caller}\"\n{rule}")
    };
    dir.write("agent.toml", rule("nobody"));
    let mut agent = dir.start(&["agent", "--config", "agent.toml"]);
    agent.wait_for_line("registered");
    hello(&dir, &at).expect(71, &["PERMISSION_DENIED"]);
    dir.write("agent.toml", "");
    agent.wait_for_line("agent.toml: is empty");
    dir.write("agent.toml", format!("demo = true\nnodes = [\"{at}\"]\n"));
    agent.wait_for_line("the config file has no [[allow]] rule any more");
    hello(&dir, &at).expect(71, &["PERMISSION_DENIED"]);
    dir.write("agent.toml", rule("ops"));
    until_ends_with(0, || hello(&dir, &at));
}

#[test]
fn a_file_that_is_refused_changes_nothing_and_the_one_before_it_is_valid_again() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let open = format!("demo = true\nnodes = [\"{at}\"]\n");
    dir.write("agent.toml", &open);
    let mut agent = dir.start(&["agent", "--config", "agent.toml"]);
    agent.wait_for_line("registered");
    let twice = "[[service]]\nname = \"Demo\"\nforward = \"http://127.0.0.1:1\"\n";
    let rule = "[[allow]]\nnode = \"**\"\ncaller = \"nobody\"\nmethod = \"*/*\"\n";
    dir.write("agent.toml", format!("{open}{twice}{rule}"));
    agent.wait_for_line("the service Demo is hosted twice");
    hello(&dir, &at).expect(0, &[]);
    dir.write("agent.toml", &open);
    agent.wait_for_line("applied configuration 2");
    hello(&dir, &at).expect(0, &[]);
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_a_file_is_reported_and_delays_neither_calls_nor_the_end() {
    let dir = WorkDir::new();
    let (mut node, _agent, at) = started(&dir);
    fs::remove_file(dir.path("rules.toml")).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(dir.path("rules.toml")).status();
    assert!(made.expect("mkfifo runs").success());
    node.wait_for_line("rules.toml: cannot be read: it is no regular file");
    hello(&dir, &at).expect_out("\"hello:x\"\n");
    node.signal(Signal::TERM);
    node.end().expect(0, &[]);
}

#[test]
fn a_directory_of_secrets_that_is_swapped_by_a_symbolic_link_is_reloaded() {
    let dir = WorkDir::new();
    for version in ["one", "two"] {
        fs::create_dir(dir.path(version)).expect("made");
        dir.write(&format!("{version}/rules.toml"), if version == "one" { OPEN } else { SHUT });
    }
    let link = |to: &str| {
        std::os::unix::fs::symlink(to, dir.path("next")).expect("linked");
        fs::rename(dir.path("next"), dir.path("mounted")).expect("swapped");
    };
    link("one");
    let args = ["node", "--listen", "127.0.0.1:0", "--policy", "mounted/rules.toml"];
    let (_node, at) = dir.listening(&args);
    let _agent = dir.agent(&at);
    hello(&dir, &at).expect_out("\"hello:x\"\n");
    link("two");
    until_ends_with(71, || hello(&dir, &at));
}

#[test]
fn a_revoked_agent_is_disconnected_and_returns_with_a_new_certificate_without_a_restart() {
    let dir = WorkDir::new();
    let (mut node, mut agent, at) = started(&dir);
    let now = SystemTime::now();
    let (certs, name) = (dir.certs("certs"), "warehouse".parse().expect("a name"));
    let issued = certs.list().expect("listed").into_iter();
    let revoked: Vec<_> = issued
        .filter(|leaf| leaf.peer.role == Role::Agent)
        .map(|leaf| RevokedSerial { serial: leaf.serial, since: now })
        .collect();
    let until = now + Duration::from_secs(3_600);
    let list = certs.ca().expect("a CA").crl(&revoked, 1_000, now, until).expect("signed");
    dir.write("certs/crl.pem", list);
    node.signal(Signal::HUP);
    node.wait_for_line("SIGHUP received: reloading all files");
    node.wait_for_line("closed the link of agent/warehouse: certificate revoked");
    agent.wait_for_line("the peer closed the link with REVOKED");
    hello(&dir, &at).expect(78, &["UNAVAILABLE (not_executed)"]);
    let request = LeafRequest { force: true, ..LeafRequest::new(Role::Agent, name) };
    certs.issue(&request, now).expect("issued");
    agent.wait_for_line("registered as warehouse");
    hello(&dir, &at).expect_out("\"hello:x\"\n");
}

#[test]
fn a_key_that_does_not_match_its_certificate_is_reported_and_not_applied() {
    let dir = WorkDir::new();
    let (mut node, _agent, at) = started(&dir);
    let (cert, key) = ("certs/node-edge-1.pem", "certs/node-edge-1.key");
    let good = dir.read(key);
    dir.write(key, dir.read("certs/caller-ops.key"));
    node.signal(Signal::HUP);
    let line = node.wait_for_line("reload failed");
    assert!(line.contains(cert) && line.contains(key), "{line}");
    hello(&dir, &at).expect_out("\"hello:x\"\n");
    dir.write(cert, &dir.read(cert).as_bytes()[..100]);
    node.wait_for_line("reload failed");
    dir.write(key, good);
    hello(&dir, &at).expect_out("\"hello:x\"\n");
    node.signal(Signal::TERM);
    node.end().expect(0, &[]);
}

#[test]
fn a_missing_crl_is_reported_and_revoked_peers_stay_rejected() {
    let dir = WorkDir::new();
    let (mut node, _agent, at) = started(&dir);
    let list = dir.read("certs/crl.pem");
    fs::remove_file(dir.path("certs/crl.pem")).expect("removed");
    let line = node.wait_for_line("reload failed, keeping the previous settings");
    assert!(line.contains("certs/crl.pem"), "{line}");
    let call = ["call", "--node", &at, "warehouse", "HelloService/Hello", "-d", "\"x\""];
    dir.run(&[&call[..], &["--crl", "none"]].concat()).expect_out("\"hello:x\"\n");
    dir.write("certs/crl.pem", list);
    node.wait_for_line("applied configuration 2:");
    node.wait_for_line("revocation list expires");
}

#[test]
fn a_second_certificate_of_the_role_does_not_keep_a_node_from_reloading() {
    let dir = WorkDir::new();
    let (mut node, _agent, at) = started(&dir);
    dir.issue("certs", Role::Node, "edge-2");
    dir.write("rules.toml", SHUT);
    node.wait_for_line("applied configuration 2:");
    hello(&dir, &at).expect(71, &["PERMISSION_DENIED"]);
}

#[test]
fn a_key_whose_mode_is_corrected_is_reloaded_without_another_change() {
    use std::os::unix::fs::PermissionsExt;
    let dir = WorkDir::new();
    let (mut node, _agent, at) = started(&dir);
    let mode = |mode| {
        let path = dir.path("certs/node-edge-1.key");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    };
    mode(0o644);
    dir.write("rules.toml", SHUT);
    assert!(node.wait_for_line("reload failed").contains("chmod 600"));
    hello(&dir, &at).expect_out("\"hello:x\"\n");
    mode(0o600);
    node.wait_for_line("applied configuration 2:");
    hello(&dir, &at).expect(71, &["PERMISSION_DENIED"]);
}

/// Row F22 of the faults, with processes: certificates of node and agent are replaced repeatedly
/// under 50 calls a second. Returns the number of calls; each one succeeds.
fn calls_while_certificates_are_replaced(rounds: usize, every: Duration) -> usize {
    let dir = WorkDir::new();
    let (mut node, mut agent, at) = started(&dir);
    let credentials = Credentials::from_dir(dir.path("certs"), "caller-ops").expect("loaded");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let replacing = Arc::new(AtomicBool::new(true));
    let is_replacing = replacing.clone();
    let calls = runtime.spawn(async move {
        let caller = Caller::connect(at, credentials).await.expect("linked");
        let callee = caller.agent("warehouse").expect("a name");
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let mut calls = JoinSet::new();
        while is_replacing.load(Ordering::SeqCst) {
            ticks.tick().await;
            let callee = callee.clone();
            let sleep = serde_json::json!({ "ms": 100 });
            calls.spawn(async move { callee.call::<()>("Demo/Sleep", &sleep).await });
        }
        let results = calls.join_all().await;
        let count = results.len();
        let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{} of {count} calls failed: {failed:?}", failed.len());
        count
    });
    for round in 0..rounds {
        let began = Instant::now();
        for (role, name) in [(Role::Node, "edge-1"), (Role::Agent, "warehouse")] {
            let name = name.parse().expect("a name");
            let mut request = LeafRequest { force: true, ..LeafRequest::new(role, name) };
            if role == Role::Node {
                request.sans = vec!["localhost".into(), "127.0.0.1".into()];
            }
            dir.certs("certs").issue(&request, SystemTime::now()).expect("issued");
        }
        // Both have reloaded it; the agent has another link for it.
        let generation = format!("applied configuration {}:", round + 2);
        node.wait_for_line(&generation);
        agent.wait_for_line("registered as warehouse");
        std::thread::sleep(every.saturating_sub(began.elapsed()));
    }
    replacing.store(false, Ordering::SeqCst);
    runtime.block_on(calls).expect("no call failed")
}

#[test]
fn no_call_fails_while_certificates_are_replaced_repeatedly() {
    let calls = calls_while_certificates_are_replaced(2, Duration::ZERO);
    assert!(calls > 0);
}

#[test]
#[ignore = "the long form; `make test-long` runs it"]
fn no_call_fails_while_certificates_are_replaced_every_five_seconds_for_two_minutes() {
    let calls = calls_while_certificates_are_replaced(24, Duration::from_secs(5));
    println!("{calls} calls, none failed");
}

#[test]
fn changes_that_need_a_restart_are_reported() {
    let dir = WorkDir::new();
    dir.write("node.toml", format!("listen = \"127.0.0.1:0\"\n{OPEN}"));
    let (mut node, at) = dir.listening(&["node", "--config", "node.toml"]);
    dir.write("node.toml", format!("listen = \"127.0.0.1:1\"\n{SHUT}"));
    node.wait_for_line("applied configuration 2:");
    node.wait_for_line("listen has changed: restart to apply");
    hello(&dir, &at).expect(71, &["PERMISSION_DENIED"]);
}
