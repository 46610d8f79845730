//! The registry of linked agents and callers. A plain map: nothing here waits, and time is an
//! argument.

use super::{
    flap_detector::{FlapCheck, FlapDetector},
    service_index::ServiceIndex,
};
use crate::{
    drain::Signal,
    limits::{AGENT_LINKS_MAX, CALLER_LINKS_OVER_MAX, DETACHED_REMEMBERED_MAX},
    name::Name,
};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
    time::SystemTime,
};
use tokio::time::Instant;

/// The current time: wall clock for display, monotonic clock for decisions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) wall: SystemTime,
    pub(super) instant: Instant,
}

impl Times {
    pub(super) fn read() -> Self {
        Self { wall: SystemTime::now(), instant: Instant::now() }
    }
}

/// One registered link of an agent, with the node's data `L` for it.
#[derive(Debug, Clone)]
pub(super) struct LinkEntry<L> {
    /// Number of the admission on this node: higher is newer, whatever the peers' clocks say.
    pub(super) admission: u64,
    /// Id of the agent's process.
    pub(super) instance: [u8; 16],
    /// True if it takes no more calls.
    pub(super) is_draining: bool,
    pub(super) link: L,
}

#[derive(Debug)]
struct AgentRecord<L> {
    /// Oldest first. Never empty for an attached agent.
    entries: Vec<LinkEntry<L>>,
    /// Time at which it was attached or detached.
    since: SystemTime,
    /// Number of its last arrival.
    arrival: u64,
    /// Its key in the list of detached agents, while it is detached.
    detached_as: Option<u64>,
    flaps: FlapDetector,
}

impl<L> AgentRecord<L> {
    /// Newest link that takes calls.
    fn active_link(&self) -> Option<&L> {
        self.entries.iter().rfind(|entry| !entry.is_draining).map(|entry| &entry.link)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Registration<L> {
    /// True if the agent had no link that takes calls.
    pub(super) is_new: bool,
    /// Replaced links of other instances, to be closed with SUPERSEDED.
    pub(super) superseded: Vec<L>,
    /// Links of the same instance beyond the limit, the oldest, to be closed with DRAINED.
    pub(super) excess: Vec<L>,
}

/// Reason for refusing a registration. The link is closed with SUPERSEDED.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RegistrationError<L> {
    /// A newer link of another instance has registered.
    Stale,
    HeldBack {
        /// Link of the other instance.
        other: L,
        is_first: bool,
    },
}

/// Summary of one agent, for lists.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AgentSummary<'a, L> {
    pub(super) name: &'a Name,
    /// Newest link, if it is attached; a link that takes calls is preferred.
    pub(super) newest: Option<&'a L>,
    /// True if it is attached and takes no more calls.
    pub(super) is_draining: bool,
    /// True if two instances use its certificate.
    pub(super) is_used_twice: bool,
    pub(super) since: SystemTime,
    pub(super) arrival: u64,
}

/// One link of a caller.
#[derive(Debug, Clone)]
pub(super) struct CallerLink {
    pub(super) admission: u64,
    /// Id of the caller's process.
    pub(super) instance: [u8; 16],
    /// Notified when a later link of the instance evicts this one.
    pub(super) evicted: Arc<Signal>,
}

/// Agents and caller links of one node.
#[derive(Debug)]
pub(super) struct Registry<L> {
    agents: BTreeMap<Name, AgentRecord<L>>,
    /// Detached agents in the order in which they left: the oldest is found without a search.
    detached: BTreeMap<u64, Name>,
    detachments: u64,
    /// Links of each caller, oldest first.
    callers: HashMap<Name, Vec<CallerLink>>,
    admissions: u64,
    pub(super) arrivals: u64,
    /// Registered methods. Under the same lock, so that both always agree.
    pub(super) service_index: ServiceIndex,
}

impl<L> Default for Registry<L> {
    fn default() -> Self {
        Self {
            agents: BTreeMap::new(),
            detached: BTreeMap::new(),
            detachments: 0,
            callers: HashMap::new(),
            admissions: 0,
            arrivals: 0,
            service_index: ServiceIndex::default(),
        }
    }
}

impl<L: Clone> Registry<L> {
    /// Assigns the number of the next admission.
    pub(super) fn admit(&mut self) -> u64 {
        self.admissions += 1;
        self.admissions
    }

