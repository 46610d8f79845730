//! Calls by agent and by caller, for metrics with their names: only if they are asked for, and only
//! of a bounded number of names.

use crate::{
    limits::PEER_LABELS_MAX,
    name::{PeerName, Role},
};
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Ended calls of each name, those that succeeded and those that failed.
#[derive(Debug, Default)]
pub(crate) struct PeerCounts {
    is_on: AtomicBool,
    ended: Mutex<HashMap<PeerName, [u64; 2]>>,
    /// Of names beyond the limit, and of texts that are not names, for agents and for callers.
    others: Mutex<[[u64; 2]; 2]>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PeerCounts {
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    #[cfg(feature = "admin")]
    pub(crate) fn turn_on(&self) {
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// Counts a call of an agent or by a caller; `None` is one without a name.
    pub(super) fn call_ended(&self, is_agent: bool, peer: Option<&PeerName>, has_failed: bool) {
        let at = usize::from(has_failed);
        let mut ended = lock(&self.ended);
        let is_full = ended.len() >= PEER_LABELS_MAX;
        match peer {
            Some(peer) if is_full && !ended.contains_key(peer) => {}
            Some(peer) => {
                ended.entry(peer.clone()).or_default()[at] += 1;
                return;
            }
            None => {}
        }
        drop(ended);
        lock(&self.others)[usize::from(!is_agent)][at] += 1;
    }

    /// Names with their numbers, for agents or for the others, which call; the name `other` is all
    /// that have none of their own.
    #[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "read by the admin listener"))]
    pub(crate) fn read(&self, of_agents: bool) -> Vec<(String, [u64; 2])> {
        let is_asked = |peer: &PeerName| (peer.role == Role::Agent) == of_agents;
        let named = lock(&self.ended);
        let mut read: Vec<_> = named
            .iter()
            .filter(|(peer, _)| is_asked(peer))
            .map(|(peer, counts)| (peer.to_string(), *counts))
            .collect();
        drop(named);
        read.sort();
        let others = lock(&self.others)[usize::from(!of_agents)];
        read.extend((others != [0, 0]).then(|| ("other".to_owned(), others)));
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> PeerName {
        text.parse().expect("a peer")
    }

    #[test]
    fn calls_are_counted_by_name_up_to_the_limit() {
        let counts = PeerCounts::default();
        let (shop, ops) = (peer("agent/shop"), peer("caller/ops"));
        counts.call_ended(true, Some(&shop), false);
        counts.call_ended(true, Some(&shop), true);
        counts.call_ended(false, Some(&ops), false);
        counts.call_ended(false, None, true);
        for number in 0..2 * PEER_LABELS_MAX {
            counts.call_ended(false, Some(&peer(&format!("caller/c{number}"))), false);
        }
        assert_eq!(counts.read(true), [("agent/shop".to_owned(), [1, 1])]);
        let callers = counts.read(false);
        assert_eq!(callers.len(), PEER_LABELS_MAX);
        assert!(callers.contains(&("caller/ops".to_owned(), [1, 0])));
        let others = PEER_LABELS_MAX as u64 + 2;
        assert_eq!(callers.last(), Some(&("other".to_owned(), [others, 1])));
        // A known name is counted beyond the limit too.
        counts.call_ended(false, Some(&ops), false);
        assert!(counts.read(false).contains(&("caller/ops".to_owned(), [2, 0])));
    }
}
