//! Tests of graceful close: nodes, agents and callers that shut down.

use super::*;
use crate::limits::Limits;
use tokio::time::Instant;

/// A peer shuts down while a call runs: a new call is refused, and the running one is answered.
async fn check_finishes_its_calls<F: Future<Output = ()> + Send + 'static>(
    shut_down: impl FnOnce(Node, Agent) -> F,
) {
    let scene = Scene::open().await;
    let (running, callee) = (scene.holding().await, scene.by_caller());
    let Scene { world, node, agent, caller: _caller, handle: _handle } = scene;
    let closing = spawn(shut_down(node, agent));
    tokio::time::sleep(SECOND).await;
    let refused = callee.call::<String>("Stage/Echo", "x").timeout(2 * SECOND).await;
    check_status(refused, Code::Unavailable, Outcome::NotExecuted);
    assert!(!closing.is_finished());
    world.stage.release.notify_one();
    assert_eq!(running.ended().await.as_deref(), Ok("held"));
    closing.ended().await;
}

/// The node shuts down and the agent stays.
async fn node_shuts_down(node: Node, agent: Agent) {
    node.shutdown().await;
    drop(agent);
}

/// The agent shuts down and the node stays.
async fn agent_shuts_down(node: Node, agent: Agent) {
    agent.shutdown().await;
    drop(node);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_shuts_down_finishes_its_calls_and_takes_no_more() {
    check_finishes_its_calls(agent_shuts_down).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_shuts_down_finishes_its_calls_and_takes_no_more() {
    check_finishes_its_calls(node_shuts_down).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_closes_cancels_its_calls() {
    let scene = Scene::open().await;
    let running = scene.holding().await;
    scene.caller.close().await;
    check_status(running.ended().await, Code::Unavailable, Outcome::Unknown);
    tokio::time::sleep(SECOND).await;
    assert_eq!(scene.node.agents()[0].calls_in_flight, 0);
}

/// A scene in which a side that shuts down waits a minute for its calls.
async fn draining_for_a_minute() -> Scene {
    let world = World::new();
    let limits = Limits { drain_max: MINUTE, ..Limits::default() };
    let node = world.node().limits(limits.clone()).start().await.expect("a node");
    let agent = world.agent("shop").limits(limits).start().expect("an agent");
    Scene::of(world, node, agent).await
}

/// Shuts down, with a call that does not end by itself.
async fn check_shuts_down_after_a_minute<F: Future<Output = ()> + Send + 'static>(
    scene: Scene,
    shut_down: impl FnOnce(Node, Agent) -> F,
) {
    let running = scene.holding().await;
    let Scene { world: _world, node, agent, caller: _caller, handle: _handle } = scene;
    let began = Instant::now();
    spawn(shut_down(node, agent)).ended().await;
    assert!((MINUTE..MINUTE + 10 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
    check_status(running.ended().await, Code::Unavailable, Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_shuts_down_waits_for_calls_no_longer_than_drain_max() {
    let scene = draining_for_a_minute().await;
    check_shuts_down_after_a_minute(scene, node_shuts_down).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_shuts_down_waits_for_calls_no_longer_than_drain_max() {
    let scene = draining_for_a_minute().await;
    check_shuts_down_after_a_minute(scene, agent_shuts_down).await;
}

#[cfg(feature = "gateway")]
#[tokio::test(start_paused = true)]
async fn a_gateway_takes_no_call_between_the_begin_of_a_shutdown_and_the_drain() {
    use crate::{call::Target, node::GatewayCall, wire::CallKind};
    let Scene { world: _world, node, agent: _agent, .. } = Scene::open().await;
    let gateway = node.gateway_ingress();
    // The drain begins when each link has sent DRAIN, and this listener has not.
    let [mut drain, _goodbye] = gateway.drain_signals();
    let _stopping = spawn(node.shutdown());
    drain.notified().await;
    let id = gateway.next_call_id();
    let method = "Stage/Echo".parse().expect("a method");
    let meta = gateway.next_call(id, method, CallKind::Unary, Target::Service, Some(MINUTE));
    let call = GatewayCall { caller: "caller/web".parse().expect("a peer"), meta, bytes_min: 0 };
    let message = crate::call::Body::Message(bytes::Bytes::from_static(b"\x61x"));
    let body = std::future::ready(Ok(message));
    check_status(gateway.call(call, body).await, Code::Unavailable, Outcome::NotExecuted);
}
