//! Access to forwards: rules for methods allow none, on the node and on the agent; and which
//! callers see it.

use super::setup::{TcpUpstream, opened};
use crate::world::{World, attached, check_status, soon};
use dialback::{
    AgentPolicy, CallKind, Callee, Code, NodePolicy, Outcome, Status,
    policy::{AgentRule, AllowRule, DenyRule},
};

fn allow(method: &str) -> AllowRule {
    AllowRule::parse("ops", "warehouse", method).expect("a rule")
}

/// The result of a connection; the upstream sees one if and only if it was allowed.
async fn reaches(callee: &Callee, upstream: &TcpUpstream) -> Result<(), Status> {
    let stream = opened(callee.tcp("db")).await?;
    drop((stream, upstream.next().await));
    Ok(())
}

async fn check_node(policy: NodePolicy, what: &str, is_open: bool) {
    let (world, upstream) = (World::new(), TcpUpstream::open().await);
    let node = world.node().policy(policy).start().await.expect("a node");
    let agent = world.agent("warehouse", node.local_addr()).tcp(upstream.forward("db"));
    let _agent = attached(agent).await;
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    let reached = reaches(&caller.agent("warehouse").expect("a name"), &upstream).await;
    if is_open {
        assert_eq!(reached, Ok(()), "{what}");
    } else {
        check_status(reached, Code::PermissionDenied, Outcome::NotExecuted);
    }
    // The node's own program needs no rule.
    let handle = node.agent("warehouse").handle().expect("a name");
    assert_eq!(reaches(handle.as_ref(), &upstream).await, Ok(()), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_rule_for_the_forward_allows_it_on_the_node() {
    for (method, is_open) in [
        ("tcp:db", true),
        ("tcp:*", true),
        ("tcp:**", true),
        ("*/*", false),
        ("**/*", false),
        ("tcp/*", false),
        ("tcp:other", false),
    ] {
        check_node(NodePolicy::default().allow(allow(method)), method, is_open).await;
    }
    check_node(NodePolicy::allow_all(), "every method of everybody", false).await;
    let deny = |method| DenyRule::parse("ops", "**", method).expect("a rule");
    let open = || NodePolicy::default().allow(allow("tcp:*"));
    check_node(open().deny(deny("tcp:db")), "denied", false).await;
    check_node(open().deny(deny("*/*")), "methods are denied, forwards not", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_rule_for_the_forward_allows_it_on_the_agent() {
    for (method, is_open) in [
        (None, true),
        (Some("tcp:db"), true),
        (Some("tcp:*"), true),
        (Some("*/*"), false),
        (Some("tcp:other"), false),
    ] {
        let (world, upstream) = (World::new(), TcpUpstream::open().await);
        let node =
            world.node().policy(super::setup::allow_all_with_tcp()).start().await.expect("a node");
        let rule = |method| AgentRule::parse("edge-1", "ops", method).expect("a rule");
        let policy = method
            .map_or_else(AgentPolicy::default, |method| AgentPolicy::default().allow(rule(method)));
        let agent = world.agent("warehouse", node.local_addr()).policy(policy);
        let _agent = attached(agent.tcp(upstream.forward("db"))).await;
        let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
        let reached = reaches(&caller.agent("warehouse").expect("a name"), &upstream).await;
        if is_open {
            assert_eq!(reached, Ok(()), "{method:?}");
        } else {
            check_status(reached, Code::PermissionDenied, Outcome::NotExecuted);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_forward_is_unimplemented_and_a_present_one_is_listed() {
    let setup = super::setup::ForwardSetup::open().await;
    let callee = setup.by_caller();
    let absent = opened(callee.tcp("other")).await;
    let status = check_status(absent, Code::Unimplemented, Outcome::NotExecuted);
    assert_eq!(status.message(), "no forward tcp:other is hosted here");
    check_status(opened(callee.tcp("no/name")).await, Code::InvalidArgument, Outcome::NotExecuted);
    let services = setup.caller.services("warehouse").await.expect("a list");
    let [tcp] = &*services else { panic!("{services:?}") };
    let paths: Vec<_> =
        tcp.methods.iter().map(|method| (method.path(&tcp.name), method.kind)).collect();
    assert_eq!(paths, [("tcp:db".to_owned(), CallKind::Tcp)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_belongs_to_one_agent_and_takes_no_other_kind_of_call() {
    let setup = super::setup::ForwardSetup::open().await;
    let any = opened(setup.caller.any().tcp("db")).await;
    let status = check_status(any, Code::InvalidArgument, Outcome::NotExecuted);
    assert!(status.message().contains("has to name the agent"), "{status}");
    for callee in setup.callees() {
        let unary = soon("it is refused", async { callee.call::<()>("tcp:db", &()).await }).await;
        let status = unary.expect_err("a call of another kind");
        assert!(status.is_safe_to_retry(), "{status}");
    }
    let own = setup.caller.node();
    check_status(opened(own.tcp("db")).await, Code::PermissionDenied, Outcome::NotExecuted);
}
