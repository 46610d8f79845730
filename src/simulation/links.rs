//! Tests of links: dialling, loss, redialling and verification.

use super::*;
use crate::{
    limits::{HEARTBEAT_EVERY, Limits},
    link::{LinkFault, LinkPath},
    observe::{AgentEvent, NodeEvent},
    wire::CloseCode,
};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn an_agent_dials_until_there_is_a_node() {
    let world = World::new();
    let agent = world.agent("shop").start().expect("an agent");
    tokio::time::sleep(3 * HOUR).await;
    assert!(agent.nodes().is_empty());
    let node = world.node().start().await.expect("a node");
    let began = Instant::now();
    agent.registered(1).await;
    assert!(began.elapsed() < 2 * MINUTE, "{:?}", began.elapsed());
    assert_eq!(node.agents().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn both_ends_notice_a_lost_network_and_link_again_once_it_is_back() {
    let scene = Scene::open().await;
    let (mut of_node, mut of_agent) = (scene.node.events(), scene.agent.events());
    scene.world.net.set_down(true);
    let began = Instant::now();
    scene.handle.disconnected().await;
    assert!(began.elapsed() < MINUTE, "{:?}", began.elapsed());
    let is_silence = |reason: &LinkFault| matches!(reason, LinkFault::Silent(_));
    while !matches!(of_node.next().await, Some(NodeEvent::Lost { reason, .. }) if is_silence(&reason))
    {
    }
    while !matches!(of_agent.next().await, Some(AgentEvent::Lost { reason, .. }) if is_silence(&reason))
    {
    }
    tokio::time::sleep(HOUR).await;
    assert!(!scene.handle.is_attached());
    scene.world.net.set_down(false);
    scene.agent.registered(1).await;
    let answer = scene.by_caller().call::<String>("Stage/Echo", "x").timeout(5 * MINUTE).await;
    assert_eq!(answer.as_deref(), Ok("x"));
}

/// A PING, its PONG with the acknowledgement of the PING, and the acknowledgement of the PONG.
const HEARTBEAT_PACKETS: u64 = 3;

#[tokio::test(start_paused = true)]
async fn a_link_without_calls_stays_up_with_three_packets_a_heartbeat() {
    let scene = Scene::open().await;
    let mut events = scene.node.events();
    let before = scene.world.net.sent();
    tokio::select! {
        event = events.next() => panic!("{event:?}"),
        () = tokio::time::sleep(HOUR) => {}
    }
    // The agent and the caller have a link each.
    let heartbeats = 2 * HOUR.as_secs() / HEARTBEAT_EVERY.as_secs();
    let sent = scene.world.net.sent() - before;
    assert!(sent > 2 * heartbeats, "{sent} packets in {heartbeats} heartbeats");
    // A QUIC sender skips packet numbers, ever more rarely, and has the next packet acknowledged at
    // once.
    let most = HEARTBEAT_PACKETS * heartbeats + heartbeats / 10;
    assert!(sent <= most, "{sent} packets in {heartbeats} heartbeats");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_links_that_are_made_at_once_are_spread() {
    let world = World::new();
    let _node = world.node().start().await.expect("a node");
    let agents: Vec<_> = (0..50)
        .map(|number| world.agent(&format!("a{number}")).start().expect("an agent"))
        .collect();
    for agent in &agents {
        agent.registered(1).await;
    }
    // The second PINGs are the first that are spread.
    tokio::time::sleep(2 * HEARTBEAT_EVERY).await;
    let mut most = 0;
    for _ in 0..10 {
        let before = world.net.sent();
        tokio::time::sleep(HEARTBEAT_EVERY / 10).await;
        most = most.max(world.net.sent() - before);
    }
    let all = HEARTBEAT_PACKETS * agents.len() as u64;
    assert!(most < all / 2, "{most} of {all} packets in a tenth of the interval");
}

#[tokio::test(start_paused = true)]
async fn a_second_instance_of_an_agent_takes_over() {
    let scene = Scene::open().await;
    let mut events = scene.node.events();
    let second = scene.world.agent("shop").start().expect("an agent");
    second.registered(1).await;
    while !matches!(events.next().await, Some(NodeEvent::TakenOver { .. })) {}
    assert_eq!(scene.node.agents().len(), 1);
    assert!(scene.handle.is_attached());
}

#[tokio::test(start_paused = true)]
async fn links_end_when_the_wall_clock_passes_the_end_of_a_certificate() {
    let scene = Scene::open().await;
    let mut events = scene.node.events();
    scene.world.net.set_clock_ahead(10 * 365 * 24 * HOUR);
    let is_expired =
        |reason: &LinkFault| matches!(reason, LinkFault::Closed { code: CloseCode::Expired, .. });
    let found = tokio::time::timeout(HOUR, async {
        while !matches!(events.next().await, Some(NodeEvent::Lost { reason, .. }) if is_expired(&reason))
        {
        }
    });
    found.await.expect("the end of the link");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_the_node_disconnects_comes_back() {
    let scene = Scene::open().await;
    for _ in 0..3 {
        let mut events = scene.agent.events();
        scene.handle.disconnect();
        scene.handle.disconnected().await;
        while !matches!(events.next().await, Some(AgentEvent::Registered { .. })) {}
        assert!(scene.handle.is_attached());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_socket_keeps_links_and_the_calls_that_are_on_them() {
    let scene = Scene::open().await;
    let running = scene.holding().await;
    let mut events = scene.node.events();
    scene.agent.rebind().expect("a socket");
    scene.caller.rebind().expect("a socket");
    tokio::time::sleep(MINUTE).await;
    scene.world.stage.release.notify_one();
    assert_eq!(running.ended().await.as_deref(), Ok("held"));
    for _of_agent_and_caller in 0..2 {
        let event = events.next().await.expect("the node runs");
        let NodeEvent::Moved { old, new, new_path, .. } = event else { panic!("{event:?}") };
        assert!(old != new && new_path == LinkPath::Udp, "{old}, {new}, {new_path}");
    }
    tokio::select! {
        event = events.next() => panic!("{event:?}"),
        () = tokio::time::sleep(HOUR) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn handshakes_succeed_although_a_third_of_all_packets_is_lost() {
    for seed in 0..20 {
        let world = World { net: MemoryNet::new(seed), stage: Stage::default() };
        world.net.lose(85);
        let node = world.node().start().await.expect("a node");
        let agent = world.agent("shop").start().expect("an agent");
        let registered = tokio::time::timeout(10 * MINUTE, agent.registered(1)).await;
        assert!(registered.is_ok(), "seed {seed}");
        drop(node);
    }
}

/// Returns true if the node keeps its link to a caller that resets one call more than the limit.
async fn keeps_a_link_with_many_resets(after_pause: Duration) -> bool {
    let world = World::new();
    let limits = Limits { resets_max: 3, ..Limits::default() };
    let node = world.node().limits(limits).start().await.expect("a node");
    let agent = world.agent("shop").start().expect("an agent");
    let scene = Scene::of(world, node, agent).await;
    let mut events = scene.node.events();
    scene.world.net.shared().suspend().add_pause(after_pause);
    for _ in 0..4 {
        let call = scene.by_caller().call::<()>("Stage/Never", &()).timeout(HOUR);
        assert!(tokio::time::timeout(SECOND / 100, call).await.is_err(), "it was answered");
    }
    let left =
        async { while !matches!(events.next().await, Some(NodeEvent::CallerLeft { .. })) {} };
    tokio::time::timeout(SECOND, left).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn resets_right_after_a_suspend_of_the_node_are_not_counted() {
    assert!(!keeps_a_link_with_many_resets(Duration::ZERO).await);
    assert!(keeps_a_link_with_many_resets(SECOND).await);
}

/// Returns true if the gateway takes another call of a caller that hung up on as many as the limit.
#[cfg(feature = "gateway")]
async fn takes_calls_after_many_resets(after_pause: Duration) -> bool {
    use crate::{
        call::{Body, Target},
        node::GatewayCall,
        wire::CallKind,
    };
    let world = World::new();
    let limits = Limits { resets_max: 3, ..Limits::default() };
    let node = world.node().limits(limits).start().await.expect("a node");
    let agent = world.agent("shop").start().expect("an agent");
    let scene = Scene::of(world, node, agent).await;
    let gateway = scene.node.gateway_ingress();
    let call = |method: &str| {
        let (method, target) = (method.parse().expect("a method"), Target::Service);
        let id = gateway.next_call_id();
        let meta = gateway.next_call(id, method, CallKind::Unary, target, Some(HOUR));
        let call =
            GatewayCall { caller: "caller/web".parse().expect("a peer"), meta, bytes_min: 0 };
        let message = Body::Message(bytes::Bytes::from_static(b"\x61x"));
        gateway.call(call, std::future::ready(Ok(message)))
    };
    scene.world.net.shared().suspend().add_pause(after_pause);
    for _ in 0..3 {
        let hung_up = tokio::time::timeout(SECOND / 100, call("Stage/Hold")).await;
        assert!(hung_up.is_err(), "it was answered");
    }
    call("Stage/Echo").await.is_ok()
}

#[cfg(feature = "gateway")]
#[tokio::test(start_paused = true)]
async fn clients_that_hang_up_right_after_a_suspend_of_the_node_are_not_counted() {
    assert!(!takes_calls_after_many_resets(Duration::ZERO).await);
    assert!(takes_calls_after_many_resets(SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_waits_longer_for_an_agent_that_announces_a_slow_heartbeat() {
    let world = World::new();
    let patient = Limits { idle_max: HOUR, ..Limits::default() };
    let node = world.node().limits(patient.clone()).start().await.expect("a node");
    let slow = Limits { heartbeat_every: MINUTE, heartbeat_lost: 5 * MINUTE, ..patient };
    let agent = world.agent("shop").limits(slow).start().expect("an agent");
    agent.registered(1).await;
    let mut events = node.events();
    tokio::select! {
        event = events.next() => panic!("{event:?}"),
        () = tokio::time::sleep(HOUR) => {}
    }
}
