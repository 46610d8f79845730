//! Cancellation: when a caller stops waiting, the handler's future is dropped, its context fires,
//! and its permit is returned.

use crate::world::{
    IsolatedRuntime, PathConditions, Relay, RunEnd, Setup, SetupLimits, Stage, World, attached,
    check_status, poll_in_order, quick_detection, soon, spawn, until,
};
use dialback::{Callee, Code, Context, Limits, Outcome, Service};
use std::{
    future::IntoFuture,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

/// The handler of `id` is dropped, its context fires, and it is no longer counted.
async fn check_stopped(setup: &Setup, id: &str) {
    let context = setup.stage.started(id).await;
    assert_eq!(setup.stage.ended(id).await, RunEnd::Dropped);
    soon("the context fires", context.cancelled()).await;
    assert!(context.is_cancelled());
    until("the node counts no call", || setup.in_flight() == 0).await;
    assert_eq!(setup.stage.runs(id), 1);
}

/// With one permit, a call succeeds only after the cancelled one has returned it.
fn one_permit() -> SetupLimits {
    let one = Limits { calls_in_flight_max: 1, caller_calls_in_flight_max: 1, ..Limits::default() };
    SetupLimits { node: one.clone(), agent: one, caller: Limits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_calls_future_stops_its_handler_and_returns_the_permit() {
    let setup = Setup::with(one_permit()).await;
    for (way, callee) in setup.callees() {
        let call = spawn(callee.call::<String>("Stage/Hold", way).into_future());
        setup.stage.started(way).await;
        assert_eq!(setup.in_flight(), 1);
        call.cancel().await;
        check_stopped(&setup, way).await;
        assert!(callee.call::<String>("Stage/Note", "after").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_long_path_a_handler_is_cancelled_by_the_reset_not_by_a_heartbeat() {
    let delay = Duration::from_millis(100);
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let path = Relay::with_conditions(
        node.local_addr(),
        PathConditions { delay, ..PathConditions::default() },
    )
    .await;
    let agent = attached(world.agent("warehouse", path.address()).serve(stage.service())).await;
    let caller = world.caller("ops", path.address()).connect().await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let call = spawn(callee.call::<String>("Stage/Hold", "a").into_future());
    let context = stage.started("a").await;
    let dropped = Instant::now();
    call.cancel().await;
    soon("the context fires", context.cancelled()).await;
    let took = dropped.elapsed();
    // One-way delay per hop; the next heartbeat is up to 5 s away, the deadline 30 s.
    assert!(took >= 2 * delay && took < 2 * delay + Duration::from_secs(4), "it took {took:?}");
    assert_eq!((stage.ended("a").await, agent.nodes().len()), (RunEnd::Dropped, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_stops_the_handler_and_returns_the_permit() {
    let setup = Setup::with(one_permit()).await;
    for (way, callee) in setup.callees() {
        let call = callee.call::<String>("Stage/Hold", way).timeout(Duration::from_millis(200));
        check_status(call.await, Code::DeadlineExceeded, Outcome::Unknown);
        check_stopped(&setup, way).await;
        assert!(callee.call::<String>("Stage/Note", "after").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successful_call_does_not_cancel_its_context() {
    let setup = Setup::open().await;
    setup.stage.open();
    for (way, callee) in setup.callees() {
        assert!(callee.call::<String>("Stage/Hold", way).await.is_ok());
        assert_eq!(setup.stage.ended(way).await, RunEnd::Finished);
        assert!(!setup.stage.started(way).await.is_cancelled());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_caller_stops_its_calls() {
    let setup = Setup::open().await;
    let other = setup.world.caller("other", setup.node.local_addr()).connect().await;
    let other = other.expect("a caller");
    let callee = other.agent("warehouse").expect("a name");
    let call = spawn(callee.call::<String>("Stage/Hold", "gone").into_future());
    let stays = spawn(setup.by_caller().call::<String>("Stage/Hold", "stays").into_future());
    setup.stage.started("gone").await;
    setup.stage.started("stays").await;
    other.close().await;
    let failed = soon("the call ends", call).await;
    check_status(failed, Code::Unavailable, Outcome::Unknown);
    assert_eq!(setup.stage.ended("gone").await, RunEnd::Dropped);
    setup.stage.open();
    assert!(soon("the other's call ends", stays).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_process_is_gone_has_its_calls_stopped() {
    let limits = quick_detection();
    let setup = Setup::with(SetupLimits { node: limits.clone(), ..SetupLimits::default() }).await;
    let caller = setup.world.caller("doomed", setup.node.local_addr()).limits(limits);
    let process = IsolatedRuntime::start(async { caller.connect().await.expect("a caller") }).await;
    let callee = process.peer().agent("warehouse").expect("a name");
    let call = callee.call::<String>("Stage/Hold", "gone").into_future();
    process.spawn(async { drop(call.await) });
    setup.stage.started("gone").await;
    // The callee keeps the caller's link alive; no other handle may remain outside the process.
    drop(callee);
    process.kill().await;
    check_stopped(&setup, "gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_dropped_before_its_end_frame_was_sent_never_runs() {
    let setup = Setup::with(one_permit()).await;
    let callee = setup.by_caller();
    let held = spawn(callee.call::<String>("Stage/Hold", "held").into_future());
    setup.stage.started("held").await;
    let [dropped, kept] = ["d", "k"].map(|letter| letter.repeat(3 << 20));
    let both =
        poll_in_order([&dropped, &kept].map(|id| callee.call::<String>("Stage/Note", id))).await;
    let mut both = both.into_iter();
    drop(both.next());
    setup.stage.open();
    let last = soon("the other call ends", both.next().expect("two calls")).await;
    assert!(last.is_ok() && soon("the held call ends", held).await.is_ok());
    assert_eq!((setup.stage.runs(&dropped), setup.stage.runs(&kept)), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_permit_is_held_until_a_cancelled_handler_has_ended() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    // The handler blocks its thread, so that it cannot be dropped before it continues.
    let (go_on, wait) = mpsc::channel::<()>();
    let (wait, stage) = (Arc::new(Mutex::new(wait)), Stage::default());
    let blocking = Service::new("Stubborn").method("Block", move |(): (), _: Context| {
        let wait = wait.clone();
        async move {
            let wait = wait.lock().expect("one at a time");
            tokio::task::block_in_place(|| wait.recv()).expect("the test signals the end");
            Ok(())
        }
    });
    let limits = Limits {
        calls_in_flight_max: 1,
        queue_wait_max: Duration::from_millis(100),
        ..Limits::default()
    };
    let agent = world.agent("warehouse", node.local_addr()).limits(limits);
    let _agent = attached(agent.serve(blocking).serve(stage.service())).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let callee: &Callee = handle.as_ref();
    let blocked = callee.call::<()>("Stubborn/Block", &()).timeout(Duration::from_millis(200));
    check_status(blocked.await, Code::DeadlineExceeded, Outcome::Unknown);
    let early = callee.call::<String>("Stage/Note", "early").await;
    check_status(early, Code::ResourceExhausted, Outcome::NotExecuted);
    go_on.send(()).expect("the handler waits");
    soon("the permit is returned", async {
        while callee.call::<String>("Stage/Note", "late").await.is_err() {}
    })
    .await;
    assert_eq!((stage.runs("early"), stage.runs("late")), (0, 1));
}
