//! Agents that drain under load, over paths that lose, duplicate and reorder packets: calls that
//! did not run are reported as not executed, except for one in a thousand.

use crate::world::{
    Background, Ledger, Oracle, PathConditions, Relay, Stage, World, attached, seed, soon, spawn,
    take_turn,
};
use dialback::{Callee, Outcome, Status};
use std::{
    collections::BTreeMap,
    future::IntoFuture,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Two hops of it are between a caller and its agent.
const CONDITIONS: PathConditions = PathConditions {
    loss: 0.02,
    burst: None,
    delay: Duration::from_millis(10),
    jitter: Duration::from_millis(10),
    reorder: 0.1,
    duplicate: 0.1,
    corrupt: 0.0,
    rate: None,
    bytes_max: None,
    dead: None,
};

/// Concurrent calls, half of them by the node's own program.
const AT_ONCE: usize = 40;

/// Calls of one round that end before its agent is stopped.
const BEFORE: usize = 120;

/// The outcomes that callers got, and the statuses of unknown ones.
#[derive(Default)]
struct Results {
    oracle: Oracle,
    ended: AtomicUsize,
    unknown: Mutex<BTreeMap<String, Status>>,
}

/// Makes one call after the other, until it is over.
fn spawn_caller(
    callee: Callee,
    name: String,
    results: &Arc<Results>,
    is_over: &Arc<AtomicBool>,
) -> Background<()> {
    let (results, is_over) = (results.clone(), is_over.clone());
    spawn(async move {
        for n in 0.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let id = format!("{name}-{n}");
            let call = callee.call::<String>("Stage/Note", &id).timeout(Duration::from_secs(20));
            let answered = results.oracle.watch(&id, call.into_future()).await;
            results.ended.fetch_add(1, Ordering::Relaxed);
            match answered {
                Err(status) if status.outcome() == Outcome::Unknown => {
                    results.unknown.lock().expect("whole").insert(id, status);
                }
                Err(_refused) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(_) => {}
            }
        }
    })
}

/// One agent, from its start to its stop. Returns its ledger.
async fn round(world: &World, results: &Arc<Results>, number: u64) -> Ledger {
    let (node, stage) = (world.node().start().await.expect("a node"), Stage::default());
    let path = Relay::by_seed(node.local_addr(), [CONDITIONS; 2], seed() + number).await;
    let agent = attached(world.agent("warehouse", path.address()).serve(stage.service())).await;
    let caller = soon("a caller links", world.caller("ops", path.address()).connect()).await;
    let caller = caller.expect("a caller");
    let handle = soon("the node registers it", node.agent("warehouse").connected()).await;
    let handle = handle.expect("a name");
    let local: &Callee = handle.as_ref();
    let remote = caller.agent("warehouse").expect("a name");
    let (is_over, before) = (Arc::<AtomicBool>::default(), results.ended.load(Ordering::Relaxed));
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|n| {
            let callee = if n % 2 == 0 { local } else { &remote };
            spawn_caller(callee.clone(), format!("{number}-{n}"), results, &is_over)
        })
        .collect();
    let has_begun = || results.ended.load(Ordering::Relaxed) >= before + BEFORE;
    crate::world::until("calls are in flight", has_begun).await;
    soon("the agent stops", agent.shutdown()).await;
    is_over.store(true, Ordering::Relaxed);
    for spawn_caller in callers {
        soon("a caller ends", spawn_caller).await;
    }
    soon("the node stops", node.shutdown()).await;
    stage.ledger()
}

/// Runs at least this many calls; one in `one_in` of them may be reported as unknown although it
/// did not run.
async fn check_stops(calls: usize, one_in: usize) {
    let _turn = take_turn().await;
    println!("DIALBACK_SEED={}", seed());
    let (world, results, mut ledger) = (World::new(), Arc::<Results>::default(), Ledger::default());
    let mut rounds = 0;
    while results.ended.load(Ordering::Relaxed) < calls {
        ledger.add(round(&world, &results, rounds).await);
        rounds += 1;
    }
    let verdict = results.oracle.verify(&ledger);
    let (unknown, idle) = verdict.ended(Outcome::Unknown);
    let ended = results.ended.load(Ordering::Relaxed);
    println!(
        "{rounds} stops, {ended} calls, {unknown} unknown, {idle} of them never ran\n{verdict}"
    );
    for (id, status) in &*results.unknown.lock().expect("whole") {
        println!("{id}: {status}");
    }
    verdict.expect_true();
    assert!(
        idle * one_in <= ended,
        "{idle} of {ended} calls did not run and were reported as unknown"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_of_calls_at_a_stop_over_a_bad_path_are_true() {
    check_stops(600, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form; `make test-long` runs it"]
async fn outcomes_of_ten_thousand_calls_at_stops_over_bad_paths_are_true() {
    check_stops(11_000, 1_000).await;
}