    /// Registers a link. The instance that was admitted later wins, except for one that was
    /// superseded and returns too often.
    pub(super) fn register(
        &mut self,
        name: &Name,
        entry: LinkEntry<L>,
        now: Times,
    ) -> Result<Registration<L>, RegistrationError<L>> {
        let record = self.agents.entry(name.clone()).or_insert_with(|| AgentRecord {
            entries: Vec::new(),
            since: now.wall,
            arrival: 0,
            detached_as: None,
            flaps: FlapDetector::default(),
        });
        // A draining link never conflicts; its calls may finish alongside the new link.
        let conflicts = |have: &LinkEntry<L>| have.instance != entry.instance && !have.is_draining;
        if record.entries.iter().any(|have| conflicts(have) && have.admission > entry.admission) {
            return Err(RegistrationError::Stale);
        }
        // An instance that has a link does not return.
        if record.entries.iter().all(|have| have.instance != entry.instance) {
            let rival = record.entries.iter().rfind(|have| conflicts(have));
            let verdict =
                record.flaps.check(entry.instance, rival.map(|have| have.instance), now.instant);
            if let (FlapCheck::HeldBack { is_first }, Some(other)) = (verdict, rival) {
                return Err(RegistrationError::HeldBack { other: other.link.clone(), is_first });
            }
        }
        if let Some(place) = record.detached_as.take() {
            self.detached.remove(&place);
        }
        let is_new = record.active_link().is_none();
        if is_new {
            record.since = now.wall;
        }
        let (over, mut kept): (Vec<_>, Vec<_>) = record.entries.drain(..).partition(conflicts);
        over.iter().for_each(|have| record.flaps.supersede(have.instance));
        kept.retain(|have| have.admission != entry.admission);
        kept.push(entry);
        kept.sort_by_key(|have| have.admission);
        let excess = kept
            .drain(..kept.len().saturating_sub(AGENT_LINKS_MAX))
            .map(|have| have.link)
            .collect();
        record.entries = kept;
        Ok(Registration {
            is_new,
            superseded: over.into_iter().map(|have| have.link).collect(),
            excess,
        })
    }

    /// Marks a link as draining. Returns whether it was not marked before.
    pub(super) fn drain(&mut self, name: &Name, admission: u64) -> bool {
        let entries = self.agents.get_mut(name).map(|record| record.entries.iter_mut());
        entries
            .and_then(|mut entries| entries.find(|entry| entry.admission == admission))
            .is_some_and(|entry| !std::mem::replace(&mut entry.is_draining, true))
    }

    /// Removes one link. Returns whether that detached the agent, which then hosts nothing.
    pub(super) fn unregister(&mut self, name: &Name, admission: u64, now: Times) -> bool {
        let Some(record) = self.agents.get_mut(name) else { return false };
        let before = record.entries.len();
        record.entries.retain(|entry| entry.admission != admission);
        let is_detached = before > 0 && record.entries.is_empty();
        if is_detached {
            record.since = now.wall;
            self.detachments += 1;
            record.detached_as = Some(self.detachments);
            self.detached.insert(self.detachments, name.clone());
            self.service_index.remove(name);
            if self.detached.len() > DETACHED_REMEMBERED_MAX
                && let Some((_, oldest)) = self.detached.pop_first()
            {
                self.agents.remove(&oldest);
            }
        }
        is_detached
    }

    /// Newest link of an agent that takes calls.
    pub(super) fn pick(&self, name: &Name) -> Option<&L> {
        self.agents.get(name)?.active_link()
    }

    /// All links of an agent, oldest first, including draining ones.
    pub(super) fn links(&self, name: &Name) -> Vec<L> {
        let entries = self.agents.get(name).into_iter().flat_map(|record| &record.entries);
        entries.map(|entry| entry.link.clone()).collect()
    }

    pub(super) fn arrived(&mut self, name: &Name) -> u64 {
        self.arrivals += 1;
        if let Some(record) = self.agents.get_mut(name) {
            record.arrival = self.arrivals;
        }
        self.arrivals
    }

