//! Which agents have registered which methods: where calls that name only a service may go. A plain
//! index; whether an agent *may* answer is the policy's to say.

use crate::{
    name::{MethodPath, Name},
    wire::{MethodInfo, ServiceInfo},
};
use std::collections::{BTreeMap, HashMap, hash_map::Entry};

/// Methods by agent, and agents by method.
#[derive(Debug, Default)]
pub(super) struct ServiceIndex {
    named: HashMap<Box<str>, Hosted>,
    /// Services that are hosted as a whole.
    whole: HashMap<Box<str>, Hosted>,
    /// With each line the place of the agent in its list, so that leaving looks at no other agent.
    by_agent: HashMap<Name, HashMap<HostedPath, usize>>,
    /// Counts the lines that were added.
    added: u64,
}

/// What an agent hosts, as it is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum HostedPath {
    /// A method of this path.
    Named(Box<str>),
    /// Whatever methods this service has.
    Whole(Box<str>),
}

/// The agents of one line.
#[derive(Debug, Default)]
struct Hosted {
    /// In no order, with the number of the addition: one is picked at random.
    agents: Vec<(Name, u64)>,
    /// In the order of addition: those added after some moment are found without a look at the
    /// others.
    by_addition: BTreeMap<u64, Name>,
}

impl ServiceIndex {
    /// Notes what an agent hosts from now on, in place of what it hosted before.
    pub(super) fn set(&mut self, agent: &Name, paths: Vec<HostedPath>) {
        self.remove(agent);
        let mut places = HashMap::with_capacity(paths.len());
        for path in paths {
            // A peer may list a method twice.
            if let Entry::Vacant(place) = places.entry(path) {
                self.added += 1;
                let hosted = match place.key().clone() {
                    HostedPath::Named(path) => self.named.entry(path).or_default(),
                    HostedPath::Whole(service) => self.whole.entry(service).or_default(),
                };
                place.insert(hosted.agents.len());
                hosted.agents.push((agent.clone(), self.added));
                hosted.by_addition.insert(self.added, agent.clone());
            }
        }
        if !places.is_empty() {
            self.by_agent.insert(agent.clone(), places);
        }
    }

    /// Forgets what an agent hosted.
    pub(super) fn remove(&mut self, agent: &Name) {
        for (path, place) in self.by_agent.remove(agent).unwrap_or_default() {
            let (lists, key) = match &path {
                HostedPath::Named(path) => (&mut self.named, path),
                HostedPath::Whole(service) => (&mut self.whole, service),
            };
            let Some(hosted) = lists.get_mut(key) else { continue };
            let (_, number) = hosted.agents.swap_remove(place);
            hosted.by_addition.remove(&number);
            // The last one has moved into the place.
            let moved =
                hosted.agents.get(place).and_then(|(moved, _)| self.by_agent.get_mut(moved));
            if let Some(its_place) = moved.and_then(|paths| paths.get_mut(&path)) {
                *its_place = place;
            }
            if hosted.agents.is_empty() {
                lists.remove(key);
            }
        }
    }

    /// Whether an agent has registered a method, by its name or with its whole service.
    pub(super) fn has(&self, agent: &Name, method: &MethodPath) -> bool {
        self.by_agent.get(agent).is_some_and(|paths| {
            paths.contains_key(&HostedPath::Named(method.as_str().into()))
                || paths.contains_key(&HostedPath::Whole(method.service().into()))
        })
    }

    /// Who has registered a method, by its name or with its whole service.
    pub(super) fn of(&self, method: &MethodPath) -> Hosts<'_> {
        Hosts { named: self.named.get(method.as_str()), whole: self.whole.get(method.service()) }
    }
}

/// The lines of some services, without forwards, which are of one agent. A service that is hosted
/// as a whole needs no other line.
pub(super) fn paths(services: &[ServiceInfo]) -> Vec<HostedPath> {
    services.iter().flat_map(paths_of).collect()
}

fn paths_of(service: &ServiceInfo) -> Vec<HostedPath> {
    let mut methods = service.methods.iter().filter(|method| !method.kind.is_forward());
    if methods.clone().any(MethodInfo::is_any) {
        return vec![HostedPath::Whole(service.name.as_str().into())];
    }
    methods.by_ref().map(|method| HostedPath::Named(method.path(&service.name).into())).collect()
}

/// How much of a method's hosts was looked at: the numbers of the last additions seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    named: u64,
    whole: u64,
}

/// The agents that have registered a method.
#[derive(Clone, Copy)]
pub(super) struct Hosts<'a> {
    named: Option<&'a Hosted>,
    whole: Option<&'a Hosted>,
}

impl<'a> Hosts<'a> {
    /// How many there are.
    pub(super) fn len(self) -> usize {
        self.lists().map(|hosted| hosted.agents.len()).sum()
    }

