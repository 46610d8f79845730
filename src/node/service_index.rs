//! Index of the agents that have registered each method, for calls that name only a service. The
//! policy decides which of them *may* answer.

use crate::{
    name::{MethodPath, Name},
    wire::{CallKind, MethodInfo, ServiceInfo},
};
use std::collections::{BTreeMap, HashMap, hash_map::Entry};

/// Methods by agent, and agents by method.
#[derive(Debug, Default)]
pub(super) struct ServiceIndex {
    hosts: HashMap<HostedPath, HostList>,
    /// For each path the position of the agent in its list: removal examines no other agent.
    by_agent: HashMap<Name, HashMap<HostedPath, usize>>,
    added: u64,
}

/// A hosted path, as it is looked up: `Service/Method`, or `Service` for all of its methods. The
/// name of a service has no `/`, which the node checks before it sets the services of an agent.
pub(super) type HostedPath = Box<str>;

/// Agents that host one path.
#[derive(Debug, Default)]
struct HostList {
    /// In no order, with the number of the addition: one is picked at random.
    agents: Vec<(Name, u64)>,
    /// In the order of addition: later ones are found without a search.
    by_addition: BTreeMap<u64, Name>,
}

impl ServiceIndex {
    pub(super) fn set(&mut self, agent: &Name, paths: Vec<HostedPath>) {
        self.remove(agent);
        let mut positions = HashMap::with_capacity(paths.len());
        for path in paths {
            // A peer may list a method twice.
            if let Entry::Vacant(position) = positions.entry(path) {
                self.added += 1;
                let hosts = self.hosts.entry(position.key().clone()).or_default();
                position.insert(hosts.agents.len());
                hosts.agents.push((agent.clone(), self.added));
                hosts.by_addition.insert(self.added, agent.clone());
            }
        }
        if !positions.is_empty() {
            self.by_agent.insert(agent.clone(), positions);
        }
    }

    pub(super) fn remove(&mut self, agent: &Name) {
        for (path, position) in self.by_agent.remove(agent).unwrap_or_default() {
            let Some(hosts) = self.hosts.get_mut(&path) else { continue };
            let (_, number) = hosts.agents.swap_remove(position);
            hosts.by_addition.remove(&number);
            // The last agent has moved to this position.
            let moved =
                hosts.agents.get(position).and_then(|(moved, _)| self.by_agent.get_mut(moved));
            if let Some(moved_from) = moved.and_then(|paths| paths.get_mut(&path)) {
                *moved_from = position;
            }
            if hosts.agents.is_empty() {
                self.hosts.remove(&path);
            }
        }
    }

    /// True if an agent has registered a method, by its name or with all methods of its service.
    pub(super) fn has(&self, agent: &Name, method: &MethodPath) -> bool {
        self.by_agent.get(agent).is_some_and(|paths| {
            paths.contains_key(method.registered()) || paths.contains_key(method.service())
        })
    }

    pub(super) fn of(&self, method: &MethodPath) -> Hosts<'_> {
        Hosts([method.registered(), method.service()].map(|path| self.hosts.get(path)))
    }
}

/// Paths of services without TCP forwards, which belong to one agent. A service that is hosted with
/// all its methods needs no other path.
pub(super) fn paths(services: &[ServiceInfo]) -> Vec<HostedPath> {
    services.iter().flat_map(paths_of).collect()
}

fn paths_of(service: &ServiceInfo) -> Vec<HostedPath> {
    let mut methods = service.methods.iter().filter(|method| method.kind != CallKind::Tcp);
    if methods.clone().any(MethodInfo::is_any) {
        return vec![service.name.as_str().into()];
    }
    methods.by_ref().map(|method| method.path(&service.name).into()).collect()
}

/// Position in the hosts of a method: the number of the last addition returned, for each list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor([u64; 2]);

/// Agents that have registered a method: by its name, and with all methods of its service.
#[derive(Clone, Copy)]
pub(super) struct Hosts<'a>([Option<&'a HostList>; 2]);

impl<'a> Hosts<'a> {
    pub(super) fn len(self) -> usize {
        self.lists().map(|hosts| hosts.agents.len()).sum()
    }

