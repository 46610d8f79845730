//! Tests of both policies together: the same patterns over callers and methods, and the decision of
//! each side with several rules.

use super::{
    AgentPolicy, AgentRule, AllowRule, DenyRule, HttpScope, NodePolicy, Origin, PolicyTarget,
};
use crate::name::{HttpTarget, MethodPath, Name, PeerName};

/// Decision of the rules on one side: the line of the rule that decides, or nothing.
type Deciding = Result<u32, &'static str>;

fn node(policy: &NodePolicy, requester: &PeerName, on: &Name, method: &MethodPath) -> Deciding {
    match policy.decide(requester, PolicyTarget::Agent(on), method, None) {
        super::Decision::Allow(grant) => Ok(grant.rule().origin.line),
        super::Decision::Deny(super::Denied::ByRule(_)) => Err("denied"),
        super::Decision::Deny(_) => Err("no rule"),
    }
}

fn agent(policy: &AgentPolicy, by: &Name, requester: &PeerName, method: &MethodPath) -> Deciding {
    match policy.decide(by, requester, method, None) {
        super::AgentDecision::AllowedBy(rule) => Ok(rule.origin.line),
        super::AgentDecision::AllowedWithoutRules => Ok(0),
        _ => Err("no rule"),
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

/// A policy of a node with these rules over `http:web` of all callers, at lines 1 and following.
fn scoped(allow: &[[&[&str]; 2]], deny: &[[&[&str]; 2]]) -> NodePolicy {
    let scope = |[verbs, paths]: [&[&str]; 2]| HttpScope::parse(verbs, paths).expect("a scope");
    let mut policy = NodePolicy::default();
    for (line, http) in (1..).zip(allow) {
        let mut rule = AllowRule::parse("**", "**", "http:*").expect("a rule");
        (rule.http, rule.origin) = (scope(*http), Origin::at("f", line));
        policy = policy.allow(rule);
    }
    for (line, http) in (1..).zip(deny) {
        let mut rule = DenyRule::parse("**", "**", "http:web").expect("a rule");
        (rule.http, rule.origin) = (scope(*http), Origin::at("f", line));
        policy = policy.deny(rule);
    }
    policy
}

#[track_caller]
fn check_request(policy: &NodePolicy, request: Option<[&str; 2]>, expected: &str) {
    let http = request.map(|[verb, path]| HttpTarget::new(verb, path).expect("a target"));
    let (requester, on) = ("caller/ops".parse().expect("a peer"), name("store"));
    let (on, method) = (PolicyTarget::Agent(&on), "http:web".parse().expect("a method"));
    let decision = policy.decide(&requester, on, &method, http.as_ref());
    assert_eq!(decision.to_string(), expected, "{request:?}");
}

#[test]
fn the_first_rule_whose_scope_covers_a_request_decides() {
    let policy = scoped(&[[&["GET"], &["/api"]], [&["GET", "PUT"], &["/api/x"]]], &[]);
    let by = |line| format!("allowed by the [[allow]] rule at f:{line}");
    check_request(&policy, Some(["GET", "/api/x"]), &by(1));
    check_request(&policy, Some(["PUT", "/api/x"]), &by(2));
    let none = "denied: no [[allow]] rule covers its verb and path; the [[allow]] rule at f:1 covers GET on /api";
    check_request(&policy, Some(["PUT", "/api"]), none);
    check_request(&policy, Some(["GET", "/"]), none);
    check_request(&policy, None, &by(1));
}

#[test]
fn a_deny_with_a_scope_wins_for_its_requests_alone() {
    let policy = scoped(&[[&[], &[]]], &[[&["DELETE"], &[]], [&[], &["/admin"]]]);
    let denied = |line| format!("denied by the [[deny]] rule at f:{line}");
    let allowed = "allowed by the [[allow]] rule at f:1";
    check_request(&policy, Some(["GET", "/api"]), allowed);
    check_request(&policy, Some(["DELETE", "/api"]), &denied(1));
    check_request(&policy, Some(["GET", "/admin/x"]), &denied(2));
    check_request(&policy, Some(["GET", "/admin;x"]), &denied(2));
    check_request(&policy, Some(["GET", "/x/../admin"]), &denied(2));
    check_request(&policy, None, allowed);
}

#[test]
fn a_forward_is_seen_unless_one_deny_covers_all_that_is_allowed() {
    let api: [&[&str]; 2] = [&["GET"], &["/api"]];
    for (allow, deny, expected) in [
        (api, [&[][..], &[]], false),
        (api, api, false),
        (api, [&["GET", "HEAD"], &["/x", "/api"]], false),
        (api, [&["GET"], &["/api/x"]], true),
        ([&[], &[]], [&["GET"], &[]], true),
    ] {
        let policy = scoped(&[allow], &[deny]);
        // The denied forward has the name that the allowed pattern has.
        let deny =
            DenyRule { method: "http:*".parse().expect("a pattern"), ..policy.deny[0].clone() };
        let policy = NodePolicy { deny: vec![deny], ..policy };
        let requester = "caller/ops".parse().expect("a peer");
        let sees = policy.may_see(&requester, PolicyTarget::Agent(&name("store")));
        assert_eq!(sees, expected, "{policy:?}");
    }
}

#[test]
fn the_scope_of_a_rule_over_other_methods_is_ignored() {
    let http = HttpScope::parse(&["GET"], &["/api"]).expect("a scope");
    let mut allow = AllowRule::parse("**", "**", "*/*").expect("a rule");
    let mut deny = DenyRule::parse("**", "**", "A/*").expect("a rule");
    (allow.http, deny.http) = (http.clone(), http);
    let policy = NodePolicy::default().allow(allow).deny(deny);
    let (ops, on) = ("caller/ops".parse().expect("a peer"), name("store"));
    for (method, passes) in [("A/b", Err("denied")), ("B/c", Ok(0))] {
        let method = method.parse().expect("a method");
        assert_eq!(node(&policy, &ops, &on, &method), passes);
        let view = policy.view(&ops).on(PolicyTarget::Agent(&on));
        assert_eq!(view.allows(&method), passes.is_ok());
    }
}
