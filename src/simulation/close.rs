//! Nodes, agents and callers that leave.

use super::*;
use crate::limits::Limits;
use tokio::time::Instant;

/// A peer leaves while a call runs: a new call is refused, and the running one is answered.
async fn check_finishes_its_calls<F: Future<Output = ()> + Send + 'static>(
    leave: impl FnOnce(Node, Agent) -> F,
) {
    let scene = Scene::open().await;
    let (running, callee) = (scene.holding().await, scene.by_caller());
    let Scene { world, node, agent, caller: _caller, handle: _handle } = scene;
    let leaving = spawn(leave(node, agent));
    tokio::time::sleep(SECOND).await;
    let refused = callee.call::<String>("Stage/Echo", "x").timeout(2 * SECOND).await;
    check_status(refused, Code::Unavailable, Outcome::NotExecuted);
    assert!(!leaving.is_finished());
    world.stage.release.notify_one();
    assert_eq!(running.ended().await.as_deref(), Ok("held"));
    leaving.ended().await;
}

/// The node leaves and the agent stays.
async fn node_leaves(node: Node, agent: Agent) {
    node.shutdown().await;
    drop(agent);
}

/// The agent leaves and the node stays.
async fn agent_leaves(node: Node, agent: Agent) {
    agent.shutdown().await;
    drop(node);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_leaves_finishes_its_calls_and_takes_no_more() {
    check_finishes_its_calls(agent_leaves).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_finishes_its_calls_and_takes_no_more() {
    check_finishes_its_calls(node_leaves).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_cancels_its_calls() {
    let scene = Scene::open().await;
    let running = scene.holding().await;
    scene.caller.close().await;
    check_status(running.ended().await, Code::Unavailable, Outcome::Unknown);
    tokio::time::sleep(SECOND).await;
    assert_eq!(scene.node.agents()[0].calls_in_flight, 0);
}

/// A scene in which a side that leaves waits a minute for its calls.
async fn patient_for_a_minute() -> Scene {
    let world = World::new();
    let limits = Limits { drain_max: MINUTE, ..Limits::default() };
    let node = world.node().limits(limits.clone()).start().await.expect("a node");
    let agent = world.agent("shop").limits(limits).start().expect("an agent");
    Scene::of(world, node, agent).await
}

/// Leaves, with a call that does not end by itself.
async fn check_leaves_after_a_minute<F: Future<Output = ()> + Send + 'static>(
    scene: Scene,
    leave: impl FnOnce(Node, Agent) -> F,
) {
    let running = scene.holding().await;
    let Scene { world: _world, node, agent, caller: _caller, handle: _handle } = scene;
    let began = Instant::now();
    spawn(leave(node, agent)).ended().await;
    assert!((MINUTE..MINUTE + 10 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
    check_status(running.ended().await, Code::Unavailable, Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_waits_for_calls_no_longer_than_drain_max() {
    let scene = patient_for_a_minute().await;
    check_leaves_after_a_minute(scene, node_leaves).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_leaves_waits_for_calls_no_longer_than_drain_max() {
    let scene = patient_for_a_minute().await;
    check_leaves_after_a_minute(scene, agent_leaves).await;
}
