//! Graceful shutdown: calls in flight finish, new ones are not executed, and nothing remains.

use crate::world::{
    Background, RunEnd, Setup, SetupLimits, Stage, World, attached, check_status, soon, spawn,
    start_at, until, until_event,
};
use dialback::{AgentEvent, Callee, Code, Limits, NodeEvent, Outcome, Role};
use serde_bytes::ByteBuf;
use std::{
    future::IntoFuture,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::runtime::Handle;

const SHORT: Duration = Duration::from_millis(500);
const FAR: Duration = Duration::from_secs(40);

/// Makes new calls until one is refused, which must match the outcome table. The calls before it
/// succeed. The deadline is short because a caller waits for the successor of a draining node.
async fn refused_while_draining(stage: &Stage, callee: &Callee) {
    let before = stage.runs("new");
    let mut answered = 0;
    let refused = soon("a new call is refused", async {
        loop {
            match callee.call::<String>("Stage/Note", "new").timeout(SHORT).await {
                Ok(_) => answered += 1,
                Err(status) => return status,
            }
        }
    });
    check_status::<()>(Err(refused.await), Code::Unavailable, Outcome::NotExecuted);
    assert_eq!(stage.runs("new") - before, answered, "a refused call has run");
}

fn hold_call(callee: &Callee, id: &str) -> Background<Result<String, dialback::Status>> {
    spawn(callee.call("Stage/Hold", id).into_future())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_finishes_calls_in_flight_and_refuses_new_ones() {
    let Setup { world, node, agent, caller, stage } = Setup::open().await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let local: &Callee = handle.as_ref();
    let remote = caller.agent("warehouse").expect("a name");
    let calls = [hold_call(local, "local"), hold_call(&remote, "remote")];
    stage.busy(2).await;
    let at = node.local_addr();
    let stopping = spawn(node.shutdown());
    refused_while_draining(&stage, local).await;
    refused_while_draining(&stage, &remote).await;
    assert!(!stopping.is_finished(), "it did not wait for the calls in flight");
    let late = world.caller("late", at).connect_timeout(Duration::from_millis(300)).connect().await;
    assert!(late.is_err(), "a stopping node accepted a new caller");
    stage.open();
    for call in calls {
        assert!(soon("a call in flight ends", call).await.is_ok());
    }
    soon("the node stops", stopping).await;
    assert_eq!(
        (stage.ended("local").await, stage.ended("remote").await),
        (RunEnd::Finished, RunEnd::Finished)
    );
    until_event("the agent detects it", agent.events(), || agent.nodes().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_finishes_calls_in_flight_and_refuses_new_ones() {
    let Setup { world: _world, node, agent, caller, stage } = Setup::open().await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let local: &Callee = handle.as_ref();
    let remote = caller.agent("warehouse").expect("a name");
    let calls = [hold_call(local, "local"), hold_call(&remote, "remote")];
    stage.busy(2).await;
    let stopping = spawn(agent.shutdown());
    refused_while_draining(&stage, local).await;
    refused_while_draining(&stage, &remote).await;
    assert!(!stopping.is_finished(), "it did not wait for the calls in flight");
    stage.open();
    for call in calls {
        assert!(soon("a call in flight ends", call).await.is_ok());
    }
    soon("the agent stops", stopping).await;
    soon("the node detects it", handle.disconnected()).await;
    let after = local.call::<String>("Stage/Note", "after").await;
    check_status(after, Code::Unavailable, Outcome::NotExecuted);
}

/// Calls whose replies are still in flight when the answering side has nothing left to do.
async fn check_replies_arrive(stopping_role: Role) {
    const BYTES: usize = 3 << 20;
    let Setup { world: _world, node, agent, caller, stage } = Setup::open().await;
    let callee = caller.agent("warehouse").expect("a name");
    let calls = ["1", "2", "3", "4"].map(|id| callee.call::<ByteBuf>("Stage/Huge", &(id, BYTES)));
    let calls = calls.map(|call| spawn(call.into_future()));
    stage.busy(4).await;
    let (stopping, _stays) = match stopping_role {
        Role::Node => (spawn(node.shutdown()), Err(agent)),
        _ => (spawn(agent.shutdown()), Ok(node)),
    };
    refused_while_draining(&stage, &callee).await;
    stage.open();
    for call in calls {
        let reply = soon("the reply arrives", call).await;
        assert_eq!(reply.map(|reply| reply.len()), Ok(BYTES));
    }
    soon("it stops", stopping).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_truncates_no_reply() {
    check_replies_arrive(Role::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_truncates_no_reply() {
    check_replies_arrive(Role::Agent).await;
}

/// A small reply may be complete in the transport and not yet on the wire when its call counts as
/// done.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stops_right_after_a_reply_still_delivers_it() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    for round in 0..20 {
        let stage = Stage::default();
        let agent = world.agent("warehouse", node.local_addr()).serve(stage.service());
        let agent = attached(agent).await;
        let handle = node.agent("warehouse").handle().expect("a name");
        let call = hold_call(handle.as_ref(), "a");
        stage.started("a").await;
        stage.open();
        let stopping = spawn(agent.shutdown());
        let reply = soon("the reply arrives", call).await;
        assert_eq!(reply.as_deref(), Ok("a"), "in round {round}");
        soon("the agent stops", stopping).await;
        soon("the node detects it", handle.disconnected()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_end_is_aborted_after_the_drain_time() {
    let short = Limits { drain_max: Duration::from_millis(200), ..Limits::default() };
    for peer in ["node", "agent"] {
        let bounds =
            SetupLimits { node: short.clone(), agent: short.clone(), ..SetupLimits::default() };
        let Setup { world: _world, node, agent, caller, stage } = Setup::with(bounds).await;
        let call = hold_call(&caller.agent("warehouse").expect("a name"), "endless");
        stage.started("endless").await;
        match peer {
            "node" => soon("the node stops", node.shutdown()).await,
            _ => soon("the agent stops", agent.shutdown()).await,
        }
        let failed = soon("the call ends", call).await;
        let failed = check_status(failed, Code::Unavailable, Outcome::Unknown);
        assert!(failed.message().contains("DRAINED"), "{peer}: {failed}");
        assert_eq!(stage.ended("endless").await, RunEnd::Dropped);
    }
}

/// Calls in the background until it is stopped: the number answered, and the failures.
fn steady_calls(
    callee: Callee,
    stop: Arc<AtomicBool>,
) -> Background<(usize, Vec<dialback::Status>)> {
    spawn(async move {
        let (mut answered, mut failed) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let call = callee.call::<String>("Stage/Note", "load").timeout(FAR);
            match call.await {
                Ok(_) => answered += 1,
                Err(status) => failed.push(status),
            }
        }
        (answered, failed)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_restarts_under_load_and_no_call_has_an_unknown_outcome() {
    let (world, stage) = (World::new(), Stage::default());
    let mut first = world.node_named("edge-1").start().await.expect("a node");
    let second = world.node_named("edge-2").start().await.expect("a node");
    let at = first.local_addr();
    let agent = world.agent("warehouse", at).node(second.local_addr().to_string());
    let agent = attached(agent.serve(stage.service())).await;
    soon("it is attached to both", agent.registered(2)).await;
    let near = world.caller("ops", at).connect().await.expect("a caller");
    let far = world.caller("ops", second.local_addr()).connect().await.expect("a caller");
    let stop = Arc::new(AtomicBool::new(false));
    let load = [&near, &far].map(|caller| caller.agent("warehouse").expect("a name"));
    let load = load.map(|callee| steady_calls(callee, stop.clone()));
    for round in 1..=3 {
        let hold_call = format!("held-{round}");
        let in_flight = self::hold_call(&near.agent("warehouse").expect("a name"), &hold_call);
        stage.started(&hold_call).await;
        let stopping = spawn(first.shutdown());
        // It has notified every peer and waits for this call, and the agent is attached to the
        // other node all the time.
        until_event("the agent is attached there", second.events(), || second.agents()[0].attached)
            .await;
        stage.open();
        assert_eq!(soon("the call in flight ends", in_flight).await, Ok(hold_call));
        soon("the node stops", stopping).await;
        stage.close();
        first = start_at(at, || world.node_named("edge-1")).await;
        soon("the agent reconnects", agent.registered(2)).await;
        let call = near.agent("warehouse").expect("a name").call::<String>("Stage/Note", "after");
        assert!(soon("the caller reconnects", call.timeout(FAR).into_future()).await.is_ok());
    }
    stop.store(true, Ordering::Relaxed);
    let [near, far] = load;
    let (near, far) = (soon("the load ends", near).await, soon("the load ends", far).await);
    // The second node shows no failure. At the first, a call may have arrived before the agent;
    // then it was not executed.
    assert!(far.1.is_empty() && far.0 > 0, "{far:?}");
    assert!(near.1.iter().all(|failed| failed.outcome() == Outcome::NotExecuted), "{near:?}");
    assert_eq!(stage.runs("load"), near.0 + far.0, "a call ran that was not answered, or twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_drains_under_load_while_its_successor_serves() {
    let Setup { world, node, agent, caller, stage } = Setup::open().await;
    let callee = caller.agent("warehouse").expect("a name");
    let stop = Arc::new(AtomicBool::new(false));
    let load = steady_calls(callee.clone(), stop.clone());
    let in_flight = hold_call(&callee, "held");
    stage.started("held").await;
    let stopping = spawn(agent.shutdown());
    until_event("it drains", node.events(), || node.agents()[0].draining).await;
    let next = world.agent("warehouse", node.local_addr()).serve(stage.service());
    let _next = attached(next).await;
    assert!(!node.agents()[0].draining);
    assert!(callee.call::<String>("Stage/Note", "after").await.is_ok());
    assert!(!stopping.is_finished() && !in_flight.is_finished(), "it was aborted");
    stage.open();
    assert_eq!(soon("the call in flight ends", in_flight).await.as_deref(), Ok("held"));
    soon("the old agent stops", stopping).await;
    stop.store(true, Ordering::Relaxed);
    let (answered, failed) = soon("the load ends", load).await;
    assert!(failed.iter().all(|failed| failed.outcome() == Outcome::NotExecuted), "{failed:?}");
    assert_eq!(stage.runs("load"), answered, "a call ran that was not answered, or twice");
}

// On one thread nothing runs between the start and the subscription, so no event is missed.
#[tokio::test]
async fn an_agent_reports_link_events_to_its_program() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let mut node_events = node.events();
    let agent = world.agent("warehouse", node.local_addr()).start().expect("an agent");
    let mut events = agent.events();
    let mut next = async || soon("an event", events.next()).await;
    let registered = next().await.expect("the agent runs");
    assert!(
        matches!(&registered, AgentEvent::Registered { node, .. } if node.as_str() == "edge-1"),
        "{registered:?}"
    );
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    caller.close().await;
    node.shutdown().await;
    let drains = next().await.expect("the agent runs");
    assert!(
        matches!(&drains, AgentEvent::Draining { node } if node.as_str() == "edge-1"),
        "{drains:?}"
    );
    let lost = next().await.expect("the agent runs");
    assert!(
        matches!(&lost, AgentEvent::Lost { reason, .. } if reason.to_string().contains("DRAINED")),
        "{lost:?}"
    );
    agent.shutdown().await;
    assert!(next().await.is_none());
    let mut seen = Vec::new();
    while let Some(event) = soon("an event", node_events.next()).await {
        seen.push(match event {
            NodeEvent::Attached { agent, .. } => format!("attached {agent}"),
            NodeEvent::CallerLinked { caller, .. } => format!("linked {caller}"),
            NodeEvent::CallerLeft { caller, reason } => format!("left {caller}: {reason}"),
            NodeEvent::Lost { agent, .. } => format!("lost {agent}"),
            other => format!("{other:?}"),
        });
    }
    let left = "left ops: the peer closed the link with GOODBYE: the caller has ended";
    assert_eq!(seen, ["attached warehouse", "linked ops", left, "lost warehouse"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_remains_after_every_peer_has_closed() {
    let tasks = Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    let Setup { world: _world, node, agent, caller, stage } = Setup::open().await;
    let at = node.local_addr();
    let call = hold_call(&caller.agent("warehouse").expect("a name"), "a");
    stage.started("a").await;
    assert!(tasks.num_alive_tasks() > before);
    stage.open();
    assert!(soon("the call ends", call).await.is_ok());
    assert!(UdpSocket::bind(at).is_err(), "the node does not hold its port");
    soon("the caller closes", caller.close()).await;
    soon("the agent closes", agent.shutdown()).await;
    soon("the node stops", node.shutdown()).await;
    until("every task has ended", || tasks.num_alive_tasks() <= before).await;
    until("the port is free", || UdpSocket::bind(at).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_remains_after_every_peer_was_dropped() {
    let tasks = Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    let Setup { world: _world, node, agent, caller, stage } = Setup::open().await;
    let at = node.local_addr();
    let mut arrivals = node.arrivals();
    assert!(arrivals.next().await.is_some());
    let call = hold_call(&caller.agent("warehouse").expect("a name"), "a");
    stage.started("a").await;
    drop(agent);
    let failed = soon("the call ends", call).await;
    check_status(failed, Code::Unavailable, Outcome::Unknown);
    assert_eq!(stage.ended("a").await, RunEnd::Dropped);
    drop(node);
    assert!(soon("the arrivals end", arrivals.next()).await.is_none());
    drop((caller, arrivals));
    until("every task has ended", || tasks.num_alive_tasks() <= before).await;
    until("the port is free", || UdpSocket::bind(at).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_after_close_fail_at_once() {
    const FAR: Duration = Duration::from_secs(3600);
    let Setup { world: _world, node: _node, agent, caller, stage } = Setup::open().await;
    let [by_caller, by_agent] = [caller.agent("warehouse"), agent.agent("warehouse")];
    let [by_caller, by_agent] = [by_caller.expect("a name"), by_agent.expect("a name")];
    assert!(by_caller.call::<String>("Stage/Note", "a").await.is_ok());
    assert!(by_agent.call::<String>("Stage/Note", "a").await.is_ok());
    caller.close().await;
    agent.shutdown().await;
    for callee in [by_caller, by_agent] {
        let call = callee.call::<String>("Stage/Note", "b").timeout(FAR);
        let failed = soon("the call ends", call.into_future()).await;
        check_status(failed, Code::Unavailable, Outcome::NotExecuted);
    }
    assert_eq!(stage.runs("b"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_an_agent_ends_when_it_attaches_and_when_the_node_stops() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let (comes, never) = (node.agent("warehouse"), node.agent("never"));
    let agent = attached(world.agent("warehouse", node.local_addr())).await;
    assert!(soon("the agent", comes.connected()).await.is_ok());
    let waiting = spawn(never.connected());
    agent.shutdown().await;
    node.shutdown().await;
    assert_eq!(
        soon("the end of the wait", waiting).await.err(),
        Some(dialback::NotConnected::Stopped)
    );
}
