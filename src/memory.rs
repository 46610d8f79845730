//! Bytes of messages that a node or an agent holds for its callers: counted for each and in all,
//! refused before the process is killed for them.

use crate::{
    limits::{Limits, MEMORY_COUNTED_BYTES_MIN, MEMORY_SHARE},
    name::PeerName,
    rate_limit::LogLimits,
    status::{Code, Outcome, Status},
    system,
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

/// Why bytes may not be held. Nothing of them was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// The caller has its share of this many bytes.
    Share(usize),
    /// The caller has this many bytes, replies included.
    Replies(usize),
    /// All callers together have this many bytes.
    All(usize),
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(bytes) => write!(
                f,
                "the caller's messages hold its share of the memory for messages, {bytes} bytes (a quarter of memory_max)"
            ),
            Self::Replies(bytes) => write!(
                f,
                "the caller's messages and replies hold all that it may have, {bytes} bytes (half of memory_max)"
            ),
            Self::All(bytes) => write!(
                f,
                "the messages of all callers hold the memory for messages, {bytes} bytes (memory_max)"
            ),
        }
    }
}

impl Exhausted {
    /// The same as the end of a call.
    pub(crate) fn into_status(self, outcome: Outcome) -> Status {
        Status::with_outcome(Code::ResourceExhausted, outcome, self.to_string())
    }
}

/// What bytes are held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Refused in time: nothing was started.
    Request,
    /// Has twice the room: what was started is to end well, and a caller whose replies are many
    /// gets no further call.
    Reply,
}

impl Purpose {
    /// The bound on what one caller has in all, of this much.
    const fn check(self, held: usize, max: usize) -> Result<(), Exhausted> {
        let share = max / MEMORY_SHARE;
        match self {
            Self::Request if held > share => Err(Exhausted::Share(share)),
            Self::Reply if held > 2 * share => Err(Exhausted::Replies(2 * share)),
            _ => Ok(()),
        }
    }
}

/// Counts bytes by key. Pure: what they are is its caller's business.
#[derive(Debug)]
struct Counter<K> {
    max: usize,
    total: usize,
    by_key: HashMap<K, usize>,
}

impl<K: std::hash::Hash + Eq + Clone> Counter<K> {
    fn new(max: usize) -> Self {
        Self { max, total: 0, by_key: HashMap::new() }
    }

    fn take(&mut self, key: &K, bytes: usize, purpose: Purpose) -> Result<(), Exhausted> {
        let held = self.by_key.get(key).copied().unwrap_or_default();
        purpose.check(held.saturating_add(bytes), self.max)?;
        if self.total.saturating_add(bytes) > self.max {
            return Err(Exhausted::All(self.max));
        }
        if bytes > 0 {
            self.total += bytes;
            *self.by_key.entry(key.clone()).or_default() += bytes;
        }
        Ok(())
    }

    /// What was taken.
    fn give_back(&mut self, key: &K, bytes: usize) {
        let Some(held) = self.by_key.get_mut(key) else { return };
        *held -= bytes;
        self.total -= bytes;
        if *held == 0 {
            self.by_key.remove(key);
        }
    }
}

/// The memory for messages of one node or agent. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct MessageMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    counter: Mutex<Counter<PeerName>>,
    /// What is logged of those who are refused.
    refusals: LogLimits<PeerName>,
}

impl MessageMemory {
    /// `memory_max`, or half of what the process may use. A bound that the largest message does not
    /// fit is logged.
    pub(crate) fn new(limits: &Limits) -> Self {
        let counter = Mutex::new(Counter::new(0));
        let memory = Self(Arc::new(Shared { counter, refusals: LogLimits::default() }));
        memory.apply(limits);
        memory
    }

    /// Sets another bound. What is held stays.
    pub(crate) fn apply(&self, limits: &Limits) {
        let half = || system::memory_bytes().map_or(usize::MAX, |bytes| bytes / 2);
        let max = limits.memory_max.unwrap_or_else(half);
        self.counter().max = max;
        if let Some(why) = misfit(max, limits.message_bytes_max) {
            tracing::warn!("{why}");
        }
    }

    /// The share of one caller, for requests.
    pub(crate) fn account(&self, caller: &PeerName) -> MemoryAccount {
        let (memory, caller) = (self.clone(), caller.clone());
        MemoryAccount { memory, caller, purpose: Purpose::Request }
    }

