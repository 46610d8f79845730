//! Stopping processes under load: calls in flight are answered, new ones are not executed, and the
//! exit code is 0.

use super::process::{DialbackProcess, WorkDir, until_has};
use crate::world::{Background, check_status, soon, spawn};
use dialback::{Callee, Caller, Code, Credentials, Outcome, Status};
use rustix::process::Signal;
use std::{future::IntoFuture, time::Duration};

/// Calls in flight at the signal, on two links: a caller link has room for 128.
const CALLS: usize = 200;

/// No call takes longer.
const CALL_MS: usize = 3_000;

async fn callers(dir: &WorkDir, at: &str) -> [Caller; 2] {
    let connect = async || {
        let credentials = Credentials::from_dir(dir.path("certs"), "caller-ops");
        let connect = Caller::connect(at, credentials.expect("credentials"));
        soon("a caller links", connect).await.expect("a caller")
    };
    [connect().await, connect().await]
}

fn warehouse(caller: &Caller) -> Callee {
    caller.agent("warehouse").expect("a name")
}

fn append(callee: &Callee, id: &str, ms: usize) -> dialback::Call<()> {
    callee.call("Demo/Append", &serde_json::json!({ "id": id, "ms": ms }))
}

/// Calls of 1 s to 3 s, all of which have started.
async fn in_flight(dir: &WorkDir, callers: &[Caller; 2]) -> Vec<Background<Result<(), Status>>> {
    let mut calls = Vec::new();
    for n in 0..CALLS {
        let ms = CALL_MS / 3 + n * (CALL_MS - CALL_MS / 3) / (CALLS - 1);
        let call = append(&warehouse(&callers[n % 2]), &format!("call-{n}"), ms);
        calls.push(spawn(call.into_future()));
    }
    for n in 0..CALLS {
        until_has(&dir.path("ledger.txt"), &format!("started call-{n}\n"));
    }
    calls
}

/// A call that arrives too late ends with UNAVAILABLE and is not executed. Calls that arrive before
/// the side has begun to drain are answered.
async fn refused(caller: &Caller) {
    loop {
        let call = append(&warehouse(caller), "early", 0).timeout(Duration::from_secs(1));
        if let Err(status) = soon("a late call ends", call.into_future()).await {
            check_status::<()>(Err(status), Code::Unavailable, Outcome::NotExecuted);
            break;
        }
    }
    let late = append(&warehouse(caller), "late", 0).timeout(Duration::from_secs(1)).into_future();
    let late = soon("a late call ends", late).await;
    check_status(late, Code::Unavailable, Outcome::NotExecuted);
}

async fn all_answered(calls: Vec<Background<Result<(), Status>>>) {
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(soon("a call in flight ends", call).await, Ok(()), "call {n}");
    }
}

/// Each ran once and to its end, and no late call ran at all.
fn check_ledger(dir: &WorkDir) {
    let ledger = dir.read("ledger.txt");
    for n in 0..CALLS {
        for what in ["started", "done"] {
            let lines = ledger.matches(&format!("{what} call-{n}\n")).count();
            assert_eq!(lines, 1, "{what} call-{n}");
        }
    }
    assert!(!ledger.contains("late"), "a call that was refused has run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_answers_two_hundred_calls_and_exits_with_0() {
    let dir = WorkDir::new();
    let (mut node, at) = dir.node();
    let mut agent = dir.agent(&at);
    let callers = callers(&dir, &at).await;
    let calls = in_flight(&dir, &callers).await;
    agent.signal(Signal::TERM);
    agent.wait_for_line("SIGTERM received: shutting down");
    // The node knows of it, and the calls are still in flight.
    node.wait_for_line("is draining");
    let agents = soon("a list", callers[0].agents()).await.expect("a list");
    assert!(agents[0].attached && agents[0].draining, "{agents:?}");
    refused(&callers[0]).await;
    all_answered(calls).await;
    agent.end().expect(0, &["stopped"]);
    check_ledger(&dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_answers_two_hundred_calls_and_everyone_finds_the_next_node() {
    let dir = WorkDir::new();
    let (mut node, at) = dir.node();
    let agent = dir.agent(&at);
    let callers = callers(&dir, &at).await;
    let calls = in_flight(&dir, &callers).await;
    node.signal(Signal::TERM);
    node.wait_for_line("SIGTERM received: shutting down");
    refused(&callers[0]).await;
    let waits = append(&warehouse(&callers[1]), "patient", 0).timeout(Duration::from_secs(40));
    let waits = spawn(waits.into_future());
    all_answered(calls).await;
    node.end().expect(0, &["stopped"]);
    let (_next, _) = dir.listening(&["node", "--listen", &at, "--policy", "rules.toml"]);
    // It was made while the old node was draining. The new one may have the caller before the
    // agent.
    match soon("the long-waiting call ends", waits).await {
        Ok(()) => {}
        Err(status) => assert!(status.is_safe_to_retry(), "{status}"),
    }
    check_ledger(&dir);
    drop(agent);
}

#[test]
fn a_second_signal_aborts_an_agents_calls() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let mut agent = dir.agent(&at);
    let data = r#"{"id":"long","ms":60000}"#;
    let _call = dir.start(&["call", "--node", &at, "warehouse", "Demo/Append", "-d", data]);
    until_has(&dir.path("ledger.txt"), "started long");
    agent.signal(Signal::TERM);
    agent.wait_for_line("SIGTERM received: shutting down");
    agent.signal_until_line(Signal::INT, "error: SIGINT received while shutting down");
    agent.end().expect(1, &[]);
}

/// A process that is signalled twice with a call in flight ends with exit code 1, and the caller
/// learns at once that the call was aborted, not by the idle timeout of the link 12 s later.
async fn second_signal_aborts(dir: &WorkDir, at: &str, mut stops: DialbackProcess, text: &str) {
    let [caller, _] = callers(dir, at).await;
    let call = spawn(append(&warehouse(&caller), "held", 60_000).into_future());
    until_has(&dir.path("ledger.txt"), "started held\n");
    stops.signal(Signal::TERM);
    stops.wait_for_line("SIGTERM received: shutting down");
    stops.signal_until_line(Signal::TERM, "error: SIGTERM received while shutting down");
    stops.end().expect(1, &["calls in flight were aborted"]);
    let ended = tokio::time::timeout(Duration::from_secs(4), call).await;
    let status = ended.expect("the caller got no outcome").expect_err("it was aborted");
    assert!(status.message().contains(text), "{status}");
    check_status::<()>(Err(status), Code::Unavailable, Outcome::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_signalled_twice_reports_its_aborted_calls() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let agent = dir.agent(&at);
    let text = "the link to agent/warehouse was lost: the peer closed the link with DRAINED";
    second_signal_aborts(&dir, &at, agent, text).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_signalled_twice_notifies_callers_and_agents() {
    let dir = WorkDir::new();
    let (node, at) = dir.node();
    let mut agent = dir.agent(&at);
    let text = "the link to node/edge-1 was lost: the peer closed the link with DRAINED";
    second_signal_aborts(&dir, &at, node, text).await;
    agent.wait_for_line("closed the link with DRAINED: the node stops");
}
