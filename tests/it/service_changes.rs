//! What an agent hosts, and which nodes it dials, changed while it runs.

use crate::world::{
    Background, Setup, World, attached, check_status, soon, spawn, until, until_event,
};
use dialback::{
    Agent, AgentEvent, AgentPolicy, AgentUpdate, Caller, Code, ConfigUpdate, Context, Node,
    NodePolicy, Outcome, Service, ServiceSet, Status,
    policy::{AgentRule, HostRule},
};
use std::{
    future::{IntoFuture, ready},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const MINUTE: Duration = Duration::from_secs(60);

/// A service whose method `Is` answers with this text.
fn answering(service: &str, text: &'static str) -> Service {
    Service::new(service).method("Is", move |(): (), _: Context| ready(Ok(text.to_owned())))
}

async fn host(agent: &Agent, services: ServiceSet) {
    let update = AgentUpdate { services: Some(services), ..AgentUpdate::default() };
    agent.apply(update).await.expect("an update");
    soon("it is registered", agent.services_registered()).await;
}

async fn dial(agent: &Agent, nodes: &[SocketAddr]) {
    let nodes = nodes.iter().map(|at| at.to_string().parse().expect("an address")).collect();
    let update = AgentUpdate { nodes: Some(nodes), ..AgentUpdate::default() };
    soon("it applies", agent.apply(update)).await.expect("an update");
}

#[tokio::test]
async fn added_services_answer_and_removed_ones_are_unimplemented_once_the_update_is_applied() {
    let Setup { node: _node, agent, caller, stage, .. } = Setup::open().await;
    let callee = caller.agent("warehouse").expect("a name");
    let late = callee.call::<String>("Late/Is", &()).await;
    check_status(late, Code::Unimplemented, Outcome::NotExecuted);
    let stage = ServiceSet::new().serve(stage.service());
    host(&agent, stage.clone().serve(answering("Late", "one"))).await;
    assert_eq!(callee.call::<String>("Late/Is", &()).await.as_deref(), Ok("one"));
    assert_eq!(callee.call::<String>("Stage/Note", "x").await.as_deref(), Ok("x"));
    let listed = caller.services("warehouse").await.expect("a list");
    let listed: Vec<_> = listed.iter().map(|service| &service.name).collect();
    assert_eq!(listed, ["Late", "Stage"]);
    // Another handler of the same method needs no registration.
    host(&agent, stage.serve(answering("Late", "two"))).await;
    assert_eq!(callee.call::<String>("Late/Is", &()).await.as_deref(), Ok("two"));
    host(&agent, ServiceSet::new().serve(answering("Late", "two"))).await;
    let gone = callee.call::<String>("Stage/Note", "x").await;
    check_status(gone, Code::Unimplemented, Outcome::NotExecuted);
    assert_eq!(callee.call::<String>("Late/Is", &()).await.as_deref(), Ok("two"));
}

#[tokio::test]
async fn an_agent_that_hosts_nothing_any_more_may_host_again() {
    let Setup { node: _node, agent, caller, stage, .. } = Setup::open().await;
    let callee = caller.agent("warehouse").expect("a name");
    host(&agent, ServiceSet::new()).await;
    let gone = callee.call::<String>("Stage/Note", "x").await;
    let status = gone.expect_err("hosted no more");
    assert_eq!(status.outcome(), Outcome::NotExecuted, "{status}");
    host(&agent, ServiceSet::new().serve(stage.service())).await;
    assert_eq!(callee.call::<String>("Stage/Note", "x").await.as_deref(), Ok("x"));
    assert_eq!(agent.nodes().len(), 1);
}

#[tokio::test]
async fn a_call_in_flight_finishes_on_a_service_that_was_removed() {
    let Setup { node: _node, agent, caller, stage, .. } = Setup::open().await;
    let callee = caller.agent("warehouse").expect("a name");
    let held = spawn(callee.call::<String>("Stage/Hold", "x").timeout(MINUTE).into_future());
    until("the handler runs", || stage.runs("x") == 1).await;
    host(&agent, ServiceSet::new().serve(answering("Late", "one"))).await;
    assert!(!held.is_finished());
    stage.open();
    assert_eq!(soon("the reply", held).await.as_deref(), Ok("x"));
}

#[tokio::test]
async fn services_that_cannot_be_registered_change_nothing() {
    let Setup { node: _node, agent, caller, .. } = Setup::open().await;
    let twice = ServiceSet::new().serve(answering("Late", "one")).serve(answering("Late", "two"));
    let config = ConfigUpdate { policy: Some(denying()), ..ConfigUpdate::default() };
    let update = AgentUpdate { config, services: Some(twice), ..AgentUpdate::default() };
    let refused = agent.apply(update).await.expect_err("twice");
    assert!(refused.to_string().contains("Late/Is"), "{refused}");
    let no_node = AgentUpdate { nodes: Some(Vec::new()), ..AgentUpdate::default() };
    let refused = agent.apply(no_node).await.expect_err("no node");
    assert!(refused.to_string().contains("node"), "{refused}");
    let callee = caller.agent("warehouse").expect("a name");
    assert_eq!(callee.call::<String>("Stage/Note", "x").await.as_deref(), Ok("x"));
}

fn denying() -> AgentPolicy {
    AgentPolicy::default().allow(AgentRule::parse("edge-1", "nobody", "*/*").expect("a rule"))
}

#[tokio::test]
async fn a_removed_service_is_not_opened_by_the_rules_that_come_with_its_removal() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let allow = |method| AgentRule::parse("edge-1", "ops", method).expect("a rule");
    let narrow = AgentPolicy::default().allow(allow("Open/*"));
    let open = || ServiceSet::new().serve(answering("Open", "open"));
    let all = open().serve(answering("Shut", "shut"));
    let agent = world.agent("warehouse", node.local_addr()).policy(narrow).services(all);
    let agent = attached(agent).await;
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let denied = callee.call::<String>("Shut/Is", &()).await;
    check_status(denied, Code::PermissionDenied, Outcome::NotExecuted);
    let wide = AgentPolicy::default().allow(allow("*/*"));
    let config = ConfigUpdate { policy: Some(wide), ..ConfigUpdate::default() };
    let update = AgentUpdate { config, services: Some(open()), ..AgentUpdate::default() };
    agent.apply(update).await.expect("an update");
    // The service still answers calls that its own rules allow.
    let denied = callee.call::<String>("Shut/Is", &()).await;
    check_status(denied, Code::PermissionDenied, Outcome::NotExecuted);
    soon("it is registered", agent.services_registered()).await;
    let gone = callee.call::<String>("Shut/Is", &()).await;
    check_status(gone, Code::Unimplemented, Outcome::NotExecuted);
    assert_eq!(callee.call::<String>("Open/Is", &()).await.as_deref(), Ok("open"));
}

