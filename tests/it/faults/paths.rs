//! Bad paths: packets that are lost, late, duplicated, corrupted or blocked cost only time.

use crate::world::{
    Background, Baseline, Burst, Dead, Oracle, PathConditions, PathStats, Relay, Rng, Stage, World,
    attached, seed, soon, spawn,
};
use dialback::{Agent, Callee, Caller, Limits, Node};
use serde_bytes::ByteBuf;
use std::{
    future::IntoFuture,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// Every call of the row has to succeed within this time.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longer than any handshake takes on a bad path. Failed handshakes are retried.
const WAIT_MAX: Duration = Duration::from_secs(150);

/// Node, agent and caller, with the path between the node and both of the others.
struct PathSetup {
    _world: World,
    node: Node,
    path: Relay,
    _agent: Agent,
    _caller: Caller,
    ways: [Callee; 2],
    stage: Stage,
    oracle: Arc<Oracle>,
    baseline: Baseline,
}

async fn path_setup(conditions: PathConditions) -> PathSetup {
    println!("DIALBACK_SEED={}", seed());
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let path = Relay::with_conditions(node.local_addr(), conditions).await;
    let agent = world.agent("warehouse", path.address()).serve(stage.service()).start();
    let agent = agent.expect("an agent");
    let caller = world.caller("ops", path.address()).connect_timeout(WAIT_MAX);
    let linked = async { tokio::join!(agent.registered(1), caller.connect()).1 };
    let linked = tokio::time::timeout(WAIT_MAX, linked).await;
    let caller = linked.expect("both are linked in time").expect("a caller");
    let handle = node.agent("warehouse").handle().expect("a name");
    let local: &Callee = handle.as_ref();
    let ways = [local.clone(), caller.agent("warehouse").expect("a name")];
    // Both directions have been used: the node may start its part of a link a moment after the
    // other side knows of it.
    for way in &ways {
        let call = way.call::<ByteBuf>("Stage/Echo", &ByteBuf::new()).timeout(DEADLINE);
        soon("the path is open", call.into_future()).await.expect("an echo");
    }
    let (oracle, baseline) = (Arc::default(), Baseline::measure());
    PathSetup {
        _world: world,
        node,
        path,
        _agent: agent,
        _caller: caller,
        ways,
        stage,
        oracle,
        baseline,
    }
}

impl PathSetup {
    /// Starts one transfer of this many bytes there and back, which has to succeed and return
    /// unchanged.
    fn transfer(&self, number: usize, bytes: usize) -> Background<()> {
        let (id, bytes) = (format!("transfer-{number}"), pseudo_random_bytes(number, bytes));
        let call = self.ways[number % 2].call::<ByteBuf>("Stage/Copy", &(&id, &bytes));
        let (call, oracle) = (call.timeout(DEADLINE).into_future(), self.oracle.clone());
        spawn(async move {
            let copy = oracle.watch(&id, call).await;
            // Not `assert_eq`, which would print them.
            assert!(copy.expect("a transfer") == bytes, "{id} was returned changed");
        })
    }

    /// This many concurrent transfers, half of them for each callee.
    async fn transfers(&self, count: usize, bytes: usize) {
        self.transfers_until(count, bytes, |_| true).await;
    }

    /// The same again with new ones, until the path has done enough.
    async fn transfers_until(&self, count: usize, bytes: usize, enough: fn(&PathStats) -> bool) {
        for first in (0..).step_by(count) {
            let numbers = first..first + count;
            self.all_succeed(numbers.map(|number| self.transfer(number, bytes)).collect()).await;
            if enough(self.path.stats()) {
                return;
            }
        }
    }

    /// All succeed, each ran once, and nothing remains.
    async fn all_succeed(&self, transfers: Vec<Background<()>>) {
        for transfer in transfers {
            soon("a transfer ends", transfer).await;
        }
        self.oracle.verify(&self.stage.ledger()).expect_true();
        // A dialling side that receives nothing for long opens a new socket, for which the relay
        // has a task.
        let new_sockets = self.path.stats().diallers.load(Relaxed) - 2;
        self.baseline.with_more_tasks(new_sockets).wait_until_restored(&self.node).await;
        println!("{:?}", self.path.stats());
    }
}

fn pseudo_random_bytes(number: usize, bytes: usize) -> ByteBuf {
    let mut rng = Rng::new(seed(), number as u64);
    let bytes = (0..bytes.div_ceil(8)).flat_map(|_| rng.number().to_be_bytes()).take(bytes);
    ByteBuf::from(bytes.collect::<Vec<u8>>())
}

/// Handshakes under these conditions, and small transfers afterwards.
async fn check_handshake(conditions: PathConditions) {
    let setup = path_setup(conditions).await;
    setup.path.conditions(Default::default()).await;
    setup.transfers(2, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_made_with_30_percent_packet_loss() {
    check_handshake(PathConditions { loss: 0.3, ..PathConditions::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_made_with_30_percent_corrupted_packets() {
    check_handshake(PathConditions { corrupt: 0.3, ..PathConditions::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_are_intact_with_packet_loss_and_corruption() {
    let setup =
        path_setup(PathConditions { loss: 0.02, corrupt: 0.02, ..PathConditions::default() }).await;
    let enough =
        |stats: &PathStats| stats.lost.load(Relaxed) > 0 && stats.corrupted.load(Relaxed) > 0;
    setup.transfers_until(20, 100_000, enough).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_are_intact_with_burst_loss() {
    let burst = Some(Burst { part: 0.02, length: 15 });
    let setup = path_setup(PathConditions { burst, ..PathConditions::default() }).await;
    // Bursts begin by chance, and large datagrams are few.
    setup.transfers_until(20, 100_000, |stats| stats.lost.load(Relaxed) >= 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_are_intact_and_run_once_with_duplicated_and_reordered_packets() {
    let jitter = Duration::from_millis(2);
    let setup = path_setup(PathConditions {
        duplicate: 0.25,
        reorder: 0.4,
        jitter,
        ..PathConditions::default()
    })
    .await;
    let enough =
        |stats: &PathStats| stats.duplicated.load(Relaxed) > 0 && stats.reordered.load(Relaxed) > 0;
    setup.transfers_until(20, 100_000, enough).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_are_intact_on_a_path_dead_two_seconds_of_every_seven() {
    let [lasts, every] = [2, 7].map(Duration::from_secs);
    let setup = path_setup(PathConditions {
        dead: Some(Dead { lasts, every }),
        ..PathConditions::default()
    })
    .await;
    // Whenever it began, two dead times fall into it.
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut transfers = Vec::new();
    for number in 0..150 {
        ticks.tick().await;
        transfers.push(setup.transfer(number, 20_000));
    }
    setup.all_succeed(transfers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_are_intact_with_750_ms_delay_each_way() {
    let delay = Duration::from_millis(750);
    path_setup(PathConditions { delay, ..PathConditions::default() })
        .await
        .transfers(6, 10_000)
        .await;
}

/// One long call and many short ones while the agent's port changes repeatedly: none fails, and the
/// link stays the same.
async fn check_roaming(every: Duration, lasts: Duration, limits: Limits, takes_new_socket: bool) {
    const CALL_EVERY: Duration = Duration::from_millis(20);
    let (world, stage, oracle) = (World::new(), Stage::default(), Arc::new(Oracle::default()));
    let node = world.node().start().await.expect("a node");
    let path = Relay::to(node.local_addr()).await;
    let agent = world.agent("warehouse", path.address()).limits(limits).serve(stage.service());
    let agent = attached(agent).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let (baseline, before) = (Baseline::measure(), node.agents());
    let ask = |id: String, method| {
        let call = handle.call::<String>(method, &id).timeout(2 * DEADLINE + lasts).into_future();
        let oracle = oracle.clone();
        spawn(async move { oracle.watch(&id, call).await })
    };
    let held = ask("held".into(), "Stage/Hold");
    stage.started("held").await;
    path.rebind_every(every).await;
    let mut ticks = tokio::time::interval(CALL_EVERY);
    let mut calls = Vec::new();
    for n in 0..lasts.as_millis() / CALL_EVERY.as_millis() {
        ticks.tick().await;
        calls.push(ask(format!("{n}"), "Stage/Note"));
        if takes_new_socket && n == 10 {
            agent.rebind().expect("a socket");
        }
    }
    for call in calls {
        assert!(soon("a short call ends", call).await.is_ok());
    }
    stage.open();
    assert_eq!(soon("the long call ends", held).await.as_deref(), Ok("held"));
    let rebinds = path.stats().rebinds.load(Relaxed);
    assert!(u128::from(rebinds) >= lasts.as_millis() / every.as_millis() / 2, "{rebinds} rebinds");
    let verdict = oracle.verify(&stage.ledger());
    println!("{rebinds} rebinds\n{verdict}");
    verdict.expect_true();
    let after = node.agents();
    assert_eq!(after[0].since_ms, before[0].since_ms, "it was another link");
    assert_ne!(after[0].address, before[0].address, "it was the same address");
    // An agent that receives nothing for two seconds after a PING opens a new socket, for which the
    // relay has a task.
    let new_sockets = path.stats().diallers.load(Relaxed) - 1;
    assert!(!takes_new_socket || new_sockets > 0, "it sends from the same socket");
    baseline.with_more_tasks(new_sockets).wait_until_restored(&node).await;
}

fn frequent_heartbeat() -> Limits {
    Limits { heartbeat_every: Duration::from_millis(100), ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_link_survive_an_agents_port_that_changes_every_half_second() {
    check_roaming(Duration::from_millis(500), Duration::from_secs(6), frequent_heartbeat(), false)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_link_survive_an_agent_that_takes_a_new_socket_while_its_port_changes() {
    check_roaming(Duration::from_millis(500), Duration::from_secs(2), frequent_heartbeat(), true)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form; `make test-long` runs it"]
async fn calls_and_link_survive_an_agents_port_that_changes_every_five_seconds_for_a_minute() {
    check_roaming(Duration::from_secs(5), Duration::from_secs(60), Limits::default(), false).await;
}
