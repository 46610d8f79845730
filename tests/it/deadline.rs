//! One deadline per call: it covers queue, stream credit, writing, handler and reply, and each hop
//! subtracts its own time.

use crate::world::{
    Relay, RunEnd, Setup, SetupLimits, Stage, World, attached, check_status, poll_in_order, soon,
    spawn,
};
use dialback::{AllowRule, Call, Callee, Code, Limits, NodePolicy, Outcome};
use std::{
    future::IntoFuture,
    time::{Duration, Instant},
};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);
/// The time that two hops lose because a deadline has whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

/// One call in flight everywhere, and a long queue wait.
fn one_at_a_time() -> Limits {
    Limits {
        calls_in_flight_max: 1,
        caller_calls_in_flight_max: 1,
        queue_wait_max: LONG,
        ..Limits::default()
    }
}

fn every_role(limits: Limits) -> SetupLimits {
    SetupLimits { node: limits.clone(), agent: limits.clone(), caller: limits }
}

fn hold(callee: &Callee, id: &str, timeout: Duration) -> Call<String> {
    callee.call("Stage/Hold", id).timeout(timeout)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_covers_the_handler_and_stops_it() {
    let setup = Setup::open().await;
    for (way, callee) in setup.callees() {
        let began = Instant::now();
        let failed = hold(&callee, way, SHORT).await;
        check_status(failed, Code::DeadlineExceeded, Outcome::Unknown);
        // Each hop passes on whole milliseconds, so the agent's answer may arrive early by that
        // much.
        assert!(began.elapsed() + ROUNDING >= SHORT, "it ended before its time");
        assert_eq!(setup.stage.ended(way).await, RunEnd::Dropped);
        let context = setup.stage.started(way).await;
        soon("the context fires", context.cancelled()).await;
        assert_eq!(setup.stage.runs(way), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_covers_the_queue_and_queued_calls_are_not_executed() {
    let setup = Setup::with(every_role(one_at_a_time())).await;
    let held = spawn(hold(&setup.by_node(), "held", LONG).into_future());
    setup.stage.started("held").await;
    let failed = hold(&setup.by_node(), "queued", SHORT).await;
    check_status(failed, Code::DeadlineExceeded, Outcome::NotExecuted);
    setup.stage.open();
    assert_eq!(soon("the held call ends", held).await.as_deref(), Ok("held"));
    assert!(hold(&setup.by_node(), "later", LONG).await.is_ok());
    assert_eq!((setup.stage.runs("queued"), setup.stage.runs("later")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_covers_writing_and_a_call_without_end_is_not_executed() {
    let setup = Setup::with(every_role(one_at_a_time())).await;
    let held = spawn(hold(&setup.by_caller(), "held", LONG).into_future());
    setup.stage.started("held").await;
    // The body is not read while the call waits for a permit, and no window is large enough for it.
    let long = "x".repeat(3 << 20);
    let failed = hold(&setup.by_caller(), &long, SHORT).await;
    check_status(failed, Code::DeadlineExceeded, Outcome::NotExecuted);
    setup.stage.open();
    assert_eq!(soon("the held call ends", held).await.as_deref(), Ok("held"));
    assert_eq!(setup.stage.runs(&long), 0);
    assert!(hold(&setup.by_caller(), &long, LONG).await.is_ok());
    assert_eq!(setup.stage.runs(&long), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_covers_the_wait_for_stream_credit_and_the_call_is_not_executed() {
    let setup = Setup::with(every_role(one_at_a_time())).await;
    let callee = setup.by_caller();
    // More than the streams that the node grants beyond the one call in flight.
    let ids: Vec<String> = (0..40).map(|n| format!("{n}")).collect();
    let waiting = poll_in_order(ids.iter().map(|id| hold(&callee, id, LONG))).await;
    let failed = hold(&callee, "last", SHORT).await;
    let status = check_status(failed, Code::DeadlineExceeded, Outcome::NotExecuted);
    assert!(status.message().contains("waiting for a stream"), "{status}");
    setup.stage.open();
    for call in waiting {
        assert!(soon("a call that waited ends", call).await.is_ok());
    }
    assert_eq!((setup.stage.runs("last"), setup.stage.all_runs()), (0, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_covers_the_reply_which_may_be_lost() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let path = Relay::to(node.local_addr()).await;
    let _agent = attached(world.agent("warehouse", path.address()).serve(stage.service())).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let lost = spawn(hold(handle.as_ref(), "lost", Duration::from_secs(1)).into_future());
    stage.started("lost").await;
    path.block().await;
    stage.open();
    // The handler has finished, and the caller cannot know it.
    assert_eq!(stage.ended("lost").await, RunEnd::Finished);
    let failed = soon("the call ends", lost).await;
    check_status(failed, Code::DeadlineExceeded, Outcome::Unknown);
    path.restore().await;
    assert!(hold(handle.as_ref(), "after", LONG).await.is_ok());
    assert_eq!((stage.runs("lost"), stage.runs("after")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_stopped_by_the_clock_of_its_own_side_when_the_link_is_dead() {
    // Nothing else ends the link while the test waits.
    let far = Duration::from_secs(600);
    let long_wait = Limits { idle_max: far, heartbeat_lost: far, ..Limits::default() };
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().limits(long_wait.clone()).start().await.expect("a node");
    let path = Relay::to(node.local_addr()).await;
    let agent = world.agent("warehouse", path.address()).limits(long_wait);
    let agent = attached(agent.serve(stage.service())).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let held = spawn(hold(handle.as_ref(), "held", Duration::from_secs(1)).into_future());
    stage.started("held").await;
    path.block().await;
    assert_eq!(stage.ended("held").await, RunEnd::Dropped);
    assert_eq!(agent.nodes().len(), 1, "the link has ended, and the handler with it");
    check_status(soon("the call ends", held).await, Code::DeadlineExceeded, Outcome::Unknown);
}

/// A call that waits behind another until that one's deadline: its handler must not get the whole
/// time again.
async fn check_queued_call(setup: &Setup, callee: Callee) {
    let (queued_for, slack) = (Duration::from_millis(800), Duration::from_millis(400));
    let mut first = poll_in_order([hold(&callee, "first", queued_for)]).await;
    setup.stage.started("first").await;
    let began = tokio::time::Instant::now();
    let second = spawn(hold(&callee, "second", LONG).into_future());
    let failed = soon("the first ends", first.remove(0)).await;
    assert_eq!(failed.map_err(|status| status.code()), Err(Code::DeadlineExceeded));
    let context = setup.stage.started("second").await;
    assert!(context.deadline() <= began + LONG + slack, "the queue's time was not subtracted");
    assert!(
        context.deadline() + slack >= began + LONG,
        "more than the queue's time was subtracted"
    );
    setup.stage.open();
    assert!(soon("the second ends", second).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_call_has_only_the_rest_of_its_time() {
    let setup = Setup::with(every_role(one_at_a_time())).await;
    check_queued_call(&setup, setup.by_node()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_subtracts_the_time_for_which_it_kept_a_remote_call() {
    let node = Limits { caller_calls_in_flight_max: 8, ..one_at_a_time() };
    let setup = Setup::with(SetupLimits { node, ..every_role(one_at_a_time()) }).await;
    check_queued_call(&setup, setup.by_caller()).await;
}

/// It waits 600 of 1,000 ms: its handler sees the remaining time and is stopped when it is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_has_the_time_the_queue_left_and_is_stopped_after_it() {
    let [queued_for, timeout] = [600, 1_000].map(Duration::from_millis);
    // The remote caller's call waits in the node's queue for the agent's permit.
    let node = Limits { caller_calls_in_flight_max: 8, ..one_at_a_time() };
    let setup = Setup::with(SetupLimits { node, ..every_role(one_at_a_time()) }).await;
    for (way, callee) in setup.callees() {
        let [first, second] = ["first", "second"].map(|id| format!("{id}-{way}"));
        let began = tokio::time::Instant::now();
        let mut held = poll_in_order([hold(&setup.by_node(), &first, queued_for)]).await;
        setup.stage.started(&first).await;
        let call = spawn(hold(&callee, &second, timeout).into_future());
        let started_at = tokio::time::Instant::now();
        let failed = soon("the first ends", held.remove(0)).await;
        assert_eq!(failed.map_err(|status| status.code()), Err(Code::DeadlineExceeded));
        // On a very busy machine the queue takes all of its time, and the handler never starts.
        let failed = soon("the second ends", call).await.expect_err("it is not released");
        assert!(started_at.elapsed() >= timeout - queued_for, "it ended before its time");
        assert_eq!(failed.code(), Code::DeadlineExceeded, "{failed}");
        if failed.is_safe_to_retry() {
            assert_eq!(setup.stage.runs(&second), 0);
            continue;
        }
        let context = setup.stage.started(&second).await;
        // Both sides run in one process and so by one clock. The queue time was not granted again;
        // that would be twice this slack.
        let slack = queued_for / 2;
        assert!(
            context.deadline() <= started_at + timeout + slack,
            "the queue's time was not subtracted"
        );
        assert!(context.deadline() >= began + queued_for, "it was started before its turn");
        assert_eq!(setup.stage.ended(&second).await, RunEnd::Dropped);
        soon("the context fires", context.cancelled()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_of_0_is_refused_and_one_below_a_millisecond_expires_at_once() {
    let setup = Setup::open().await;
    for (_, callee) in setup.callees() {
        let zero = callee.call::<String>("Stage/Note", "no").timeout(Duration::ZERO).await;
        check_status(zero, Code::InvalidArgument, Outcome::NotExecuted);
        let tiny =
            callee.call::<String>("Stage/Note", "no").timeout(Duration::from_micros(900)).await;
        check_status(tiny, Code::DeadlineExceeded, Outcome::NotExecuted);
        assert!(callee.call::<String>("Stage/Note", "yes").timeout(LONG).await.is_ok());
    }
    assert_eq!((setup.stage.runs("no"), setup.stage.runs("yes")), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_timeout_is_a_year() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let setup = Setup::open().await;
    for (way, callee) in setup.callees() {
        let call = callee.call::<String>("Stage/Note", way).timeout(Duration::MAX);
        assert_eq!(call.await.as_deref(), Ok(way));
        let left = setup.stage.started(way).await.remaining();
        assert!(left <= 365 * DAY && left > 364 * DAY, "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_timeout_has_the_default_of_its_side() {
    let limits = Limits { timeout_default: SHORT, ..Limits::default() };
    let setup = Setup::with(SetupLimits { caller: limits, ..SetupLimits::default() }).await;
    let failed = setup.by_caller().call::<String>("Stage/Hold", "short").await;
    check_status(failed, Code::DeadlineExceeded, Outcome::Unknown);
    let held = spawn(setup.by_node().call::<String>("Stage/Hold", "long").into_future());
    assert!(setup.stage.started("long").await.remaining() > LONG);
    setup.stage.open();
    assert!(soon("the long call ends", held).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_the_node_caps_a_longer_deadline() {
    let world = World::new();
    let stage = Stage::default();
    let mut rule = AllowRule::parse("ops", "**", "*/*").expect("a rule");
    rule.timeout_max = Some(SHORT);
    let free = AllowRule::parse("boss", "**", "*/*").expect("a rule");
    let policy = NodePolicy::default().allow(rule).allow(free);
    let node = world.node().policy(policy).start().await.expect("a node");
    let at = node.local_addr();
    let _agent = attached(world.agent("warehouse", at).serve(stage.service())).await;
    let [ops, boss] =
        [world.caller("ops", at).connect().await, world.caller("boss", at).connect().await]
            .map(|caller| caller.expect("a caller").agent("warehouse").expect("a name"));
    let failed = hold(&ops, "ops", LONG).await;
    check_status(failed, Code::DeadlineExceeded, Outcome::Unknown);
    assert_eq!(stage.ended("ops").await, RunEnd::Dropped);
    let held = spawn(hold(&boss, "boss", LONG).into_future());
    assert!(stage.started("boss").await.remaining() > SHORT);
    stage.open();
    assert!(soon("the other call ends", held).await.is_ok());
}
