//! The node's rules: methods that requesters may call, and agents that may host a service.

use super::{
    AllowRule, DenyRule, HostRule, PolicyTarget, RequesterGlob, TargetGlob,
    path_reading::TargetReadings, rule::RuleLimits,
};
use crate::name::{HttpTarget, MethodPath, Name, NameError, PeerName, Role};
use std::{fmt, time::Duration};

/// Rules of a node. `Default` has no rules and denies everything. Every call costs one comparison
/// of patterns per rule, in their order, and no allocation except to compare paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePolicy {
    /// Allow rules. If several cover a call, the **first** decides and its limits apply.
    pub allow: Vec<AllowRule>,
    /// Deny rules, which override allow rules in any order.
    pub deny: Vec<DenyRule>,
    /// Agents that may answer calls that name only the service.
    pub host: Vec<HostRule>,
}

impl NodePolicy {
    /// Allows every RPC method, of agents and of the node, to every verified peer, and lets every
    /// agent answer for every service. For tests, and for programs that decide calls themselves.
    pub fn allow_all() -> Self {
        // The patterns are constants that a test reads; an error would leave the policy closed.
        Self::open_to_all().unwrap_or_default()
    }

    fn open_to_all() -> Result<Self, NameError> {
        let mut policy = Self::default();
        for role in Role::ALL {
            for target in [TargetGlob::Agents("**".parse()?), TargetGlob::Nodes("**".parse()?)] {
                let requester = RequesterGlob::new(role, "**".parse()?);
                policy.allow.push(AllowRule::new(requester, target, "*/*".parse()?));
            }
        }
        policy.host.push(HostRule::parse("**", "**")?);
        Ok(policy)
    }

    /// Appends a rule.
    #[must_use]
    pub fn allow(mut self, rule: AllowRule) -> Self {
        self.allow.push(rule);
        self
    }

    /// Adds a rule that denies calls which others allow.
    #[must_use]
    pub fn deny(mut self, rule: DenyRule) -> Self {
        self.deny.push(rule);
        self
    }

    /// Adds a grant to answer for a service.
    #[must_use]
    pub fn host(mut self, rule: HostRule) -> Self {
        self.host.push(rule);
        self
    }

    /// Decides one call: any deny rule that covers it decides, else the first allow rule that does.
    /// Every call of an HTTP forward has an HTTP target; without one, decides whether some call of
    /// the forward is allowed, as far as single rules show.
    /// A call of an MCP server itself, `mcp:jira`, is allowed if some tool of it is, or its
    /// resources or prompts are, as far as single rules show.
    pub fn decide(
        &self,
        requester: &PeerName,
        target: PolicyTarget<'_>,
        method: &MethodPath,
        http: Option<&HttpTarget>,
    ) -> Decision<'_> {
        if method.is_mcp_server() {
            return match self.opening_rule(requester, target, method) {
                Ok(rule) => Decision::Allow(Grant { rule }),
                Err(closing) => Decision::Deny(closing.map_or(Denied::NoRule, Denied::ByRule)),
            };
        }
        let http = http.map(TargetReadings::new);
        let covers = |rule: &&DenyRule| rule.covers(requester, target, method, http.as_ref());
        if let Some(rule) = self.deny.iter().find(covers) {
            return Decision::Deny(Denied::ByRule(rule));
        }
        let first = |http: Option<&TargetReadings<'_>>| {
            self.allow.iter().find(|rule| rule.covers(requester, target, method, http))
        };
        match first(http.as_ref()) {
            Some(rule) => Decision::Allow(Grant { rule }),
            None => Decision::Deny(first(None).map_or(Denied::NoRule, Denied::ByScope)),
        }
    }

    /// The first allow rule under which the requester may call the method on some agent, for a call
    /// that names only the service. Rules that deny are looked at for each agent.
    pub fn grant_anywhere(
        &self,
        requester: &PeerName,
        method: &MethodPath,
        http: Option<&HttpTarget>,
    ) -> Option<Grant<'_>> {
        let covers = |rule: &&AllowRule| {
            matches!(rule.agent, TargetGlob::Agents(_))
                && rule.caller.matches(requester)
                && rule.method.matches(method)
                && http.is_none_or(|http| rule.http.allows(http))
        };
        self.allow.iter().find(covers).map(|rule| Grant { rule })
    }

    /// True if the requester may know that the target exists: some allow rule opens something
    /// there, and no deny rule takes all of that away.
    pub fn may_see(&self, requester: &PeerName, target: PolicyTarget<'_>) -> bool {
        self.view(requester).on(target).allows_something()
    }

    /// True if the agent may answer calls that name only this service, or this forward
    /// (`http:grafana`).
    pub fn may_host(&self, agent: &Name, service: &str) -> bool {
        self.host.iter().any(|rule| rule.covers(agent, service))
    }
}

