//! Who is linked to this node, and which link is newest. A plain map: nothing here waits, and time is an argument.

use super::hosting::Hosting;
use crate::{
    limits::{AGENT_LINKS_MAX, DETACHED_REMEMBERED_MAX},
    name::Name,
};
use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

/// One registered link of an agent. `L` is whatever the node holds for it.
#[derive(Debug, Clone)]
pub(super) struct Entry<L> {
    /// Counts admissions on this node: a later one is newer, whatever the peers' clocks say.
    pub(super) admission: u64,
    /// The run of the agent's process.
    pub(super) instance: [u8; 16],
    /// The link.
    pub(super) link: L,
}

#[derive(Debug)]
struct Record<L> {
    /// Oldest first. Never empty for an attached agent.
    entries: Vec<Entry<L>>,
    /// Attached or detached since.
    since: SystemTime,
}

/// What a registration did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Registration<L> {
    /// Whether the agent was not attached before.
    pub(super) is_new: bool,
    /// Links of other instances that are over now: to be closed with SUPERSEDED.
    pub(super) superseded: Vec<L>,
    /// Links of the same instance beyond the cap, the oldest: to be closed with DRAINED.
    pub(super) surplus: Vec<L>,
}

/// A link that is too late: a newer one of another instance has registered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stale;

/// One line of a list of agents.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a, L> {
    /// The agent.
    pub(super) name: &'a Name,
    /// Its newest link, if it is attached.
    pub(super) newest: Option<&'a L>,
    /// Attached or detached since.
    pub(super) since: SystemTime,
}

/// The agents of one node, and how many links each caller has.
#[derive(Debug)]
pub(super) struct Registry<L> {
    agents: BTreeMap<Name, Record<L>>,
    detached: usize,
    callers: HashMap<Name, usize>,
    admissions: u64,
    /// Which methods they have registered. Under the same lock, so that the two never disagree.
    pub(super) hosting: Hosting,
}

impl<L> Default for Registry<L> {
    fn default() -> Self {
        Self {
            agents: BTreeMap::new(),
            detached: 0,
            callers: HashMap::new(),
            admissions: 0,
            hosting: Hosting::default(),
        }
    }
}

impl<L: Clone> Registry<L> {
    /// The number of the next admission.
    pub(super) fn admit(&mut self) -> u64 {
        self.admissions += 1;
        self.admissions
    }

    /// Takes a link into service. The later admitted instance wins; there is no "already exists, go away".
    pub(super) fn register(
        &mut self,
        name: &Name,
        entry: Entry<L>,
        now: SystemTime,
    ) -> Result<Registration<L>, Stale> {
        let record = self.agents.entry(name.clone()).or_insert_with(|| {
            self.detached += 1;
            Record { entries: Vec::new(), since: now }
        });
        let is_other = |have: &Entry<L>| have.instance != entry.instance;
        if record.entries.iter().any(|have| is_other(have) && have.admission > entry.admission) {
            return Err(Stale);
        }
        let is_new = record.entries.is_empty();
        if is_new {
            self.detached -= 1;
            record.since = now;
        }
        let (over, mut kept): (Vec<_>, Vec<_>) = record.entries.drain(..).partition(is_other);
        kept.retain(|have| have.admission != entry.admission);
        kept.push(entry);
        kept.sort_by_key(|have| have.admission);
        let surplus = kept
            .drain(..kept.len().saturating_sub(AGENT_LINKS_MAX))
            .map(|have| have.link)
            .collect();
        record.entries = kept;
        Ok(Registration {
            is_new,
            superseded: over.into_iter().map(|have| have.link).collect(),
            surplus,
        })
    }

    /// Takes one link out of service, and no other: a late goodbye names its own admission. Says whether the agent is detached by it.
    pub(super) fn unregister(&mut self, name: &Name, admission: u64, now: SystemTime) -> bool {
        let Some(record) = self.agents.get_mut(name) else { return false };
        let before = record.entries.len();
        record.entries.retain(|entry| entry.admission != admission);
        let is_detached = before > 0 && record.entries.is_empty();
        if is_detached {
            record.since = now;
            self.detached += 1;
            self.forget_oldest();
        }
        is_detached
    }

    fn forget_oldest(&mut self) {
        if self.detached <= DETACHED_REMEMBERED_MAX {
            return;
        }
        let detached = self.agents.iter().filter(|(_, record)| record.entries.is_empty());
        if let Some(name) =
            detached.min_by_key(|(_, record)| record.since).map(|(name, _)| name.clone())
        {
            self.agents.remove(&name);
            self.detached -= 1;
        }
    }

    /// The newest link of an agent.
    pub(super) fn pick(&self, name: &Name) -> Option<&L> {
        self.agents.get(name)?.entries.last().map(|entry| &entry.link)
    }

