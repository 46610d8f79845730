//! Machines with a slow clock at start: a certificate that is not valid yet makes long-running
//! commands wait and ends others.

use super::process::{DialbackProcess, WorkDir};
use crate::world::{RawNode, World};
use dialback::{
    PeerName,
    certs::{InitOptions, LeafProfile},
};
use rustix::process::Signal;
use std::time::{Duration, SystemTime};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);
const WAITS: &str = "not started yet, retrying";

/// Replaces the certificate and the key of a peer by ones that are valid from now on, or later.
pub(super) fn valid_in(dir: &WorkDir, peer: &str, later: Duration) {
    let ca = dir.certs("certs").ca().expect("a CA");
    let (now, file) = (SystemTime::now(), peer.replace('/', "-"));
    let peer: PeerName = peer.parse().expect("a peer name");
    let hosts: &[&str] = if file.starts_with("node") { &["localhost", "127.0.0.1"] } else { &[] };
    let profile = LeafProfile::new(ca.trust_domain(), &peer, hosts, now);
    let not_before = if later.is_zero() { now - HOUR } else { now + later };
    let leaf = ca.leaf(&LeafProfile { not_before, not_after: now + 90 * HOUR, ..profile });
    let leaf = leaf.expect("signed");
    dir.write(&format!("certs/{file}.key"), leaf.key.as_bytes());
    dir.write(&format!("certs/{file}.pem"), leaf.cert);
}

/// It waits and logs the reason.
#[track_caller]
fn waits(command: &mut DialbackProcess) {
    let line = command.wait_for_line(WAITS);
    for part in ["WARN", "not valid yet", "clock may be behind"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_node_and_an_agent_wait_until_their_certificates_are_valid_and_then_start() {
    let dir = WorkDir::new();
    let soon = Duration::from_secs(3);
    valid_in(&dir, "node/edge-1", soon);
    dir.write("rules.toml", super::process::RULES);
    let mut node = dir.start(&["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"]);
    waits(&mut node);
    let line = node.wait_for_line("listens on ");
    let at = line.split("listens on ").nth(1).expect("an address").trim();
    valid_in(&dir, "agent/warehouse", soon);
    let mut agent = dir.start(&["agent", "--demo", "--node", at]);
    waits(&mut agent);
    agent.wait_for_line("registered as warehouse");
    dir.run(&["call", "--node", at, "warehouse", "HelloService/Hello", "-d", "\"x\""])
        .expect_out("\"hello:x\"\n");
}

#[test]
fn a_tcp_port_opens_once_its_certificate_is_valid() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    valid_in(&dir, "caller/ops", Duration::from_secs(3));
    let mut tcp = dir.start(&["tcp", "warehouse", "db", "--listen", "127.0.0.1:0", "--node", &at]);
    waits(&mut tcp);
    tcp.wait_for_line("listening on 127.0.0.1:");
    tcp.signal(Signal::TERM);
    tcp.end().expect(0, &[]);
}

#[test]
fn a_signal_ends_the_wait_before_anything_was_opened() {
    let dir = WorkDir::new();
    for peer in ["node/edge-1", "agent/warehouse", "caller/ops"] {
        valid_in(&dir, peer, HOUR);
    }
    for args in [
        &["node", "--listen", "127.0.0.1:0"][..],
        &["agent", "--node", "127.0.0.1:1"],
        &["agent", "--node", "127.0.0.1:1", "--enroll", "127.0.0.1:1"],
        &["tcp", "warehouse", "db", "--listen", "127.0.0.1:0", "--node", "127.0.0.1:1"],
    ] {
        let mut waiting = dir.start(args);
        waits(&mut waiting);
        waiting.signal(Signal::TERM);
        let ended = waiting.end().expect(0, &["SIGTERM received: shutting down", "stopped"]);
        let output = ended.stdout + &ended.stderr;
        for started in ["listens on", "listening on", "dialling", "INFO certificate"] {
            assert!(!output.contains(started), "{args:?}: {output}");
        }
        assert_eq!(output.matches(WAITS).count(), 1, "{output}");
    }
}

#[test]
fn one_shot_commands_fail_and_say_that_the_clock_may_be_behind() {
    let dir = WorkDir::new();
    valid_in(&dir, "caller/ops", HOUR);
    for args in [
        &["call", "warehouse", "Demo/Echo", "--node", "127.0.0.1:1"][..],
        &["agents", "--node", "127.0.0.1:1"],
        &["caller", "renew", "--enroll", "127.0.0.1:1"],
    ] {
        dir.run(args).expect(2, &["not valid yet", "the clock may be behind"]);
    }
}

#[test]
fn files_replaced_while_an_agent_waits_are_reloaded_with_and_without_sighup() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    for by_signal in [true, false] {
        valid_in(&dir, "agent/warehouse", HOUR);
        let mut agent = dir.start(&["agent", "--demo", "--node", &at]);
        waits(&mut agent);
        // A mismatching pair does not end the wait: the other file may be about to be written.
        dir.write("certs/agent-warehouse.pem", "");
        agent.signal(Signal::HUP);
        agent.wait_for_line("agent-warehouse.pem holds no certificate");
        valid_in(&dir, "agent/warehouse", Duration::ZERO);
        if by_signal {
            agent.signal(Signal::HUP);
        }
        agent.wait_for_line("registered as warehouse");
    }
}

#[test]
fn a_file_with_another_fault_still_ends_a_start() {
    let dir = WorkDir::new();
    valid_in(&dir, "agent/warehouse", HOUR);
    dir.write("agent.toml", "nonsense = 1\n");
    dir.run(&["agent", "--config", "agent.toml"]).expect(2, &["agent.toml"]);
}

#[test]
fn an_enroller_waits_until_its_ca_is_valid() {
    let dir = WorkDir::empty();
    // The validity of a CA begins an hour before its creation.
    let then = SystemTime::now() + HOUR + Duration::from_secs(3);
    dir.certs("ca").init(&InitOptions::default(), then).expect("a CA");
    let mut enroller = dir.start(&["enroll", "--ca-dir", "ca", "--listen", "127.0.0.1:0"]);
    waits(&mut enroller);
    enroller.wait_for_line("enroller listens on ");
    enroller.signal(Signal::TERM);
    enroller.end().expect(0, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_port_waits_until_the_nodes_certificate_is_valid_and_a_call_does_not() {
    let (dir, world) = (WorkDir::new(), World::new());
    let (ca, now) = (dir.certs("certs").ca().expect("a CA"), SystemTime::now());
    let node = "node/edge-1".parse().expect("a peer name");
    let profile = LeafProfile::new(ca.trust_domain(), &node, &["127.0.0.1"], now);
    let early = ca.leaf(&LeafProfile { not_before: now + HOUR, ..profile }).expect("signed");
    let raw = RawNode::presenting(&world.credentials("node/any"), &early);
    let at = raw.address().to_string();
    let (tcp, call) = tokio::task::spawn_blocking(move || {
        let call = dir.run(&["call", "warehouse", "Demo/Echo", "--node", &at]);
        let tcp = ["tcp", "warehouse", "db", "--listen", "127.0.0.1:0", "--node", &at];
        let mut tcp = dir.start(&tcp);
        let line = tcp.wait_for_line(WAITS);
        assert!(line.contains(&at), "{line}");
        tcp.signal(Signal::TERM);
        (tcp.end(), call)
    })
    .await
    .expect("ended");
    call.expect(80, &["not valid yet", "the clock here may be behind"]);
    let ended = tcp.expect(0, &["not valid yet", "the clock here may be behind", "stopped"]);
    assert_eq!(ended.stdout, "");
}
