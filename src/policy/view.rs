//! The rules of a policy that apply to one requester, filtered once for lists.

use super::{AllowRule, DenyRule, NodePolicy, PolicyTarget};
use crate::name::{MethodPath, PeerName};

/// The rules that apply to one requester, and after [`PolicyView::on`] to one target. Agrees with
/// [`NodePolicy::decide`].
///
/// Costs a comparison of patterns for each rule, and each query one for each rule that is left.
#[derive(Debug, Clone)]
pub struct PolicyView<'a> {
    pub(super) allow: Vec<&'a AllowRule>,
    pub(super) deny: Vec<&'a DenyRule>,
}

impl NodePolicy {
    /// The rules that apply to this requester.
    pub fn view(&self, requester: &PeerName) -> PolicyView<'_> {
        PolicyView {
            allow: self.allow.iter().filter(|rule| rule.caller.matches(requester)).collect(),
            deny: self.deny.iter().filter(|rule| rule.caller.matches(requester)).collect(),
        }
    }
}

impl PolicyView<'_> {
    /// Selects those that apply to this target.
    #[must_use]
    pub fn on(&self, target: PolicyTarget<'_>) -> Self {
        let (allow, deny) = (self.allow.iter(), self.deny.iter());
        Self {
            allow: allow.copied().filter(|rule| rule.agent.matches(target)).collect(),
            deny: deny.copied().filter(|rule| rule.agent.matches(target)).collect(),
        }
    }

    /// True if the method is allowed; of an HTTP forward, if some call of it may be.
    pub fn allows(&self, method: &MethodPath) -> bool {
        if method.is_mcp_server() {
            return self.opens_server(method);
        }
        let denies =
            |rule: &&DenyRule| rule.method.matches(method) && rule.http.is_denied(method, None);
        !self.deny.iter().any(denies) && self.allow.iter().any(|rule| rule.method.matches(method))
    }

    /// True if something is open, RPC or forward, as far as patterns show: some rule opens it, and
    /// no single rule takes all of that away.
    pub fn allows_something(&self) -> bool {
        self.allow.iter().any(|rule| !self.is_closed(rule))
    }

    /// As above, for a service whose methods are not known.
    pub fn allows_some_of(&self, service: &str) -> bool {
        !self.deny.iter().any(|rule| rule.method.matches_all_of(service))
            && self
                .allow
                .iter()
                .any(|rule| rule.method.matches_some_of(service) && !self.is_closed(rule))
    }

    fn is_closed(&self, open: &AllowRule) -> bool {
        let includes = |rule: &DenyRule| !rule.method.is_http() || rule.http.includes(&open.http);
        self.deny.iter().any(|rule| rule.method.covers(&open.method) && includes(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::HttpScope, *};
    use crate::name::HttpTarget;
    use proptest::prelude::*;

    const CALLERS: [&str; 4] = ["ops", "**", "intern.*", "agent/a"];
    const AGENTS: [&str; 4] = ["a", "**", "acme.*", "node/a"];
    const METHODS: [&str; 7] = ["*/*", "S/*", "S/A", "acme.**/Get*", "tcp:x", "http:x", "http:**"];
    const SCOPES: [[&[&str]; 2]; 4] =
        [[&[], &[]], [&["GET"], &[]], [&[], &["/api/*"]], [&["GET", "PUT"], &["/", "/api/*"]]];

    fn peer(text: &str) -> PeerName {
        text.parse().expect("a peer")
    }

    proptest! {
        #[test]
        fn a_view_decides_methods_as_the_policy_does(
            allow in prop::collection::vec((0..4_usize, 0..4_usize, 0..7_usize, 0..4_usize), 0..4),
            deny in prop::collection::vec((0..4_usize, 0..4_usize, 0..7_usize, 0..4_usize), 0..3),
        ) {
            let mut policy = NodePolicy::default();
            let scope = |n: usize| HttpScope::parse(SCOPES[n][0], SCOPES[n][1]).expect("a scope");
            for (caller, agent, method, http) in allow {
                let rule = AllowRule::parse(CALLERS[caller], AGENTS[agent], METHODS[method]);
                policy = policy.allow(AllowRule { http: scope(http), ..rule.expect("a rule") });
            }
            for (caller, agent, method, http) in deny {
                let rule = DenyRule::parse(CALLERS[caller], AGENTS[agent], METHODS[method]);
                policy = policy.deny(DenyRule { http: scope(http), ..rule.expect("a rule") });
            }
            let requests = [("GET", "/api/a"), ("GET", "/api/a%2Fb"), ("PUT", "/x"), ("POST", "/")]
                .map(|(verb, path)| HttpTarget::new(verb, path).expect("a target"));
            for requester in ["caller/ops", "caller/intern.bob", "agent/a"].map(peer) {
                for on in ["a", "acme.b"].map(|name| name.parse().expect("a name")) {
                    let (target, mut is_any_open) = (PolicyTarget::Agent(&on), false);
                    let view = policy.view(&requester).on(target);
                    for method in ["S/A", "S/B", "T/A", "acme.v1.X/GetOne"] {
                        let method: MethodPath = method.parse().expect("a method");
                        let is_open = policy.decide(&requester, target, &method, None).is_allowed();
                        prop_assert_eq!(view.allows(&method), is_open);
                        prop_assert!(!is_open || view.allows_some_of(method.service()));
                        is_any_open |= is_open;
                    }
                    for method in ["http:x", "http:y"] {
                        let method: MethodPath = method.parse().expect("a method");
                        let decide = |http| policy.decide(&requester, target, &method, http);
                        let is_seen = view.allows(&method);
                        prop_assert_eq!(is_seen, decide(None).is_allowed());
                        let is_open = requests.iter().any(|http| decide(Some(http)).is_allowed());
                        prop_assert!(!is_open || is_seen, "{} is open and not seen", method);
                        is_any_open |= is_open;
                    }
                    prop_assert!(!is_any_open || view.allows_something());
                    prop_assert_eq!(view.allows_something(), policy.may_see(&requester, target));
                }
            }
        }
    }
}