    /// All links of an agent, oldest first.
    pub(super) fn links(&self, name: &Name) -> Vec<L> {
        self.agents
            .get(name)
            .map(|record| record.entries.iter().map(|entry| entry.link.clone()).collect())
            .unwrap_or_default()
    }

    /// Every agent that is attached or was, by name.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_, L>> {
        self.agents.iter().map(|(name, record)| Line {
            name,
            newest: record.entries.last().map(|entry| &entry.link),
            since: record.since,
        })
    }

    /// Counts a link of a caller; `false` if it has as many as it may.
    pub(super) fn caller_came(&mut self, name: &Name, links_max: usize) -> bool {
        let links = self.callers.entry(name.clone()).or_default();
        let is_admitted = *links < links_max;
        *links += usize::from(is_admitted);
        is_admitted
    }

    /// A link of a caller has ended.
    pub(super) fn caller_left(&mut self, name: &Name) {
        if let Some(links) = self.callers.get_mut(name) {
            *links -= 1;
            if *links == 0 {
                self.callers.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn entry(admission: u64, instance: u8) -> Entry<u64> {
        Entry { admission, instance: [instance; 16], link: admission }
    }

    #[test]
    fn a_later_instance_takes_over_and_an_earlier_one_is_stale() {
        let (mut registry, a) = (Registry::default(), name("a"));
        assert!(registry.register(&a, entry(1, 1), at(0)).expect("first").is_new);
        let taken = registry.register(&a, entry(3, 2), at(1)).expect("later");
        assert_eq!(taken, Registration { is_new: false, superseded: vec![1], surplus: vec![] });
        assert_eq!(registry.register(&a, entry(2, 3), at(2)), Err(Stale));
        assert_eq!(registry.pick(&a), Some(&3));
    }

    #[test]
    fn late_goodbye_does_not_evict_the_new_link() {
        let (mut registry, a) = (Registry::default(), name("a"));
        registry.register(&a, entry(1, 1), at(0)).expect("first");
        registry.register(&a, entry(2, 2), at(1)).expect("second");
        assert!(!registry.unregister(&a, 1, at(2)));
        assert_eq!(registry.pick(&a), Some(&2));
        assert!(registry.unregister(&a, 2, at(3)));
        assert_eq!(registry.pick(&a), None);
        assert!(!registry.unregister(&a, 2, at(4)), "gone is gone");
    }

    #[test]
    fn links_of_one_instance_stay_and_the_newest_takes_the_calls() {
        let (mut registry, a) = (Registry::default(), name("a"));
        for admission in 1..=4 {
            assert!(
                registry
                    .register(&a, entry(admission, 1), at(0))
                    .expect("same instance")
                    .surplus
                    .is_empty()
            );
        }
        assert_eq!(
            registry.register(&a, entry(5, 1), at(0)).expect("fifth").surplus,
            vec![1],
            "the oldest goes, never the newest"
        );
        assert_eq!((registry.pick(&a), registry.links(&a)), (Some(&5), vec![2, 3, 4, 5]));
    }

    #[test]
    fn registering_again_on_one_link_changes_nothing_else() {
        let (mut registry, a) = (Registry::default(), name("a"));
        registry.register(&a, entry(1, 1), at(0)).expect("first");
        let again = registry.register(&a, entry(1, 1), at(1)).expect("again");
        assert_eq!(again, Registration { is_new: false, superseded: vec![], surplus: vec![] });
        assert_eq!(registry.links(&a), vec![1]);
    }

    #[test]
    fn lists_show_who_is_attached_and_since_when() {
        let mut registry = Registry::default();
        registry.register(&name("b"), entry(1, 1), at(5)).expect("b");
        registry.register(&name("a"), entry(2, 2), at(6)).expect("a");
        registry.unregister(&name("b"), 1, at(9));
        let lines: Vec<_> = registry
            .lines()
            .map(|line| (line.name.to_string(), line.newest.copied(), line.since))
            .collect();
        assert_eq!(lines, [("a".into(), Some(2), at(6)), ("b".into(), None, at(9))]);
    }

    #[test]
    fn agents_that_left_are_remembered_up_to_the_limit_and_the_oldest_is_forgotten() {
        let mut registry = Registry::default();
        for n in 0..=DETACHED_REMEMBERED_MAX as u64 {
            registry.register(&name(&format!("a{n}")), entry(n + 1, 1), at(n)).expect("new");
            registry.unregister(&name(&format!("a{n}")), n + 1, at(n));
        }
        assert_eq!(registry.lines().count(), DETACHED_REMEMBERED_MAX);
        assert!(!registry.lines().any(|line| line.name.as_str() == "a0"));
    }

    #[test]
    fn a_caller_has_its_last_link_and_not_one_more() {
        let (mut registry, c) = (Registry::<u64>::default(), name("c"));
        assert!(registry.caller_came(&c, 2) && registry.caller_came(&c, 2));
        assert!(!registry.caller_came(&c, 2));
        registry.caller_left(&c);
        assert!(registry.caller_came(&c, 2));
    }
}
