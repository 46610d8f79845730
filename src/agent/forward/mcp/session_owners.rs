//! Who began a session: nobody else may use it.

use crate::{limits::MCP_SESSIONS_KNOWN_MAX, name::PeerName};
use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Mutex, PoisonError},
};

/// Hashes of the id of a session with two random keys: ids may be long.
type SessionKey = [u64; 2];

/// Callers by their sessions, also those of a forward whose settings have changed since. An agent
/// that starts again does not know the sessions of its servers:
/// each belongs to the first caller that the server answers in it.
#[derive(Default)]
pub(in crate::agent) struct SessionOwners {
    hashers: [RandomState; 2],
    known: Mutex<KnownSessions>,
}

#[derive(Default)]
struct KnownSessions {
    owners: HashMap<SessionKey, PeerName>,
    oldest_first: HashMap<PeerName, VecDeque<SessionKey>>,
}

impl SessionOwners {
    /// True unless the session is another caller's.
    pub(super) fn is_open_to(&self, session: &str, caller: &PeerName) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.owners.get(&self.key(session)).is_none_or(|owner| owner == caller)
    }

    /// Remembers whose session this is. The caller's oldest is forgotten for it if it has too many.
    pub(super) fn remember(&self, session: &str, caller: &PeerName) {
        let (key, mut known) =
            (self.key(session), self.known.lock().unwrap_or_else(PoisonError::into_inner));
        let KnownSessions { owners, oldest_first } = &mut *known;
        if owners.contains_key(&key) {
            return;
        }
        let own = oldest_first.entry(caller.clone()).or_default();
        if own.len() >= MCP_SESSIONS_KNOWN_MAX
            && let Some(oldest) = own.pop_front()
        {
            owners.remove(&oldest);
        }
        own.push_back(key);
        owners.insert(key, caller.clone());
    }

    fn key(&self, session: &str) -> SessionKey {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers() -> [PeerName; 2] {
        ["caller/one", "caller/two"].map(|name| name.parse().expect("a peer"))
    }

    #[test]
    fn a_session_is_open_to_its_owner_and_to_nobody_else() {
        let (owners, [one, two]) = (SessionOwners::default(), callers());
        assert!(owners.is_open_to("s", &one) && owners.is_open_to("s", &two));
        owners.remember("s", &one);
        owners.remember("s", &two);
        assert!(owners.is_open_to("s", &one) && !owners.is_open_to("s", &two));
    }

    #[test]
    fn a_caller_with_too_many_sessions_loses_its_own_oldest() {
        let (owners, [one, two]) = (SessionOwners::default(), callers());
        owners.remember("other", &two);
        for id in 0..=MCP_SESSIONS_KNOWN_MAX {
            owners.remember(&id.to_string(), &one);
        }
        assert!(owners.is_open_to("0", &two) && !owners.is_open_to("1", &two));
        assert!(!owners.is_open_to("other", &one));
    }
}
