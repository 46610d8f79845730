//! Which of many hosts of a method one caller may call, where those are few: judged once for each
//! policy, and then only those that register later. Pure: hosts and decisions come from outside.

use super::service_index::Seen;
use crate::{
    limits::{CANDIDATE_LIST_AGENTS_MAX, CANDIDATE_LISTS_MAX, CANDIDATE_LISTS_PER_CALLER_MAX},
    name::{MethodPath, Name, PeerName},
    policy::NodePolicy,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The hosts that a caller may call, of those seen so far. Some of them may have left.
#[derive(Debug, Clone, Default)]
pub(super) struct Judged {
    seen: Seen,
    /// Sorted.
    pub(super) agents: Vec<Name>,
}

/// What is remembered of a caller and a method.
struct Remembered {
    /// Under which it was judged.
    policy: Arc<NodePolicy>,
    judged: Arc<Judged>,
    /// Counts uses: the lowest was used longest ago.
    used: u64,
}

/// What is remembered of all callers, within bounds.
#[derive(Default)]
pub(super) struct Candidates(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    all: HashMap<(PeerName, MethodPath), Remembered>,
    uses: u64,
}

impl Candidates {
    /// The hosts of a method that a caller may call by this policy. `next` gives the next few hosts
    /// after those seen, and none at the end.
    pub(super) fn of(
        &self,
        caller: &PeerName,
        method: &MethodPath,
        policy: &Arc<NodePolicy>,
        mut next: impl FnMut(&mut Seen) -> Vec<Name>,
        may_answer: impl Fn(&Name) -> bool,
    ) -> Arc<Judged> {
        let key = (caller.clone(), method.clone());
        let known = self.entries(|entries| entries.judged(&key, policy));
        let mut seen = known.as_deref().map(|judged| judged.seen).unwrap_or_default();
        let mut some = next(&mut seen);
        if let Some(known) = known.clone().filter(|_| some.is_empty()) {
            return known;
        }
        let mut judged = Judged { seen, ..known.as_deref().cloned().unwrap_or_default() };
        while !some.is_empty() {
            judged.agents.extend(some.into_iter().filter(|name| may_answer(name)));
            some = next(&mut judged.seen);
        }
        // One that has left and come back was judged twice.
        judged.agents.sort_unstable();
        judged.agents.dedup();
        let judged = Arc::new(judged);
        self.entries(|entries| entries.remember(key, policy.clone(), judged.clone()));
        judged
    }

    fn entries<T>(&self, act: impl FnOnce(&mut Entries) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entries {
    fn judged(
        &mut self,
        key: &(PeerName, MethodPath),
        policy: &Arc<NodePolicy>,
    ) -> Option<Arc<Judged>> {
        self.uses += 1;
        let entry = self.all.get_mut(key).filter(|entry| Arc::ptr_eq(&entry.policy, policy))?;
        entry.used = self.uses;
        Some(entry.judged.clone())
    }

    fn remember(
        &mut self,
        key: (PeerName, MethodPath),
        policy: Arc<NodePolicy>,
        judged: Arc<Judged>,
    ) {
        // With so many, one is soon met at random, and those that have left are forgotten with the
        // others.
        if judged.agents.len() > CANDIDATE_LIST_AGENTS_MAX {
            self.all.remove(&key);
            return;
        }
        if !self.all.contains_key(&key) {
            let of_caller = self.all.keys().filter(|(caller, _)| *caller == key.0).count();
            if of_caller >= CANDIDATE_LISTS_PER_CALLER_MAX {
                self.forget_oldest(|(caller, _)| *caller == key.0);
            } else if self.all.len() >= CANDIDATE_LISTS_MAX {
                self.forget_oldest(|_| true);
            }
        }
        self.all.insert(key, Remembered { policy, judged, used: self.uses });
    }

    fn forget_oldest(&mut self, among: impl Fn(&(PeerName, MethodPath)) -> bool) {
        let entries = self.all.iter().filter(|(key, _)| among(key));
        let oldest = entries.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.all.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::service_index::{self, ServiceIndex},
        *,
    };
    use crate::wire::{CallKind, MethodInfo, ServiceInfo};
    use std::cell::Cell;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn host(hosting: &mut ServiceIndex, agent: &str) {
        let method = MethodInfo::new("X", CallKind::Unary);
        hosting.set(&name(agent), service_index::paths(&[ServiceInfo::new("S", vec![method])]));
    }

    /// The agents that may answer, and how many were judged for it.
    fn judge(
        candidates: &Candidates,
        hosting: &ServiceIndex,
        caller: &str,
        policy: &Arc<NodePolicy>,
        allowed: &[&str],
    ) -> (Vec<String>, usize) {
        let (method, count) = ("S/X".parse().expect("a method"), Cell::new(0));
        let judged = candidates.of(
            &caller.parse().expect("a caller"),
            &method,
            policy,
            |seen| hosting.of(&method).next(seen, 100),
            |name| {
                count.set(count.get() + 1);
                allowed.contains(&name.as_str())
            },
        );
        (judged.agents.iter().map(ToString::to_string).collect(), count.get())
    }

    #[test]
    fn a_host_is_judged_once_for_a_caller_and_a_policy() {
        let (candidates, mut hosting) = (Candidates::default(), ServiceIndex::default());
        let policy = Arc::new(NodePolicy::default());
        (0..10_000).for_each(|n| host(&mut hosting, &format!("a{n}")));
        let judge = |hosting: &ServiceIndex, caller, policy, allowed| {
            judge(&candidates, hosting, caller, policy, allowed)
        };
        assert_eq!(judge(&hosting, "caller/none", &policy, &[]), (vec![], 10_000));
        assert_eq!(judge(&hosting, "caller/none", &policy, &[]), (vec![], 0));
        let one = || vec!["a7".to_owned()];
        assert_eq!(judge(&hosting, "caller/one", &policy, &["a7"]), (one(), 10_000));
        host(&mut hosting, "late");
        assert_eq!(judge(&hosting, "caller/none", &policy, &["late"]), (vec!["late".into()], 1));
        host(&mut hosting, "a7");
        assert_eq!(judge(&hosting, "caller/one", &policy, &["a7"]), (one(), 2), "it came back");
        let next = Arc::new(NodePolicy::default());
        assert_eq!(judge(&hosting, "caller/one", &next, &[]), (vec![], 10_001), "new rules");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_of_a_caller_goes_first() {
        let mut entries = Entries::default();
        let policy = Arc::new(NodePolicy::default());
        let key = |caller: usize, method: usize| {
            let caller = format!("caller/c{caller}").parse().expect("a caller");
            (caller, format!("S/M{method}").parse().expect("a method"))
        };
        let remember = |entries: &mut Entries, key| {
            entries.uses += 1;
            entries.remember(key, policy.clone(), Arc::default());
        };
        for method in 0..=CANDIDATE_LISTS_PER_CALLER_MAX {
            remember(&mut entries, key(0, method));
        }
        assert_eq!(entries.all.len(), CANDIDATE_LISTS_PER_CALLER_MAX);
        assert!(!entries.all.contains_key(&key(0, 0)) && entries.all.contains_key(&key(0, 1)));
        for caller in 1..=CANDIDATE_LISTS_MAX {
            remember(&mut entries, key(caller, 0));
        }
        assert_eq!(entries.all.len(), CANDIDATE_LISTS_MAX);
        let many = |count: usize| {
            let agents = (0..count).map(|n| name(&format!("a{n}"))).collect();
            Arc::new(Judged { seen: Seen::default(), agents })
        };
        entries.remember(key(1, 1), policy.clone(), many(CANDIDATE_LIST_AGENTS_MAX));
        assert!(entries.all.contains_key(&key(1, 1)), "at the limit");
        entries.remember(key(1, 1), policy.clone(), many(CANDIDATE_LIST_AGENTS_MAX + 1));
        assert!(!entries.all.contains_key(&key(1, 1)), "one past it");
    }
}
