//! Caches the hosts of a method that one caller may call, where they are few of many. Each host is
//! evaluated once per policy. Pure: hosts and decisions are arguments.

use super::service_index::Cursor;
use crate::{
    limits::{CANDIDATE_LIST_AGENTS_MAX, CANDIDATE_LISTS_MAX, CANDIDATE_LISTS_PER_CALLER_MAX},
    name::{MethodPath, Name, PeerName},
    policy::NodePolicy,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Hosts that a caller may call, of those examined so far. Some may have left.
#[derive(Debug, Clone, Default)]
pub(super) struct CandidateList {
    cursor: Cursor,
    /// Sorted by name.
    pub(super) agents: Vec<Name>,
}

/// Cached hosts of one caller and method.
struct CachedList {
    policy: Arc<NodePolicy>,
    list: Arc<CandidateList>,
    /// Use counter: the lowest was used longest ago.
    used: u64,
}

/// Cached lists of all callers, in bounded memory.
#[derive(Default)]
pub(super) struct Candidates(Mutex<CandidateCache>);

#[derive(Default)]
struct CandidateCache {
    all: HashMap<(PeerName, MethodPath), CachedList>,
    uses: u64,
}

impl Candidates {
    /// Returns the hosts of a method that a caller may call by this policy. `next` returns the next
    /// few hosts after the cursor, and none at the end.
    pub(super) fn of(
        &self,
        caller: &PeerName,
        method: &MethodPath,
        policy: &Arc<NodePolicy>,
        mut next: impl FnMut(&mut Cursor) -> Vec<Name>,
        may_answer: impl Fn(&Name) -> bool,
    ) -> Arc<CandidateList> {
        let key = (caller.clone(), method.clone());
        let known = self.cache(|cache| cache.list(&key, policy));
        let mut cursor = known.as_deref().map(|list| list.cursor).unwrap_or_default();
        let mut some = next(&mut cursor);
        if let Some(known) = known.clone().filter(|_| some.is_empty()) {
            return known;
        }
        let mut list = CandidateList { cursor, ..known.as_deref().cloned().unwrap_or_default() };
        while !some.is_empty() {
            list.agents.extend(some.into_iter().filter(|name| may_answer(name)));
            some = next(&mut list.cursor);
        }
        // An agent that left and returned is in the list twice.
        list.agents.sort_unstable();
        list.agents.dedup();
        let list = Arc::new(list);
        self.cache(|cache| cache.remember(key, policy.clone(), list.clone()));
        list
    }

    fn cache<T>(&self, act: impl FnOnce(&mut CandidateCache) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CandidateCache {
    fn list(
        &mut self,
        key: &(PeerName, MethodPath),
        policy: &Arc<NodePolicy>,
    ) -> Option<Arc<CandidateList>> {
        self.uses += 1;
        let entry = self.all.get_mut(key).filter(|entry| Arc::ptr_eq(&entry.policy, policy))?;
        entry.used = self.uses;
        Some(entry.list.clone())
    }

    fn remember(
        &mut self,
        key: (PeerName, MethodPath),
        policy: Arc<NodePolicy>,
        list: Arc<CandidateList>,
    ) {
        // With that many, sampling soon finds one, and hosts that have left need not be tracked.
        if list.agents.len() > CANDIDATE_LIST_AGENTS_MAX {
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
        self.all.insert(key, CachedList { policy, list, used: self.uses });
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

    fn host(index: &mut ServiceIndex, agent: &str) {
        let method = MethodInfo::new("X", CallKind::Unary);
        index.set(&name(agent), service_index::paths(&[ServiceInfo::new("S", vec![method])]));
    }

    /// Agents that may answer, and how often the policy was evaluated.
    fn candidates_of(
        candidates: &Candidates,
        index: &ServiceIndex,
        caller: &str,
        policy: &Arc<NodePolicy>,
        allowed: &[&str],
    ) -> (Vec<String>, usize) {
        let (method, count) = ("S/X".parse().expect("a method"), Cell::new(0));
        let list = candidates.of(
            &caller.parse().expect("a caller"),
            &method,
            policy,
            |cursor| index.of(&method).next(cursor, 100),
            |name| {
                count.set(count.get() + 1);
                allowed.contains(&name.as_str())
            },
        );
        (list.agents.iter().map(ToString::to_string).collect(), count.get())
    }

    #[test]
    fn the_policy_is_evaluated_once_per_host_caller_and_version() {
        let (candidates, mut index) = (Candidates::default(), ServiceIndex::default());
        let policy = Arc::new(NodePolicy::default());
        (0..10_000).for_each(|n| host(&mut index, &format!("a{n}")));
        let candidates_of = |index: &ServiceIndex, caller, policy, allowed| {
            candidates_of(&candidates, index, caller, policy, allowed)
        };
        assert_eq!(candidates_of(&index, "caller/none", &policy, &[]), (vec![], 10_000));
        assert_eq!(candidates_of(&index, "caller/none", &policy, &[]), (vec![], 0));
        let one = || vec!["a7".to_owned()];
        assert_eq!(candidates_of(&index, "caller/one", &policy, &["a7"]), (one(), 10_000));
        host(&mut index, "late");
        assert_eq!(
            candidates_of(&index, "caller/none", &policy, &["late"]),
            (vec!["late".into()], 1)
        );
        host(&mut index, "a7");
        assert_eq!(
            candidates_of(&index, "caller/one", &policy, &["a7"]),
            (one(), 2),
            "it came back"
        );
        let next = Arc::new(NodePolicy::default());
        assert_eq!(candidates_of(&index, "caller/one", &next, &[]), (vec![], 10_001), "new rules");
    }

    #[test]
    fn the_cache_is_bounded_and_evicts_the_oldest_of_a_caller() {
        let mut cache = CandidateCache::default();
        let policy = Arc::new(NodePolicy::default());
        let key = |caller: usize, method: usize| {
            let caller = format!("caller/c{caller}").parse().expect("a caller");
            (caller, format!("S/M{method}").parse().expect("a method"))
        };
        let remember = |cache: &mut CandidateCache, key| {
            cache.uses += 1;
            cache.remember(key, policy.clone(), Arc::default());
        };
        for method in 0..=CANDIDATE_LISTS_PER_CALLER_MAX {
            remember(&mut cache, key(0, method));
        }
        assert_eq!(cache.all.len(), CANDIDATE_LISTS_PER_CALLER_MAX);
        assert!(!cache.all.contains_key(&key(0, 0)) && cache.all.contains_key(&key(0, 1)));
        for caller in 1..=CANDIDATE_LISTS_MAX {
            remember(&mut cache, key(caller, 0));
        }
        assert_eq!(cache.all.len(), CANDIDATE_LISTS_MAX);
        let many = |count: usize| {
            let agents = (0..count).map(|n| name(&format!("a{n}"))).collect();
            Arc::new(CandidateList { cursor: Cursor::default(), agents })
        };
        cache.remember(key(1, 1), policy.clone(), many(CANDIDATE_LIST_AGENTS_MAX));
        assert!(cache.all.contains_key(&key(1, 1)), "at the limit");
        cache.remember(key(1, 1), policy.clone(), many(CANDIDATE_LIST_AGENTS_MAX + 1));
        assert!(!cache.all.contains_key(&key(1, 1)), "one past it");
    }
}