    /// The same for replies.
    pub(crate) fn reply_account(&self, caller: &PeerName) -> MemoryAccount {
        MemoryAccount { purpose: Purpose::Reply, ..self.account(caller) }
    }

    fn counter(&self) -> MutexGuard<'_, Counter<PeerName>> {
        self.0.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says so if the share of a caller is smaller than the largest message, which would be refused
/// even if nothing else is held.
pub(crate) fn misfit(memory_max: usize, message_bytes_max: usize) -> Option<String> {
    let share = memory_max / MEMORY_SHARE;
    let enough = message_bytes_max.saturating_mul(MEMORY_SHARE);
    (share < message_bytes_max).then(|| {
        format!(
            "a caller may hold {share} bytes (a quarter of memory_max), less than one message of message_bytes_max ({message_bytes_max} bytes); raise memory_max to {enough} or lower message_bytes_max"
        )
    })
}

/// What one caller may have held for it.
#[derive(Debug, Clone)]
pub(crate) struct MemoryAccount {
    memory: MessageMemory,
    caller: PeerName,
    purpose: Purpose,
}

impl MemoryAccount {
    /// Takes bytes that are to be held. Few are free: counting them would cost more than they do.
    ///
    /// # Errors
    /// There is no room for them.
    pub(crate) fn take(&self, bytes: usize) -> Result<Held, Exhausted> {
        let mut held = Held { account: self.clone(), bytes: 0 };
        held.grow(if bytes < MEMORY_COUNTED_BYTES_MIN { 0 } else { bytes })?;
        Ok(held)
    }
}

/// Bytes that are held. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    account: MemoryAccount,
    bytes: usize,
}

impl Held {
    /// How many there are.
    #[cfg(feature = "gateway")]
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more.
    ///
    /// # Errors
    /// There is no room for them. What was taken before is kept.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if bytes == 0 {
            return Ok(());
        }
        let MemoryAccount { memory, caller, purpose } = &self.account;
        let taken = memory.counter().take(caller, bytes, *purpose);
        match taken {
            Ok(()) => self.bytes += bytes,
            Err(why) => {
                if let Some(suppressed) = memory.0.refusals.say(caller.clone(), Instant::now()) {
                    let message = self.bytes.saturating_add(bytes);
                    tracing::warn!(
                        "refused a message of {message} bytes of {caller}: {why}{suppressed}"
                    );
                }
            }
        }
        taken
    }

    /// What was made of the bytes that are held, counted in their place until the last piece of it
    /// is dropped.
    ///
    /// # Errors
    /// It is larger than they are, and there is no room for the rest.
    #[cfg(feature = "gateway")]
    pub(crate) fn become_message(mut self, message: Bytes) -> Result<Bytes, Exhausted> {
        let bytes = if message.len() < MEMORY_COUNTED_BYTES_MIN { 0 } else { message.len() };
        self.grow(bytes.saturating_sub(self.bytes))?;
        let over = self.bytes - bytes;
        self.account.memory.counter().give_back(&self.account.caller, over);
        self.bytes = bytes;
        Ok(self.around(message))
    }

    /// The message itself, counted until the last piece of it is dropped.
    pub(crate) fn around(self, message: Bytes) -> Bytes {
        if self.bytes == 0 {
            return message;
        }
        Bytes::from_owner(Counted { message, _held: self })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.account.memory.counter().give_back(&self.account.caller, self.bytes);
        }
    }
}

/// A message and its bytes among those that are counted.
struct Counted {
    message: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(memory_max: usize) -> Limits {
        Limits { memory_max: Some(memory_max), message_bytes_max: 1_024, ..Limits::default() }
    }

    fn memory_of(memory_max: usize) -> MessageMemory {
        MessageMemory::new(&bound(memory_max))
    }

    #[test]
    fn a_share_smaller_than_one_message_is_told_with_the_bound_that_holds_it() {
        assert_eq!(misfit(4_000, 1_000), None);
        let text = misfit(3_999, 1_000).expect("a misfit");
        assert!(
            text.contains("may hold 999 bytes") && text.contains("memory_max to 4000"),
            "{text}"
        );
    }

