//! Results of a call: values, metadata, context, and every row of the outcome table.

use crate::world::{RunEnd, Setup, SetupLimits, World, attached, check_status, soon, spawn};
use bytes::Bytes;
use dialback::{
    Call, Callee, Code, Context, DynHandler, Limits, Metadata, Name, Outcome, Reply, ReplyFuture,
    Request, Service, Status,
};
use serde_bytes::ByteBuf;
use std::time::Duration;

dialback::contract! {
    /// A contract with no, one and several arguments.
    pub service Shop {
        fn list_all() -> Vec<String>;
        fn greet(name: String) -> String;
        fn put_aside(name: String, count: u32) -> (String, u32);
    }
}

struct Corner;

impl Shop for Corner {
    async fn list_all(&self, _: &Context) -> Result<Vec<String>, Status> {
        Ok(vec!["tea".into()])
    }

    async fn greet(&self, name: String, ctx: &Context) -> Result<String, Status> {
        Ok(format!("{} says hello to {name}", ctx.caller()))
    }

    async fn put_aside(&self, name: String, n: u32, _: &Context) -> Result<(String, u32), Status> {
        Ok((name, n))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_called_by_type_and_by_name_in_both_spellings() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let _agent = attached(world.agent("shop", at).serve(Corner.into_service())).await;
    let handle = node.agent("shop").handle().expect("a name");
    let caller = world.caller("ops", at).connect().await.expect("a caller");
    for (expected_caller, callee) in [
        ("node/edge-1", AsRef::<Callee>::as_ref(&handle).clone()),
        ("caller/ops", caller.agent("shop").expect("a name")),
    ] {
        let shop = ShopCaller::new(&callee);
        assert_eq!(shop.list_all().await, Ok(vec!["tea".into()]));
        assert_eq!(
            shop.greet("you".into()).await,
            Ok(format!("{expected_caller} says hello to you"))
        );
        assert_eq!(shop.put_aside("tea".into(), 2).await, Ok(("tea".into(), 2)));
        for method in ["Shop/PutAside", "Shop.PutAside"] {
            let aside: (String, u32) = callee.call(method, &("tea", 3)).await.expect("an answer");
            assert_eq!(aside, ("tea".into(), 3));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_mebibytes_are_echoed_unchanged() {
    let setup = Setup::open().await;
    let bytes: Vec<u8> =
        (0..3 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (_, callee) in setup.callees() {
        let back: ByteBuf =
            callee.call("Stage/Echo", &ByteBuf::from(bytes.clone())).await.expect("an answer");
        assert!(back == bytes, "another value was returned");
    }
}

/// Returns the received metadata once before and once after the message.
struct Mirror;

impl DynHandler for Mirror {
    fn call_boxed(self: std::sync::Arc<Self>, request: Request) -> ReplyFuture {
        let mut trailing = Metadata::default();
        trailing.insert("said-by", request.requester.peer().to_string());
        Box::pin(async move {
            Ok(Reply { body: request.body, metadata: request.meta.metadata, trailing })
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_keeps_its_order_in_both_directions() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let service = Service::new("Mirror").raw_method("Look", Mirror).method(
        "Fail",
        |(): (), ctx: Context| async move {
            let status = Status::new(Code::Aborted, "no").with_details(&b"why"[..]);
            Err::<(), _>(status.with_metadata(ctx.metadata().clone()))
        },
    );
    let _agent = attached(world.agent("mirror", node.local_addr()).serve(service)).await;
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    let callee = caller.agent("mirror").expect("a name");
    let with_metadata =
        |call: Call<()>| call.metadata("k", "1").metadata("ü", "").metadata("k", "2");

    let reply = with_metadata(callee.call("Mirror/Look", &7)).raw().await.expect("an answer");
    let pairs: Vec<_> = reply.metadata.iter().collect();
    assert_eq!(pairs, [("k", "1"), ("ü", ""), ("k", "2")]);
    assert_eq!(reply.trailing.get("said-by"), Some("caller/ops"));

    let failed = with_metadata(callee.call("Mirror/Fail", &())).await;
    let status = check_status(failed, Code::Aborted, Outcome::AppError);
    assert_eq!((status.message(), &status.details()[..]), ("no", &b"why"[..]));
    assert_eq!(status.metadata().iter().collect::<Vec<_>>(), pairs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_knows_its_caller_deadline_and_call_id() {
    let setup = Setup::open().await;
    for (way, callee) in setup.callees() {
        let ids = [format!("{way}-1"), format!("{way}-2")];
        for id in &ids {
            let call: Call<String> = callee.call("Stage/Note", id);
            let call = call.timeout(Duration::from_secs(20)).traceparent("00-ab-cd-01");
            assert_eq!(call.await.as_ref(), Ok(id));
        }
        let [one, two] = [setup.stage.started(&ids[0]).await, setup.stage.started(&ids[1]).await];
        let expected_caller = if way == "node" { "node/edge-1" } else { "caller/ops" };
        assert_eq!(one.caller().to_string(), expected_caller);
        assert_eq!(one.via().map(Name::as_str), Some("edge-1"), "the node that forwarded it");
        assert!(one.remaining() <= Duration::from_secs(20), "{:?}", one.remaining());
        assert_eq!((one.attempt(), one.traceparent()), (1, Some("00-ab-cd-01")));
        assert_ne!(one.call_id(), two.call_id());
        assert!(!one.is_cancelled(), "a successful call counts as cancelled");
    }
}

// The outcome table, row by row. Limits, deadlines, cancellation, policy, identity and drain have
// their own files.

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_not_attached_is_unavailable_and_nothing_was_executed() {
    let setup = Setup::open().await;
    let absent = setup.node.agent("nobody").handle().expect("a name");
    let remote = setup.caller.agent("nobody").expect("a name");
    for callee in [absent.as_ref(), &remote] {
        let failed = callee.call::<String>("Stage/Note", "a").await;
        check_status(failed, Code::Unavailable, Outcome::NotExecuted);
    }
    assert_eq!(setup.stage.all_runs(), 0);
    assert!(setup.by_caller().call::<String>("Stage/Note", "a").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_with_similar_names_are_never_confused() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let longest = format!("{0}.{0}.{0}.{1}", "x".repeat(63), "y".repeat(8));
    assert_eq!(longest.len(), 200);
    let almost = format!("{}z", &longest[..199]);
    let names = ["a", "a1", "a.b", "b.a", "a-b", "ab", "1", &longest, &almost];
    let mut agents = Vec::new();
    for name in names {
        let own = name.to_owned();
        let named_service = Service::new("Who").method("Are", move |(): (), _: Context| {
            let own = own.clone();
            async move { Ok(own) }
        });
        agents.push(attached(world.agent(name, at).serve(named_service)).await);
    }
    let caller = world.caller("ops", at).connect().await.expect("a caller");
    for name in names {
        let local = node.agent(name).handle().expect("a name");
        let local: &Callee = local.as_ref();
        for callee in [local, &caller.agent(name).expect("a name")] {
            assert_eq!(callee.call::<String>("Who/Are", &()).await.as_deref(), Ok(name));
        }
    }
    for near in ["b", "a2", "a.b.c", "x"] {
        let failed = caller.agent(near).expect("a name").call::<String>("Who/Are", &()).await;
        check_status(failed, Code::Unavailable, Outcome::NotExecuted);
    }
    let too_long = format!("{longest}y");
    for wrong in ["a/b", "..", "A", "\u{e4}", "a\0", "a b", "", &too_long] {
        assert!(caller.agent(wrong).is_err() && node.agent(wrong).handle().is_err(), "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_service_or_method_is_unimplemented_and_nothing_was_executed() {
    let setup = Setup::open().await;
    for (_, callee) in setup.callees() {
        for method in ["Stage/Nothing", "Nothing/Note"] {
            let failed = callee.call::<String>(method, "a").await;
            check_status(failed, Code::Unimplemented, Outcome::NotExecuted);
        }
        assert!(callee.call::<String>("Stage/Note", "b").await.is_ok());
    }
    assert_eq!((setup.stage.runs("a"), setup.stage.runs("b")), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_requests_and_bad_names_are_invalid_and_not_executed() {
    let setup = Setup::open().await;
    for (_, callee) in setup.callees() {
        let calls: [Call<String>; 5] = [
            callee.call("Stage/Note", &7),
            callee.call_encoded("Stage/Note", Bytes::from_static(b"\x61a trailing")),
            callee.call_encoded("Stage/Note", Bytes::new()),
            callee.call("no method", "a"),
            callee.call("Stage/Note", "a").timeout(Duration::ZERO),
        ];
        for call in calls {
            check_status(call.await, Code::InvalidArgument, Outcome::NotExecuted);
        }
    }
    assert_eq!(setup.stage.all_runs(), 0);
    assert!(setup.by_caller().call::<String>("Stage/Note", "a").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_a_handler_returns_travels_with_its_code_as_app_error() {
    let setup = Setup::open().await;
    for (way, callee) in setup.callees() {
        let status = callee.call::<()>("Stage/Fail", way).await;
        let status = check_status(status, Code::NotFound, Outcome::AppError);
        assert_eq!((status.message(), setup.stage.runs(way)), (way, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_a_handler_passes_on_is_its_own_answer() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let absent = node.agent("nobody").handle().expect("a name");
    let service = Service::new("Relay").method("Ask", move |(): (), _: Context| {
        let absent = absent.clone();
        async move { absent.call::<()>("Any/Thing", &()).await }
    });
    let _agent = attached(world.agent("relay", node.local_addr()).serve(service)).await;
    let relay = node.agent("relay").handle().expect("a name");
    // The inner call was not executed. The outer one was, and must not look safe to retry.
    let failed = relay.call::<()>("Relay/Ask", &()).await;
    check_status(failed, Code::Unavailable, Outcome::AppError);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_only_its_own_call_with_internal_unknown() {
    let setup = Setup::open().await;
    for (way, callee) in setup.callees() {
        let held = format!("held-{way}");
        let other_call = spawn(callee.call::<String>("Stage/Hold", &held).into_future());
        setup.stage.started(&held).await;
        let failed = callee.call::<()>("Stage/Panic", way).await;
        check_status(failed, Code::Internal, Outcome::Unknown);
        assert_eq!(setup.stage.ended(way).await, RunEnd::Dropped);
        assert!(callee.call::<String>("Stage/Note", "after").await.is_ok());
        setup.stage.open();
        assert_eq!(soon("the other call ends", other_call).await, Ok(held));
        setup.stage.close();
        assert_eq!(setup.stage.runs(way), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_panic_return_their_permits() {
    let few = Limits { calls_in_flight_max: 2, ..Limits::default() };
    let setup = Setup::with(SetupLimits { agent: few, ..SetupLimits::default() }).await;
    for round in 0..50 {
        let failed = setup.by_node().call::<()>("Stage/Panic", &format!("{round}")).await;
        check_status(failed, Code::Internal, Outcome::Unknown);
    }
    assert!(setup.by_node().call::<String>("Stage/Note", "after").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_does_not_decode_is_internal_unknown() {
    let setup = Setup::open().await;
    let failed = setup.by_caller().call::<u64>("Stage/Note", "a").await;
    check_status(failed, Code::Internal, Outcome::Unknown);
    assert_eq!(setup.stage.runs("a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_with_the_code_ok_is_never_a_success() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let service = Service::new("Odd").method("Fail", |(): (), _: Context| async {
        Err::<(), _>(Status::new(Code::Ok, "an error that says OK"))
    });
    let _agent = attached(world.agent("odd", node.local_addr()).serve(service)).await;
    let unusual = node.agent("odd").handle().expect("a name");
    let status = unusual.call::<()>("Odd/Fail", &()).await.expect_err("an error");
    assert!(!status.is_safe_to_retry() && status.code() != Code::Ok, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_never_polled_is_never_made() {
    let setup = Setup::open().await;
    drop(setup.by_caller().call::<String>("Stage/Note", "never"));
    drop(setup.by_caller().call::<String>("Stage/Note", "never").into_future());
    assert!(setup.by_caller().call::<String>("Stage/Note", "made").await.is_ok());
    assert_eq!((setup.stage.runs("never"), setup.stage.runs("made")), (0, 1));
}