/// Calls without a pause until it is told to stop; returns how many succeeded, and the failures.
struct Load {
    has_ended: Arc<AtomicBool>,
    calling: Background<(usize, Vec<Status>)>,
}

impl Load {
    fn start(caller: Caller, agent: Option<&'static str>, method: &'static str) -> Self {
        let has_ended = Arc::<AtomicBool>::default();
        let told = has_ended.clone();
        let calling = spawn(async move {
            let callee = match agent {
                Some(agent) => caller.agent(agent).expect("a name"),
                None => caller.any(),
            };
            let (mut succeeded, mut failed) = (0, Vec::new());
            while !told.load(Ordering::Relaxed) {
                match callee.call::<String>(method, &()).await {
                    Ok(_) => succeeded += 1,
                    Err(status) => failed.push(status),
                }
            }
            (succeeded, failed)
        });
        Self { has_ended, calling }
    }

    async fn end(self) -> (usize, Vec<Status>) {
        self.has_ended.store(true, Ordering::Relaxed);
        soon("the last call ends", self.calling).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_while_one_of_two_agents_hosts_a_service_in_turn() {
    let world = World::new();
    let policy = NodePolicy::allow_all().host(HostRule::parse("shop.*", "Late").expect("a rule"));
    let node = world.node().policy(policy).start().await.expect("a node");
    let set = |has_late: bool| {
        let set = ServiceSet::new().serve(answering("Other", "there"));
        if has_late { set.serve(answering("Late", "here")) } else { set }
    };
    let at = node.local_addr();
    let steady = attached(world.agent("shop.a", at).services(set(true))).await;
    let agent = attached(world.agent("shop.b", at).services(set(true))).await;
    let caller = async |name| world.caller(name, at).connect().await.expect("a caller");
    let loads = [
        Load::start(caller("ops").await, None, "Late/Is"),
        Load::start(caller("dev").await, Some("shop.b"), "Other/Is"),
    ];
    for round in 0..6 {
        host(&agent, set(round % 2 == 1)).await;
    }
    for load in loads {
        let (succeeded, failed) = load.end().await;
        assert!(succeeded > 0);
        assert_eq!(failed, []);
    }
    drop(steady);
}

async fn second_node(world: &World) -> Node {
    world.node_named("edge-2").start().await.expect("a node")
}

#[tokio::test]
async fn an_added_node_gets_a_link_and_a_removed_one_keeps_its_until_the_last_reply() {
    let Setup { world, node, agent, stage, .. } = Setup::open().await;
    let other = second_node(&world).await;
    dial(&agent, &[node.local_addr(), other.local_addr()]).await;
    soon("it is registered with both", agent.registered(2)).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let held = spawn(handle.call::<String>("Stage/Hold", "x").timeout(MINUTE).into_future());
    until("the handler runs", || stage.runs("x") == 1).await;
    dial(&agent, &[other.local_addr()]).await;
    until_event("the node sends no more", node.events(), || node.agents()[0].draining).await;
    let refused = handle.call::<String>("Stage/Note", "y").await;
    check_status(refused, Code::Unavailable, Outcome::NotExecuted);
    let handle = other.agent("warehouse").handle().expect("a name");
    assert_eq!(handle.call::<String>("Stage/Note", "y").await.as_deref(), Ok("y"));
    stage.open();
    assert_eq!(soon("the reply", held).await.as_deref(), Ok("x"));
    let nodes = || agent.nodes().iter().map(ToString::to_string).collect::<Vec<_>>();
    until_event("it has left", agent.events(), || nodes() == ["edge-2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_refused_while_a_node_gets_another_name() {
    let Setup { node, agent, caller, stage: _stage, .. } = Setup::open().await;
    let services = ServiceSet::new().serve(answering("Late", "here"));
    host(&agent, services).await;
    let load = Load::start(caller, Some("warehouse"), "Late/Is");
    let port = node.local_addr().port();
    for name in ["localhost", "127.0.0.1", "localhost"] {
        let nodes = Some(vec![format!("{name}:{port}").parse().expect("an address")]);
        let mut events = agent.events();
        agent.apply(AgentUpdate { nodes, ..AgentUpdate::default() }).await.expect("an update");
        // The link by the new name, and then the end of the one by the old name.
        let up = soon("the new link is up", events.next()).await;
        assert!(matches!(up, Some(AgentEvent::Registered { .. })), "{up:?}");
        let left = soon("the old one is left", events.next()).await;
        assert!(matches!(left, Some(AgentEvent::Lost { .. })), "{left:?}");
    }
    let (succeeded, failed) = load.end().await;
    assert!(succeeded > 0);
    assert_eq!(failed, []);
}

#[tokio::test]
async fn a_node_that_is_named_again_is_dialled_again() {
    let Setup { world, node, agent, .. } = Setup::open().await;
    let other = second_node(&world).await;
    dial(&agent, &[other.local_addr()]).await;
    until_event("it has left", node.events(), || !node.agents()[0].attached).await;
    dial(&agent, &[node.local_addr()]).await;
    until_event("it is back", node.events(), || node.agents()[0].attached).await;
}

#[tokio::test]
async fn an_agent_stops_while_it_leaves_a_node() {
    let Setup { world, node, agent, stage, .. } = Setup::open().await;
    let other = second_node(&world).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let held = spawn(handle.call::<String>("Stage/Hold", "x").timeout(MINUTE).into_future());
    until("the handler runs", || stage.runs("x") == 1).await;
    dial(&agent, &[other.local_addr()]).await;
    let stopping = spawn(agent.shutdown());
    stage.open();
    assert_eq!(soon("the reply", held).await.as_deref(), Ok("x"));
    soon("it stops", stopping).await;
}
