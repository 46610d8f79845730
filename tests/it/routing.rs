//! Calls by service, calls of all agents, waiting calls, and retries.

use crate::world::{Background, World, attached, check_status, soon, spawn};
use dialback::{
    Agent, Call, Code, ConfigUpdate, Context, Limits, Node, NodePolicy, Outcome, Service, Status,
    policy::{AllowRule, DenyRule, HostRule},
};
use std::{
    collections::BTreeSet,
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const MINUTE: Duration = Duration::from_secs(60);

fn policy() -> NodePolicy {
    NodePolicy::default()
        .allow(AllowRule::parse("ops", "shop.*", "*/*").expect("a rule"))
        .deny(DenyRule::parse("ops", "shop.closed", "*/*").expect("a rule"))
        .host(HostRule::parse("shop.*", "Who").expect("a rule"))
}

/// Returns its own name; `Fail` returns UNAVAILABLE from the handler.
fn named_service(name: &str) -> Service {
    let (own, failing) = (name.to_owned(), name.to_owned());
    Service::new("Who")
        .method("Are", move |(): (), _: Context| std::future::ready(Ok(own.clone())))
        .method("Fail", move |(): (), _: Context| {
            std::future::ready(Err::<(), _>(Status::new(Code::NotFound, failing.clone())))
        })
}

async fn shop(world: &World, node: &Node, name: &str) -> Agent {
    attached(world.agent(name, node.local_addr()).serve(named_service(name))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_by_service_reaches_only_the_agents_that_may_answer() {
    let world = World::new();
    let node = world.node().policy(policy()).start().await.expect("a node");
    let mut agents = Vec::new();
    for name in ["shop.a", "shop.b", "shop.closed", "office"] {
        agents.push(shop(&world, &node, name).await);
    }
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        seen.insert(caller.any().call::<String>("Who/Are", &()).await.expect("an answer"));
    }
    assert_eq!(seen, BTreeSet::from(["shop.a".into(), "shop.b".into()]));
    // The node's own program is bound only by the host rules.
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        seen.insert(node.any().call::<String>("Who/Are", &()).await.expect("an answer"));
    }
    assert_eq!(seen.len(), 3);
    let nobody = caller.any().call::<String>("Nobody/Is", &()).await;
    check_status(nobody, Code::Unavailable, Outcome::NotExecuted);
    let other = world.caller("other", node.local_addr()).connect().await.expect("a caller");
    for method in ["Who/Are", "Nobody/Is"] {
        let denied = other.any().call::<String>(method, &()).await;
        check_status(denied, Code::PermissionDenied, Outcome::NotExecuted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calling_all_agents_gives_one_outcome_per_agent() {
    let world = World::new();
    let node = world.node().policy(policy()).start().await.expect("a node");
    let mut agents = Vec::new();
    let names: Vec<String> = (10..40).map(|n| format!("shop.{n}")).collect();
    for name in &names {
        agents.push(shop(&world, &node, name).await);
    }
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    for outcomes in [
        caller.call_all::<String>("Who/Are", &(), MINUTE).await,
        node.call_all::<String>("Who/Are", &(), MINUTE).await,
    ] {
        let outcomes = outcomes.expect("a list");
        assert_eq!(outcomes.len(), 30);
        for ((agent, result), name) in outcomes.iter().zip(&names) {
            assert_eq!((agent.as_str(), result), (name.as_str(), &Ok(name.clone())));
        }
    }
    for (agent, result) in caller.call_all::<()>("Who/Fail", &(), MINUTE).await.expect("a list") {
        let failed = check_status(result, Code::NotFound, Outcome::AppError);
        assert_eq!(failed.message(), agent.as_str());
    }
    assert!(caller.call_all::<()>("Nobody/Is", &(), MINUTE).await.expect("a list").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_its_agent_only_on_request() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    let callee = caller.agent("shop.late").expect("a name");
    let at_once = callee.call::<String>("Who/Are", &()).await;
    check_status(at_once, Code::Unavailable, Outcome::NotExecuted);
    let unanswered = node.agent("shop.late").handle().expect("a name");
    let unanswered = unanswered.call::<String>("Who/Are", &()).wait(true);
    let unanswered = unanswered.timeout(Duration::from_millis(80));
    let unanswered = soon("the deadline", unanswered.into_future()).await;
    check_status(unanswered, Code::Unavailable, Outcome::NotExecuted);
    let by_name = callee.call::<String>("Who/Are", &()).wait(true).timeout(MINUTE);
    let by_service = caller.any().call::<String>("Who/Are", &()).wait(true).timeout(MINUTE);
    let handle = node.agent("shop.late").handle().expect("a name");
    let in_process = handle.call::<String>("Who/Are", &()).wait(true).timeout(MINUTE);
    let calls = [by_name, by_service, in_process].map(|call| spawn(call.into_future()));
    let _agent = shop(&world, &node, "shop.late").await;
    for call in calls {
        assert_eq!(soon("the agent attached", call).await.as_deref(), Ok("shop.late"));
    }
}

/// Refuses its first calls before they run, as an agent at its limit does.
fn refusing(times: usize, code: Code, runs: &Arc<AtomicUsize>) -> Service {
    struct Refuses(usize, Code, Arc<AtomicUsize>);
    impl dialback::Handler for Refuses {
        async fn call(&self, request: dialback::Request) -> Result<dialback::Reply, Status> {
            let run = self.2.fetch_add(1, Ordering::SeqCst);
            assert_eq!(request.meta.attempt as usize, run + 1, "attempts count up");
            if run < self.0 {
                return Err(Status::not_executed(self.1, "not now"));
            }
            Ok(dialback::Reply::new(request.message()?.clone()))
        }
    }
    Service::new("Who").raw_method("Are", Refuses(times, code, runs.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_not_executed_call_is_attempted_three_times_in_all() {
    for (times, code, wanted) in [
        (0, Code::Unavailable, 1),
        (2, Code::Unavailable, 3),
        (3, Code::Unavailable, 3),
        (2, Code::ResourceExhausted, 3),
        (1, Code::InvalidArgument, 1),
    ] {
        let (world, runs) = (World::new(), Arc::new(AtomicUsize::new(0)));
        let node = world.node().policy(policy()).start().await.expect("a node");
        let service = refusing(times, code, &runs);
        let _agent = attached(world.agent("shop.a", node.local_addr()).serve(service)).await;
        let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
        let answer = caller.any().call::<()>("Who/Are", &()).await;
        if times < wanted {
            assert_eq!(answer, Ok(()));
        } else {
            check_status(answer, code, Outcome::NotExecuted);
        }
        assert_eq!(runs.load(Ordering::SeqCst), wanted, "{times} refusals with {code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_call_is_retried_only_where_a_rule_makes_it_idempotent() {
    for is_idempotent in [false, true] {
        let (world, runs) = (World::new(), Arc::new(AtomicUsize::new(0)));
        let mut allow = AllowRule::parse("ops", "shop.*", "*/*").expect("a rule");
        allow.idempotent = is_idempotent;
        let policy = NodePolicy::default()
            .allow(allow)
            .host(HostRule::parse("shop.*", "Who").expect("a rule"));
        let node = world.node().policy(policy).start().await.expect("a node");
        let counted = runs.clone();
        let service = Service::new("Who").raw_method("Are", Lost(counted));
        let _agent = attached(world.agent("shop.a", node.local_addr()).serve(service)).await;
        let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
        let answer = caller.any().call::<()>("Who/Are", &()).await;
        check_status(answer, Code::Unavailable, Outcome::Unknown);
        assert_eq!(runs.load(Ordering::SeqCst), if is_idempotent { 3 } else { 1 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_found_no_memory_is_not_retried_elsewhere() {
    let (world, runs) = (World::new(), Arc::new(AtomicUsize::new(0)));
    let mut allow = AllowRule::parse("ops", "shop.*", "*/*").expect("a rule");
    allow.idempotent = true;
    let policy =
        NodePolicy::default().allow(allow).host(HostRule::parse("shop.*", "Who").expect("a rule"));
    // The replies of one caller may take half of this: 2 MiB.
    let limits = Limits { memory_max: Some(4 << 20), ..Limits::default() };
    let node = world.node().policy(policy).limits(limits).start().await.expect("a node");
    let mut agents = Vec::new();
    for name in ["shop.a", "shop.b"] {
        let counted = runs.clone();
        let service = Service::new("Who").method("Large", move |(): (), _: Context| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok("x".repeat(3 << 20)))
        });
        agents.push(attached(world.agent(name, node.local_addr()).serve(service)).await);
    }
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    let answer = caller.any().call::<String>("Who/Large", &()).await;
    check_status(answer, Code::ResourceExhausted, Outcome::Unknown);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

/// Ends like a lost link: the outcome is unknown.
struct Lost(Arc<AtomicUsize>);

impl dialback::Handler for Lost {
    async fn call(&self, _: dialback::Request) -> Result<dialback::Reply, Status> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(Status::unknown(Code::Unavailable, "who knows"))
    }
}

/// A call in the node's own process that has begun and waits for an agent.
async fn waiting(call: Call<String>) -> Background<Result<String, Status>> {
    let mut call = Box::pin(call.into_future());
    // After one poll it has progressed as far as it can without an agent.
    tokio::select! {
        biased;
        ended = &mut call => panic!("it did not wait: {ended:?}"),
        () = std::future::ready(()) => {}
    }
    spawn(call)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_call_ends_at_once_when_the_node_stops() {
    let world = World::new();
    let limits = Limits { drain_max: Duration::from_secs(3_600), ..Limits::default() };
    let node = world.node().limits(limits).start().await.expect("a node");
    let handle = node.agent("shop.late").handle().expect("a name");
    let by_name = handle.call::<String>("Who/Are", &()).wait(true).timeout(MINUTE);
    let by_service = node.any().call::<String>("Who/Are", &()).wait(true).timeout(MINUTE);
    let [by_name, by_service] = [waiting(by_name).await, waiting(by_service).await];
    // No agent attaches or detaches meanwhile.
    soon("the node stops", node.shutdown()).await;
    for call in [by_name, by_service] {
        check_status(soon("it ends", call).await, Code::Unavailable, Outcome::NotExecuted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_a_service_is_answered_when_new_rules_allow_it() {
    let world = World::new();
    let node = world.node().policy(NodePolicy::default()).start().await.expect("a node");
    let _agent = shop(&world, &node, "shop.a").await;
    let call = node.any().call::<String>("Who/Are", &()).wait(true).timeout(MINUTE);
    let call = waiting(call).await;
    let refused = node.any().call::<String>("Who/Are", &()).await;
    check_status(refused, Code::Unavailable, Outcome::NotExecuted);
    let next = ConfigUpdate { policy: Some(policy()), ..ConfigUpdate::default() };
    node.apply(next).await.expect("applied");
    assert_eq!(soon("the call is answered", call).await.as_deref(), Ok("shop.a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_reaches_its_one_allowed_host_and_another_under_new_rules() {
    let world = World::new();
    let one = |name: &str| policy().allow(AllowRule::parse("one", name, "*/*").expect("a rule"));
    let node = world.node().policy(one("shop.7")).start().await.expect("a node");
    let mut agents = Vec::new();
    for n in 0..40 {
        agents.push(shop(&world, &node, &format!("shop.{n}")).await);
    }
    let caller = world.caller("one", node.local_addr()).connect().await.expect("a caller");
    let ask = async || caller.any().call::<String>("Who/Are", &()).await;
    for _ in 0..20 {
        assert_eq!(ask().await.as_deref(), Ok("shop.7"));
    }
    let next = ConfigUpdate { policy: Some(one("shop.33")), ..ConfigUpdate::default() };
    node.apply(next).await.expect("applied");
    for _ in 0..20 {
        assert_eq!(ask().await.as_deref(), Ok("shop.33"));
    }
    agents.remove(33).shutdown().await;
    check_status(ask().await, Code::Unavailable, Outcome::NotExecuted);
    agents.push(shop(&world, &node, "shop.33").await);
    assert_eq!(ask().await.as_deref(), Ok("shop.33"), "it has reconnected");
}
