//! Rate limits: token buckets that take the time as an argument, by key in bounded memory, and
//! limits on log lines.

use crate::limits::{
    LOG_CAUSES_MAX, LOG_LINES_BURST, LOG_LINES_EVERY, LOG_LINES_PER_CAUSE_BURST,
    LOG_LINES_PER_CAUSE_EVERY,
};
use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A burst, and after it one per interval. The state of a bucket with this limit is a single
/// instant: the time at which it will be full again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimit {
    every: Duration,
    /// Time in which an empty bucket fills.
    fill: Duration,
}

impl RateLimit {
    /// Allows `burst` at once, then one per interval. A burst of 0 counts as 1.
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self { every, fill: every.saturating_mul(burst.max(1)) }
    }

    /// Allows `count` per period, all of them at once if the bucket is full.
    pub(crate) fn per(count: u32, time: Duration) -> Self {
        Self::new(count, time / count.max(1))
    }

    /// Takes a token from a bucket that will be full at `full_at`, or is full now. Returns the time
    /// at which it will be full again, or fails with the time until the next token.
    pub(crate) fn take(&self, full_at: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let full_at = full_at.map_or(now, |full_at| now.max(full_at)) + self.every;
        let wait = full_at.saturating_duration_since(now + self.fill);
        if wait.is_zero() { Ok(full_at) } else { Err(wait) }
    }
}

/// Token buckets by key. A key without an entry has a full bucket.
#[derive(Debug)]
pub(crate) struct TokenBuckets<K> {
    limit: RateLimit,
    keys_max: usize,
    /// Entries since the last turn, and entries of the fill time before it.
    recent: HashMap<K, Instant>,
    before: HashMap<K, Instant>,
    turn: Option<Instant>,
}

impl<K: Eq + Hash> TokenBuckets<K> {
    /// Buckets for at most `keys_max` keys at once. Further keys are not limited.
    pub(crate) fn new(limit: RateLimit, keys_max: usize) -> Self {
        Self { limit, keys_max, recent: HashMap::new(), before: HashMap::new(), turn: None }
    }

    /// True if the key has a token now. With `counts`, takes it.
    pub(crate) fn allows(&mut self, key: K, now: Instant, counts: bool) -> bool {
        self.forget(now);
        let full_at = self.recent.get(&key).or_else(|| self.before.get(&key));
        let Ok(full_at) = self.limit.take(full_at.copied(), now) else { return false };
        if counts && (self.recent.len() < self.keys_max || self.recent.contains_key(&key)) {
            self.recent.insert(key, full_at);
        }
        true
    }

    /// Removes buckets that had time to fill: a full bucket needs no memory.
    fn forget(&mut self, now: Instant) {
        let (turn, fill) = (*self.turn.get_or_insert(now), self.limit.fill);
        if now >= turn + fill {
            self.before = std::mem::take(&mut self.recent);
            if now >= turn + fill * 2 {
                self.before.clear();
            }
            self.turn = Some(now);
        }
    }
}

/// Limits log lines of one kind, and counts those that it suppresses.
#[derive(Debug)]
pub(crate) struct LogLimiter {
    limit: RateLimit,
    full_at: Option<Instant>,
    suppressed: u64,
}

impl LogLimiter {
    pub(crate) const fn new(limit: RateLimit) -> Self {
        Self { limit, full_at: None, suppressed: 0 }
    }

    /// Admits or suppresses one more line. An admitted one gets the number suppressed before it.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<Suppressed> {
        match self.limit.take(self.full_at, now) {
            Ok(full_at) => {
                self.full_at = Some(full_at);
                Some(Suppressed(std::mem::take(&mut self.suppressed)))
            }
            Err(_wait) => self.suppress(),
        }
    }

    fn suppress(&mut self) -> Option<Suppressed> {
        self.suppressed = self.suppressed.saturating_add(1);
        None
    }
}

/// Limits a line that repeats with the same text.
#[derive(Debug, Default)]
pub(crate) struct RepeatLimiter(Option<(String, Instant)>);

impl RepeatLimiter {
    /// Returns true for a new text, or one that was last logged `again_after` ago or earlier.
    pub(crate) fn admits(&mut self, text: String, now: Instant, again_after: Duration) -> bool {
        let is_repeated = self.0.as_ref().is_some_and(|(last, at)| {
            *last == text && now.saturating_duration_since(*at) < again_after
        });
        if !is_repeated {
            self.0 = Some((text, now));
        }
        !is_repeated
    }
}

/// Number of lines suppressed before the one at whose end it is displayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suppressed(pub(crate) u64);

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} similar lines suppressed before)"),
        }
    }
}

/// Limits log lines of one kind that peers can cause: for each cause and for all together.
#[derive(Debug)]
pub(crate) struct LogLimits<K>(Mutex<(TokenBuckets<K>, LogLimiter)>);

impl<K: Eq + Hash> Default for LogLimits<K> {
    fn default() -> Self {
        let each = RateLimit::new(LOG_LINES_PER_CAUSE_BURST, LOG_LINES_PER_CAUSE_EVERY);
        Self::new(each, RateLimit::new(LOG_LINES_BURST, LOG_LINES_EVERY), LOG_CAUSES_MAX)
    }
}

impl<K: Eq + Hash> LogLimits<K> {
    fn new(each: RateLimit, all: RateLimit, keys_max: usize) -> Self {
        Self(Mutex::new((TokenBuckets::new(each, keys_max), LogLimiter::new(all))))
    }

