//! Text from peers in the log and in the audit log: it cannot break a line or control a terminal,
//! and it is limited.

use super::AuditLog;
use crate::{
    admin::{get, of_node, series_of},
    raw_peer::{
        Cbor, Head, Issuer, RawLink, RawListener, Settings, end, frame, hello, kind, message,
        register, registered, soon, welcome,
    },
    world::{Background, World, lines_with, logged, spawn, take_turn, until},
};
use dialback::{Agent, CloseCode, Code, Node, NodePolicy, Outcome};
use std::{collections::BTreeSet, sync::Arc, time::Instant};

/// Ends a line, begins a forged one, clears a terminal and reverses the text direction. `mark`
/// finds it again.
fn control_characters(mark: &str) -> String {
    format!(
        "{mark}\n{{\"event\":\"link_up\",\"peer\":\"node/{mark}\"}}\r\n\x1b[2J\u{9b}31m\u{202e}\u{7f}\"\\"
    )
}

/// Nothing in it acts on a terminal.
#[track_caller]
fn check_plain(line: &str) {
    let bad = |c: char| c.is_control() || c == '\u{202e}';
    assert!(!line.contains(bad), "{line:?}");
}

/// Every line is one object, without control characters, and of a requested event.
#[track_caller]
fn check_audit_log(audit_log: &AuditLog) {
    for line in audit_log.text().lines() {
        check_plain(line);
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(line["time"].is_string() && line["by"].is_string(), "a forged line: {line}");
    }
}

#[track_caller]
fn check_log(mark: &str) {
    let lines = lines_with(mark);
    assert!(!lines.is_empty(), "the log does not name {mark}");
    lines.iter().for_each(|line| check_plain(line));
}

async fn linked(issuer: &Issuer, node: &Node, peer: &str) -> (RawLink, crate::raw_peer::RawStream) {
    let link = RawLink::dial(node.local_addr(), &issuer.credentials(peer)).await;
    let mut control = link.open().await;
    control.send(&hello([1, 1], 16)).await;
    control.expect(kind::WELCOME).await;
    (link, control)
}

