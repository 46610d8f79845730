//! Every limit: a value at the limit passes, one above it is refused with an error that names the
//! limit.

use crate::world::{Setup, SetupLimits, World, attached, check_status, poll_in_order, soon, spawn};
use bytes::Bytes;
use dialback::{
    Body, Call, Caller, Code, ConnectError, Context, DynHandler, Limits, Metadata, NodeEvent,
    Outcome, Reply, ReplyFuture, Request, Service,
};
use std::{future::IntoFuture, time::Duration};

/// No queue, so that one call too many is refused at once.
fn three_and_no_queue() -> Limits {
    Limits {
        calls_in_flight_max: 3,
        caller_calls_in_flight_max: 3,
        queue_max: 0,
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_call_in_flight_is_accepted_and_one_more_is_refused() {
    let limits = three_and_no_queue();
    for way in [0, 1] {
        // For the caller its own link is the bottleneck, for the node the agent's link.
        let wide = Limits { calls_in_flight_max: 256, ..limits.clone() };
        let node = if way == 0 { limits.clone() } else { wide };
        let setup = Setup::with(SetupLimits { node, ..SetupLimits::default() }).await;
        let (_, callee) = setup.callees().into_iter().nth(way).expect("two ways");
        let held = poll_in_order(["a", "b", "c"].map(|id| callee.call::<String>("Stage/Hold", id)));
        let held = held.await.into_iter().map(spawn).collect::<Vec<_>>();
        setup.stage.busy(3).await;
        let refused = callee.call::<String>("Stage/Hold", "d").await;
        let refused = check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
        assert!(refused.message().contains("limit of 3 calls in flight"), "{refused}");
        setup.stage.open();
        for call in held {
            assert!(soon("a call ends", call).await.is_ok());
        }
        assert!(callee.call::<String>("Stage/Hold", "e").await.is_ok());
        assert_eq!((setup.stage.runs("d"), setup.stage.all_runs()), (0, 4));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_own_limit_applies_to_calls_from_its_node() {
    let setup = Setup::with(SetupLimits {
        agent: Limits { calls_in_flight_max: 2, ..Limits::default() },
        node: Limits { queue_max: 0, ..Limits::default() },
        ..SetupLimits::default()
    })
    .await;
    let callee = setup.by_node();
    let held = poll_in_order(["a", "b"].map(|id| callee.call::<String>("Stage/Hold", id))).await;
    setup.stage.busy(2).await;
    let refused = callee.call::<String>("Stage/Hold", "c").await;
    check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
    setup.stage.open();
    for call in held {
        assert!(soon("a call ends", call).await.is_ok());
    }
    assert_eq!(setup.stage.all_runs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_fills_to_its_limit_refuses_one_more_and_keeps_its_order() {
    let one = Limits {
        calls_in_flight_max: 1,
        queue_max: 2,
        queue_wait_max: Duration::from_secs(20),
        ..Limits::default()
    };
    let setup = Setup::with(SetupLimits { node: one, ..SetupLimits::default() }).await;
    let callee = setup.by_node();
    let mut calls = poll_in_order(["1"].map(|id| callee.call::<String>("Stage/Hold", id))).await;
    setup.stage.started("1").await;
    calls.extend(poll_in_order(["2", "3"].map(|id| callee.call::<String>("Stage/Hold", id))).await);
    let refused = callee.call::<String>("Stage/Hold", "4").await;
    let refused = check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
    assert!(refused.message().contains("queue of 2 is full"), "{refused}");
    setup.stage.open();
    // Awaited from last to first: the run order comes from the queue.
    for call in calls.into_iter().map(spawn).rev().collect::<Vec<_>>() {
        assert!(soon("a call ends", call).await.is_ok());
    }
    assert_eq!(setup.stage.order(), ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_gets_no_permit_in_time_is_refused() {
    let impatient = Limits {
        calls_in_flight_max: 1,
        queue_wait_max: Duration::from_millis(100),
        ..Limits::default()
    };
    let setup = Setup::with(SetupLimits { node: impatient, ..SetupLimits::default() }).await;
    for (way, callee) in setup.callees() {
        let held = spawn(callee.call::<String>("Stage/Hold", way).into_future());
        setup.stage.started(way).await;
        let refused = callee.call::<String>("Stage/Hold", "late").await;
        check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
        setup.stage.open();
        assert!(soon("the call ends", held).await.is_ok());
        setup.stage.close();
    }
    assert_eq!(setup.stage.runs("late"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_gets_no_stream_in_time_is_refused() {
    let narrow = Limits {
        caller_calls_in_flight_max: 1,
        queue_wait_max: Duration::from_secs(20),
        ..Limits::default()
    };
    let impatient = Limits { queue_wait_max: Duration::from_millis(100), ..Limits::default() };
    let setup =
        Setup::with(SetupLimits { node: narrow, caller: impatient, ..SetupLimits::default() })
            .await;
    let callee = setup.by_caller();
    // One in flight, as many in the node's queue as it has streams for, and the rest waiting for a
    // stream.
    let ids: Vec<String> = (0..60).map(|n| format!("{n}")).collect();
    let waiting = poll_in_order(ids.iter().map(|id| callee.call::<String>("Stage/Hold", id))).await;
    let refused = callee.call::<String>("Stage/Hold", "late").await;
    let refused = check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
    assert!(refused.message().contains("granted no stream"), "{refused}");
    setup.stage.open();
    let mut answered = 0;
    for call in waiting {
        match soon("a call that waited ends", call).await {
            Ok(_) => answered += 1,
            refused => drop(check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted)),
        }
    }
    assert!(answered >= 32, "only {answered} had a stream");
    assert_eq!((setup.stage.runs("late"), setup.stage.all_runs()), (0, answered));
}

/// Replies with the number of bytes, or with the metadata, that the request names.
struct Sized;

impl DynHandler for Sized {
    fn call_boxed(self: std::sync::Arc<Self>, request: Request) -> ReplyFuture {
        Box::pin(async move {
            let bytes = request.meta.metadata.get("reply-bytes").and_then(|text| text.parse().ok());
            let pairs = request.meta.metadata.get("reply-pairs").and_then(|text| text.parse().ok());
            let metadata = |count| (0..count).map(|n: usize| (format!("{n}"), String::new()));
            let bytes = bytes.unwrap_or(request.message()?.len());
            Ok(Reply {
                body: Body::Message(Bytes::from(vec![0; bytes])),
                metadata: metadata(pairs.unwrap_or(0)).collect(),
                trailing: Metadata::default(),
            })
        })
    }
}

/// A setup with the service `Sized`.
struct Sizes {
    _scene: (World, dialback::Node, dialback::Agent, Caller),
    ways: [dialback::Callee; 2],
}

async fn sizes(bounds: SetupLimits) -> Sizes {
    let world = World::new();
    let node = world.node().limits(bounds.node).start().await.expect("a node");
    let at = node.local_addr();
    let service = Service::new("Sized").raw_method("Give", Sized);
    let agent = attached(world.agent("sized", at).limits(bounds.agent).serve(service)).await;
    let caller = world.caller("ops", at).limits(bounds.caller).connect().await.expect("a caller");
    let handle = node.agent("sized").handle().expect("a name");
    let local: &dialback::Callee = handle.as_ref();
    let ways = [local.clone(), caller.agent("sized").expect("a name")];
    Sizes { _scene: (world, node, agent, caller), ways }
}

fn send(callee: &dialback::Callee, bytes: usize) -> Call<()> {
    callee.call_encoded("Sized/Give", Bytes::from(vec![0; bytes]))
}

const SMALL: usize = 70_000;

fn small() -> Limits {
    Limits { message_bytes_max: SMALL, ..Limits::default() }
}

/// For each side with the small limit: a request at the limit passes; one byte more is refused
/// before anything runs.
async fn check_request_limit(bounds: SetupLimits) {
    let sizes = sizes(bounds).await;
    for callee in &sizes.ways {
        let reply = send(callee, SMALL).metadata("reply-bytes", "1").raw().await;
        assert_eq!(reply.and_then(|reply| Ok(reply.message()?.len())), Ok(1));
        let refused = send(callee, SMALL + 1).metadata("reply-bytes", "1").raw().await;
        check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_at_the_nodes_limit_passes_and_one_byte_more_does_not() {
    check_request_limit(SetupLimits { node: small(), ..SetupLimits::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_at_the_agents_limit_passes_and_one_byte_more_does_not() {
    check_request_limit(SetupLimits { agent: small(), ..SetupLimits::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_at_the_callers_limit_passes_and_one_byte_more_does_not() {
    let sizes = sizes(SetupLimits { caller: small(), ..SetupLimits::default() }).await;
    let [node, caller] = &sizes.ways;
    let call = |callee, bytes| send(callee, bytes).metadata("reply-bytes", "1").raw();
    assert!(call(caller, SMALL).await.is_ok() && call(node, SMALL + 1).await.is_ok());
    let refused = call(caller, SMALL + 1).await;
    check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
}

/// For each side with the small limit: a reply at the limit arrives; with one byte more the outcome
/// is unknown.
async fn check_reply_limit(bounds: SetupLimits) {
    let sizes = sizes(bounds).await;
    for callee in &sizes.ways {
        let ask = |bytes: usize| send(callee, 1).metadata("reply-bytes", bytes.to_string()).raw();
        assert_eq!(ask(SMALL).await.and_then(|reply| Ok(reply.message()?.len())), Ok(SMALL));
        check_status(ask(SMALL + 1).await, Code::Internal, Outcome::Unknown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_at_the_agents_limit_arrives_and_one_byte_more_does_not() {
    check_reply_limit(SetupLimits { agent: small(), ..SetupLimits::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_at_the_nodes_limit_arrives_and_one_byte_more_does_not() {
    check_reply_limit(SetupLimits { node: small(), ..SetupLimits::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_pairs_of_metadata_pass_and_sixty_five_do_not() {
    let sizes = sizes(SetupLimits::default()).await;
    for callee in &sizes.ways {
        let with = |pairs: usize| {
            (0..pairs).fold(send(callee, 1), |call, n| call.metadata(format!("{n}"), ""))
        };
        assert!(with(64).raw().await.is_ok());
        check_status(with(65).raw().await, Code::ResourceExhausted, Outcome::NotExecuted);
        let back = |pairs: usize| send(callee, 1).metadata("reply-pairs", pairs.to_string()).raw();
        assert_eq!(back(64).await.map(|reply| reply.metadata.len()), Ok(64));
        check_status(back(65).await, Code::Internal, Outcome::Unknown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_kibibytes_of_metadata_pass_and_one_byte_more_does_not() {
    let sizes = sizes(SetupLimits::default()).await;
    for callee in &sizes.ways {
        let with = |bytes: usize| send(callee, 1).metadata("key", "v".repeat(bytes - 3)).raw();
        assert!(with(8 * 1024).await.is_ok());
        check_status(with(8 * 1024 + 1).await, Code::ResourceExhausted, Outcome::NotExecuted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_link_of_a_caller_is_accepted_and_one_more_is_refused_until_one_closes() {
    let world = World::new();
    let two = Limits { caller_links_max: 2, ..Limits::default() };
    let node = world.node().limits(two).start().await.expect("a node");
    let at = node.local_addr();
    let [first, second] =
        [world.caller("ops", at).connect().await, world.caller("ops", at).connect().await];
    assert!(second.is_ok());
    let refused = world.caller("ops", at).connect().await.expect_err("a third link");
    assert!(matches!(refused, ConnectError::Link(_)), "{refused}");
    assert!(refused.to_string().contains("caller_links_max"), "{refused}");
    check_status::<()>(Err(refused.to_status()), Code::ResourceExhausted, Outcome::NotExecuted);
    assert!(world.caller("other", at).connect().await.is_ok());
    first.expect("a link").close().await;
    soon("a permit is free", async { while world.caller("ops", at).connect().await.is_err() {} })
        .await;
}

/// The caller `ops` presents another certificate and makes another link.
async fn renew_caller(setup: &Setup) {
    let mut events = setup.node.events();
    setup.caller.apply(setup.world.credentials("caller/ops")).await.expect("applied");
    soon("the caller makes a new link", async {
        while !matches!(events.next().await, Some(NodeEvent::CallerLinked { .. })) {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_at_its_link_limit_renews_and_its_old_link_ends_after_its_calls() {
    let one = Limits { caller_links_max: 1, ..Limits::default() };
    let setup = Setup::with(SetupLimits { node: one, ..SetupLimits::default() }).await;
    let held = spawn(setup.by_caller().call::<String>("Stage/Hold", "held").into_future());
    setup.stage.started("held").await;
    let mut events = setup.node.events();
    renew_caller(&setup).await;
    let note = setup.by_caller().call::<String>("Stage/Note", "after").await;
    assert_eq!(note.as_deref(), Ok("after"));
    // No other link has a permit.
    let other = setup.world.caller("ops", setup.node.local_addr()).connect().await;
    assert!(other.expect_err("another process").to_string().contains("caller_links_max"));
    setup.stage.open();
    assert_eq!(soon("the held call ends", held).await.as_deref(), Ok("held"));
    soon("the old link ends", async {
        while !matches!(events.next().await, Some(NodeEvent::CallerLeft { .. })) {}
    })
    .await;
    let note = setup.by_caller().call::<String>("Stage/Note", "last").await;
    assert_eq!(note.as_deref(), Ok("last"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_link_of_a_caller_whose_limit_is_one_replaces_the_first() {
    let one = Limits { caller_links_max: 1, ..Limits::default() };
    let setup = Setup::with(SetupLimits { node: one, ..SetupLimits::default() }).await;
    let mut held = Vec::new();
    for id in ["first", "second"] {
        held.push(spawn(setup.by_caller().call::<String>("Stage/Hold", id).into_future()));
        setup.stage.started(id).await;
        renew_caller(&setup).await;
    }
    let [first, second] = <[_; 2]>::try_from(held).ok().expect("two calls");
    check_status(soon("it is aborted", first).await, Code::Unavailable, Outcome::Unknown);
    setup.stage.open();
    // The node knows of the second link before the caller does, so this call may have used the
    // first one.
    match soon("the second call ends", second).await {
        Ok(second) => assert_eq!(second, "second"),
        failed => drop(check_status(failed, Code::Unavailable, Outcome::Unknown)),
    }
    let note = setup.by_caller().call::<String>("Stage/Note", "last").await;
    assert_eq!(note.as_deref(), Ok("last"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_concurrent_calls_on_one_link_are_each_answered_once() {
    let wide = Limits {
        calls_in_flight_max: 1_000,
        caller_calls_in_flight_max: 1_000,
        ..Limits::default()
    };
    let world = World::new();
    let node = world.node().limits(wide.clone()).start().await.expect("a node");
    let stage = crate::world::Stage::default();
    let sleeper = Service::new("Nap").method("Take", |ms: u64, _: Context| async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(ms)
    });
    let agent = world.agent("warehouse", node.local_addr()).limits(wide);
    let _agent = attached(agent.serve(sleeper).serve(stage.service())).await;
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let sleeping = (0..1_000).map(|_| callee.call::<u64>("Nap/Take", &300).into_future());
    for call in sleeping.map(spawn).collect::<Vec<_>>() {
        assert_eq!(soon("a sleeping call ends", call).await, Ok(300));
    }
    // Truly concurrent: no handler returns before all have started.
    let ids: Vec<String> = (0..1_000).map(|n| format!("{n}")).collect();
    let calls = ids.iter().map(|id| callee.call::<String>("Stage/Hold", id).into_future());
    let calls: Vec<_> = calls.map(spawn).collect();
    stage.busy(1_000).await;
    stage.open();
    for (id, call) in ids.iter().zip(calls) {
        assert_eq!(soon("a call ends", call).await.as_ref(), Ok(id));
        assert_eq!(stage.runs(id), 1);
    }
}
