//! Both ends have their say: the node about everybody who comes from outside, the agent's owner
//! about what is hosted.

use crate::world::{Stage, World, attached, check_status};
use dialback::{
    AgentPolicy, Callee, Caller, Code, Node, NodePolicy, Outcome, Status,
    policy::{AgentRule, AllowRule, DenyRule},
};

fn allow(caller: &str, agent: &str, method: &str) -> AllowRule {
    AllowRule::parse(caller, agent, method).expect("a rule")
}

fn deny(caller: &str, agent: &str, method: &str) -> DenyRule {
    DenyRule::parse(caller, agent, method).expect("a rule")
}

/// A node with these rules and a stage of its own; agents `acme.a` and `other` on one stage.
struct Town {
    world: World,
    node: Node,
    agents: Vec<dialback::Agent>,
    stage: Stage,
}

impl Town {
    async fn with(policy: NodePolicy) -> Self {
        let (world, stage) = (World::new(), Stage::default());
        let node = world.node().policy(policy).serve(stage.service()).start().await;
        let node = node.expect("a node");
        let at = node.local_addr();
        let agents = vec![
            attached(world.agent("acme.a", at).serve(stage.service())).await,
            attached(world.agent("other", at).serve(stage.service())).await,
        ];
        Self { world, node, agents, stage }
    }

    async fn caller(&self, name: &str) -> Caller {
        self.world.caller(name, self.node.local_addr()).connect().await.expect("a caller")
    }
}

async fn note(callee: &Callee, id: &str) -> Result<String, Status> {
    callee.call("Stage/Note", id).await
}

