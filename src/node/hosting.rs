//! Which agents have registered which methods: where calls that name only a service may go. A plain index; whether an agent *may* answer is the policy's to say.

use crate::{name::Name, wire::ServiceInfo};
use std::collections::HashMap;

/// Methods by agent, and agents by method.
#[derive(Debug, Default)]
pub(super) struct Hosting {
    by_method: HashMap<String, Vec<Name>>,
    by_agent: HashMap<Name, Vec<String>>,
}

impl Hosting {
    /// Notes what an agent hosts from now on, in place of what it hosted before.
    pub(super) fn set(&mut self, agent: &Name, services: &[ServiceInfo]) {
        self.remove(agent);
        let methods: Vec<String> = services
            .iter()
            .flat_map(|service| {
                service.methods.iter().map(|method| format!("{}/{}", service.name, method.name))
            })
            .collect();
        for method in &methods {
            let agents = self.by_method.entry(method.clone()).or_default();
            // A peer may list a method twice.
            if agents.last() != Some(agent) {
                agents.push(agent.clone());
            }
        }
        if !methods.is_empty() {
            self.by_agent.insert(agent.clone(), methods);
        }
    }

    /// Forgets what an agent hosted.
    pub(super) fn remove(&mut self, agent: &Name) {
        for method in self.by_agent.remove(agent).unwrap_or_default() {
            if let Some(agents) = self.by_method.get_mut(&method) {
                agents.retain(|have| have != agent);
                if agents.is_empty() {
                    self.by_method.remove(&method);
                }
            }
        }
    }

    /// Who has registered a method.
    pub(super) fn of(&self, method: &str) -> &[Name] {
        self.by_method.get(method).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CallKind, MethodInfo};

    fn service(methods: &[&str]) -> Vec<ServiceInfo> {
        let method = |name: &&str| MethodInfo::new(*name, CallKind::Unary);
        vec![ServiceInfo::new("S", methods.iter().map(method).collect())]
    }

    #[test]
    fn a_registration_replaces_the_one_before_and_leaving_leaves_nothing() {
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().expect("a name"));
        let mut hosting = Hosting::default();
        hosting.set(&a, &service(&["X", "Y", "Y"]));
        hosting.set(&b, &service(&["X"]));
        assert_eq!(
            (hosting.of("S/X"), hosting.of("S/Y")),
            (&[a.clone(), b.clone()][..], &[a.clone()][..])
        );
        hosting.set(&a, &service(&["Z"]));
        assert_eq!((hosting.of("S/X"), hosting.of("S/Y")), (&[b.clone()][..], &[][..]));
        hosting.remove(&a);
        hosting.remove(&b);
        hosting.remove(&b);
        assert!(hosting.by_method.is_empty() && hosting.by_agent.is_empty());
    }
}
