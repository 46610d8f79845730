//! Enrolment as users have it: an enroller at the CA, a token, a machine that joins, an agent that
//! renews automatically.

use super::process::{CommandOutput, DialbackProcess, WorkDir};
use dialback::{
    PeerName, Role,
    certs::{LeafProfile, Usage},
};
use rustix::process::Signal;
use std::{
    os::unix::fs::PermissionsExt,
    time::{Duration, SystemTime},
};

/// An enroller with the CA in `ca/`, and its address.
fn enroller(dir: &WorkDir, leaf_ttl: &str) -> (DialbackProcess, String) {
    dir.make_ca("ca");
    let args = ["enroll", "--listen", "127.0.0.1:0", "--ca-dir", "ca", "--leaf-ttl", leaf_ttl];
    dir.listening(&args)
}

fn token(dir: &WorkDir, role: &str, name: &str) -> String {
    let args = ["enroll", "token", role, name, "--ttl", "1h", "--ca-dir", "ca"];
    let ended = dir.run(&args).expect(0, &[]);
    assert_eq!((ended.stdout.lines().count(), ended.stderr.as_str()), (1, ""));
    ended.stdout.trim().to_owned()
}

fn join(dir: &WorkDir, role: &str, at: &str, token: &str, more: &[&str]) -> CommandOutput {
    dir.run(&[&[role, "join", "--enroll", at, "--token", token], more].concat())
}

#[test]
fn a_machine_joins_once_with_a_token_and_calls_with_its_certificate() {
    let dir = WorkDir::empty();
    let (mut enroller, at) = enroller(&dir, "90d");
    let (agent, caller) = (token(&dir, "agent", "warehouse"), token(&dir, "caller", "ops"));
    let output = join(&dir, "agent", &at, &agent, &[]).expect(0, &[]).stdout;
    assert!(output.contains("agent/warehouse, serial ") && !output.contains(&agent), "{output}");
    enroller.wait_for_line("signed agent/warehouse for 127.0.0.1");
    assert!(!dir.path("certs/ca.key").exists());
    join(&dir, "agent", &at, &agent, &["--dir", "other"]).expect(80, &["TOKEN_USED", "new token"]);
    join(&dir, "agent", &at, &agent, &[]).expect(2, &["the token was not used", "--force"]);
    join(&dir, "caller", &at, &caller, &[]).expect(0, &[]);
    dir.issue("ca", Role::Node, "edge-1");
    dir.write("rules.toml", super::process::RULES);
    let cert = ["--cert", "ca/node-edge-1.pem", "--listen", "127.0.0.1:0"];
    let (_node, node) = dir.listening(&[&["node", "--policy", "rules.toml"], &cert[..]].concat());
    let _agent = dir.agent(&node);
    let call = ["call", "warehouse", "HelloService/Hello", "-d", "\"hello\"", "--node", &node];
    dir.run(&call).expect_out("\"hello:hello\"\n");
    let renew = ["caller", "renew", "--enroll", &at];
    let kept = dir.run(&renew).expect(0, &[]).stdout;
    assert!(kept.starts_with("kept  caller/ops, due for renewal at "), "{kept}");
}

#[test]
fn faults_are_reported_by_the_side_that_sees_them_without_secrets() {
    let dir = WorkDir::empty();
    let (mut enroller, at) = enroller(&dir, "90d");
    let good = token(&dir, "agent", "warehouse");
    let secret = good.split(':').nth(3).expect("a secret").to_owned();
    let mut shown = String::new();
    let mut refused = |ended: CommandOutput, code, text: &str| {
        let ended = ended.expect(code, &["error: ", text]);
        shown += &(ended.stdout + &ended.stderr);
    };
    refused(
        dir.run(&["enroll", "token", "node", "edge-1", "--ca-dir", "ca"]),
        2,
        "agents and callers",
    );
    refused(
        dir.run(&["enroll", "token", "agent", "a", "--ttl", "31d", "--ca-dir", "ca"]),
        2,
        "--ttl",
    );
    refused(dir.run(&["enroll", "token", "agent", "a", "--ca-dir", "no"]), 2, "certs init");
    refused(dir.run(&["enroll", "--ca-dir", "no"]), 2, "certs init");
    refused(dir.run(&["enroll", "--ca-dir", "ca", "--leaf-ttl", "1s"]), 2, "--leaf-ttl");
    refused(join(&dir, "agent", &at, &good[..good.len() - 1], &[]), 2, "incomplete join token");
    refused(join(&dir, "caller", &at, &good, &[]), 2, "dialback agent join");
    refused(join(&dir, "agent", &at, &good, &["--name", "kiosk"]), 2, "not for agent/kiosk");
    let renamed = good.replace("warehouse", "kiosk");
    refused(join(&dir, "agent", &at, &renamed, &[]), 80, "OTHER_PARTY");
    let foreign = format!("{}{}", &good[..good.len() - 64], "ab".repeat(32));
    refused(join(&dir, "agent", &at, &foreign, &[]), 80, "handshake with");
    dir.write("file", "where the directory should be");
    refused(join(&dir, "agent", &at, &good, &["--dir", "file"]), 1, "file");
    join(&dir, "agent", &at, &good, &["--name", "warehouse", "--log-level", "trace"])
        .expect(0, &[]);
    let line = enroller.wait_for_line("signed agent/warehouse");
    assert!(!line.contains(&secret) && !shown.contains(&secret), "{shown}");
}

