//! Machines whose clock is behind when they start: a certificate that is not valid yet makes
//! commands that stay wait, and ends others.

use super::process::{Place, Running};
use crate::world::{RawNode, World};
use dialback::{
    PeerName,
    certs::{InitOptions, LeafProfile},
};
use rustix::process::Signal;
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3_600);
const WAITS: &str = "not started yet, retrying";

/// Replaces the certificate and the key of a party by ones that are valid from now on, or later.
fn valid_in(place: &Place, party: &str, later: Duration) {
    let ca = place.certs("certs").ca().expect("a CA");
    let (now, file) = (SystemTime::now(), party.replace('/', "-"));
    let party: PeerName = party.parse().expect("a party");
    let hosts: &[&str] = if file.starts_with("node") { &["localhost", "127.0.0.1"] } else { &[] };
    let profile = LeafProfile::new(ca.trust_domain(), &party, hosts, now);
    let not_before = if later.is_zero() { now - HOUR } else { now + later };
    let leaf = ca.leaf(&LeafProfile { not_before, not_after: now + 90 * HOUR, ..profile });
    let leaf = leaf.expect("signed");
    place.write(&format!("certs/{file}.key"), leaf.key.as_bytes());
    place.write(&format!("certs/{file}.pem"), leaf.cert);
}

/// It waits, and says why.
#[track_caller]
fn waits(command: &mut Running) {
    let line = command.said(WAITS);
    for part in ["WARN", "not valid yet", "clock may be behind"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_node_and_an_agent_wait_until_their_certificates_are_valid_and_then_start() {
    let place = Place::new();
    let soon = Duration::from_secs(3);
    valid_in(&place, "node/edge-1", soon);
    place.write("rules.toml", super::process::RULES);
    let mut node = place.start(&["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"]);
    waits(&mut node);
    let line = node.said("listens on ");
    let at = line.split("listens on ").nth(1).expect("an address").trim();
    valid_in(&place, "agent/warehouse", soon);
    let mut agent = place.start(&["agent", "--demo", "--node", at]);
    waits(&mut agent);
    agent.said("registered as warehouse");
    place
        .run(&["call", "--node", at, "warehouse", "HelloService/Hello", "-d", "\"x\""])
        .expect_out("\"hello:x\"\n");
}

#[test]
fn a_tcp_port_opens_once_its_certificate_is_valid() {
    let place = Place::new();
    let (_node, at) = place.node();
    valid_in(&place, "caller/ops", Duration::from_secs(3));
    let mut tcp =
        place.start(&["tcp", "warehouse", "db", "--listen", "127.0.0.1:0", "--node", &at]);
    waits(&mut tcp);
    tcp.said("listening on 127.0.0.1:");
    tcp.signal(Signal::TERM);
    tcp.end().expect(0, &[]);
}

#[test]
fn a_signal_ends_the_wait_before_anything_was_opened() {
    let place = Place::new();
    for party in ["node/edge-1", "agent/warehouse", "caller/ops"] {
        valid_in(&place, party, HOUR);
    }
    for args in [
        &["node", "--listen", "127.0.0.1:0"][..],
        &["agent", "--node", "127.0.0.1:1"],
        &["agent", "--node", "127.0.0.1:1", "--enroll", "127.0.0.1:1"],
        &["tcp", "warehouse", "db", "--listen", "127.0.0.1:0", "--node", "127.0.0.1:1"],
    ] {
        let mut waiting = place.start(args);
        waits(&mut waiting);
        waiting.signal(Signal::TERM);
        let ended = waiting.end().expect(0, &["SIGTERM received: shutting down", "stopped"]);
        let said = ended.stdout + &ended.stderr;
        for started in ["listens on", "listening on", "dialling", "INFO certificate"] {
            assert!(!said.contains(started), "{args:?}: {said}");
        }
        assert_eq!(said.matches(WAITS).count(), 1, "{said}");
    }
}

#[test]
fn one_shot_commands_fail_and_say_that_the_clock_may_be_behind() {
    let place = Place::new();
    valid_in(&place, "caller/ops", HOUR);
    for args in [
        &["call", "warehouse", "Demo/Echo", "--node", "127.0.0.1:1"][..],
        &["agents", "--node", "127.0.0.1:1"],
        &["caller", "renew", "--enroll", "127.0.0.1:1"],
    ] {
        place.run(args).expect(2, &["not valid yet", "the clock may be behind"]);
    }
}

#[test]
fn files_replaced_while_an_agent_waits_are_reloaded_with_and_without_sighup() {
    let place = Place::new();
    let (_node, at) = place.node();
    for by_signal in [true, false] {
        valid_in(&place, "agent/warehouse", HOUR);
        let mut agent = place.start(&["agent", "--demo", "--node", &at]);
        waits(&mut agent);
        // What does not fit does not end the wait: somebody may be about to write the other half.
        place.write("certs/agent-warehouse.pem", "");
        agent.signal(Signal::HUP);
        agent.said("agent-warehouse.pem holds no certificate");
        valid_in(&place, "agent/warehouse", Duration::ZERO);
        if by_signal {
            agent.signal(Signal::HUP);
        }
        agent.said("registered as warehouse");
    }
}

#[test]
fn a_file_with_another_fault_still_ends_a_start() {
    let place = Place::new();
    valid_in(&place, "agent/warehouse", HOUR);
    place.write("agent.toml", "nonsense = 1\n");
    place.run(&["agent", "--config", "agent.toml"]).expect(2, &["agent.toml"]);
}

#[test]
fn an_enroller_waits_until_its_ca_is_valid() {
    let place = Place::empty();
    // A CA begins an hour before it is made.
    let then = SystemTime::now() + HOUR + Duration::from_secs(3);
    place.certs("ca").init(&InitOptions::default(), then).expect("a CA");
    let mut enroller = place.start(&["enroll", "--ca-dir", "ca", "--listen", "127.0.0.1:0"]);
    waits(&mut enroller);
    enroller.said("enroller listens on ");
    enroller.signal(Signal::TERM);
    enroller.end().expect(0, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_port_waits_until_the_nodes_certificate_is_valid_and_a_call_does_not() {
    let (place, world) = (Place::new(), World::new());
    let (ca, now) = (place.certs("certs").ca().expect("a CA"), SystemTime::now());
    let node = "node/edge-1".parse().expect("a party");
    let profile = LeafProfile::new(ca.trust_domain(), &node, &["127.0.0.1"], now);
    let early = ca.leaf(&LeafProfile { not_before: now + HOUR, ..profile }).expect("signed");
    let raw = RawNode::showing(&world.credentials("node/any"), &early);
    let at = raw.address().to_string();
    let (tcp, call) = tokio::task::spawn_blocking(move || {
        let call = place.run(&["call", "warehouse", "Demo/Echo", "--node", &at]);
        let tcp = ["tcp", "warehouse", "db", "--listen", "127.0.0.1:0", "--node", &at];
        let mut tcp = place.start(&tcp);
        let line = tcp.said(WAITS);
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
