//! The link carries calls in both directions: agents call services of the node, and each other
//! through it.

use crate::world::{Setup, Stage, World, attached, check_status, poll_in_order, soon, spawn};
use dialback::{Agent, AgentHandle, Callee, Code, Context, Limits, Node, Outcome, Service};
use std::{
    future::IntoFuture,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// A node with one stage and an agent with another.
async fn pair(world: &World, limits: Limits) -> (Node, Stage, Agent, Stage) {
    let (of_node, of_agent) = (Stage::default(), Stage::default());
    let node = world.node().limits(limits).serve(of_node.service()).start().await.expect("a node");
    let agent = world.agent("warehouse", node.local_addr()).serve(of_agent.service());
    (node, of_node, attached(agent).await, of_agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_and_a_caller_call_services_of_the_node() {
    let world = World::new();
    let (node, stage, agent, _) = pair(&world, Limits::default()).await;
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    for (caller_name, callee) in [("agent/warehouse", agent.node()), ("caller/ops", caller.node())]
    {
        assert_eq!(
            callee.call::<String>("Stage/Note", caller_name).await.as_deref(),
            Ok(caller_name)
        );
        let context = stage.started(caller_name).await;
        assert_eq!((context.caller().to_string().as_str(), context.via()), (caller_name, None));
        let failed = callee.call::<()>("Stage/Fail", caller_name).await;
        check_status(failed, Code::NotFound, Outcome::AppError);
        let failed = callee.call::<()>("Stage/Nothing", caller_name).await;
        check_status(failed, Code::Unimplemented, Outcome::NotExecuted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_calls_another_through_the_node_which_names_the_caller() {
    let setup = Setup::open().await;
    let requester = attached(setup.world.agent("asker", setup.node.local_addr())).await;
    let other = requester.agent("warehouse").expect("a name");
    assert!(other.call::<String>("Stage/Note", "a").await.is_ok());
    assert_eq!(setup.stage.started("a").await.caller().to_string(), "agent/asker");
    let absent = requester.agent("nobody").expect("a name").call::<String>("Stage/Note", "b").await;
    check_status(absent, Code::Unavailable, Outcome::NotExecuted);
    // Through the node and back over the same link.
    let itself = setup.agent.agent("warehouse").expect("a name");
    assert!(itself.call::<String>("Stage/Note", "c").await.is_ok());
    assert_eq!(setup.stage.started("c").await.caller().to_string(), "agent/warehouse");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_carry_calls_at_once() {
    let world = World::new();
    let (node, of_node, agent, of_agent) = pair(&world, Limits::default()).await;
    let down = node.agent("warehouse").handle().expect("a name");
    let up = agent.node();
    let ids: Vec<String> = (0..20).map(|n| format!("{n}")).collect();
    let downwards = ids.iter().map(|id| down.call::<String>("Stage/Hold", id));
    let calls = downwards.chain(ids.iter().map(|id| up.call("Stage/Hold", id)));
    let calls: Vec<_> = calls.map(|call| spawn(call.into_future())).collect();
    // All of them are in their handlers before the first one ends.
    of_node.busy(20).await;
    of_agent.busy(20).await;
    of_node.open();
    of_agent.open();
    for call in calls {
        assert!(soon("a call ends", call).await.is_ok());
    }
    assert_eq!((of_node.all_runs(), of_agent.all_runs()), (20, 20));
}

/// Calls the other side with a number one lower, until it is zero.
fn countdown(other: Arc<OnceLock<Callee>>) -> Service {
    Service::new("Ball").method("Throw", move |left: u32, _: Context| {
        let other = other.clone();
        async move {
            match left.checked_sub(1) {
                Some(left) => {
                    let other = other.get().expect("set before the first use");
                    Ok(1 + other.call::<u32>("Ball/Throw", &left).await?)
                }
                None => Ok(0),
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_calls_back_over_the_link_that_called_it() {
    let world = World::new();
    let [to_agent, to_node] = [(); 2].map(|()| Arc::new(OnceLock::new()));
    let node = world.node().serve(countdown(to_agent.clone())).start().await.expect("a node");
    let agent = world.agent("warehouse", node.local_addr()).serve(countdown(to_node.clone()));
    let agent = attached(agent).await;
    let handle: AgentHandle = node.agent("warehouse").handle().expect("a name");
    to_agent.set(AsRef::<Callee>::as_ref(&handle).clone()).expect("once");
    to_node.set(agent.node()).expect("once");
    assert_eq!(handle.call::<u32>("Ball/Throw", &20).await, Ok(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_limits_concurrent_calls_from_an_agent() {
    let world = World::new();
    let limits = Limits { agent_asks_in_flight_max: 3, queue_max: 0, ..Limits::default() };
    let (_node, stage, agent, _) = pair(&world, limits).await;
    let up = agent.node();
    let held = poll_in_order(["a", "b", "c"].map(|id| up.call::<String>("Stage/Hold", id))).await;
    stage.busy(3).await;
    let fourth = up.call::<String>("Stage/Hold", "d").await;
    check_status(fourth, Code::ResourceExhausted, Outcome::NotExecuted);
    stage.open();
    for call in held {
        assert!(soon("a call ends", call).await.is_ok());
    }
    assert_eq!((stage.runs("d"), stage.all_runs()), (0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_an_agent_without_a_node_end_at_the_deadline_not_executed() {
    let world = World::new();
    let port = crate::world::SilentPort::take();
    let agent = world.agent("warehouse", port.address()).start().expect("an agent");
    let call = agent.node().call::<String>("Stage/Note", "a").timeout(Duration::from_millis(200));
    check_status(call.await, Code::Unavailable, Outcome::NotExecuted);
}