    #[test]
    fn a_caller_is_refused_beyond_its_share_and_all_beyond_the_bound() {
        use Purpose::Request;
        const MAX: usize = 400;
        let mut counter = Counter::new(MAX);
        for (key, bytes, expected) in [
            ("a", 100, Ok(())),
            ("a", 1, Err(Exhausted::Share(100))),
            ("a", usize::MAX, Err(Exhausted::Share(100))),
            ("a", 0, Ok(())),
            ("b", 101, Err(Exhausted::Share(100))),
            ("b", 100, Ok(())),
            ("c", 100, Ok(())),
            ("d", 99, Ok(())),
            ("e", 2, Err(Exhausted::All(MAX))),
            ("e", 1, Ok(())),
            ("e", 1, Err(Exhausted::All(MAX))),
        ] {
            assert_eq!(counter.take(&key, bytes, Request), expected, "{key}: {bytes}");
        }
        counter.give_back(&"a", 100);
        assert_eq!(counter.take(&"a", 100, Request), Ok(()), "given back");
        for (key, bytes) in [("a", 100), ("b", 100), ("c", 100), ("d", 99), ("e", 1)] {
            counter.give_back(&key, bytes);
        }
        assert!(counter.total == 0 && counter.by_key.is_empty(), "nothing is left");
    }

    #[test]
    fn replies_have_twice_the_room_and_requests_none_beside_them() {
        use Purpose::{Reply, Request};
        let mut counter = Counter::new(400);
        for (purpose, bytes, expected) in [
            (Request, 100, Ok(())),
            (Reply, 100, Ok(())),
            (Reply, 1, Err(Exhausted::Replies(200))),
            (Request, 1, Err(Exhausted::Share(100))),
        ] {
            assert_eq!(counter.take(&"a", bytes, purpose), expected, "{purpose:?} {bytes}");
        }
        counter.give_back(&"a", 100);
        assert_eq!(counter.take(&"a", 1, Request), Err(Exhausted::Share(100)), "the reply is held");
        assert_eq!(counter.take(&"a", 100, Reply), Ok(()));
    }

    #[test]
    fn a_message_is_counted_until_the_last_piece_of_it_is_dropped() {
        let memory = memory_of(4 * MEMORY_COUNTED_BYTES_MIN);
        let account = memory.account(&"caller/ops".parse().expect("a name"));
        let bytes = MEMORY_COUNTED_BYTES_MIN;
        let whole = Bytes::from(vec![7; bytes]);
        let message = account.take(bytes).expect("room").around(whole.clone());
        assert_eq!(message, whole);
        let piece = message.slice(10..20);
        drop(message);
        assert_eq!(account.take(bytes).map(drop), Err(Exhausted::Share(bytes)));
        assert!(account.take(bytes - 1).is_ok(), "few bytes are not counted");
        let other = memory.account(&"caller/other".parse().expect("a name"));
        assert!(other.take(bytes).is_ok(), "another caller has a share of its own");
        drop(piece);
        assert!(account.take(bytes).is_ok());
        assert_eq!(memory.counter().total, 0);
    }

    #[test]
    fn a_bound_that_is_lowered_holds_for_what_comes_and_keeps_what_is_held() {
        let memory = memory_of(1 << 20);
        let account = memory.account(&"caller/ops".parse().expect("a name"));
        let held = account.take(1 << 18).expect("the share");
        memory.apply(&bound(1 << 19));
        assert_eq!(account.take(1 << 14).map(drop), Err(Exhausted::Share(1 << 17)));
        drop(held);
        assert!(account.take(1 << 17).is_ok());
    }

    #[cfg(feature = "gateway")]
    #[test]
    fn what_a_body_becomes_is_counted_in_its_place() {
        let memory = memory_of(4 * 20_000);
        let account = memory.account(&"caller/ops".parse().expect("a name"));
        let message = |bytes: usize| Bytes::from(vec![7; bytes]);
        for (body, becomes, counted) in [
            (20_000, 20_000, Ok(20_000)),
            (20_000, 5_000, Ok(5_000)),
            (20_000, 10, Ok(0)),
            (10, 20_000, Ok(20_000)),
            (10, 10, Ok(0)),
            (10_000, 20_001, Err(Exhausted::Share(20_000))),
        ] {
            let held = account.take(body).expect("room");
            let made = held.become_message(message(becomes));
            let now = memory.counter().total;
            assert_eq!(made.as_ref().map(|_| now).map_err(|why| *why), counted, "{body} {becomes}");
            drop(made);
            assert_eq!(memory.counter().total, 0);
        }
    }
}