    /// Admits or suppresses one more line with this cause, as [`LogLimiter::admit`].
    pub(crate) fn admit(&self, cause: K, now: Instant) -> Option<Suppressed> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (each, all) = &mut *lines;
        if each.allows(cause, now, true) { all.admit(now) } else { all.suppress() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Number of tokens that are available at one moment.
    fn passing<K: Eq + Hash + Copy>(buckets: &mut TokenBuckets<K>, key: K, now: Instant) -> usize {
        (0..5_000).filter(|_| buckets.allows(key, now, true)).count()
    }

    fn buckets(per_second: u32, burst: u32) -> TokenBuckets<u32> {
        TokenBuckets::new(RateLimit::new(burst, SECOND / per_second), 1_000)
    }

    #[test]
    fn a_full_bucket_allows_a_burst_and_then_one_per_interval() {
        let (limit, now) = (RateLimit::per(4, SECOND), Instant::now());
        let mut full_at = None;
        for n in 1..=4 {
            full_at = Some(limit.take(full_at, now).expect("one of four"));
            assert_eq!(full_at, Some(now + n * SECOND / 4));
        }
        assert_eq!(limit.take(full_at, now), Err(SECOND / 4));
        assert!(limit.take(full_at, now + SECOND / 4 - Duration::from_nanos(1)).is_err());
        assert!(limit.take(full_at, now + SECOND / 4).is_ok());
        assert!(limit.take(full_at, now + 100 * SECOND).is_ok());
    }

    #[test]
    fn a_limit_of_zero_counts_as_one_and_a_million_is_exact() {
        let now = Instant::now();
        let none = RateLimit::per(0, SECOND);
        let after = none.take(None, now).expect("one");
        assert!(none.take(Some(after), now).is_err());
        let fast = RateLimit::per(1_000_000, SECOND);
        let mut full_at = None;
        let taken = (0..1_000_001).take_while(|_| match fast.take(full_at, now) {
            Ok(at) => full_at.replace(at).is_none_or(|before| before < at),
            Err(_) => false,
        });
        assert_eq!(taken.count(), 1_000_000);
    }

    #[test]
    fn one_more_than_the_burst_is_refused_until_a_token_is_added() {
        let (mut buckets, now) = (buckets(200, 1_000), Instant::now());
        assert_eq!(passing(&mut buckets, 1, now), 1_000);
        assert!(!buckets.allows(1, now + Duration::from_millis(4), true));
        assert!(buckets.allows(1, now + Duration::from_millis(5), true));
        assert_eq!(passing(&mut buckets, 1, now + SECOND), 199);
        assert_eq!(passing(&mut buckets, 1, now + 60 * SECOND), 1_000);
    }

    #[test]
    fn keys_are_independent_and_a_check_takes_no_token() {
        let (mut buckets, now) = (buckets(1, 3), Instant::now());
        assert!((0..10).all(|_| buckets.allows(1, now, false)));
        assert_eq!([1, 2, 1].map(|key| passing(&mut buckets, key, now)), [3, 3, 0]);
        assert!(!buckets.allows(1, now, false));
    }

    #[test]
    fn a_bucket_is_kept_until_it_is_full_again() {
        let (mut buckets, now) = (buckets(1, 10), Instant::now());
        for second in 0..100 {
            let now = now + second * SECOND;
            // Another key is used all the time, so that the tables turn.
            assert!(buckets.allows(2, now, true));
            let wanted = if second == 0 { 10 } else { 1 };
            assert_eq!(passing(&mut buckets, 1, now), wanted, "second {second}");
        }
    }

    #[test]
    fn a_flood_of_keys_takes_bounded_memory_and_blocks_no_key() {
        let (mut buckets, start) = (buckets(1, 10), Instant::now());
        for n in 0..3_000 {
            assert!(buckets.allows(n, start + Duration::from_micros(n.into()), true));
        }
        assert_eq!(buckets.recent.len(), 1_000);
        assert!(buckets.allows(9_999, start + SECOND, true));
        assert!(buckets.allows(9_999, start + 60 * SECOND, true));
        assert_eq!((buckets.recent.len(), buckets.before.len()), (1, 0));
    }

    #[test]
    fn suppressed_lines_are_counted_in_the_next_one() {
        let (mut limiter, now) = (LogLimiter::new(RateLimit::new(1, 10 * SECOND)), Instant::now());
        assert_eq!(limiter.admit(now), Some(Suppressed(0)));
        assert!((1..100).all(|n| limiter.admit(now + n * SECOND / 10).is_none()));
        assert_eq!(limiter.admit(now + 10 * SECOND), Some(Suppressed(99)));
        assert_eq!(limiter.admit(now + 11 * SECOND), None);
    }

    #[test]
    fn lines_are_limited_per_cause_and_in_total() {
        let now = Instant::now();
        let lines = LogLimits::new(RateLimit::new(2, 10 * SECOND), RateLimit::new(5, SECOND), 100);
        let admitted =
            |cause: u32, now| (0..10).filter(|_| lines.admit(cause, now).is_some()).count();
        assert_eq!([1, 2, 3, 4].map(|cause| admitted(cause, now)), [2, 2, 1, 0]);
        // A quiet cause is logged although another is loud.
        assert_eq!(admitted(1, now + SECOND), 0);
        assert_eq!(lines.admit(5, now + SECOND), Some(Suppressed(29)));
    }

    #[test]
    fn the_suppressed_count_is_shown_unless_it_is_zero() {
        assert_eq!(Suppressed(0).to_string(), "");
        assert_eq!(Suppressed(7).to_string(), " (7 similar lines suppressed before)");
    }
}
