//! Memory for messages that a node or an agent holds for its callers. Bytes are counted per caller
//! and in total, and refused before the system kills the process.

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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

/// Reason why bytes are refused. None of them is counted then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exhausted {
    /// The caller's requests use its share of this many bytes.
    #[error(
        "the caller's messages hold its share of the memory for messages, {0} bytes (a quarter of memory_max)"
    )]
    Share(usize),
    /// The caller's requests and replies use this many bytes.
    #[error(
        "the caller's messages and replies hold all that it may have, {0} bytes (half of memory_max)"
    )]
    Replies(usize),
    /// All callers together use this many bytes.
    #[error("the messages of all callers hold the memory for messages, {0} bytes (memory_max)")]
    All(usize),
}

impl Exhausted {
    /// The status of a call that this ends.
    pub(crate) fn into_status(self, outcome: Outcome) -> Status {
        Status::with_outcome(Code::ResourceExhausted, outcome, self.to_string())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Refused before anything is started.
    Request,
    /// May use twice as much: a call that was started should end well, and a caller with many
    /// replies gets no further call.
    Reply,
}

impl Purpose {
    /// Checks the bytes of one caller against its limit, a part of `max`.
    const fn check(self, held: usize, max: usize) -> Result<(), Exhausted> {
        let share = max / MEMORY_SHARE;
        match self {
            Self::Request if held > share => Err(Exhausted::Share(share)),
            Self::Reply if held > 2 * share => Err(Exhausted::Replies(2 * share)),
            _ => Ok(()),
        }
    }
}

/// Counts bytes by key.
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

    /// Returns bytes that were taken.
    fn give_back(&mut self, key: &K, bytes: usize) {
        let Some(held) = self.by_key.get_mut(key) else { return };
        *held -= bytes;
        self.total -= bytes;
        if *held == 0 {
            self.by_key.remove(key);
        }
    }
}

/// Memory for messages of one node or agent. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct MessageMemory(Arc<MemoryState>);

#[derive(Debug)]
struct MemoryState {
    counter: Mutex<Counter<PeerName>>,
    /// Limits the log lines about refusals.
    refusals: LogLimits<PeerName>,
}

impl MessageMemory {
    /// Memory of `memory_max` bytes, or of half of what the process may use. Logs a warning if a
    /// caller's share is smaller than the largest message.
    pub(crate) fn new(limits: &Limits) -> Self {
        let counter = Mutex::new(Counter::new(0));
        let memory = Self(Arc::new(MemoryState { counter, refusals: LogLimits::default() }));
        memory.apply(limits);
        memory
    }

    /// Sets the limits. Bytes that are held stay counted.
    pub(crate) fn apply(&self, limits: &Limits) {
        let max = limits.memory_max.or_else(max_default).unwrap_or(usize::MAX);
        self.counter().max = max;
        if let Some(why) = misfit(max, limits.message_bytes_max) {
            tracing::warn!("{why}");
        }
    }

    /// Account of one caller for requests.
    pub(crate) fn account(&self, caller: &PeerName) -> MemoryAccount {
        let (memory, caller) = (self.clone(), caller.clone());
        MemoryAccount { memory, caller, purpose: Purpose::Request }
    }

    /// Account of one caller for replies.
    pub(crate) fn reply_account(&self, caller: &PeerName) -> MemoryAccount {
        MemoryAccount { purpose: Purpose::Reply, ..self.account(caller) }
    }