/// A call is allowed and ran once, or is refused and did not run.
async fn check(town: &Town, callee: &Callee, method: &str, id: &str, is_allowed: bool) {
    let before = town.stage.all_runs();
    let result = callee.call::<serde_cbor::Value>(method, id).await;
    if is_allowed {
        assert!(result.is_ok(), "{id}: {result:?}");
    } else {
        check_status(result, Code::PermissionDenied, Outcome::NotExecuted);
    }
    assert_eq!(town.stage.all_runs() - before, usize::from(is_allowed), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_caller_needs_a_rule_for_itself_the_agent_and_the_method() {
    let policy = NodePolicy::default().allow(allow("billing", "acme.*", "Stage/Note"));
    let town = Town::with(policy).await;
    let [billing, ops] = [town.caller("billing").await, town.caller("ops").await];
    let agent = |caller: &Caller, name: &str| caller.agent(name).expect("a name");
    check(&town, &agent(&billing, "acme.a"), "Stage/Note", "all three", true).await;
    check(&town, &agent(&ops, "acme.a"), "Stage/Note", "other caller", false).await;
    check(&town, &agent(&billing, "other"), "Stage/Note", "other agent", false).await;
    check(&town, &agent(&billing, "acme.a"), "Stage/Hold", "other method", false).await;
    // Agents and the node are not opened by a rule about agents for callers.
    check(&town, &town.agents[1].agent("acme.a").expect("a name"), "Stage/Note", "agent", false)
        .await;
    check(&town, &billing.node(), "Stage/Note", "node", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rules_remote_callers_may_call_nothing() {
    let town = Town::with(NodePolicy::default()).await;
    let caller = town.caller("ops").await;
    check(&town, &caller.agent("other").expect("a name"), "Stage/Note", "caller", false).await;
    check(&town, &caller.node(), "Stage/Note", "caller to node", false).await;
    check(&town, &town.agents[0].node(), "Stage/Note", "agent to node", false).await;
    let handle = town.node.agent("other").handle().expect("a name");
    check(&town, handle.as_ref(), "Stage/Note", "the node's own program", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deny_wins_over_allow() {
    let policy = NodePolicy::default().allow(allow("**", "**", "*/*")).deny(deny(
        "intern.**",
        "acme.*",
        "*/*",
    ));
    let town = Town::with(policy).await;
    let [intern, ops] = [town.caller("intern.bob").await, town.caller("ops").await];
    let agent = |caller: &Caller, name: &str| caller.agent(name).expect("a name");
    check(&town, &agent(&intern, "acme.a"), "Stage/Note", "intern on acme", false).await;
    check(&town, &agent(&intern, "other"), "Stage/Note", "intern elsewhere", true).await;
    check(&town, &agent(&ops, "acme.a"), "Stage/Note", "ops on acme", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_calls_needs_a_rule_that_names_it_as_an_agent() {
    let policy = NodePolicy::default()
        .allow(allow("agent/acme.a", "other", "Stage/Note"))
        .allow(allow("other", "acme.a", "*/*"));
    let town = Town::with(policy).await;
    let [acme, other] = &*town.agents else { panic!("two agents") };
    check(&town, &acme.agent("other").expect("a name"), "Stage/Note", "named", true).await;
    check(&town, &acme.agent("other").expect("a name"), "Stage/Hold", "method", false).await;
    // The second rule is for the caller of that name, not for the agent.
    check(&town, &other.agent("acme.a").expect("a name"), "Stage/Note", "as caller", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_the_node_are_allowed_by_the_nodes_name() {
    let policy = NodePolicy::default()
        .allow(allow("ops", "node/edge-1", "Stage/Note"))
        .allow(allow("agent/acme.a", "node/**", "*/*"))
        .allow(allow("billing", "node/edge-2", "*/*"));
    let town = Town::with(policy).await;
    let [ops, billing] = [town.caller("ops").await, town.caller("billing").await];
    check(&town, &ops.node(), "Stage/Note", "ops", true).await;
    check(&town, &ops.node(), "Stage/Fail", "ops fail", false).await;
    check(&town, &billing.node(), "Stage/Note", "another node's name", false).await;
    check(&town, &town.agents[0].node(), "Stage/Note", "acme", true).await;
    check(&town, &town.agents[1].node(), "Stage/Note", "other", false).await;
    check(&town, &ops.agent("other").expect("a name"), "Stage/Note", "agents stay shut", false)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_same_whether_or_not_the_agent_exists() {
    let town = Town::with(NodePolicy::default().allow(allow("ops", "seen", "*/*"))).await;
    let caller = town.caller("ops").await;
    let mut told = Vec::new();
    for name in ["other", "absent"] {
        let refused = note(&caller.agent(name).expect("a name"), "a").await;
        let status = check_status(refused, Code::PermissionDenied, Outcome::NotExecuted);
        let services = caller.services(name).await.expect_err("not to be seen");
        told.push([status, services].map(|status| format!("{status}").replace(name, "X")));
    }
    assert_eq!(told[0], told[1]);
    // Who may call an agent is told that it is not there.
    let absent = note(&caller.agent("seen").expect("a name"), "a").await;
    check_status(absent, Code::Unavailable, Outcome::NotExecuted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_shows_each_caller_only_what_it_may_call() {
    let policy = NodePolicy::default()
        .allow(allow("billing", "acme.*", "Stage/Note"))
        .allow(allow("ops", "**", "*/*"))
        .deny(deny("ops", "acme.a", "*/*"));
    let town = Town::with(policy).await;
    for (who, expected) in [("billing", vec!["acme.a"]), ("ops", vec!["other"]), ("nobody", vec![])]
    {
        let caller = town.caller(who).await;
        let agents = caller.agents().await.expect("a list");
        let names: Vec<_> = agents.iter().map(|agent| agent.name.as_str()).collect();
        assert_eq!(names, expected, "{who}");
        for agent in ["acme.a", "other"] {
            let services = caller.services(agent).await;
            assert_eq!(services.is_ok(), expected.contains(&agent), "{who} {agent}: {services:?}");
        }
    }
    assert_eq!(town.node.agents().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_own_policy_decides_by_node_caller_and_method() {
    let (world, stage) = (World::new(), Stage::default());
    let [edge, core] = [world.node(), world.node_named("core-1")].map(|node| node.start());
    let [edge, core] = [edge.await.expect("a node"), core.await.expect("a node")];
    let rule = |node, caller, method| AgentRule::parse(node, caller, method).expect("a rule");
    let policy = AgentPolicy::default().allow(rule("edge-*", "ops", "Stage/Note")).allow(rule(
        "core-1",
        "node/core-1",
        "*/*",
    ));
    let agent = world.agent("warehouse", edge.local_addr()).node(core.local_addr().to_string());
    let agent = attached(agent.policy(policy).serve(stage.service())).await;
    crate::world::soon("it is on both", agent.registered(2)).await;
    let town = Town { world, node: edge, agents: vec![agent], stage };
    let by_core = core.agent("warehouse").handle().expect("a name");
    let by_edge = town.node.agent("warehouse").handle().expect("a name");
    check(&town, by_core.as_ref(), "Stage/Note", "core itself", true).await;
    check(&town, by_edge.as_ref(), "Stage/Note", "edge itself", false).await;
    let [ops, billing] = [town.caller("ops").await, town.caller("billing").await];
    let of = |caller: &Caller| caller.agent("warehouse").expect("a name");
    check(&town, &of(&ops), "Stage/Note", "ops by edge", true).await;
    check(&town, &of(&ops), "Stage/Hold", "ops, method", false).await;
    check(&town, &of(&billing), "Stage/Note", "billing by edge", false).await;
    let ops_by_core = town.world.caller("ops", core.local_addr()).connect().await;
    check(&town, &of(&ops_by_core.expect("a caller")), "Stage/Note", "ops by core", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_may_limit_messages_below_the_nodes_own_limit() {
    let mut bounded = allow("ops", "**", "*/*");
    bounded.message_bytes_max = Some(100);
    let policy = NodePolicy::default().allow(bounded).allow(allow("billing", "**", "*/*"));
    let town = Town::with(policy).await;
    let [ops, billing] = [town.caller("ops").await, town.caller("billing").await]
        .map(|caller| caller.agent("other").expect("a name"));
    // A text of up to 255 bytes takes two more bytes in CBOR.
    let [fits, exceeds] = [98, 99].map(|bytes| "x".repeat(bytes));
    assert!(note(&ops, &fits).await.is_ok() && note(&billing, &exceeds).await.is_ok());
    let refused = note(&ops, &exceeds).await;
    check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
    assert_eq!((town.stage.runs(&fits), town.stage.runs(&exceeds)), (1, 1));
}
