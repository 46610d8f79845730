//! The rules of a policy that apply to one requester, filtered once for lists.

use super::{AllowRule, DenyRule, NodePolicy, PolicyTarget};
use crate::name::{MethodPath, PeerName};

/// The rules that apply to one requester, and after [`PolicyView::on`] to one target. Agrees with
/// [`NodePolicy::decide`].
///
/// Costs a comparison of patterns for each rule, and each query one for each rule that is left.
#[derive(Debug, Clone)]
pub struct PolicyView<'a> {
    allow: Vec<&'a AllowRule>,
    deny: Vec<&'a DenyRule>,
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

    /// True if the method is allowed.
    pub fn allows(&self, method: &MethodPath) -> bool {
        !self.deny.iter().any(|rule| rule.method.matches(method))
            && self.allow.iter().any(|rule| rule.method.matches(method))
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
        self.deny.iter().any(|rule| rule.method.covers(&open.method))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALLERS: [&str; 4] = ["ops", "**", "intern.*", "agent/a"];
    const AGENTS: [&str; 4] = ["a", "**", "acme.*", "node/a"];
    const METHODS: [&str; 5] = ["*/*", "S/*", "S/A", "acme.**/Get*", "tcp:x"];

    fn peer(text: &str) -> PeerName {
        text.parse().expect("a peer")
    }

    proptest! {
        #[test]
        fn a_view_decides_methods_as_the_policy_does(
            allow in prop::collection::vec((0..4_usize, 0..4_usize, 0..5_usize), 0..4),
            deny in prop::collection::vec((0..4_usize, 0..4_usize, 0..5_usize), 0..3),
        ) {
            let mut policy = NodePolicy::default();
            for (caller, agent, method) in allow {
                let rule = AllowRule::parse(CALLERS[caller], AGENTS[agent], METHODS[method]);
                policy = policy.allow(rule.expect("a rule"));
            }
            for (caller, agent, method) in deny {
                let rule = DenyRule::parse(CALLERS[caller], AGENTS[agent], METHODS[method]);
                policy = policy.deny(rule.expect("a rule"));
            }
            for requester in ["caller/ops", "caller/intern.bob", "agent/a"].map(peer) {
                for on in ["a", "acme.b"].map(|name| name.parse().expect("a name")) {
                    let (target, mut is_any_open) = (PolicyTarget::Agent(&on), false);
                    let view = policy.view(&requester).on(target);
                    for method in ["S/A", "S/B", "T/A", "acme.v1.X/GetOne"] {
                        let method: MethodPath = method.parse().expect("a method");
                        let is_open = policy.decide(&requester, target, &method).is_allowed();
                        prop_assert_eq!(view.allows(&method), is_open);
                        prop_assert!(!is_open || view.allows_some_of(method.service()));
                        is_any_open |= is_open;
                    }
                    prop_assert!(!is_any_open || view.allows_something());
                    prop_assert_eq!(view.allows_something(), policy.may_see(&requester, target));
                }
            }
        }
    }
}
