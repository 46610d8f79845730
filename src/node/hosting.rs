//! Which agents have registered which methods: where calls that name only a service may go. A plain index; whether an agent *may* answer is the policy's to say.

use crate::{
    name::{MethodPath, Name},
    wire::{ANY_METHOD, MethodInfo, ServiceInfo},
};
use std::collections::HashMap;

/// Methods by agent, and agents by method; an agent that hosts a service as a whole stands under `SERVICE/*`.
#[derive(Debug, Default)]
pub(super) struct Hosting {
    by_method: HashMap<String, Vec<Name>>,
    by_agent: HashMap<Name, Vec<String>>,
}

impl Hosting {
    /// Notes what an agent hosts from now on, in place of what it hosted before.
    pub(super) fn set(&mut self, agent: &Name, services: &[ServiceInfo]) {
        self.remove(agent);
        let methods: Vec<String> = services.iter().flat_map(paths).collect();
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

    /// Who has registered a method, by its name or with its whole service.
    pub(super) fn of(&self, method: &MethodPath) -> Hosts<'_> {
        let under = |path: &str| self.by_method.get(path).map_or(&[][..], Vec::as_slice);
        let whole = under(&format!("{}/{ANY_METHOD}", method.service()));
        Hosts { named: under(method.as_str()), whole }
    }
}

/// The methods of a service as they are looked up. One that is hosted as a whole needs no other line.
fn paths(service: &ServiceInfo) -> Vec<String> {
    let path = |method: &MethodInfo| format!("{}/{}", service.name, method.name);
    match service.methods.iter().find(|method| method.is_any()) {
        Some(any) => vec![path(any)],
        None => service.methods.iter().map(path).collect(),
    }
}

/// The agents that have registered a method.
#[derive(Clone, Copy)]
pub(super) struct Hosts<'a> {
    named: &'a [Name],
    whole: &'a [Name],
}

impl<'a> Hosts<'a> {
    /// How many there are.
    pub(super) const fn len(self) -> usize {
        self.named.len() + self.whole.len()
    }

    /// All of them, beginning with the one in this place and going round.
    pub(super) fn in_turn_from(self, start: usize) -> impl Iterator<Item = &'a Name> {
        let start = start % self.len().max(1);
        let all = move || self.named.iter().chain(self.whole);
        all().skip(start).chain(all().take(start))
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
        assert_eq!((of(&hosting, "S/X"), of(&hosting, "S/Y")), ("a b".into(), "a".into()));
        hosting.set(&a, &service(&["Z"]));
        assert_eq!((of(&hosting, "S/X"), of(&hosting, "S/Y")), ("b".into(), "".into()));
        hosting.remove(&a);
        hosting.remove(&b);
        hosting.remove(&b);
        assert!(hosting.by_method.is_empty() && hosting.by_agent.is_empty());
    }

    /// Who has registered a method, in one text.
    fn of(hosting: &Hosting, method: &str) -> String {
        let method = method.parse().expect("a method");
        let hosts: Vec<_> = hosting.of(&method).in_turn_from(0).map(ToString::to_string).collect();
        hosts.join(" ")
    }

    #[test]
    fn who_hosts_a_service_as_a_whole_hosts_each_of_its_methods_once_and_no_other_service() {
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().expect("a name"));
        let mut hosting = Hosting::default();
        hosting.set(&a, &service(&["*", "X", "*"]));
        hosting.set(&b, &service(&["X"]));
        assert_eq!((of(&hosting, "S/X"), of(&hosting, "S/Z")), ("b a".into(), "a".into()));
        assert_eq!(of(&hosting, "T/X"), "");
        hosting.remove(&a);
        assert_eq!((of(&hosting, "S/X"), of(&hosting, "S/Z")), ("b".into(), "".into()));
    }

    #[test]
    fn everybody_has_a_turn_from_wherever_it_begins() {
        let names: Vec<Name> =
            ["a", "b", "c"].iter().map(|name| name.parse().expect("a name")).collect();
        let hosts = Hosts { named: &names[..1], whole: &names[1..] };
        for (start, first) in [(0, "a"), (1, "b"), (2, "c"), (3, "a"), (usize::MAX, "a")] {
            let turn: Vec<_> = hosts.in_turn_from(start).collect();
            assert_eq!((turn[0].as_str(), turn.len()), (first, 3), "from {start}");
        }
        assert_eq!(Hosts { named: &[], whole: &[] }.in_turn_from(7).count(), 0);
    }
}