    fn lists(self) -> impl Iterator<Item = &'a HostList> {
        self.0.into_iter().flatten()
    }

    /// Agent at this position. Positions change when agents come and go.
    pub(super) fn at(self, mut position: usize) -> Option<&'a Name> {
        for HostList { agents, .. } in self.lists() {
            match agents.get(position) {
                Some((name, _)) => return Some(name),
                None => position -= agents.len(),
            }
        }
        None
    }

    /// Returns the next few agents after the cursor, in the order of registration. An agent that
    /// stays is neither missed nor returned twice.
    pub(super) fn next(self, cursor: &mut Cursor, most: usize) -> Vec<Name> {
        let mut names = Vec::new();
        for (hosts, cursor) in self.0.into_iter().zip(&mut cursor.0) {
            let Some(hosts) = hosts else { continue };
            for (number, name) in hosts.by_addition.range(*cursor + 1..).take(most - names.len()) {
                *cursor = *number;
                names.push(name.clone());
            }
        }
        names
    }

    /// All agents, those that registered the method by name first.
    #[cfg(test)]
    pub(super) fn all(self) -> Vec<Name> {
        self.next(&mut Cursor::default(), usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(methods: &[&str]) -> Vec<ServiceInfo> {
        let method = |name: &&str| MethodInfo::new(*name, CallKind::Unary);
        vec![ServiceInfo::new("S", methods.iter().map(method).collect())]
    }

    #[test]
    fn http_forwards_are_in_the_index_and_those_of_tcp_are_not() {
        let agent: Name = "a".parse().expect("a name");
        let mut services = service(&["X"]);
        services.push(ServiceInfo::new("tcp", vec![MethodInfo::new("db", CallKind::Tcp)]));
        services.push(ServiceInfo::new("http", vec![MethodInfo::new("web", CallKind::Http)]));
        services.push(ServiceInfo::new("mcp", vec![MethodInfo::new("jira", CallKind::Http)]));
        let mut index = ServiceIndex::default();
        index.set(&agent, paths(&services));
        for path in ["S/X", "http:web", "mcp:jira", "mcp:jira/create_issue"] {
            assert_eq!(of(&index, path), "a", "{path}");
        }
        for path in ["tcp:db", "tcp/db", "mcp/jira", "mcp:other/x"] {
            assert_eq!(of(&index, path), "", "{path}");
        }
    }

    #[test]
    fn a_registration_replaces_the_previous_one_and_removal_leaves_nothing() {
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
        assert!(index.hosts.is_empty() && index.by_agent.is_empty());
    }

    /// Agents that have registered a method, joined with spaces.
    fn of(index: &ServiceIndex, method: &str) -> String {
        let method = method.parse().expect("a method");
        let hosts: Vec<_> = index.of(&method).all().iter().map(ToString::to_string).collect();
        hosts.join(" ")
    }

    #[test]
    fn a_catch_all_service_hosts_each_of_its_methods_once() {
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
    fn each_position_has_one_agent() {
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
    fn a_cursor_misses_no_agent_while_others_leave() {
        let names: Vec<Name> = (0..20).map(|n| format!("a{n}").parse().expect("a name")).collect();
        let mut index = ServiceIndex::default();
        for (n, name) in names.iter().enumerate() {
            index.set(name, paths(&service(&[if n % 2 == 0 { "X" } else { "*" }])));
        }
        let method = "S/X".parse().expect("a method");
        let (mut cursor, mut listed) = (Cursor::default(), Vec::new());
        loop {
            let some = index.of(&method).next(&mut cursor, 3);
            assert!(some.len() <= 3);
            let Some(first) = some.first().cloned() else { break };
            listed.extend(some);
            // An unordered list would move its last agent to this position, which was already read.
            index.remove(&first);
        }
        listed.sort();
        let mut all = names.clone();
        all.sort();
        assert_eq!(listed, all);
        index.set(&names[3], paths(&service(&["X"])));
        assert_eq!(index.of(&method).next(&mut cursor, 3), [names[3].clone()], "who comes later");
        assert_eq!(index.of(&method).next(&mut cursor, 3), []);
    }

    #[test]
    fn positions_stay_consistent_when_agents_leave_and_return() {
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
            for (agent, positions) in &index.by_agent {
                for (path, at) in positions {
                    let hosts = &index.hosts[path];
                    let (name, number) = &hosts.agents[*at];
                    assert_eq!((name, hosts.by_addition.get(number)), (agent, Some(agent)));
                }
            }
            let lists = index.hosts.values();
            assert!(lists.clone().all(|list| list.agents.len() == list.by_addition.len()));
            let listed: usize = lists.map(|list| list.agents.len()).sum();
            let known: usize = index.by_agent.values().map(HashMap::len).sum();
            assert_eq!(listed, known, "turn {turn}");
        }
    }
}
