//! The agent's own rules: which calls from nodes it accepts.

use super::AgentRule;
use crate::name::{MethodPath, Name, PeerName};
use std::fmt;

/// Rules of an agent. Without a rule every verified node may call every hosted service; with any
/// rule the rest is denied. The node reports the caller's name: a compromised node may claim any
/// caller, but reaches only methods that a rule opens to that node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentPolicy {
    /// Allow rules. Where several cover a call, the first is reported as the rule that decided.
    pub allow: Vec<AgentRule>,
}

impl AgentPolicy {
    /// Appends a rule. The first rule denies everything that no rule allows.
    #[must_use]
    pub fn allow(mut self, rule: AgentRule) -> Self {
        self.allow.push(rule);
        self
    }

    /// Decides one call that a node forwards for a requester. Allocates nothing.
    pub fn decide(
        &self,
        node: &Name,
        requester: &PeerName,
        method: &MethodPath,
    ) -> AgentDecision<'_> {
        if self.allow.is_empty() {
            return AgentDecision::AllowedWithoutRules;
        }
        match self.allow.iter().find(|rule| rule.covers(node, requester, method)) {
            Some(rule) => AgentDecision::AllowedBy(rule),
            None => AgentDecision::Denied,
        }
    }
}

/// Decision of an agent's policy on one call. Displayed as a sentence that names the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentDecision<'a> {
    /// This rule allows it.
    AllowedBy(&'a AgentRule),
    /// The owner wrote no rules.
    AllowedWithoutRules,
    /// Rules exist, and none covers it.
    Denied,
}

impl AgentDecision<'_> {
    /// True if the call is allowed.
    pub const fn is_allowed(&self) -> bool {
        !matches!(self, Self::Denied)
    }
}

impl fmt::Display for AgentDecision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowedBy(rule) => {
                f.write_str("allowed by ")?;
                rule.origin.cite(f, "allow")
            }
            Self::AllowedWithoutRules => f.write_str("allowed: the agent has no [[allow]] rules"),
            Self::Denied => f.write_str("denied: no [[allow]] rule of the agent covers it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Origin, *};

    #[track_caller]
    fn check(policy: &AgentPolicy, [node, requester, method]: [&str; 3], expected: &str) {
        let node = node.parse().expect("a name");
        let requester = requester.parse().expect("a peer");
        let method = method.parse().expect("a method");
        let decision = policy.decide(&node, &requester, &method);
        assert_eq!(decision.to_string(), expected);
        assert_eq!(decision.is_allowed(), expected.starts_with("allowed"));
    }

    #[test]
    fn without_rules_every_verified_node_may_call() {
        let expected = "allowed: the agent has no [[allow]] rules";
        check(&AgentPolicy::default(), ["edge-1", "caller/billing", "A/b"], expected);
    }

    #[test]
    fn with_a_rule_every_call_that_it_does_not_cover_is_denied() {
        let mut rule = AgentRule::parse("edge-*", "billing", "HelloService/*").expect("a rule");
        rule.origin = Origin::at("agent.toml", 9);
        let policy = AgentPolicy::default().allow(rule);
        let allowed = "allowed by the [[allow]] rule at agent.toml:9";
        let denied = "denied: no [[allow]] rule of the agent covers it";
        check(&policy, ["edge-1", "caller/billing", "HelloService/Hi"], allowed);
        check(&policy, ["core", "caller/billing", "HelloService/Hi"], denied);
        check(&policy, ["edge-1", "caller/ops", "HelloService/Hi"], denied);
        check(&policy, ["edge-1", "node/billing", "HelloService/Hi"], denied);
        check(&policy, ["edge-1", "caller/billing", "Other/Hi"], denied);
    }
}
