//! Reconnects: which peers come back, which take over, and the outcome of calls in flight.

use crate::world::{
    IsolatedRuntime, Relay, RunEnd, SilentPort, Stage, World, attached, check_status, logged,
    quick_detection, soon, spawn, start_at, until, until_event,
};
use dialback::{Agent, Callee, Code, Limits, Node, Outcome};
use std::{future::IntoFuture, net::SocketAddr, time::Duration};

const FAR: Duration = Duration::from_secs(40);

/// An agent that can be killed, with a stage that outlives it.
async fn killable_agent(world: &World, at: SocketAddr, stage: &Stage) -> IsolatedRuntime<Agent> {
    let agent = world.agent("warehouse", at).limits(quick_detection()).serve(stage.service());
    IsolatedRuntime::start(attached(agent)).await
}

async fn note(callee: &Callee, id: &str) -> Result<String, dialback::Status> {
    callee.call("Stage/Note", id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_started_before_its_node_registers_soon_after_the_node_starts() {
    let (world, stage, port) = (World::new(), Stage::default(), SilentPort::take());
    let at = port.address();
    let agent = world.agent("warehouse", at).serve(stage.service()).start().expect("an agent");
    // The first attempt has failed, so the registration below comes from a later one.
    logged(&["not linked: node", &at.port().to_string(), "does not answer"]).await;
    assert!(agent.nodes().is_empty());
    drop(port);
    let node = start_at(at, || world.node()).await;
    soon("the agent registers", agent.registered(1)).await;
    let handle =
        soon("the node detects it", node.agent("warehouse").connected()).await.expect("a name");
    assert!(note(handle.as_ref(), "a").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_reconnects_to_a_node_that_was_killed_and_restarted() {
    let (world, stage) = (World::new(), Stage::default());
    let starting = world.node().limits(quick_detection());
    let first = IsolatedRuntime::start(async { starting.start().await.expect("a node") }).await;
    let at = first.peer().local_addr();
    let agent = world.agent("warehouse", at).limits(quick_detection()).serve(stage.service());
    let agent = attached(agent).await;
    let caller =
        world.caller("ops", at).limits(quick_detection()).connect().await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let in_flight = spawn(callee.call::<String>("Stage/Hold", "a").into_future());
    stage.started("a").await;
    first.kill().await;
    let second = start_at(at, || world.node()).await;
    let failed = soon("the call in flight ends", in_flight).await;
    check_status(failed, Code::Unavailable, Outcome::Unknown);
    let handle = soon("the agent reconnects", second.agent("warehouse").connected()).await;
    assert!(note(handle.expect("a name").as_ref(), "b").await.is_ok());
    // The caller's own call waits for its new link.
    assert!(callee.call::<String>("Stage/Note", "c").timeout(FAR).await.is_ok());
    soon("the agent detects it", agent.registered(1)).await;
    assert_eq!((stage.runs("a"), stage.runs("b"), stage.runs("c")), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_reconnects_to_a_node_that_was_stopped_and_restarted() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let agent = attached(world.agent("warehouse", at).serve(stage.service())).await;
    let caller = world.caller("ops", at).connect().await.expect("a caller");
    soon("the node stops", node.shutdown()).await;
    until_event("the agent detects it", agent.events(), || agent.nodes().is_empty()).await;
    let second = start_at(at, || world.node()).await;
    soon("the agent reconnects", agent.registered(1)).await;
    assert!(second.agent("warehouse").handle().expect("a name").is_attached());
    let call = caller.agent("warehouse").expect("a name").call::<String>("Stage/Note", "a");
    assert!(call.timeout(FAR).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_killed_agent_end_unknown_and_later_ones_are_not_executed_at_once() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().limits(quick_detection()).start().await.expect("a node");
    let at = node.local_addr();
    let agent = killable_agent(&world, at, &stage).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let caller = world.caller("ops", at).connect().await.expect("a caller");
    let remote = caller.agent("warehouse").expect("a name");
    let calls = [("local", handle.as_ref()), ("remote", &remote)]
        .map(|(id, callee)| spawn(callee.call::<String>("Stage/Hold", id).into_future()));
    stage.busy(2).await;
    agent.kill().await;
    for call in calls {
        let failed = soon("a call in flight ends", call).await;
        check_status(failed, Code::Unavailable, Outcome::Unknown);
    }
    soon("the node detects it", handle.disconnected()).await;
    for callee in [handle.as_ref(), &remote] {
        let call = callee.call::<String>("Stage/Note", "later").timeout(Duration::from_secs(3_600));
        let failed = soon("a later call ends", call.into_future()).await;
        check_status(failed, Code::Unavailable, Outcome::NotExecuted);
    }
    assert_eq!((stage.runs("local"), stage.runs("remote"), stage.runs("later")), (1, 1, 0));
    let _back = killable_agent(&world, at, &stage).await;
    assert!(note(&remote, "back").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_path_is_detected_at_both_ends_and_the_agent_reconnects() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().limits(quick_detection()).start().await.expect("a node");
    let path = Relay::to(node.local_addr()).await;
    let agent =
        world.agent("warehouse", path.address()).limits(quick_detection()).serve(stage.service());
    let agent = attached(agent).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let in_flight = spawn(handle.call::<String>("Stage/Hold", "a").into_future());
    stage.started("a").await;
    path.block().await;
    let failed = soon("the call in flight ends", in_flight).await;
    check_status(failed, Code::Unavailable, Outcome::Unknown);
    soon("the node detects it", handle.disconnected()).await;
    until_event("the agent detects it", agent.events(), || agent.nodes().is_empty()).await;
    assert_eq!(stage.ended("a").await, RunEnd::Dropped);
    path.restore().await;
    soon("the agent reconnects", agent.registered(1)).await;
    assert!(note(handle.as_ref(), "b").await.is_ok());
    assert_eq!((stage.runs("a"), stage.runs("b")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_survives_a_change_of_the_agents_address() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let mut arrivals = node.arrivals();
    let path = Relay::to(node.local_addr()).await;
    let agent = world
        .agent("warehouse", path.address())
        .limits(Limits { heartbeat_every: Duration::from_millis(100), ..Limits::default() });
    let _agent = attached(agent.serve(stage.service())).await;
    let handle = soon("it arrives", arrivals.next()).await.expect("the node runs");
    let address = || node.agents()[0].address.clone();
    let before = address();
    let in_flight = spawn(handle.call::<String>("Stage/Hold", "a").into_future());
    stage.started("a").await;
    path.rebind().await;
    until("the node sees another address", || address() != before).await;
    stage.open();
    assert_eq!(soon("the call ends", in_flight).await.as_deref(), Ok("a"));
    assert!(note(handle.as_ref(), "b").await.is_ok());
    // It was the same link all along: the next arrival is the next agent.
    let _next = attached(world.agent("next", node.local_addr())).await;
    let next = soon("the next one arrives", arrivals.next()).await.expect("the node runs");
    assert_eq!((next.name().as_str(), stage.runs("a")), ("next", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_instance_takes_over_and_the_old_link_is_superseded() {
    let (world, old_stage, new_stage) = (World::new(), Stage::default(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let old = attached(world.agent("warehouse", at).serve(old_stage.service())).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let callee: &Callee = handle.as_ref();
    let in_flight = spawn(callee.call::<String>("Stage/Hold", "a").into_future());
    old_stage.started("a").await;
    let new = attached(world.agent("warehouse", at).serve(new_stage.service())).await;
    let failed = soon("the old one's call ends", in_flight).await;
    check_status(failed, Code::Unavailable, Outcome::Unknown);
    until_event("the old agent detects it", old.events(), || old.nodes().is_empty()).await;
    logged(&["refused: node", &at.port().to_string(), "SUPERSEDED"]).await;
    assert!(note(callee, "b").await.is_ok());
    assert_eq!((old_stage.runs("b"), new_stage.runs("b"), new.nodes().len()), (0, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn late_goodbye_does_not_evict_the_new_link() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let old = attached(world.agent("warehouse", at).serve(stage.service())).await;
    let _new = attached(world.agent("warehouse", at).serve(stage.service())).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    until_event("the old agent detects it", old.events(), || old.nodes().is_empty()).await;
    soon("the old agent closes", old.shutdown()).await;
    // The node logs that a link has closed before it removes it from the registry, which follows at
    // once.
    for round in 0..50 {
        assert!(handle.is_attached(), "evicted before round {round}");
        assert!(note(handle.as_ref(), "a").await.is_ok(), "round {round}");
    }
    assert_eq!(stage.runs("a"), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_attaches_to_all_its_nodes_and_keeps_the_others_when_one_stops() {
    let (world, stage) = (World::new(), Stage::default());
    let mut nodes = Vec::new();
    for name in ["edge-1", "edge-2", "edge-3"] {
        nodes.push(world.node_named(name).start().await.expect("a node"));
    }
    let agent = world.agent("warehouse", nodes[0].local_addr());
    let agent =
        nodes[1..].iter().fold(agent, |agent, node| agent.node(node.local_addr().to_string()));
    let agent = attached(agent.serve(stage.service())).await;
    soon("it is attached to all three", agent.registered(3)).await;
    let call = async |node: &Node, id: &str| {
        note(node.agent("warehouse").handle().expect("a name").as_ref(), id).await
    };
    for node in &nodes {
        let id = node.name().to_string();
        assert!(call(node, &id).await.is_ok());
        assert_eq!(stage.started(&id).await.caller().to_string(), format!("node/{id}"));
    }
    soon("one node stops", nodes.remove(0).shutdown()).await;
    until_event("the agent detects it", agent.events(), || agent.nodes().len() == 2).await;
    for node in &nodes {
        assert!(call(node, "after").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_detached_reconnects_as_another_arrival() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let mut arrivals = node.arrivals();
    let _agent = world.agent("warehouse", node.local_addr()).serve(stage.service()).start();
    for round in 0..3 {
        let arrived = soon("it arrives", arrivals.next()).await.expect("the node runs");
        assert_eq!(arrived.name().as_str(), "warehouse");
        assert!(note(arrived.as_ref(), "a").await.is_ok());
        assert_eq!(stage.runs("a"), round + 1);
        let in_flight = arrived.call::<String>("Stage/Hold", &format!("held-{round}"));
        let in_flight = spawn(in_flight.into_future());
        stage.started(&format!("held-{round}")).await;
        arrived.disconnect();
        let failed = soon("its call ends", in_flight).await;
        check_status(failed, Code::Unavailable, Outcome::Unknown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arrivals_begin_with_attached_agents_and_name_each_once() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let _there = [attached(world.agent("a", at)).await, attached(world.agent("b", at)).await];
    let mut arrivals = node.arrivals();
    let _came = attached(world.agent("c", at)).await;
    let _last = attached(world.agent("d", at)).await;
    for name in ["a", "b", "c", "d"] {
        let next = soon("one arrives", arrivals.next()).await.expect("the node runs");
        assert_eq!(next.name().as_str(), name);
        assert!(next.is_attached());
    }
    soon("the node stops", node.shutdown()).await;
    assert!(soon("the arrivals end", arrivals.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_an_agent_ends_when_it_attaches() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let waiting = spawn(node.agent("warehouse").connected());
    let _other = attached(world.agent("other", node.local_addr())).await;
    assert!(!waiting.is_finished(), "another agent was mistaken for it");
    let _agent = attached(world.agent("warehouse", node.local_addr())).await;
    let handle = soon("the agent is attached", waiting).await.expect("a name");
    assert_eq!(handle.name().as_str(), "warehouse");
    assert!(handle.is_attached());
    assert!(node.agent("No Name").connected().await.is_err());
}
