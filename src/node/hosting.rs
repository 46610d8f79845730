//! Which agents have registered which methods: where calls that name only a service may go. A plain index; whether an agent *may* answer is the policy's to say.

use crate::{
    name::{MethodPath, Name},
    wire::{ANY_METHOD, MethodInfo, ServiceInfo},
};
use std::collections::{HashMap, hash_map::Entry};

/// Methods by agent, and agents by method; an agent that hosts a service as a whole stands under `SERVICE/*`.
#[derive(Debug, Default)]
pub(super) struct Hosting {
    by_method: HashMap<String, Vec<Name>>,
    /// With each method the place of the agent in its list, so that leaving looks at no other agent.
    by_agent: HashMap<Name, HashMap<String, usize>>,
}

impl Hosting {
    /// Notes what an agent hosts from now on, in place of what it hosted before.
    pub(super) fn set(&mut self, agent: &Name, services: &[ServiceInfo]) {
        self.remove(agent);
        let mut places = HashMap::new();
        for method in services.iter().flat_map(paths) {
            // A peer may list a method twice.
            if let Entry::Vacant(place) = places.entry(method) {
                let agents = self.by_method.entry(place.key().clone()).or_default();
                place.insert(agents.len());
                agents.push(agent.clone());
            }
        }
        if !places.is_empty() {
            self.by_agent.insert(agent.clone(), places);
        }
    }

    /// Forgets what an agent hosted.
    pub(super) fn remove(&mut self, agent: &Name) {
        for (method, place) in self.by_agent.remove(agent).unwrap_or_default() {
            let Some(agents) = self.by_method.get_mut(&method) else { continue };
            agents.swap_remove(place);
            // The last one has moved into the place.
            let moved = agents.get(place).and_then(|moved| self.by_agent.get_mut(moved));
            if let Some(its_place) = moved.and_then(|methods| methods.get_mut(&method)) {
                *its_place = place;
            }
            if agents.is_empty() {
                self.by_method.remove(&method);
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

/// The methods of a service as they are looked up, without forwards, which are of one agent. One that is hosted as a whole needs no
/// other line.
fn paths(service: &ServiceInfo) -> Vec<String> {
    let path = |method: &MethodInfo| method.path(&service.name);
    let mut methods = service.methods.iter().filter(|method| !method.kind.is_forward());
    match methods.clone().find(|method| method.is_any()) {
        Some(any) => vec![path(any)],
        None => methods.by_ref().map(path).collect(),
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

    /// The one in this place, if there are so many.
    pub(super) fn at(self, place: usize) -> Option<&'a Name> {
        self.named.get(place).or_else(|| self.whole.get(place.checked_sub(self.named.len())?))
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
    fn forwards_are_of_one_agent_and_no_call_that_names_only_a_service_goes_there() {
        let agent: Name = "a".parse().expect("a name");
        let mut services = service(&["X"]);
        services.push(ServiceInfo::new("tcp", vec![MethodInfo::new("db", CallKind::Tcp)]));
        let mut hosting = Hosting::default();
        hosting.set(&agent, &services);
        assert_eq!(of(&hosting, "S/X"), "a");
        assert_eq!((of(&hosting, "tcp:db"), of(&hosting, "tcp/db")), ("".into(), "".into()));
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

    #[test]
    fn places_stay_true_when_agents_leave_and_come_back() {
        let names: Vec<Name> = (0..20).map(|n| format!("a{n}").parse().expect("a name")).collect();
        let mut hosting = Hosting::default();
        let methods = [["X", "Y"], ["Y", "Z"], ["X", "Z"]];
        for turn in 0..2_000 {
            let name = &names[turn * 7 % 20];
            if turn % 3 == 0 {
                hosting.remove(name);
            } else {
                hosting.set(name, &service(&methods[turn % 2 + usize::from(turn % 5 == 0)]));
            }
            for (agent, places) in &hosting.by_agent {
                assert!(places.iter().all(|(method, at)| hosting.by_method[method][*at] == *agent));
            }
            let listed: usize = hosting.by_method.values().map(Vec::len).sum();
            let known: usize = hosting.by_agent.values().map(HashMap::len).sum();
            assert_eq!(listed, known, "turn {turn}");
        }
    }
}
