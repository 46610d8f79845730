//! Tests of calls over a network that delays, loses packets and fails.

use super::*;
use crate::{
    call::{Inbound, Outbound},
    limits::{Limits, PASSED_ON_BYTES_MIN, SUSPEND_TICK},
    policy::{AgentPolicy, AgentRule, AllowRule, HostRule},
};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_call_takes_one_round_trip_from_the_node_and_two_through_it() {
    let scene = Scene::open().await;
    for (callee, packets) in [(scene.handle.as_ref().clone(), 2), (scene.by_caller(), 4)] {
        let began = Instant::now();
        let answer = callee.call::<String>("Stage/Echo", "hello").await;
        assert_eq!(answer.as_deref(), Ok("hello"));
        assert_eq!(began.elapsed(), packets * Duration::from_millis(1));
    }
}

#[tokio::test(start_paused = true)]
async fn lost_packets_cost_time_and_no_call() {
    let scene = Scene::open().await;
    scene.world.net.lose(64);
    for n in 0..200 {
        let text = n.to_string();
        let call = scene.by_caller().call::<String>("Stage/Echo", &text).timeout(MINUTE);
        assert_eq!(call.await, Ok(text));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_with_the_outcome_of_a_started_handler() {
    let scene = Scene::open().await;
    let began = Instant::now();
    let answer = scene.by_caller().call::<()>("Stage/Never", &()).timeout(HOUR).await;
    check_status(answer, Code::DeadlineExceeded, Outcome::Unknown);
    assert!((HOUR..HOUR + SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_running_call_ends_unknown_soon_after_the_heartbeat_when_the_network_is_lost() {
    let scene = Scene::open().await;
    let running = scene.holding().await;
    scene.world.net.set_down(true);
    let began = Instant::now();
    check_status(running.ended().await, Code::Unavailable, Outcome::Unknown);
    assert!(began.elapsed() < MINUTE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_of_an_absent_agent_is_not_executed_and_one_that_waits_is_answered_when_it_comes() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let caller = world.caller("ops").connect().await.expect("a caller");
    let shop = caller.agent("shop").expect("a name");
    let answer = shop.call::<String>("Stage/Echo", "x").await;
    check_status(answer, Code::Unavailable, Outcome::NotExecuted);
    let call = shop.call::<String>("Stage/Echo", "x").timeout(HOUR).wait(true);
    let waiting = spawn(async move { call.await });
    tokio::time::sleep(10 * MINUTE).await;
    assert!(!waiting.is_finished());
    let agent = world.agent("shop").start().expect("an agent");
    assert_eq!(waiting.ended().await.as_deref(), Ok("x"));
    agent.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_in_vain_is_not_executed_at_its_deadline() {
    let scene = Scene::open().await;
    let absent = scene.caller.agent("absent").expect("a name");
    let began = Instant::now();
    let answer = absent.call::<()>("Stage/Never", &()).timeout(MINUTE).wait(true).await;
    check_status(answer, Code::Unavailable, Outcome::NotExecuted);
    assert!((MINUTE..MINUTE + SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_rule_allows_is_refused_whether_the_agent_exists_or_not() {
    let world = World::new();
    let allowed = AllowRule::parse("ops", "shop", "Stage/Echo").expect("a rule");
    let policy = NodePolicy::default().allow(allowed);
    let node = world.node().policy(policy).start().await.expect("a node");
    let agent = world.agent("shop").start().expect("an agent");
    agent.registered(1).await;
    let caller = world.caller("ops").connect().await.expect("a caller");
    for (agent, method, is_allowed) in [
        ("shop", "Stage/Echo", true),
        ("shop", "Stage/Hold", false),
        ("absent", "Stage/Echo", false),
    ] {
        let callee = caller.agent(agent).expect("a name");
        let answer = callee.call::<String>(method, "x").await;
        if is_allowed {
            assert_eq!(answer.as_deref(), Ok("x"));
        } else {
            check_status(answer, Code::PermissionDenied, Outcome::NotExecuted);
        }
    }
    drop(node);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_cancels_its_handler() {
    let scene = Scene::open().await;
    let running = scene.holding().await;
    assert_eq!(scene.node.agents()[0].calls_in_flight, 1);
    drop(running);
    tokio::time::sleep(SECOND).await;
    assert_eq!(scene.node.agents()[0].calls_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_denied_caller_does_not_learn_which_methods_an_agent_hosts() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let allowed = AgentRule::parse("edge", "ops", "Stage/Echo").expect("a rule");
    let policy = AgentPolicy::default().allow(allowed);
    let agent = world.agent("shop").policy(policy).start().expect("an agent");
    let scene = Scene::of(world, node, agent).await;
    for method in ["Stage/Hold", "Stage/None", "None/None"] {
        let answer = scene.by_caller().call::<String>(method, "x").await;
        check_status(answer, Code::PermissionDenied, Outcome::NotExecuted);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_the_request_keep_a_stream_in_which_no_replies_are_sent() {
    let last = |mut values: Inbound<u64>, mut replies: Outbound<u64>, _: Context| async move {
        let mut last = 0;
        replies.send(&last).await?;
        while let Some(value) = values.next().await {
            last = value?;
        }
        replies.send(&last).await
    };
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let limits = Limits { stream_idle_max: MINUTE, ..Limits::default() };
    let agent = world.agent("shop").serve(Service::new("Values").bidirectional("Last", last));
    let scene = Scene::of(world, node, agent.limits(limits).start().expect("an agent")).await;
    let call = scene.handle.as_ref().bidirectional::<u64, u64>("Values/Last").timeout(HOUR);
    let (mut values, mut replies) = call.await.expect("a call");
    for value in 1..=5 {
        values.send(&value).await.expect("room");
        tokio::time::sleep(MINUTE * 2 / 3).await;
    }
    values.finish().await.expect("room");
    assert_eq!([replies.next().await, replies.next().await], [Some(Ok(0)), Some(Ok(5))]);
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_holds_no_replies_that_have_come_while_others_are_awaited() {
    let world = World::new();
    let limits =
        Limits { memory_max: Some(4 << 20), message_bytes_max: 1 << 20, ..Limits::default() };
    let node = world.node().limits(limits).start().await.expect("a node");
    let mut agents = Vec::new();
    for n in 0..40 {
        agents.push(world.agent(&format!("shop-{n}")).start().expect("an agent"));
    }
    for agent in &agents {
        agent.registered(1).await;
    }
    // All together they are twice what the node may hold of one requester.
    let text = "x".repeat(100 << 10);
    let answers = node.call_all::<String>("Stage/Echo", &text, HOUR).await.expect("a method");
    assert_eq!(answers.len(), 40);
    for (agent, answer) in answers {
        assert_eq!(answer.map(|text| text.len()), Ok(100 << 10), "{agent}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_with_a_free_permit_is_preferred_to_a_less_loaded_one_without() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let limits = Limits { calls_in_flight_max: 1, ..Limits::default() };
    let small = world.agent("small").limits(limits).start().expect("an agent");
    let large = world.agent("large").start().expect("an agent");
    small.registered(1).await;
    large.registered(1).await;
    let mut running = Vec::new();
    for name in ["small", "large", "large"] {
        let handle = node.agent(name).connected().await.expect("a name");
        let call = handle.call::<String>("Stage/Hold", "held").timeout(HOUR);
        running.push(spawn(async move { call.await }));
        world.stage.begun.notified().await;
    }
    let began = Instant::now();
    let answer = node.any().call::<String>("Stage/Echo", "x").await;
    assert_eq!(answer.as_deref(), Ok("x"));
    assert!(began.elapsed() < SECOND / 10, "it waited for a permit: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hosts_something_else_by_now_is_not_called() {
    let world = World::new();
    let hosts = HostRule::parse("odd", "**").expect("a rule");
    let policy = NodePolicy { host: vec![hosts], ..NodePolicy::allow_all() };
    let node = world.node().policy(policy).start().await.expect("a node");
    // So many that the one which may answer is looked up in a list.
    let mut others = Vec::new();
    for n in 0..40 {
        others.push(world.agent(&format!("shop-{n}")).start().expect("an agent"));
        others[n].registered(1).await;
    }
    let odd = world.agent("odd").start().expect("an agent");
    odd.registered(1).await;
    for _ in 0..20 {
        assert!(node.any().call::<String>("Stage/Echo", "x").await.is_ok());
    }
    odd.shutdown().await;
    let stock = Service::new("Stock").method("Echo", |text: String, _: Context| async { Ok(text) });
    let builder = Agent::builder(credentials("agent/odd")).node(NODE).net(world.net.shared());
    let odd = builder.serve(stock).start().expect("an agent");
    odd.registered(1).await;
    assert!(node.any().call::<String>("Stock/Echo", "x").await.is_ok());
    let answer = node.any().call::<String>("Stage/Echo", "x").await;
    check_status(answer, Code::Unavailable, Outcome::NotExecuted);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_the_nodes_own_service_ends_at_its_deadline_without_the_grace_of_a_relay() {
    let world = World::new();
    let node = world.node().serve(world.stage.service()).start().await.expect("a node");
    let caller = world.caller("ops").connect().await.expect("a caller");
    let began = Instant::now();
    let answer = caller.node().call::<()>("Stage/Never", &()).timeout(SECOND).await;
    check_status(answer, Code::DeadlineExceeded, Outcome::Unknown);
    assert!(began.elapsed() < SECOND + SECOND / 50, "{:?}", began.elapsed());
    drop(node);
}

#[tokio::test(start_paused = true)]
async fn a_suspend_while_a_message_comes_is_accounted_for_by_the_node_and_by_the_agent() {
    let scene = Scene::open().await;
    let (began, text) = (Instant::now(), "x".repeat(16 * PASSED_ON_BYTES_MIN));
    let call = scene.by_caller().call::<String>("Stage/Echo", &text).timeout(MINUTE);
    let call = spawn(async move { call.await });
    // Ten packets: the head has come, and most of the message has not.
    tokio::time::sleep(Duration::from_millis(5)).await;
    scene.world.net.shared().suspend().add_pause(SECOND);
    assert_eq!(call.ended().await, Ok(text));
    // Each waits for a PONG, and one tick longer, before it lets the call go on.
    assert!(began.elapsed() > 2 * SUSPEND_TICK, "{:?}", began.elapsed());
}
