//! A real agent, killed by SIGKILL, with its ledger on disk: every outcome that callers get is
//! true.

use super::process::{WorkDir, until_has};
use crate::world::{Background, Ledger, Oracle, soon, spawn};
use dialback::{Callee, Caller, Credentials, Outcome};
use rustix::process::Signal;
use serde::Serialize;
use std::{future::IntoFuture, sync::Arc};

#[derive(Serialize)]
struct Append<'a> {
    id: &'a str,
    ms: u64,
}

/// Starts calls of `Demo/Append` that take this long.
fn ask(callee: &Callee, oracle: &Arc<Oracle>, what: &str, ms: u64) -> Vec<Background<()>> {
    let ids = (0..20).map(|n| format!("{what}-{n}"));
    ids.map(|id| {
        let call = callee.call::<()>("Demo/Append", &Append { id: &id, ms }).into_future();
        let oracle = oracle.clone();
        spawn(async move { drop(oracle.watch(&id, call).await) })
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_of_calls_on_a_killed_agent_agree_with_its_ledger() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let agent = dir.agent(&at);
    let credentials = Credentials::from_dir(dir.path("certs"), "caller-ops");
    let caller = Caller::connect(&at, credentials.expect("credentials")).await.expect("a link");
    let callee = caller.agent("warehouse").expect("a name");
    let oracle = Arc::new(Oracle::default());
    for call in ask(&callee, &oracle, "early", 0) {
        soon("a call ends", call).await;
    }
    let held = ask(&callee, &oracle, "held", 60_000);
    let ledger = dir.path("ledger.txt");
    until_has(&ledger, "started held-19");
    // Some of these have had their effect, some have not begun.
    let racing = ask(&callee, &oracle, "racing", 1);
    until_has(&ledger, "done racing-");
    agent.signal(Signal::KILL);
    let late = ask(&callee, &oracle, "late", 0);
    for call in held.into_iter().chain(racing).chain(late) {
        soon("a call ends", call).await;
    }
    for call in ask(&callee, &oracle, "after", 0) {
        soon("a call ends", call).await;
    }
    let verdict = oracle.verify(&Ledger::from_lines(&dir.read("ledger.txt")));
    println!("{verdict}");
    verdict.expect_true();
    assert!(oracle.count(Outcome::Ok) >= 20 && oracle.count(Outcome::NotExecuted) >= 20);
    assert!(oracle.count(Outcome::Unknown) >= 20);
}