#[test]
fn an_agent_renews_automatically_without_losing_a_call() {
    let dir = WorkDir::empty();
    let (_enroller, at) = enroller(&dir, "8s");
    join(&dir, "agent", &at, &token(&dir, "agent", "warehouse"), &[]).expect(0, &[]);
    dir.issue("ca", Role::Node, "edge-1");
    dir.issue("ca", Role::Caller, "ops");
    dir.write("rules.toml", super::process::RULES);
    let cert = ["--cert", "ca/node-edge-1.pem", "--listen", "127.0.0.1:0"];
    let (_node, node) = dir.listening(&[&["node", "--policy", "rules.toml"], &cert[..]].concat());
    dir.write("agent.toml", format!("nodes = [\"{node}\"]\ndemo = true\nenroll = \"{at}\"\n"));
    let mut agent = dir.start(&["agent", "--config", "agent.toml"]);
    agent.wait_for_line("registered as warehouse");
    let first = dir.read("certs/agent-warehouse.pem");
    let call = ["call", "warehouse", "HelloService/Hello", "-d", "\"hello\"", "--node", &node];
    let call = [&call[..], &["--cert", "ca/caller-ops.pem"]].concat();
    let until = SystemTime::now() + Duration::from_secs(30);
    while dir.read("certs/agent-warehouse.pem") == first {
        assert!(SystemTime::now() < until, "it was not renewed");
        dir.run(&call).expect_out("\"hello:hello\"\n");
    }
    agent.wait_for_line("renewed the certificate of agent/warehouse");
    agent.wait_for_line("registered as warehouse");
    dir.run(&call).expect_out("\"hello:hello\"\n");
}

#[test]
fn a_machine_that_was_off_for_too_long_logs_that_it_needs_a_new_token() {
    let dir = WorkDir::empty();
    dir.make_ca("ca");
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let peer: PeerName = "agent/warehouse".parse().expect("a peer name");
    let ca = dir.certs("ca").ca().expect("a CA");
    let profile = LeafProfile {
        not_before: now - 2 * hour,
        not_after: now - hour,
        usages: vec![Usage::ClientAuth],
        ..LeafProfile::new(ca.trust_domain(), &peer, &[], now)
    };
    let leaf = ca.leaf(&profile).expect("signed");
    std::fs::create_dir(dir.path("certs")).expect("made");
    dir.write("certs/ca.pem", ca.pem());
    dir.write("certs/agent-warehouse.pem", &leaf.cert);
    dir.write("certs/agent-warehouse.key", leaf.key.as_bytes());
    let key = PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(dir.path("certs/agent-warehouse.key"), key).expect("changed");
    let way = ["dialback enroll token agent warehouse", "dialback agent join --enroll"];
    dir.run(&["agent", "--demo", "--enroll", "ca.example.com"]).expect(2, &way);
    dir.run(&["agent", "renew", "--enroll", "ca.example.com"]).expect(2, &way);
}

#[test]
fn a_machine_joins_through_a_tunnel_of_an_enroller_whose_tunnel_certificate_is_read_again() {
    let dir = WorkDir::empty();
    dir.make_ca("ca");
    dir.issue("ca", Role::Node, "edge-1");
    let tunnel = ["--tunnel", "127.0.0.1:0", "--tunnel-cert", "ca/node-edge-1.pem"];
    let enroll = ["enroll", "--listen", "127.0.0.1:0", "--ca-dir", "ca"];
    let run = [&enroll[..], &tunnel, &["--tunnel-key", "ca/node-edge-1.key"]].concat();
    let (mut enroller, at) = dir.listening(&run);
    let line = enroller.wait_for_line("tunnels are accepted at ");
    let url = line.split("accepted at ").nth(1).expect("a URL").trim().to_owned();
    enroller.signal(Signal::HUP);
    enroller.wait_for_line("SIGHUP received: reloading all files");
    let paths = ["--path", "tunnel", "--enroll-tunnel-url", &url, "--tunnel-verify"];
    let verified = [&paths[..], &["--tunnel-ca", "ca/ca.pem"]].concat();
    let agent = token(&dir, "agent", "warehouse");
    join(&dir, "agent", &at, &agent, &paths).expect(78, &["the certificate of 127.0.0.1:"]);
    join(&dir, "agent", &at, &agent, &verified).expect(0, &[]);
    let renew = [&["agent", "renew", "--enroll", &at][..], &verified].concat();
    let kept = dir.run(&renew).expect(0, &[]).stdout;
    assert!(kept.starts_with("kept  agent/warehouse, due for renewal at "), "{kept}");
    for (flags, text) in [
        (&["--tunnel-plain"][..], "--tunnel-plain needs --tunnel IP:PORT"),
        (&["--tunnel", "0.0.0.0:0", "--tunnel-plain"], "would take plain HTTP from other machines"),
        (&["--tunnel", "127.0.0.1:0", "--tunnel-cert", "ca/ca.pem"], "--tunnel-key"),
    ] {
        dir.run(&[&enroll[..], flags].concat()).expect(2, &[text]);
    }
}