    fn counter(&self) -> MutexGuard<'_, Counter<PeerName>> {
        self.0.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Half of what the process may use; `None` if that is not known.
pub(crate) fn max_default() -> Option<usize> {
    system::memory_bytes().map(|bytes| bytes / 2)
}

/// Describes a share of one caller that the largest message would exceed even alone.
pub(crate) fn misfit(memory_max: usize, message_bytes_max: usize) -> Option<String> {
    let share = memory_max / MEMORY_SHARE;
    let enough = message_bytes_max.saturating_mul(MEMORY_SHARE);
    (share < message_bytes_max).then(|| {
        format!(
            "a caller may hold {share} bytes (a quarter of memory_max), less than one message of message_bytes_max ({message_bytes_max} bytes); raise memory_max to {enough} or lower message_bytes_max"
        )
    })
}

/// Account of one caller.
#[derive(Debug, Clone)]
pub(crate) struct MemoryAccount {
    memory: MessageMemory,
    caller: PeerName,
    purpose: Purpose,
}

impl MemoryAccount {
    /// Takes bytes, unless a limit is exceeded; bytes taken before stay counted. Fewer than
    /// [`MEMORY_COUNTED_BYTES_MIN`] are not counted: counting would cost more than they do.
    pub(crate) fn take(&self, bytes: usize) -> Result<HeldBytes, Exhausted> {
        let mut held = HeldBytes { account: self.clone(), bytes: 0 };
        held.grow(if bytes < MEMORY_COUNTED_BYTES_MIN { 0 } else { bytes })?;
        Ok(held)
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    account: MemoryAccount,
    bytes: usize,
}

impl HeldBytes {
    #[cfg(any(feature = "forward", feature = "gateway"))]
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more bytes, unless a limit is exceeded; bytes taken before stay counted.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if bytes == 0 {
            return Ok(());
        }
        let MemoryAccount { memory, caller, purpose } = &self.account;
        let taken = memory.counter().take(caller, bytes, *purpose);
        match taken {
            Ok(()) => self.bytes += bytes,
            Err(why) => {
                if let Some(suppressed) = memory.0.refusals.admit(caller.clone(), Instant::now()) {
                    let message = self.bytes.saturating_add(bytes);
                    tracing::warn!(
                        %caller,
                        bytes = message,
                        reason = %why,
                        "refused a message of {message} bytes of {caller}: {why}{suppressed}"
                    );
                }
            }
        }
        taken
    }

    /// The message converted from the counted bytes, counted in their place until its last slice is
    /// dropped. Fails if it is larger and there is no room for the difference.
    #[cfg(any(feature = "forward", feature = "gateway"))]
    pub(crate) fn become_message(mut self, message: Bytes) -> Result<Bytes, Exhausted> {
        let bytes = if message.len() < MEMORY_COUNTED_BYTES_MIN { 0 } else { message.len() };
        self.grow(bytes.saturating_sub(self.bytes))?;
        let over = self.bytes - bytes;
        self.account.memory.counter().give_back(&self.account.caller, over);
        self.bytes = bytes;
        Ok(self.around(message))
    }

    /// The message, counted until its last slice is dropped.
    pub(crate) fn around(self, message: Bytes) -> Bytes {
        if self.bytes == 0 {
            return message;
        }
        Bytes::from_owner(CountedMessage { message, _held: self })
    }

    /// A part of the message, which is counted until the last of its parts is dropped.
    pub(crate) fn around_part(held: &Arc<Self>, part: Bytes) -> Bytes {
        Bytes::from_owner(CountedMessage { message: part, _held: held.clone() })
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.account.memory.counter().give_back(&self.account.caller, self.bytes);
        }
    }
}

/// A message, or a part of one, with the bytes that are counted for it.
struct CountedMessage<H> {
    message: Bytes,
    _held: H,
}

impl<H> AsRef<[u8]> for CountedMessage<H> {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits_of(memory_max: usize) -> Limits {
        Limits { memory_max: Some(memory_max), message_bytes_max: 1_024, ..Limits::default() }
    }

    fn memory_of(memory_max: usize) -> MessageMemory {
        MessageMemory::new(&limits_of(memory_max))
    }

    #[test]
    fn a_share_smaller_than_one_message_is_reported_with_the_remedy() {
        assert_eq!(misfit(4_000, 1_000), None);
        let text = misfit(3_999, 1_000).expect("a misfit");
        assert!(
            text.contains("may hold 999 bytes") && text.contains("memory_max to 4000"),
            "{text}"
        );
    }

    #[test]
    fn a_caller_is_refused_beyond_its_share_and_all_beyond_the_limit() {
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
    fn replies_may_use_twice_the_share_and_then_requests_are_refused() {
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
    fn a_message_is_counted_until_its_last_slice_is_dropped() {
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
    fn a_lowered_limit_applies_to_new_bytes_only() {
        let memory = memory_of(1 << 20);
        let account = memory.account(&"caller/ops".parse().expect("a name"));
        let held = account.take(1 << 18).expect("the share");
        memory.apply(&limits_of(1 << 19));
        assert_eq!(account.take(1 << 14).map(drop), Err(Exhausted::Share(1 << 17)));
        drop(held);
        assert!(account.take(1 << 17).is_ok());
    }

    #[cfg(feature = "gateway")]
    #[test]
    fn a_converted_message_is_counted_instead_of_its_body() {
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