#[tokio::test(flavor = "multi_thread")]
async fn text_from_a_dialler_cannot_break_a_line() {
    // Creating a world starts the log recorder.
    let (_world, issuer, audit_log) = (World::new(), Issuer::new(), AuditLog::default());
    let node = Node::builder(issuer.credentials("node/edge-1")).listen("127.0.0.1:0");
    let node = node.policy(NodePolicy::allow_all()).audit(audit_log.audit().with_calls(true));
    let node = node.start().await.expect("a node");
    // An agent that registers bad names, one that drains with a bad reason, and one that closes
    // with one.
    let (link, mut control) = linked(&issuer, &node, "agent/raw").await;
    control.send(&register(1, &[(&control_characters("bad-name"), &["Echo"])])).await;
    soon("the link ends", link.closed()).await;
    let (_link, mut control) = linked(&issuer, &node, "agent/raw").await;
    control.send(&register(1, &[("Echo", &["Echo"])])).await;
    control.expect(kind::REGISTERED).await;
    let payload = Cbor::map([
        (0, Cbor::text(&control_characters("bad-drain"))),
        (1, Cbor::Uint(9)),
        (2, Cbor::Uint(0)),
    ]);
    control.send(&frame(kind::DRAIN, &payload.encode())).await;
    logged(&["is draining", "bad-drain"]).await;
    let (link, _control) = linked(&issuer, &node, "caller/raw").await;
    link.connection.close(0x41u32.into(), control_characters("bad-close").as_bytes());
    audit_log.wait_for("link_down", &[("peer", "caller/raw")]).await;
    logged(&["caller/raw disconnected", "bad-close"]).await;
    // An unauthenticated client that sends something before it is welcomed.
    let link = RawLink::dial(node.local_addr(), &issuer.credentials("caller/early")).await;
    link.connection.close(0x41u32.into(), control_characters("bad-early").as_bytes());
    audit_log.wait_for("link_refused", &[("peer", "caller/early")]).await;
    // A caller that calls an invalid method name.
    let (link, _control) = linked(&issuer, &node, "caller/raw").await;
    for head in
        [Head::here(&control_characters("x/Y")), Head::agent("Echo/Echo", &control_characters("x"))]
    {
        let mut stream = link.open().await;
        stream.send(&[head.frame(), message("x"), end()].concat()).await;
        stream.finish();
        assert_eq!(stream.reply().await.code, u64::from(Code::InvalidArgument.number()));
    }
    for mark in ["bad-name", "bad-drain", "bad-close", "bad-early"] {
        check_log(mark);
    }
    check_audit_log(&audit_log);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_from_a_node_cannot_break_a_line() {
    let (_world, issuer, audit_log) = (World::new(), Issuer::new(), AuditLog::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = Agent::builder(issuer.credentials("agent/warehouse")).node(listener.address());
    let agent = agent.audit(audit_log.audit().with_calls(true)).start().expect("an agent");
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(kind::HELLO).await;
    control.send(&welcome(1)).await;
    control.expect(kind::REGISTER).await;
    control.send(&registered(1)).await;
    soon("registration", agent.registered(1)).await;
    // The node names the caller.
    let mut stream = link.open().await;
    let head = Head::here("Echo/Echo").with(8, Cbor::text(&control_characters("bad-caller")));
    stream.send(&[head.frame(), message("x"), end()].concat()).await;
    stream.finish();
    assert_eq!(stream.reply().await.code, u64::from(Code::InvalidArgument.number()));
    let line = audit_log.wait_for("call", &[("method", "Echo/Echo")]).await;
    assert!(line["caller"].as_str().expect("text").starts_with("bad-caller\n"), "{line}");
    let code = CloseCode::Protocol.number() as u32;
    link.connection.close(code.into(), control_characters("bad-node-close").as_bytes());
    audit_log.wait_for("link_down", &[("peer", "node/raw")]).await;
    logged(&["not linked: node", "bad-node-close"]).await;
    check_log("bad-node-close");
    check_audit_log(&audit_log);
}

/// Makes this many calls of different methods, all refused; the log has some of them, the audit log
/// all.
async fn check_many_methods(service: &'static str, count: usize) {
    let _turn = take_turn().await;
    let (world, audit_log) = (World::new(), AuditLog::default());
    let node = world.node().policy(NodePolicy::default()).audit(audit_log.audit()).start().await;
    let node = node.expect("a node");
    let admin = of_node(&node).await;
    let caller =
        Arc::new(world.caller("ops", node.local_addr()).connect().await.expect("a caller"));
    // Calls of their kind and their end have series from the first one on.
    let first =
        caller.agent("warehouse").expect("a name").call::<()>(format!("{service}/M0").as_str(), &0);
    let first = first.await;
    first.expect_err("refused");
    let series = series_of(admin).await;
    let began = Instant::now();
    let calls = |worker: usize| {
        let caller = caller.clone();
        spawn(async move {
            let agent = caller.agent("warehouse").expect("a name");
            for n in (worker..count).step_by(16) {
                let refused = agent.call::<()>(format!("{service}/M{n}").as_str(), &n).await;
                let status = refused.expect_err("refused");
                assert_eq!(
                    (status.code(), status.outcome()),
                    (Code::PermissionDenied, Outcome::NotExecuted)
                );
            }
        })
    };
    let workers: Vec<Background<()>> = (0..16).map(calls).collect();
    for worker in workers {
        worker.await;
    }
    let took = began.elapsed();
    until("all of them are in the audit log", || {
        audit_log.text().matches(service).count() >= count
    })
    .await;
    let methods: BTreeSet<_> =
        audit_log.lines("call_refused").iter().map(|line| line["method"].to_string()).collect();
    assert_eq!(methods.len(), count);
    let logged = lines_with(&format!("{service}/"));
    // Twenty at once, and one every ten seconds.
    let most = 20 + 1 + took.as_secs() as usize / 10;
    println!("{count} methods in {took:?}: {} lines of the log", logged.len());
    assert!((20..=most).contains(&logged.len()), "{} lines of the log in {took:?}", logged.len());
    check_audit_log(&audit_log);
    // What an admin listener shows does not grow with the names that peers make up.
    assert_eq!(series_of(admin).await, series);
    let status = get(admin, "/api/v1/status", &[]).await.text().len();
    assert!(status < 100_000, "a status of {status} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_refused_methods_are_limited_in_the_log_and_complete_in_the_audit_log() {
    check_many_methods("ShortFlood", 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form; `make test-long` runs it"]
async fn a_hundred_thousand_refused_methods_are_limited_in_the_log() {
    check_many_methods("LongFlood", 100_000).await;
}