    fn lists(self) -> impl Iterator<Item = &'a Hosted> {
        self.named.into_iter().chain(self.whole)
    }

    /// The one in this place, if there are so many. Places change when agents come and go.
    pub(super) fn at(self, mut place: usize) -> Option<&'a Name> {
        for Hosted { agents, .. } in self.lists() {
            match agents.get(place) {
                Some((name, _)) => return Some(name),
                None => place -= agents.len(),
            }
        }
        None
    }

    /// The next few, in the order in which they registered it, after those seen. No agent that
    /// stays is left out or comes twice.
    pub(super) fn next(self, seen: &mut Seen, most: usize) -> Vec<Name> {
        let mut names = Vec::new();
        for (hosted, seen) in [(self.named, &mut seen.named), (self.whole, &mut seen.whole)] {
            let Some(hosted) = hosted else { continue };
            for (number, name) in hosted.by_addition.range(*seen + 1..).take(most - names.len()) {
                *seen = *number;
                names.push(name.clone());
            }
        }
        names
    }

    /// All of them, those that registered it by name first.
    #[cfg(test)]
    pub(super) fn all(self) -> Vec<Name> {
        self.next(&mut Seen::default(), usize::MAX)
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
        let mut index = ServiceIndex::default();
        index.set(&agent, paths(&services));
        assert_eq!(of(&index, "S/X"), "a");
        assert_eq!((of(&index, "tcp:db"), of(&index, "tcp/db")), ("".into(), "".into()));
    }

    #[test]
    fn a_registration_replaces_the_one_before_and_leaving_leaves_nothing() {
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().expect("a name"));
        let mut index = ServiceIndex::default();
        index.set(&a, paths(&service(&["X", "Y", "Y"])));
        index.set(&b, paths(&service(&["X"])));
        assert_eq!((of(&index, "S/X"), of(&index, "S/Y")), ("a b".into(), "a".into()));
        index.set(&a, paths(&service(&["Z"])));
        assert_eq!((of(&index, "S/X"), of(&index, "S/Y")), ("b".into(), "".into()));
        index.remove(&a);
        index.remove(&b);
        index.remove(&b);
        assert!(index.named.is_empty() && index.by_agent.is_empty());
    }

    /// Who has registered a method, in one text.
    fn of(index: &ServiceIndex, method: &str) -> String {
        let method = method.parse().expect("a method");
        let hosts: Vec<_> = index.of(&method).all().iter().map(ToString::to_string).collect();
        hosts.join(" ")
    }

    #[test]
    fn who_hosts_a_service_as_a_whole_hosts_each_of_its_methods_once_and_no_other_service() {
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().expect("a name"));
        let mut index = ServiceIndex::default();
        index.set(&a, paths(&service(&["*", "X", "*"])));
        index.set(&b, paths(&service(&["X"])));
        assert_eq!((of(&index, "S/X"), of(&index, "S/Z")), ("b a".into(), "a".into()));
        assert_eq!(of(&index, "T/X"), "");
        index.remove(&a);
        assert_eq!((of(&index, "S/X"), of(&index, "S/Z")), ("b".into(), "".into()));
    }

    #[test]
    fn each_place_is_of_one_agent_and_there_are_as_many_as_agents() {
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().expect("a name"));
        let mut index = ServiceIndex::default();
        index.set(&a, paths(&service(&["X"])));
        index.set(&b, paths(&service(&["*"])));
        let method = "S/X".parse().expect("a method");
        let hosts = index.of(&method);
        assert_eq!(
            (hosts.len(), hosts.at(0), hosts.at(1), hosts.at(2)),
            (2, Some(&a), Some(&b), None)
        );
        let nobody = "T/X".parse().expect("a method");
        assert_eq!((index.of(&nobody).len(), index.of(&nobody).at(0)), (0, None));
    }

    #[test]
    fn agents_are_listed_some_at_a_time_and_none_that_stays_is_left_out_when_others_leave() {
        let names: Vec<Name> = (0..20).map(|n| format!("a{n}").parse().expect("a name")).collect();
        let mut index = ServiceIndex::default();
        for (n, name) in names.iter().enumerate() {
            index.set(name, paths(&service(&[if n % 2 == 0 { "X" } else { "*" }])));
        }
        let method = "S/X".parse().expect("a method");
        let (mut seen, mut listed) = (Seen::default(), Vec::new());
        loop {
            let some = index.of(&method).next(&mut seen, 3);
            assert!(some.len() <= 3);
            let Some(first) = some.first().cloned() else { break };
            listed.extend(some);
            // A list in no order would move its last one to this place, which was read already.
            index.remove(&first);
        }
        listed.sort();
        let mut all = names.clone();
        all.sort();
        assert_eq!(listed, all);
        index.set(&names[3], paths(&service(&["X"])));
        assert_eq!(index.of(&method).next(&mut seen, 3), [names[3].clone()], "who comes later");
        assert_eq!(index.of(&method).next(&mut seen, 3), []);
    }

    #[test]
    fn places_stay_true_when_agents_leave_and_come_back() {
        let names: Vec<Name> = (0..20).map(|n| format!("a{n}").parse().expect("a name")).collect();
        let mut index = ServiceIndex::default();
        let methods = [["X", "Y"], ["Y", "Z"], ["X", "Z"]];
        for turn in 0..2_000 {
            let name = &names[turn * 7 % 20];
            if turn % 3 == 0 {
                index.remove(name);
            } else {
                let methods = &methods[turn % 2 + usize::from(turn % 5 == 0)];
                index.set(name, paths(&service(methods)));
            }
            for (agent, places) in &index.by_agent {
                for (path, at) in places {
                    let HostedPath::Named(path) = path else { panic!("{path:?}") };
                    let hosted = &index.named[path];
                    let (name, number) = &hosted.agents[*at];
                    assert_eq!((name, hosted.by_addition.get(number)), (agent, Some(agent)));
                }
            }
            let lists = index.named.values();
            assert!(lists.clone().all(|list| list.agents.len() == list.by_addition.len()));
            let listed: usize = lists.map(|list| list.agents.len()).sum();
            let known: usize = index.by_agent.values().map(HashMap::len).sum();
            assert_eq!(listed, known, "turn {turn}");
        }
    }
}
