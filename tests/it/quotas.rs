//! Rules with quotas: the calls each caller may begin in a period, and the calls it may have in
//! flight.

use crate::world::{
    Stage, World, attached, check_status, logged, poll_in_order, soon, spawn, until,
};
use dialback::{
    Agent, Callee, Caller, Code, Context, Node, NodePolicy, Outbound, Outcome, Status,
    policy::{AllowRule, HostRule, Origin, Rate},
};
use std::future::IntoFuture;

dialback::contract! {
    /// A stream that continues as long as it is read.
    service Endless {
        fn watch() -> stream u32;
    }
}

struct Host;

impl Endless for Host {
    async fn watch(&self, mut replies: Outbound<u32>, _ctx: &Context) -> Result<(), Status> {
        for tick in 0.. {
            replies.send(&tick).await?;
        }
        Ok(())
    }
}

/// A rule for every caller on every agent and on the node, with its quota.
fn rules(rate: Option<&str>, in_flight: Option<u32>) -> NodePolicy {
    let bounded = |agent| {
        let mut rule = AllowRule::parse("**", agent, "*/*").expect("a rule");
        rule.rate = rate.map(|rate| rate.parse::<Rate>().expect("a rate"));
        rule.in_flight = in_flight;
        rule.origin = Origin::at("node.toml", 7);
        rule
    };
    let host = HostRule::parse("**", "**").expect("a rule");
    NodePolicy::default().allow(bounded("**")).allow(bounded("node/**")).host(host)
}

/// A node with these rules and a stage, and the agent `warehouse` on the same stage.
struct QuotaSetup {
    world: World,
    node: Node,
    _agent: Agent,
    stage: Stage,
}

impl QuotaSetup {
    async fn with(policy: NodePolicy) -> Self {
        let (world, stage) = (World::new(), Stage::default());
        let node = world.node().policy(policy).serve(stage.service()).start().await;
        let node = node.expect("a node");
        let agent = world.agent("warehouse", node.local_addr()).serve(stage.service());
        let agent = attached(agent.serve(Host.into_service())).await;
        Self { world, node, _agent: agent, stage }
    }

    async fn caller(&self, name: &str) -> Caller {
        self.world.caller(name, self.node.local_addr()).connect().await.expect("a caller")
    }
}

fn warehouse(caller: &Caller) -> Callee {
    caller.agent("warehouse").expect("a name")
}

