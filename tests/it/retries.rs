//! Retries: how often, on which link, and the outcome afterwards.

use crate::{
    admin::{of_node, value},
    world::{Stage, World, attached, check_status, soon, spawn, until},
};
use dialback::{
    Agent, Code, ConfigUpdate, Context, Handler, Node, NodePolicy, Outcome, Reply, Request,
    Service, Status,
    policy::{AllowRule, HostRule},
};
use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Barrier;

/// Lets `ops` call every agent of the shop, whose calls are idempotent.
fn policy() -> NodePolicy {
    let mut allow = AllowRule::parse("ops", "shop.*", "*/*").expect("a rule");
    allow.idempotent = true;
    NodePolicy::default().allow(allow).host(HostRule::parse("shop.*", "Who").expect("a rule"))
}

/// Fails the first attempts of each call with these errors and returns the message of later ones.
struct Failing {
    faults: Vec<Status>,
    runs: Arc<AtomicUsize>,
}

impl Handler for Failing {
    async fn call(&self, request: Request) -> Result<Reply, Status> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        match self.faults.get(request.meta.attempt as usize - 1) {
            Some(fault) => Err(fault.clone()),
            None => Ok(Reply::new(request.message()?.clone())),
        }
    }
}

/// An agent of the shop whose `Who/Are` is [`Failing`], and the count of its runs.
async fn failing(
    world: &World,
    node: &Node,
    name: &str,
    faults: &[Status],
) -> (Agent, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let handler = Failing { faults: faults.to_vec(), runs: runs.clone() };
    let service = Service::new("Who").raw_method("Are", handler);
    (attached(world.agent(name, node.local_addr()).serve(service)).await, runs)
}

fn refused(code: Code) -> Status {
    Status::not_executed(code, "refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_may_have_run_stays_unknown_when_a_later_attempt_is_not_executed() {
    let lost = || Status::unknown(Code::Unavailable, "lost");
    for faults in [
        vec![lost(), refused(Code::InvalidArgument)],
        vec![lost(), refused(Code::Unavailable), refused(Code::Unavailable)],
    ] {
        let world = World::new();
        let node = world.node().policy(policy()).start().await.expect("a node");
        let (_agent, runs) = failing(&world, &node, "shop.a", &faults).await;
        let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
        let last = faults.last().expect("a fault").code();
        let failed = caller.any().call::<()>("Who/Are", &()).await;
        let failed = check_status(failed, last, Outcome::Unknown);
        assert_eq!(failed.message(), "refused", "the last attempt has the reason");
        assert_eq!(runs.load(Ordering::SeqCst), faults.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_always_fail_are_retried_ten_times_and_then_once_per_ten_calls() {
    let world = World::new();
    let node = world.node().policy(policy()).start().await.expect("a node");
    let always = [const { Code::Unavailable }; 3].map(refused);
    let (_agent, runs) = failing(&world, &node, "shop.a", &always).await;
    let call = async |calls: usize| {
        for _ in 0..calls {
            let failed = node.any().call::<()>("Who/Are", &()).await;
            check_status(failed, Code::Unavailable, Outcome::NotExecuted);
        }
        runs.swap(0, Ordering::SeqCst)
    };
    // Each uses two retries of the initial budget, and the first earns none: the budget is full.
    assert_eq!(call(5).await, 5 + 10);
    // Four calls have earned part of one by now.
    assert_eq!(call(5).await, 5);
    assert_eq!(call(20).await, 20 + 2);
    assert_eq!(value(of_node(&node).await, "dialback_calls_retried_total").await, 12.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_agent_is_preferred_to_one_that_has_just_failed_the_call() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().policy(policy()).start().await.expect("a node");
    let faults = [refused(Code::Unavailable)];
    let (_idle, runs) = failing(&world, &node, "shop.idle", &faults).await;
    let failing_service = Service::new("Who").method("Are", |(): (), ctx: Context| async move {
        Ok(format!("busy, attempt {}", ctx.attempt()))
    });
    let busy =
        world.agent("shop.busy", node.local_addr()).serve(stage.service()).serve(failing_service);
    let _busy = attached(busy).await;
    let handle = node.agent("shop.busy").handle().expect("a name");
    let held = spawn(handle.call::<String>("Stage/Hold", "held").into_future());
    stage.started("held").await;
    // The idle agent is preferred, except for a call that it has failed.
    for calls in 1..=3 {
        let answer = node.any().call::<String>("Who/Are", &()).await;
        assert_eq!(answer.as_deref(), Ok("busy, attempt 2"));
        assert_eq!(runs.load(Ordering::SeqCst), calls);
    }
    stage.open();
    soon("the held call ends", held).await.expect("answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_an_agent_is_not_retried_on_its_only_link() {
    let world = World::new();
    let node = world.node().policy(policy()).start().await.expect("a node");
    let (_agent, runs) = failing(&world, &node, "shop.a", &[refused(Code::Unavailable)]).await;
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    let handle = node.agent("shop.a").handle().expect("a name");
    let by_node = handle.call::<()>("Who/Are", &()).await;
    let by_caller = caller.agent("shop.a").expect("a name").call::<()>("Who/Are", &()).await;
    for failed in [by_node, by_caller] {
        check_status(failed, Code::Unavailable, Outcome::NotExecuted);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2, "one attempt each");
}

/// Waits for the test when the first attempt of a call starts and again before it fails, and
/// returns the message of later ones.
struct FailsInStep(Arc<Barrier>);

impl Handler for FailsInStep {
    async fn call(&self, request: Request) -> Result<Reply, Status> {
        if request.meta.attempt > 1 {
            return Ok(Reply::new(request.message()?.clone()));
        }
        self.0.wait().await;
        self.0.wait().await;
        Err(refused(Code::Unavailable))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_an_agent_is_retried_on_its_newer_link() {
    let (world, step) = (World::new(), Arc::new(Barrier::new(2)));
    let node = world.node().start().await.expect("a node");
    let service = Service::new("Who").raw_method("Are", FailsInStep(step.clone()));
    let agent = attached(world.agent("shop.a", node.local_addr()).serve(service)).await;
    let handle = node.agent("shop.a").handle().expect("a name");
    let call = spawn(handle.call::<String>("Who/Are", "again").into_future());
    soon("the first attempt starts", step.wait()).await;
    let next = Some(world.credentials("agent/shop.a"));
    agent
        .apply(ConfigUpdate { credentials: next, ..ConfigUpdate::default() })
        .await
        .expect("applied");
    until("it is registered on another link", || agent.retiring_links() == 1).await;
    soon("the first attempt fails", step.wait()).await;
    assert_eq!(soon("the call ends", call).await.as_deref(), Ok("again"));
}
