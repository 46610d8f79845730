//! A node that was killed and restarted with the same state directory: its peers detect it with
//! their next packet and reconnect soon.

use crate::world::{
    IsolatedRuntime, Stage, World, attached, check_status, logged, quick_detection, soon, spawn,
    start_at,
};
use dialback::{Agent, AgentBuilder, Code, Limits, Node, NodeBuilder, Outcome, StateError};
use std::{
    future::IntoFuture,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

/// A node that can be killed.
async fn killable_node(node: NodeBuilder) -> (IsolatedRuntime<Node>, SocketAddr) {
    let process = IsolatedRuntime::start(async { node.start().await.expect("a node") }).await;
    let at = process.peer().local_addr();
    (process, at)
}

/// Row F04 of the faults: this many agents, each with a call in flight, and the time until 95 of
/// 100 have reconnected.
async fn killed_and_started_again(agents: usize) -> Duration {
    let (world, stage) = (World::new(), Stage::default());
    let dir = tempfile::tempdir().expect("a directory");
    let wide = Limits { caller_calls_in_flight_max: agents, ..Limits::default() };
    let node = || world.node().limits(wide.clone()).state_dir(dir.path());
    let (first, at) = killable_node(node()).await;
    let names: Vec<_> = (0..agents).map(|n| format!("agent-{n}")).collect();
    let hosts: Vec<Agent> = names
        .iter()
        .map(|name| world.agent(name, at).serve(stage.service()).start().expect("an agent"))
        .collect();
    for host in &hosts {
        soon("an agent registers", host.registered(1)).await;
    }
    let caller = world.caller("ops", at).connect().await.expect("a caller");
    let mut calls = Vec::new();
    for name in &names {
        let call = caller.agent(name).expect("a name").call::<String>("Stage/Hold", name);
        calls.push(spawn(call.into_future()));
    }
    stage.busy(agents).await;
    first.kill().await;
    let second = start_at(at, node).await;
    let started = Instant::now();
    let back = || second.agents().iter().filter(|agent| agent.attached).count();
    crate::world::until_event("95 of 100 are attached again", second.events(), || {
        back() * 100 >= agents * 95
    })
    .await;
    let took = started.elapsed();
    for call in calls {
        let failed = soon("a call in flight ends", call).await;
        check_status(failed, Code::Unavailable, Outcome::Unknown);
    }
    crate::world::until_event("all are attached again", second.events(), || back() == agents).await;
    assert_eq!(stage.all_runs(), agents, "a call was repeated");
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn nearly_all_agents_of_a_killed_node_reconnect_within_ten_seconds() {
    let took = killed_and_started_again(40).await;
    println!("95 % of 40 agents had reconnected after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make test-long"]
async fn nearly_all_of_200_agents_of_a_killed_node_reconnect_within_ten_seconds() {
    let took = killed_and_started_again(200).await;
    println!("95 % of 200 agents had reconnected after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Kills the node of one agent, restarts it, and waits until the agent logs this about the lost
/// link.
async fn notices(agent: Limits, state: Option<&Path>, why: &str) {
    let world = World::new();
    let node = || match state {
        Some(dir) => world.node().state_dir(dir),
        None => world.node(),
    };
    let (first, at) = killable_node(node()).await;
    let agent: AgentBuilder = world.agent("warehouse", at).limits(agent);
    let agent = attached(agent).await;
    first.kill().await;
    let _second = start_at(at, node).await;
    logged(&["not linked: node", &format!(":{}", at.port()), why]).await;
    soon("the agent reconnects", agent.registered(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kept_keys_the_next_packet_resets_an_agents_link_without_a_timeout() {
    // The idle timeout would fire later than any wait of these tests.
    let patient = Limits {
        heartbeat_every: Duration::from_millis(500),
        heartbeat_lost: Duration::from_secs(600),
        idle_max: Duration::from_secs(600),
        ..Limits::default()
    };
    let dir = tempfile::tempdir().expect("a directory");
    notices(patient, Some(dir.path()), "no longer knows this link").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kept_keys_an_agent_waits_for_the_idle_timeout() {
    let asks = Limits { heartbeat_lost: Duration::from_secs(2), ..quick_detection() };
    let asks = Limits { idle_max: Duration::from_secs(60), ..asks };
    notices(asks, None, "no heartbeat came").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_kept_keys_are_damaged_does_not_start() {
    let (world, dir) = (World::new(), tempfile::tempdir().expect("a directory"));
    assert!(world.node().state_dir(dir.path()).start().await.is_ok());
    std::fs::write(dir.path().join("reset.keys"), "nonsense").expect("written");
    let refused = world.node().state_dir(dir.path()).start().await.err().expect("refused");
    assert!(
        matches!(refused, dialback::StartError::State(StateError::Damaged { .. })),
        "{refused}"
    );
}
