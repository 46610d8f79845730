//! Decisions on MCP servers themselves, for calls that need no particular tool, such as
//! `tools/list`.

use super::{AllowRule, DenyRule, NodePolicy, PolicyTarget, PolicyView};
use crate::name::{MethodPath, PeerName};

impl NodePolicy {
    /// The first allow rule that opens something of the server and that no deny rule closes there.
    /// Otherwise the deny rule that closes the first, if a rule opens something.
    pub(super) fn opening_rule(
        &self,
        requester: &PeerName,
        target: PolicyTarget<'_>,
        server: &MethodPath,
    ) -> Result<&AllowRule, Option<&DenyRule>> {
        let allow = self
            .allow
            .iter()
            .filter(|rule| rule.caller.matches(requester) && rule.agent.matches(target));
        let deny = self
            .deny
            .iter()
            .filter(|rule| rule.caller.matches(requester) && rule.agent.matches(target));
        opening_rule(allow, deny, server)
    }
}

impl PolicyView<'_> {
    /// True if a rule opens something of the server, and no deny rule closes all of that.
    pub(super) fn opens_server(&self, server: &MethodPath) -> bool {
        opening_rule(self.allow.iter().copied(), self.deny.iter().copied(), server).is_ok()
    }
}

/// One deny rule has to close all that an allow rule opens on the server: what several of them
/// close together is not determined.
fn opening_rule<'a>(
    allow: impl Iterator<Item = &'a AllowRule>,
    deny: impl Iterator<Item = &'a DenyRule> + Clone,
    server: &MethodPath,
) -> Result<&'a AllowRule, Option<&'a DenyRule>> {
    let mut closing = None;
    for open in allow.filter(|rule| rule.method.matches(server)) {
        match deny.clone().find(|rule| rule.method.covers_below(server, &open.method)) {
            None => return Ok(open),
            Some(rule) => closing = closing.or(Some(rule)),
        }
    }
    Err(closing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{AgentPolicy, AgentRule, Origin};
    use proptest::prelude::*;

    fn policy(rules: &[(&str, &str)]) -> NodePolicy {
        let mut policy = NodePolicy::default();
        for (line, (kind, method)) in (1..).zip(rules) {
            if *kind == "allow" {
                let mut rule = AllowRule::parse("ops", "a", method).expect("a rule");
                rule.origin = Origin::at("f", line);
                policy = policy.allow(rule);
            } else {
                let mut rule = DenyRule::parse("ops", "a", method).expect("a rule");
                rule.origin = Origin::at("f", line);
                policy = policy.deny(rule);
            }
        }
        policy
    }

    /// Checks the decision on a call of `mcp:jira` itself.
    #[track_caller]
    fn check(rules: &[(&str, &str)], expected: &str) {
        let (policy, server) = (policy(rules), "mcp:jira".parse().expect("a server"));
        let (requester, agent) = ("caller/ops".parse().expect("one"), "a".parse().expect("one"));
        let target = PolicyTarget::Agent(&agent);
        let decision = policy.decide(&requester, target, &server, None);
        assert_eq!(decision.to_string(), expected);
        let view = policy.view(&requester).on(target);
        assert_eq!(view.allows(&server), decision.is_allowed());
        let other = policy.decide(&"caller/other".parse().expect("one"), target, &server, None);
        assert!(!other.is_allowed());
    }

    const NO_RULE: &str = "denied: no [[allow]] rule covers it";

    #[test]
    fn a_server_is_open_if_some_tool_of_it_is() {
        let first = "allowed by the [[allow]] rule at f:1";
        for method in ["mcp:jira/*", "mcp:jira/get_*", "mcp:*/x", "mcp:jira/resources"] {
            check(&[("allow", method)], first);
        }
        for method in ["mcp:git/*", "mcp:jira/client", "*/*", "http:jira", "tcp:**"] {
            check(&[("allow", method)], NO_RULE);
        }
        check(
            &[("allow", "mcp:git/*"), ("allow", "mcp:*/x")],
            "allowed by the [[allow]] rule at f:2",
        );
    }

    #[test]
    fn a_server_is_closed_if_each_rule_that_opens_it_is_denied_as_a_whole() {
        let second = "denied by the [[deny]] rule at f:2";
        check(&[("allow", "mcp:jira/a"), ("deny", "mcp:jira/a")], second);
        check(&[("allow", "mcp:jira/a"), ("deny", "mcp:**/*")], second);
        check(&[("allow", "mcp:**/get_*"), ("deny", "mcp:jira/g*")], second);
        check(&[("allow", "mcp:jira/*"), ("deny", "mcp:jira/*")], second);
        check(
            &[
                ("allow", "mcp:jira/a"),
                ("deny", "mcp:jira/a"),
                ("allow", "mcp:jira/b"),
                ("deny", "mcp:jira/b"),
            ],
            second,
        );
    }

    #[test]
    fn a_server_stays_open_if_deny_rules_leave_something() {
        let first = "allowed by the [[allow]] rule at f:1";
        check(&[("allow", "mcp:jira/*"), ("deny", "mcp:jira/drop")], first);
        check(&[("allow", "mcp:jira/resources"), ("deny", "mcp:jira/*")], first);
        check(&[("allow", "mcp:jira/a"), ("deny", "mcp:git/*"), ("deny", "*/*")], first);
        check(
            &[("allow", "mcp:jira/a"), ("deny", "mcp:jira/a"), ("allow", "mcp:jira/b*")],
            "allowed by the [[allow]] rule at f:3",
        );
    }

    #[test]
    fn the_rules_of_an_agent_open_a_server_with_some_tool_of_it() {
        let (node, requester) = ("edge".parse().expect("one"), "caller/ops".parse().expect("one"));
        for (method, is_open) in [
            ("mcp:jira/get_*", true),
            ("mcp:*/prompts", true),
            ("mcp:jira/client", false),
            ("*/*", false),
        ] {
            let rule = AgentRule::parse("edge", "ops", method).expect("a rule");
            let policy = AgentPolicy::default().allow(rule);
            let server = "mcp:jira".parse().expect("a server");
            assert_eq!(
                policy.decide(&node, &requester, &server, None).is_allowed(),
                is_open,
                "{method}"
            );
        }
    }

    const METHODS: [&str; 8] = [
        "mcp:jira/*",
        "mcp:jira/a",
        "mcp:**/a*",
        "mcp:*/b",
        "mcp:jira/resources",
        "mcp:jira/client",
        "*/*",
        "mcp:git/*",
    ];

    proptest! {
        #[test]
        fn a_server_is_open_to_all_that_may_call_something_of_it(
            rules in prop::collection::vec((any::<bool>(), 0..METHODS.len()), 0..6),
        ) {
            let rules: Vec<_> = rules
                .into_iter()
                .map(|(is_allow, method)| (if is_allow { "allow" } else { "deny" }, METHODS[method]))
                .collect();
            let policy = policy(&rules);
            let (requester, agent) = ("caller/ops".parse().expect("one"), "a".parse().expect("one"));
            let target = PolicyTarget::Agent(&agent);
            let allows = |path: &str| {
                let path = path.parse().expect("a path");
                policy.decide(&requester, target, &path, None).is_allowed()
            };
            for server in ["mcp:jira", "mcp:git"] {
                let names = ["a", "ab", "b", "c", "resources", "prompts"];
                let is_any_open = names.iter().any(|name| allows(&format!("{server}/{name}")));
                prop_assert!(!is_any_open || allows(server), "{} in {:?}", server, rules);
            }
        }
    }
}
