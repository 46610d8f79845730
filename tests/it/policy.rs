//! Policies of both ends: the node's for every remote caller, the agent's own for its services.

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

/// A node with these rules and its own stage; agents `acme.a` and `other` on one stage.
struct PolicySetup {
    world: World,
    node: Node,
    agents: Vec<dialback::Agent>,
    stage: Stage,
}

impl PolicySetup {
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
async fn check(setup: &PolicySetup, callee: &Callee, method: &str, id: &str, is_allowed: bool) {
    let before = setup.stage.all_runs();
    let result = callee.call::<serde_cbor::Value>(method, id).await;
    if is_allowed {
        assert!(result.is_ok(), "{id}: {result:?}");
    } else {
        check_status(result, Code::PermissionDenied, Outcome::NotExecuted);
    }
    assert_eq!(setup.stage.all_runs() - before, usize::from(is_allowed), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_caller_needs_a_rule_for_itself_the_agent_and_the_method() {
    let policy = NodePolicy::default().allow(allow("billing", "acme.*", "Stage/Note"));
    let setup = PolicySetup::with(policy).await;
    let [billing, ops] = [setup.caller("billing").await, setup.caller("ops").await];
    let agent = |caller: &Caller, name: &str| caller.agent(name).expect("a name");
    check(&setup, &agent(&billing, "acme.a"), "Stage/Note", "all three", true).await;
    check(&setup, &agent(&ops, "acme.a"), "Stage/Note", "other caller", false).await;
    check(&setup, &agent(&billing, "other"), "Stage/Note", "other agent", false).await;
    check(&setup, &agent(&billing, "acme.a"), "Stage/Hold", "other method", false).await;
    // A rule for calls to agents covers neither an agent as the caller nor the node as the callee.
    check(&setup, &setup.agents[1].agent("acme.a").expect("a name"), "Stage/Note", "agent", false)
        .await;
    check(&setup, &billing.node(), "Stage/Note", "node", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rules_remote_callers_may_call_nothing() {
    let setup = PolicySetup::with(NodePolicy::default()).await;
    let caller = setup.caller("ops").await;
    check(&setup, &caller.agent("other").expect("a name"), "Stage/Note", "caller", false).await;
    check(&setup, &caller.node(), "Stage/Note", "caller to node", false).await;
    check(&setup, &setup.agents[0].node(), "Stage/Note", "agent to node", false).await;
    let handle = setup.node.agent("other").handle().expect("a name");
    check(&setup, handle.as_ref(), "Stage/Note", "the node's own program", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deny_wins_over_allow() {
    let policy = NodePolicy::default().allow(allow("**", "**", "*/*")).deny(deny(
        "intern.**",
        "acme.*",
        "*/*",
    ));
    let setup = PolicySetup::with(policy).await;
    let [intern, ops] = [setup.caller("intern.bob").await, setup.caller("ops").await];
    let agent = |caller: &Caller, name: &str| caller.agent(name).expect("a name");
    check(&setup, &agent(&intern, "acme.a"), "Stage/Note", "intern on acme", false).await;
    check(&setup, &agent(&intern, "other"), "Stage/Note", "intern elsewhere", true).await;
    check(&setup, &agent(&ops, "acme.a"), "Stage/Note", "ops on acme", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_calls_needs_a_rule_that_names_it_as_an_agent() {
    let policy = NodePolicy::default()
        .allow(allow("agent/acme.a", "other", "Stage/Note"))
        .allow(allow("other", "acme.a", "*/*"));
    let setup = PolicySetup::with(policy).await;
    let [acme, other] = &*setup.agents else { panic!("two agents") };
    check(&setup, &acme.agent("other").expect("a name"), "Stage/Note", "named", true).await;
    check(&setup, &acme.agent("other").expect("a name"), "Stage/Hold", "method", false).await;
    // The second rule is for the caller of that name, not for the agent.
    check(&setup, &other.agent("acme.a").expect("a name"), "Stage/Note", "as caller", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_the_node_are_allowed_by_the_nodes_name() {
    let policy = NodePolicy::default()
        .allow(allow("ops", "node/edge-1", "Stage/Note"))
        .allow(allow("agent/acme.a", "node/**", "*/*"))
        .allow(allow("billing", "node/edge-2", "*/*"));
    let setup = PolicySetup::with(policy).await;
    let [ops, billing] = [setup.caller("ops").await, setup.caller("billing").await];
    check(&setup, &ops.node(), "Stage/Note", "ops", true).await;
    check(&setup, &ops.node(), "Stage/Fail", "ops fail", false).await;
    check(&setup, &billing.node(), "Stage/Note", "another node's name", false).await;
    check(&setup, &setup.agents[0].node(), "Stage/Note", "acme", true).await;
    check(&setup, &setup.agents[1].node(), "Stage/Note", "other", false).await;
    check(&setup, &ops.agent("other").expect("a name"), "Stage/Note", "agents stay shut", false)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_same_whether_or_not_the_agent_exists() {
    let setup = PolicySetup::with(NodePolicy::default().allow(allow("ops", "seen", "*/*"))).await;
    let caller = setup.caller("ops").await;
    let mut refusals = Vec::new();
    for name in ["other", "absent"] {
        let refused = note(&caller.agent(name).expect("a name"), "a").await;
        let status = check_status(refused, Code::PermissionDenied, Outcome::NotExecuted);
        let services = caller.services(name).await.expect_err("not to be seen");
        refusals.push([status, services].map(|status| format!("{status}").replace(name, "X")));
    }
    assert_eq!(refusals[0], refusals[1]);
    // A caller that may call an agent learns that it is not attached.
    let absent = note(&caller.agent("seen").expect("a name"), "a").await;
    check_status(absent, Code::Unavailable, Outcome::NotExecuted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_shows_each_caller_only_what_it_may_call() {
    let policy = NodePolicy::default()
        .allow(allow("billing", "acme.*", "Stage/Note"))
        .allow(allow("ops", "**", "*/*"))
        .deny(deny("ops", "acme.a", "*/*"));
    let setup = PolicySetup::with(policy).await;
    for (caller_name, expected) in
        [("billing", vec!["acme.a"]), ("ops", vec!["other"]), ("nobody", vec![])]
    {
        let caller = setup.caller(caller_name).await;
        let agents = caller.agents().await.expect("a list");
        let names: Vec<_> = agents.iter().map(|agent| agent.name.as_str()).collect();
        assert_eq!(names, expected, "{caller_name}");
        for agent in ["acme.a", "other"] {
            let services = caller.services(agent).await;
            assert_eq!(
                services.is_ok(),
                expected.contains(&agent),
                "{caller_name} {agent}: {services:?}"
            );
        }
    }
    assert_eq!(setup.node.agents().len(), 2);
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
    crate::world::soon("it is attached to both", agent.registered(2)).await;
    let setup = PolicySetup { world, node: edge, agents: vec![agent], stage };
    let by_core = core.agent("warehouse").handle().expect("a name");
    let by_edge = setup.node.agent("warehouse").handle().expect("a name");
    check(&setup, by_core.as_ref(), "Stage/Note", "core itself", true).await;
    check(&setup, by_edge.as_ref(), "Stage/Note", "edge itself", false).await;
    let [ops, billing] = [setup.caller("ops").await, setup.caller("billing").await];
    let of = |caller: &Caller| caller.agent("warehouse").expect("a name");
    check(&setup, &of(&ops), "Stage/Note", "ops by edge", true).await;
    check(&setup, &of(&ops), "Stage/Hold", "ops, method", false).await;
    check(&setup, &of(&billing), "Stage/Note", "billing by edge", false).await;
    let ops_by_core = setup.world.caller("ops", core.local_addr()).connect().await;
    check(&setup, &of(&ops_by_core.expect("a caller")), "Stage/Note", "ops by core", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_may_limit_messages_below_the_nodes_own_limit() {
    let mut bounded = allow("ops", "**", "*/*");
    bounded.message_bytes_max = Some(100);
    let policy = NodePolicy::default().allow(bounded).allow(allow("billing", "**", "*/*"));
    let setup = PolicySetup::with(policy).await;
    let [ops, billing] = [setup.caller("ops").await, setup.caller("billing").await]
        .map(|caller| caller.agent("other").expect("a name"));
    // A text of up to 255 bytes takes two more bytes in CBOR.
    let [fits, exceeds] = [98, 99].map(|bytes| "x".repeat(bytes));
    assert!(note(&ops, &fits).await.is_ok() && note(&billing, &exceeds).await.is_ok());
    let refused = note(&ops, &exceeds).await;
    check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
    assert_eq!((setup.stage.runs(&fits), setup.stage.runs(&exceeds)), (1, 1));
}