    /// All agents that are attached or remembered, by name, after this one.
    pub(super) fn summaries_after(
        &self,
        after: Option<&Name>,
        now: Times,
    ) -> impl Iterator<Item = AgentSummary<'_, L>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.agents.range::<Name, _>((from, Bound::Unbounded)).map(move |(name, record)| {
            let (active_link, last) = (record.active_link(), record.entries.last());
            AgentSummary {
                name,
                newest: active_link.or_else(|| last.map(|entry| &entry.link)),
                is_draining: active_link.is_none() && last.is_some(),
                is_used_twice: record.flaps.is_used_twice(now.instant),
                since: record.since,
                arrival: record.arrival,
            }
        })
    }

    /// Adds a link of a caller; `false` if the caller is at its limit. An instance that has a link
    /// may exceed `links_max`: at a renewal of its certificate the retiring link stays until its
    /// calls have ended. Beyond [`CALLER_LINKS_OVER_MAX`] links of one instance, or twice
    /// `links_max` of all, its oldest link is evicted.
    pub(super) fn add_caller_link(
        &mut self,
        name: &Name,
        link: CallerLink,
        links_max: usize,
    ) -> bool {
        let links = self.callers.entry(name.clone()).or_default();
        let is_own = |have: &CallerLink| have.instance == link.instance;
        let own = links.iter().filter(|have| is_own(have)).count();
        let is_full = links.len() >= links_max;
        if is_full && own == 0 {
            return false;
        }
        let is_over = own >= CALLER_LINKS_OVER_MAX || links.len() >= links_max.saturating_mul(2);
        if is_full
            && is_over
            && let Some(oldest) = links.iter().position(is_own)
        {
            links.remove(oldest).evicted.notify();
        }
        links.push(link);
        true
    }

    pub(super) fn remove_caller_link(&mut self, name: &Name, admission: u64) {
        if let Some(links) = self.callers.get_mut(name) {
            links.retain(|link| link.admission != admission);
            if links.is_empty() {
                self.callers.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::LazyLock, time::Duration};

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn wall(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A fixed time plus this many seconds.
    fn at(seconds: u64) -> Times {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Times { wall: wall(seconds), instant: *START + Duration::from_secs(seconds) }
    }

    fn entry(admission: u64, instance: u8) -> LinkEntry<u64> {
        LinkEntry { admission, instance: [instance; 16], is_draining: false, link: admission }
    }

    #[test]
    fn a_later_instance_takes_over_and_an_earlier_one_is_stale() {
        let (mut registry, a) = (Registry::default(), name("a"));
        assert!(registry.register(&a, entry(1, 1), at(0)).expect("first").is_new);
        let taken = registry.register(&a, entry(3, 2), at(1)).expect("later");
        assert_eq!(taken, Registration { is_new: false, superseded: vec![1], excess: vec![] });
        assert_eq!(registry.register(&a, entry(2, 3), at(2)), Err(RegistrationError::Stale));
        assert_eq!(registry.pick(&a), Some(&3));
    }

    #[test]
    fn an_earlier_link_of_one_instance_may_register_after_a_later_one() {
        let (mut registry, a) = (Registry::default(), name("a"));
        registry.register(&a, entry(2, 1), at(0)).expect("the later one");
        registry.register(&a, entry(1, 1), at(1)).expect("the earlier one");
        assert_eq!((registry.pick(&a), registry.links(&a)), (Some(&2), vec![1, 2]));
    }

    #[test]
    fn late_unregister_does_not_evict_newer_link() {
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
    fn the_last_link_of_an_agent_removes_it_from_the_service_index() {
        let (mut registry, [a, b]) = (Registry::default(), ["a", "b"].map(name));
        let method = "S/X".parse().expect("a method");
        for agent in [&a, &b] {
            registry.register(agent, entry(1, 1), at(0)).expect("first");
            registry.register(agent, entry(2, 1), at(0)).expect("second");
            registry.service_index.set(agent, vec!["S/X".into()]);
        }
        registry.unregister(&a, 1, at(1));
        assert!(registry.service_index.has(&a, &method), "one link is left");
        registry.unregister(&a, 2, at(1));
        assert!(!registry.service_index.has(&a, &method));
        assert_eq!(registry.service_index.of(&method).all(), [b]);
    }

    #[test]
    fn links_of_one_instance_coexist_and_the_newest_takes_calls() {
        let (mut registry, a) = (Registry::default(), name("a"));
        for admission in 1..=4 {
            assert!(
                registry
                    .register(&a, entry(admission, 1), at(0))
                    .expect("same instance")
                    .excess
                    .is_empty()
            );
        }
        assert_eq!(
            registry.register(&a, entry(5, 1), at(0)).expect("fifth").excess,
            vec![1],
            "the oldest goes, never the newest"
        );
        assert_eq!((registry.pick(&a), registry.links(&a)), (Some(&5), vec![2, 3, 4, 5]));
    }

    #[test]
    fn registering_again_on_the_same_link_adds_no_entry() {
        let (mut registry, a) = (Registry::default(), name("a"));
        registry.register(&a, entry(1, 1), at(0)).expect("first");
        let again = registry.register(&a, entry(1, 1), at(1)).expect("again");
        assert_eq!(again, Registration { is_new: false, superseded: vec![], excess: vec![] });
        assert_eq!(registry.links(&a), vec![1]);
    }

    #[test]
    fn a_draining_link_takes_no_calls_and_stays_until_it_is_unregistered() {
        let (mut registry, a) = (Registry::default(), name("a"));
        registry.register(&a, entry(1, 1), at(0)).expect("first");
        registry.register(&a, entry(2, 1), at(0)).expect("second");
        assert!(registry.drain(&a, 2), "it is new");
        assert!(!registry.drain(&a, 2), "it is not");
        assert!(!registry.drain(&a, 7) && !registry.drain(&name("b"), 2), "nobody");
        assert_eq!((registry.pick(&a), registry.links(&a)), (Some(&1), vec![1, 2]));
        let is_draining = |registry: &Registry<u64>| {
            registry
                .summaries_after(None, at(0))
                .next()
                .map(|line| (line.newest.copied(), line.is_draining))
        };
        assert_eq!(is_draining(&registry), Some((Some(1), false)), "one link still takes calls");
        assert!(registry.drain(&a, 1));
        assert_eq!((registry.pick(&a), registry.links(&a)), (None, vec![1, 2]));
        assert_eq!(is_draining(&registry), Some((Some(2), true)));
        // A registration on the same link makes it active again.
        registry.register(&a, entry(2, 1), at(0)).expect("again");
        assert_eq!(registry.pick(&a), Some(&2));
        assert!(!registry.unregister(&a, 1, at(1)));
        assert!(registry.unregister(&a, 2, at(1)));
        assert_eq!(is_draining(&registry), Some((None, false)));
    }

    #[test]
    fn a_later_instance_does_not_supersede_a_draining_link() {
        let (mut registry, a) = (Registry::default(), name("a"));
        registry.register(&a, entry(1, 1), at(0)).expect("the old one");
        registry.drain(&a, 1);
        let new = registry.register(&a, entry(2, 2), at(1)).expect("the new one");
        assert_eq!(new, Registration { is_new: true, superseded: vec![], excess: vec![] });
        assert_eq!((registry.pick(&a), registry.links(&a)), (Some(&2), vec![1, 2]));
        assert!(!registry.unregister(&a, 1, at(2)));
        assert_eq!(registry.pick(&a), Some(&2));
        // A draining instance cannot register after its successor.
        assert_eq!(registry.register(&a, entry(1, 1), at(3)), Err(RegistrationError::Stale));
    }

    /// Lets instances 1 and 2 supersede each other until one is refused. Returns the turn and the
    /// link that stays.
    fn until_held_back(registry: &mut Registry<u64>, every: u64) -> (u64, u64) {
        for turn in 0..20 {
            let newest = entry(turn + 1, 1 + (turn % 2) as u8);
            match registry.register(&name("a"), newest, at(turn * every)) {
                Ok(_) => {}
                Err(RegistrationError::HeldBack { other, is_first: true }) => return (turn, other),
                Err(other) => panic!("{other:?}"),
            }
        }
        (20, 0)
    }

    #[test]
    fn the_third_return_in_a_minute_takes_over_and_the_fourth_is_held_back() {
        let mut registry = Registry::default();
        // Turns 0 and 1 are first attachments, 2 to 4 the three returns, and 5 is one too many.
        assert_eq!(until_held_back(&mut registry, 20), (5, 5));
        let is_used_twice = |registry: &Registry<u64>, now| {
            registry.summaries_after(None, now).next().is_some_and(|line| line.is_used_twice)
        };
        assert!(is_used_twice(&registry, at(100)));
        assert_eq!(registry.pick(&name("a")), Some(&5), "the one that stays");
        let again = registry.register(&name("a"), entry(7, 2), at(101));
        assert_eq!(again, Err(RegistrationError::HeldBack { other: 5, is_first: false }));
        // A new instance is not held back.
        let new = registry.register(&name("a"), entry(8, 9), at(102)).expect("a new one");
        assert_eq!(new.superseded, vec![5]);
    }

    #[test]
    fn returns_that_are_further_apart_are_permitted() {
        let mut registry = Registry::default();
        assert_eq!(until_held_back(&mut registry, 21), (20, 0));
        assert!(!registry.summaries_after(None, at(420)).any(|line| line.is_used_twice));
    }

    #[test]
    fn a_held_back_instance_is_permitted_when_no_rival_is_attached() {
        let (mut registry, a) = (Registry::default(), name("a"));
        assert_eq!(until_held_back(&mut registry, 1), (5, 5));
        registry.unregister(&a, 5, at(6));
        assert!(registry.register(&a, entry(7, 2), at(7)).is_ok());
    }

    #[test]
    fn summaries_show_attached_agents_and_times() {
        let mut registry = Registry::default();
        registry.register(&name("b"), entry(1, 1), at(5)).expect("b");
        registry.register(&name("a"), entry(2, 2), at(6)).expect("a");
        registry.unregister(&name("b"), 1, at(9));
        let lines: Vec<_> = registry
            .summaries_after(None, at(9))
            .map(|line| (line.name.to_string(), line.newest.copied(), line.since))
            .collect();
        assert_eq!(lines, [("a".into(), Some(2), wall(6)), ("b".into(), None, wall(9))]);
    }

    #[test]
    fn detached_agents_are_kept_up_to_the_limit() {
        let mut registry = Registry::default();
        for n in 0..=DETACHED_REMEMBERED_MAX as u64 {
            registry.register(&name(&format!("a{n}")), entry(n + 1, 1), at(n)).expect("new");
            registry.unregister(&name(&format!("a{n}")), n + 1, at(n));
        }
        assert_eq!(registry.summaries_after(None, at(0)).count(), DETACHED_REMEMBERED_MAX);
        assert!(!registry.summaries_after(None, at(0)).any(|line| line.name.as_str() == "a0"));
    }

    #[test]
    fn the_first_detached_agent_is_forgotten_even_if_the_wall_clock_was_set_back() {
        let mut registry = Registry::default();
        let most = DETACHED_REMEMBERED_MAX as u64;
        for n in 0..=most {
            let now = Times { wall: wall(most - n), ..at(n) };
            registry.register(&name(&format!("a{n}")), entry(n + 1, 1), now).expect("new");
            registry.unregister(&name(&format!("a{n}")), n + 1, now);
        }
        assert_eq!(registry.summaries_after(None, at(0)).count(), DETACHED_REMEMBERED_MAX);
        assert!(!registry.summaries_after(None, at(0)).any(|line| line.name.as_str() == "a0"));
        assert_eq!(registry.detached.len(), DETACHED_REMEMBERED_MAX);
    }

    #[test]
    fn an_agent_that_came_back_is_not_forgotten_as_detached() {
        let (mut registry, back) = (Registry::default(), name("back"));
        registry.register(&back, entry(1, 1), at(0)).expect("new");
        registry.unregister(&back, 1, at(0));
        registry.register(&back, entry(2, 1), at(0)).expect("new");
        for n in 0..=DETACHED_REMEMBERED_MAX as u64 {
            registry.register(&name(&format!("a{n}")), entry(n + 3, 1), at(0)).expect("new");
            registry.unregister(&name(&format!("a{n}")), n + 3, at(0));
        }
        assert_eq!(registry.pick(&back), Some(&2));
    }

    fn caller_link(admission: u64, instance: u8) -> CallerLink {
        CallerLink { admission, instance: [instance; 16], evicted: Arc::default() }
    }

    /// The caller `c` with a limit on its links.
    struct CallerFixture {
        registry: Registry<u64>,
        links: Vec<CallerLink>,
        links_max: usize,
    }

    impl CallerFixture {
        fn with_at_most(links_max: usize) -> Self {
            Self { registry: Registry::default(), links: Vec::new(), links_max }
        }

        /// Adds a link of an instance. Returns whether it is admitted.
        fn comes(&mut self, instance: u8) -> bool {
            let link = caller_link(self.links.len() as u64, instance);
            self.links.push(link.clone());
            self.registry.add_caller_link(&name("c"), link, self.links_max)
        }

        fn leaves(&mut self, admission: u64) {
            self.registry.remove_caller_link(&name("c"), admission);
        }

        /// Admissions of the evicted links.
        fn evicted(&self) -> Vec<u64> {
            let evicted = self.links.iter().filter(|link| link.evicted.is_notified());
            evicted.map(|link| link.admission).collect()
        }

        fn count(&self) -> usize {
            self.registry.callers.get(&name("c")).map_or(0, Vec::len)
        }
    }

    #[test]
    fn a_caller_at_its_limit_gets_no_link_of_another_instance() {
        let mut caller = CallerFixture::with_at_most(2);
        assert!(caller.comes(1) && caller.comes(2));
        assert!(!caller.comes(3));
        caller.leaves(0);
        assert!(caller.comes(3));
        caller.leaves(1);
        caller.leaves(3);
        assert!(caller.registry.callers.is_empty(), "a caller without links costs nothing");
    }

    #[test]
    fn an_instance_at_the_limit_may_renew_and_keeps_its_retiring_link() {
        let mut caller = CallerFixture::with_at_most(2);
        assert!(caller.comes(1) && caller.comes(2) && caller.comes(1) && caller.comes(2));
        assert_eq!((caller.count(), caller.evicted()), (4, vec![]));
        assert!(!caller.comes(3), "a renewal makes no room for another instance");
        caller.leaves(0);
        caller.leaves(1);
        assert!(!caller.comes(3), "the renewed links count");
        caller.leaves(2);
        assert!(caller.comes(3));
    }

    #[test]
    fn links_of_all_instances_never_exceed_twice_the_limit() {
        let mut caller = CallerFixture::with_at_most(3);
        assert!([1, 2, 3].into_iter().all(|instance| caller.comes(instance)));
        for round in 0..50_u64 {
            assert!(caller.comes(1 + (round % 3) as u8));
            assert!(caller.count() <= 6, "round {round}");
        }
        assert_eq!(caller.evicted().len(), 47, "each excess link evicted one");
        assert_eq!(caller.evicted()[..3], [0, 1, 2], "the oldest of the instance that came");
    }

    #[test]
    fn one_instance_has_four_links_beyond_the_limit_and_then_loses_its_oldest() {
        let mut caller = CallerFixture::with_at_most(10);
        assert!((2..=10).all(|instance| caller.comes(instance)) && caller.comes(1));
        assert!((0..3).all(|_| caller.comes(1)));
        assert_eq!((caller.count(), caller.evicted()), (13, vec![]));
        assert!(caller.comes(1) && caller.comes(1));
        assert_eq!((caller.count(), caller.evicted()), (13, vec![9, 10]));
        // The late end of an evicted link removes no other link.
        caller.leaves(9);
        assert_eq!(caller.count(), 13);
    }

    #[test]
    fn an_instance_below_the_limit_may_have_all_links() {
        let mut caller = CallerFixture::with_at_most(10);
        assert!((0..10).all(|_| caller.comes(1)));
        assert_eq!((caller.count(), caller.evicted()), (10, vec![]));
        assert!(caller.comes(1));
        assert_eq!((caller.count(), caller.evicted()), (10, vec![0]));
    }

    #[test]
    fn summaries_start_after_a_name_and_show_the_last_arrival() {
        let mut registry = Registry::default();
        for (n, text) in [(1, "a"), (2, "b"), (3, "c")] {
            registry.register(&name(text), entry(n, 1), at(0)).expect("new");
            assert_eq!(registry.arrived(&name(text)), n);
        }
        let names = |registry: &Registry<u64>, after: Option<&str>| -> Vec<_> {
            let after = after.map(name);
            let lines = registry.summaries_after(after.as_ref(), at(0));
            lines.map(|line| (line.name.to_string(), line.arrival)).collect()
        };
        let [a, b, c] = [("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)];
        assert_eq!(names(&registry, None), [a, b, c.clone()]);
        // The name need not be registered.
        assert_eq!(names(&registry, Some("bb")), [c]);
        assert_eq!(names(&registry, Some("c")), []);
        assert_eq!((registry.arrived(&name("b")), registry.arrivals), (4, 4));
        assert_eq!(names(&registry, Some("a"))[0].1, 4);
    }
}
