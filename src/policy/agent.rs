//! The agent's own rules: which calls from nodes it accepts.

use super::{AgentRule, path_reading::TargetReadings};
use crate::name::{HttpTarget, MethodPath, Name, PeerName};
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

    /// Decides one call that a node forwards for a requester. Every call of an HTTP forward has an
    /// HTTP target; without one, decides whether some call of the forward is allowed. Allocates
    /// only to compare paths.
    pub fn decide(
        &self,
        node: &Name,
        requester: &PeerName,
        method: &MethodPath,
        http: Option<&HttpTarget>,
    ) -> AgentDecision<'_> {
        if self.allow.is_empty() {
            return AgentDecision::AllowedWithoutRules;
        }
        let http = http.map(TargetReadings::new);
        let first = |http: Option<&TargetReadings<'_>>| {
            self.allow.iter().find(|rule| rule.covers(node, requester, method, http))
        };
        match first(http.as_ref()) {
            Some(rule) => AgentDecision::AllowedBy(rule),
            None => first(None).map_or(AgentDecision::Denied, AgentDecision::DeniedByScope),
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
    /// No rule covers its verb and path; this one covers others.
    DeniedByScope(&'a AgentRule),
}

impl AgentDecision<'_> {
    /// True if the call is allowed.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::AllowedBy(_) | Self::AllowedWithoutRules)
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
            Self::DeniedByScope(rule) => {
                f.write_str("denied: no [[allow]] rule of the agent covers its verb and path; ")?;
                rule.origin.cite(f, "allow")?;
                write!(f, " covers {}", rule.http)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{HttpScope, Origin},
        *,
    };

    #[track_caller]
    fn check(policy: &AgentPolicy, call: [&str; 3], expected: &str) {
        check_http(policy, call, None, expected);
    }

    #[track_caller]
    fn check_http(
        policy: &AgentPolicy,
        [node, requester, method]: [&str; 3],
        http: Option<[&str; 2]>,
        expected: &str,
    ) {
        let node = node.parse().expect("a name");
        let requester = requester.parse().expect("a peer");
        let method = method.parse().expect("a method");
        let http = http.map(|[verb, path]| HttpTarget::new(verb, path).expect("a target"));
        let decision = policy.decide(&node, &requester, &method, http.as_ref());
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

    #[test]
    fn a_rule_with_a_scope_covers_only_its_verbs_and_paths() {
        let mut rule = AgentRule::parse("edge-1", "ops", "http:web").expect("a rule");
        rule.origin = Origin::at("agent.toml", 9);
        rule.http = HttpScope::parse(&["GET"], &["/api"]).expect("a scope");
        let policy = AgentPolicy::default().allow(rule);
        let call = ["edge-1", "caller/ops", "http:web"];
        let allowed = "allowed by the [[allow]] rule at agent.toml:9";
        let by_scope = "denied: no [[allow]] rule of the agent covers its verb and path; the [[allow]] rule at agent.toml:9 covers GET on /api";
        check_http(&policy, call, Some(["GET", "/api/x"]), allowed);
        check_http(&policy, call, Some(["PUT", "/api/x"]), by_scope);
        check_http(&policy, call, Some(["GET", "/api%2Fx"]), by_scope);
        check(&policy, call, allowed);
        let denied = "denied: no [[allow]] rule of the agent covers it";
        check_http(&policy, ["core", "caller/ops", "http:web"], Some(["GET", "/api"]), denied);
    }
}