/// Decision of a policy on one call. Displayed as a sentence that names the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It is allowed, within the grant.
    Allow(Grant<'a>),
    /// It is denied.
    Deny(Denied<'a>),
}

impl Decision<'_> {
    /// True if the call is allowed.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(grant) => grant.fmt(f),
            Self::Deny(denied) => denied.fmt(f),
        }
    }
}

/// Proof that a rule allows a call, and the limits of that rule. Only a policy makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant<'a> {
    rule: &'a AllowRule,
}

impl<'a> Grant<'a> {
    /// The rule that decided.
    pub const fn rule(&self) -> &'a AllowRule {
        self.rule
    }

    /// The longest deadline that the call may have.
    pub const fn timeout_max(&self) -> Option<Duration> {
        self.rule.timeout_max
    }

    /// True if an attempt that may have run may be repeated.
    pub const fn is_idempotent(&self) -> bool {
        self.rule.idempotent
    }

    /// The largest message, in bytes, if the rule limits it.
    pub const fn message_bytes_max(&self) -> Option<usize> {
        self.rule.message_bytes_max
    }
}

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("allowed by ")?;
        self.rule.origin.cite(f, "allow")?;
        RuleLimits(self.rule).fmt(f)
    }
}

/// Cause of a denial. For the operator; the requester does not learn which rule it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied<'a> {
    /// A deny rule covers it.
    ByRule(&'a DenyRule),
    /// No allow rule covers it.
    NoRule,
    /// No allow rule covers its verb and path; this one covers others.
    ByScope(&'a AllowRule),
}

impl fmt::Display for Denied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByRule(rule) => {
                f.write_str("denied by ")?;
                rule.origin.cite(f, "deny")
            }
            Self::NoRule => f.write_str("denied: no [[allow]] rule covers it"),
            Self::ByScope(rule) => {
                f.write_str("denied: no [[allow]] rule covers its verb and path; ")?;
                rule.origin.cite(f, "allow")?;
                write!(f, " covers {}", rule.http)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Origin, *};

    fn allow(line: u32, caller: &str, agent: &str, method: &str) -> AllowRule {
        let mut rule = AllowRule::parse(caller, agent, method).expect("a rule");
        rule.origin = Origin::at("node.toml", line);
        rule
    }

    fn deny(line: u32, caller: &str, agent: &str, method: &str) -> DenyRule {
        let mut rule = DenyRule::parse(caller, agent, method).expect("a rule");
        rule.origin = Origin::at("node.toml", line);
        rule
    }

    fn target(peer: &PeerName) -> PolicyTarget<'_> {
        match peer.role {
            Role::Node => PolicyTarget::Node(&peer.name),
            _ => PolicyTarget::Agent(&peer.name),
        }
    }

    /// `requester target method`, as `policy test` has them.
    #[track_caller]
    fn check(policy: &NodePolicy, [requester, on, method]: [&str; 3], expected: &str) {
        let [requester, on] = [requester, on].map(|text| text.parse::<PeerName>().expect("a peer"));
        let method = method.parse().expect("a method");
        assert_eq!(policy.decide(&requester, target(&on), &method, None).to_string(), expected);
    }

    #[track_caller]
    fn check_sees(policy: &NodePolicy, requester: &str, on: &str, expected: bool) {
        let [requester, on] = [requester, on].map(|text| text.parse::<PeerName>().expect("a peer"));
        assert_eq!(policy.may_see(&requester, target(&on)), expected, "{requester} sees {on}");
    }

    const NO_RULE: &str = "denied: no [[allow]] rule covers it";

    #[test]
    fn without_rules_nothing_is_allowed() {
        let policy = NodePolicy::default();
        check(&policy, ["caller/billing", "agent/a", "A/b"], NO_RULE);
        check_sees(&policy, "caller/billing", "agent/a", false);
        assert!(!policy.may_host(&"a".parse().expect("a name"), "A"));
    }

    #[test]
    fn all_three_patterns_must_cover_a_call() {
        let policy = NodePolicy::default().allow(allow(7, "billing", "acme.*", "Hello/*"));
        let allowed = "allowed by the [[allow]] rule at node.toml:7";
        check(&policy, ["caller/billing", "agent/acme.a", "Hello/Hi"], allowed);
        check(&policy, ["caller/other", "agent/acme.a", "Hello/Hi"], NO_RULE);
        check(&policy, ["agent/billing", "agent/acme.a", "Hello/Hi"], NO_RULE);
        check(&policy, ["caller/billing", "agent/other", "Hello/Hi"], NO_RULE);
        check(&policy, ["caller/billing", "node/acme.a", "Hello/Hi"], NO_RULE);
        check(&policy, ["caller/billing", "agent/acme.a", "Bye/Hi"], NO_RULE);
    }

    #[test]
    fn a_rule_on_nodes_grants_no_call_to_any_agent() {
        let requester = "caller/billing".parse().expect("a peer");
        let method = "A/b".parse().expect("a method");
        let line = |agent: &str| {
            let policy = NodePolicy::default().allow(allow(3, "billing", agent, "A/*"));
            policy.grant_anywhere(&requester, &method, None).map(|grant| grant.rule().origin.line)
        };
        assert_eq!((line("acme.*"), line("node/**")), (Some(3), None));
    }

    #[test]
    fn deny_wins_over_an_allow_that_stands_before_it() {
        let policy = NodePolicy::default().allow(allow(1, "**", "**", "*/*")).deny(deny(
            5,
            "intern.**",
            "**",
            "*/*",
        ));
        check(
            &policy,
            ["caller/ops", "agent/a", "A/b"],
            "allowed by the [[allow]] rule at node.toml:1",
        );
        check(
            &policy,
            ["caller/intern.bob", "agent/a", "A/b"],
            "denied by the [[deny]] rule at node.toml:5",
        );
    }

    #[test]
    fn the_first_of_several_allow_rules_decides_with_its_limits() {
        let mut first = allow(1, "billing", "**", "Stock/*");
        first.timeout_max = Some(Duration::from_secs(1));
        first.message_bytes_max = Some(10);
        let mut second = allow(6, "**", "**", "*/*");
        second.idempotent = true;
        let policy = NodePolicy::default().allow(first).allow(second);

        let (requester, agent) =
            ("caller/billing".parse().expect("one"), "a".parse().expect("one"));
        let grant = |method: &str| {
            let method = method.parse().expect("a method");
            match policy.decide(&requester, PolicyTarget::Agent(&agent), &method, None) {
                Decision::Allow(grant) => grant,
                Decision::Deny(denied) => panic!("{denied}"),
            }
        };
        let stock = grant("Stock/List");
        assert_eq!((stock.rule().origin.line, stock.is_idempotent()), (1, false));
        assert_eq!(stock.timeout_max(), Some(Duration::from_secs(1)));
        assert_eq!(stock.message_bytes_max(), Some(10));
        let other = grant("Other/List");
        assert_eq!((other.rule().origin.line, other.is_idempotent()), (6, true));
        assert_eq!((other.timeout_max(), other.message_bytes_max()), (None, None));
    }

    #[test]
    fn a_requester_that_may_call_a_method_sees_its_service_unless_all_of_it_is_denied() {
        let policy = NodePolicy::default()
            .allow(allow(1, "billing", "acme.*", "Stock/*"))
            .allow(allow(2, "intern.*", "**", "Stock/*"))
            .allow(allow(3, "ops", "node/edge-1", "*/*"))
            .deny(deny(4, "intern.bob", "**", "*/*"))
            .deny(deny(5, "billing", "**", "Stock/Drop"));
        check_sees(&policy, "caller/billing", "agent/acme.a", true);
        check_sees(&policy, "caller/billing", "agent/other", false);
        check_sees(&policy, "caller/intern.eve", "agent/acme.a", true);
        check_sees(&policy, "caller/intern.bob", "agent/acme.a", false);
        check_sees(&policy, "caller/ops", "node/edge-1", true);
        check_sees(&policy, "caller/ops", "agent/edge-1", false);
    }

    #[test]
    fn a_service_of_unknown_methods_is_seen_if_some_of_it_is_open() {
        let policy = NodePolicy::default()
            .allow(allow(1, "billing", "a", "acme.v1.Stock/Get*"))
            .allow(allow(2, "ops", "**", "*/*"))
            .allow(allow(3, "web", "a", "tcp:grafana"))
            .allow(allow(4, "intern.*", "a", "Web/*"))
            .deny(deny(5, "ops", "a", "acme.**/*"))
            .deny(deny(6, "intern.bob", "a", "Web/Drop"))
            .deny(deny(7, "intern.eve", "a", "Web/*"));
        let sees = |requester: &str, agent: &str, service: &str| {
            let (requester, agent) =
                (requester.parse().expect("a peer"), agent.parse().expect("a name"));
            policy.view(&requester).on(PolicyTarget::Agent(&agent)).allows_some_of(service)
        };
        assert!(sees("caller/billing", "a", "acme.v1.Stock"));
        assert!(
            !sees("caller/billing", "a", "Web") && !sees("caller/billing", "b", "acme.v1.Stock")
        );
        assert!(sees("caller/ops", "a", "Web") && sees("caller/ops", "b", "acme.v1.Stock"));
        assert!(!sees("caller/ops", "a", "acme.v1.Stock"), "all of it is closed");
        assert!(!sees("caller/web", "a", "grafana"), "a forward is no service");
        assert!(sees("caller/intern.bob", "a", "Web"), "one method of it is closed");
        assert!(!sees("caller/intern.eve", "a", "Web"));
    }

    #[test]
    fn an_agent_hosts_a_service_only_by_a_rule_on_both() {
        let policy =
            NodePolicy::default().host(HostRule::parse("acme.*", "HelloService").expect("a rule"));
        let agent = |name: &str| name.parse::<Name>().expect("a name");
        assert!(policy.may_host(&agent("acme.a"), "HelloService"));
        assert!(!policy.may_host(&agent("other"), "HelloService"));
        assert!(!policy.may_host(&agent("acme.a"), "Stock"));
    }

    #[test]
    fn allow_all_opens_every_method_to_every_role_and_names_the_program_as_origin() {
        let policy = NodePolicy::allow_all();
        for requester in ["caller/a.b", "agent/a", "node/a"] {
            for on in ["agent/x.y", "node/x"] {
                check(
                    &policy,
                    [requester, on, "A.b/C"],
                    "allowed by a rule set in the program (allow)",
                );
                check_sees(&policy, requester, on, true);
            }
        }
        assert!(policy.may_host(&"a.b".parse().expect("a name"), "acme.v1.Stock"));
    }
}