async fn note(callee: &Callee, id: &str) -> Result<String, Status> {
    callee.call("Stage/Note", id).await
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(result: Result<T, Status>, limit: &str) -> Status {
    let status = check_status(result, Code::ResourceExhausted, Outcome::NotExecuted);
    assert!(status.message().contains(limit), "{status}");
    status
}

const RATE: &str = "the rule's limit of 3/h calls (rate) is used up; the next one passes in ";
const IN_FLIGHT: &str = "the rule's limit of 2 calls in flight (in_flight) is reached";

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_may_begin_exactly_as_many_calls_as_its_rate() {
    let setup = QuotaSetup::with(rules(Some("3/h"), None)).await;
    let [ops, billing] = [setup.caller("ops").await, setup.caller("billing").await];
    for n in 0..3 {
        assert!(note(&warehouse(&ops), &format!("{n}")).await.is_ok(), "call {n}");
    }
    check_refused(note(&warehouse(&ops), "one more").await, RATE);
    // Another link is not another caller.
    check_refused(note(&warehouse(&setup.caller("ops").await), "again").await, RATE);
    assert!(note(&warehouse(&billing), "of another").await.is_ok());
    // Another rule counts separately, and the program's own calls count under none.
    assert!(note(&ops.node(), "on the node").await.is_ok());
    let own = setup.node.agent("warehouse").handle().expect("a name");
    for n in 0..9 {
        assert!(note(own.as_ref(), &format!("own {n}")).await.is_ok());
    }
    assert_eq!((setup.stage.runs("one more"), setup.stage.runs("again")), (0, 0));
    logged(&[
        "refused call by caller/ops: Stage/Note on agent/warehouse: ",
        RATE,
        "; allowed by",
        "node.toml:7",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_the_node_and_calls_by_service_count_too() {
    let setup = QuotaSetup::with(rules(Some("3/h"), None)).await;
    let ops = setup.caller("ops").await;
    for callee in [ops.node(), ops.any()] {
        for n in 0..3 {
            assert!(note(&callee, &format!("{n}")).await.is_ok(), "call {n}");
        }
        check_refused(note(&callee, "one more").await, RATE);
    }
    // A call by service counts under the first rule that allows it on some agent, here the
    // warehouse's.
    check_refused(note(&warehouse(&ops), "one more").await, RATE);
    assert_eq!(setup.stage.runs("one more"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_in_flight_is_held_until_the_handler_has_ended() {
    let setup = QuotaSetup::with(rules(None, Some(2))).await;
    let [ops, billing] = [setup.caller("ops").await, setup.caller("billing").await];
    for (callee, other) in [(warehouse(&ops), warehouse(&billing)), (ops.node(), billing.node())] {
        let held =
            poll_in_order(["a", "b"].map(|id| callee.call::<String>("Stage/Hold", id))).await;
        let held: Vec<_> = held.into_iter().map(spawn).collect();
        setup.stage.busy(2).await;
        check_refused(note(&callee, "one more").await, IN_FLIGHT);
        assert!(note(&other, "of another").await.is_ok());
        setup.stage.open();
        for call in held {
            assert!(soon("a call ends", call).await.is_ok());
        }
        assert!(note(&callee, "after").await.is_ok());
        setup.stage.close();
    }
    assert_eq!(setup.stage.runs("one more"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_its_caller_drops_returns_its_permit() {
    let setup = QuotaSetup::with(rules(None, Some(2))).await;
    let ops = warehouse(&setup.caller("ops").await);
    let given_up = spawn(ops.call::<String>("Stage/Hold", "given up").into_future());
    let kept = spawn(ops.call::<String>("Stage/Hold", "kept").into_future());
    setup.stage.busy(2).await;
    check_refused(note(&ops, "early").await, IN_FLIGHT);
    given_up.cancel().await;
    setup.stage.ended("given up").await;
    soon("a permit is free again", async {
        // The node learns of it shortly before or after the agent.
        while note(&ops, "late").await.is_err() {}
    })
    .await;
    setup.stage.open();
    assert!(soon("the call ends", kept).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_holds_its_permit_until_it_has_ended() {
    let setup = QuotaSetup::with(rules(None, Some(2))).await;
    let caller = setup.caller("ops").await;
    let ops = warehouse(&caller);
    let watch = || async { EndlessCaller::new(&ops).watch().await };
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = watch().await.expect("a stream");
        assert_eq!(stream.next().await.expect("a tick").ok(), Some(0));
        streams.push(stream);
    }
    check_refused(note(&ops, "one more").await, IN_FLIGHT);
    check_refused(watch().await.map(drop), IN_FLIGHT);
    streams.pop();
    soon("a permit is free again", async { while note(&ops, "after").await.is_err() {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_limit_is_the_same_whether_or_not_the_agent_exists() {
    for policy in [rules(Some("3/h"), None), rules(None, Some(2))] {
        let setup = QuotaSetup::with(policy).await;
        let ops = setup.caller("ops").await;
        let held: Vec<_> = (0..3)
            .map(|n| warehouse(&ops).call::<String>("Stage/Hold", &format!("{n}")))
            .map(|call| spawn(call.into_future()))
            .collect();
        // Either limit: three are begun, or two are and the third is refused.
        let (begun, refused) =
            (|| setup.stage.all_runs(), || held.iter().filter(|call| call.is_finished()).count());
        until("all three have been decided", || begun() + refused() == 3).await;
        let mut messages = Vec::new();
        for name in ["warehouse", "absent"] {
            let status = check_status(
                note(&ops.agent(name).expect("a name"), "one more").await,
                Code::ResourceExhausted,
                Outcome::NotExecuted,
            );
            // The remaining time keeps running.
            messages.push(status.message().split(" passes in ").next().map(str::to_owned));
        }
        assert_eq!(messages[0], messages[1]);
    }
}
