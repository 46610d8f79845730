//! Tests of both policies together: the same patterns over callers and methods, and the decision of
//! each side with several rules.

use super::{AgentPolicy, AgentRule, AllowRule, DenyRule, NodePolicy, Origin, PolicyTarget};
use crate::name::{MethodPath, Name, PeerName};

/// Decision of the rules on one side: the line of the rule that decides, or nothing.
type Deciding = Result<u32, &'static str>;

fn node(policy: &NodePolicy, requester: &PeerName, on: &Name, method: &MethodPath) -> Deciding {
    match policy.decide(requester, PolicyTarget::Agent(on), method) {
        super::Decision::Allow(grant) => Ok(grant.rule().origin.line),
        super::Decision::Deny(super::Denied::ByRule(_)) => Err("denied"),
        super::Decision::Deny(super::Denied::NoRule) => Err("no rule"),
    }
}

fn agent(policy: &AgentPolicy, by: &Name, requester: &PeerName, method: &MethodPath) -> Deciding {
    match policy.decide(by, requester, method) {
        super::AgentDecision::AllowedBy(rule) => Ok(rule.origin.line),
        super::AgentDecision::AllowedWithoutRules => Ok(0),
        super::AgentDecision::Denied => Err("no rule"),
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// Checks one rule on each side with these patterns: it allows or denies the call on both.
#[track_caller]
fn check_both(
    [caller, at_pattern, method]: [&str; 3],
    [requester, at, called]: [&str; 3],
    passes: bool,
) {
    let (requester, at) = (requester.parse().expect("a peer"), name(at));
    let called = called.parse().expect("a method");
    let mut on_node = AllowRule::parse(caller, at_pattern, method).expect("a rule");
    let mut on_agent = AgentRule::parse(at_pattern, caller, method).expect("a rule");
    on_node.origin = Origin::at("f", 3);
    on_agent.origin = Origin::at("f", 3);
    let expected = if passes { Ok(3) } else { Err("no rule") };
    let (nodes, agents) =
        (NodePolicy::default().allow(on_node), AgentPolicy::default().allow(on_agent));
    assert_eq!(node(&nodes, &requester, &at, &called), expected, "of the node");
    assert_eq!(agent(&agents, &at, &requester, &called), expected, "of the agent");
}

#[test]
fn patterns_mean_the_same_on_both_sides() {
    let call = ["caller/acme.ops", "acme.store-1", "acme.v1.Stock/List"];
    for (rule, passes) in [
        (["acme.ops", "acme.store-1", "acme.v1.Stock/List"], true),
        (["**", "**", "*/*"], true),
        (["**", "**", "**/*"], true),
        (["*", "**", "**/*"], false),
        (["acme.*", "acme.*", "acme.**/*"], true),
        (["acme.**", "acme.**", "acme.v1.*/*"], true),
        (["acme.*", "acme.store-*", "acme.v1.Stock/L*"], true),
        (["acme.*", "acme.store-1-*", "acme.v1.Stock/*"], false),
        (["acme.*", "acme.*", "acme.v1.Stock/Lists"], false),
        (["acme.*", "acme.*", "Stock/List"], false),
        (["acme", "acme.*", "**/*"], false),
        (["acme.ops.*", "acme.*", "**/*"], false),
        (["agent/acme.ops", "acme.*", "**/*"], false),
        (["node/acme.ops", "acme.*", "**/*"], false),
        (["caller/acme.ops", "acme.*", "**/*"], true),
    ] {
        check_both(rule, call, passes);
    }
}

#[test]
fn patterns_of_rpc_methods_cover_no_forward_and_the_reverse() {
    let call = ["caller/ops", "store", "Stock/List"];
    for (method, passes) in
        [("*/*", true), ("Stock/*", true), ("tcp:stock", false), ("tcp:**", false)]
    {
        check_both(["ops", "store", method], call, passes);
    }
    for (forward, passes) in [
        ("tcp:db", true),
        ("tcp:*", true),
        ("tcp:**", true),
        ("tcp:other", false),
        ("*/*", false),
        ("**/*", false),
        ("tcp/*", false),
        ("tcp/db", false),
    ] {
        check_both(["ops", "store", forward], ["caller/ops", "store", "tcp:db"], passes);
    }
    for (forward, passes) in [
        ("http:web", true),
        ("http:*", true),
        ("http:**", true),
        ("tcp:web", false),
        ("tcp:**", false),
        ("*/*", false),
        ("http/*", false),
    ] {
        check_both(["ops", "store", forward], ["caller/ops", "store", "http:web"], passes);
    }
    // A rule for all methods would have to cover these to open a forward.
    let every: crate::name::MethodGlob = "*/*".parse().expect("a pattern");
    for forward in ["tcp:db", "tcp:**", "http:web", "http:**"] {
        assert!(!every.covers(&forward.parse().expect("a pattern")), "{forward} is opened by */*");
    }
}

#[test]
fn the_first_rule_that_covers_a_call_decides_on_both_sides() {
    let rows = [("ops", "Stock/Drop"), ("ops", "Stock/*"), ("*", "*/List"), ("ops", "*/*")];
    let (mut nodes, mut agents) = (NodePolicy::default(), AgentPolicy::default());
    for (line, (caller, method)) in (1..).zip(rows) {
        let mut on_node = AllowRule::parse(caller, "**", method).expect("a rule");
        let mut on_agent = AgentRule::parse("**", caller, method).expect("a rule");
        on_node.origin = Origin::at("f", line);
        on_agent.origin = Origin::at("f", line);
        (nodes, agents) = (nodes.allow(on_node), agents.allow(on_agent));
    }
    for (requester, method, expected) in [
        ("caller/ops", "Stock/Drop", Ok(1)),
        ("caller/ops", "Stock/List", Ok(2)),
        ("caller/ops", "Other/List", Ok(3)),
        ("caller/ops", "a.b.Other/List", Ok(4)),
        ("caller/billing", "Stock/List", Ok(3)),
        ("caller/billing", "Stock/Drop", Err("no rule")),
        ("agent/ops", "Stock/Drop", Err("no rule")),
    ] {
        let (requester, method) =
            (requester.parse().expect("a peer"), method.parse().expect("a method"));
        let at = name("store");
        assert_eq!(
            node(&nodes, &requester, &at, &method),
            expected,
            "{requester} {method} on the node"
        );
        assert_eq!(
            agent(&agents, &at, &requester, &method),
            expected,
            "{requester} {method} on the agent"
        );
    }
}

#[test]
fn deny_wins_on_the_node_wherever_it_stands_and_an_agent_has_none() {
    let allow = AllowRule::parse("**", "**", "*/*").expect("a rule");
    let deny = |method| DenyRule::parse("ops", "store", method).expect("a rule");
    let early = NodePolicy::default().deny(deny("Stock/Drop")).allow(allow.clone());
    let late = NodePolicy::default().allow(allow).deny(deny("Stock/Drop"));
    for policy in [early, late] {
        for (requester, on, method, expected) in [
            ("caller/ops", "store", "Stock/Drop", Err("denied")),
            ("caller/ops", "store", "Stock/List", Ok(0)),
            ("caller/ops", "other", "Stock/Drop", Ok(0)),
            ("caller/billing", "store", "Stock/Drop", Ok(0)),
        ] {
            let (requester, method) =
                (requester.parse().expect("one"), method.parse().expect("one"));
            assert_eq!(
                node(&policy, &requester, &name(on), &method),
                expected,
                "{requester} {on} {method}"
            );
        }
    }
}
