//! How often something may happen: token buckets that take the time as an argument, by key in
//! bounded memory, and lines of a log that are said so often and no oftener.

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

/// So many at once, and after them one every so often. A bucket of this pace is a single moment:
/// when it will be full again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    every: Duration,
    /// How long an empty bucket takes to fill.
    fill: Duration,
}

impl Pace {
    /// `burst` at once, then one every so often. None at all is one.
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self { every, fill: every.saturating_mul(burst.max(1)) }
    }

    /// As many at once as in the time, and as many in the time for ever.
    pub(crate) fn per(count: u32, time: Duration) -> Self {
        Self::new(count, time / count.max(1))
    }

    /// Takes one from a bucket that will be full at that moment, or is full. Gives when it will be
    /// full then.
    ///
    /// # Errors
    /// It is empty for so long.
    pub(crate) fn take(&self, full_at: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let full_at = full_at.map_or(now, |full_at| now.max(full_at)) + self.every;
        let wait = full_at.saturating_duration_since(now + self.fill);
        if wait.is_zero() { Ok(full_at) } else { Err(wait) }
    }
}

/// A bucket for each key. Whoever is not in it has a full one.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    pace: Pace,
    keys_max: usize,
    /// Who has come since the turn, and who came in the time of one filling before it.
    recent: HashMap<K, Instant>,
    before: HashMap<K, Instant>,
    turn: Option<Instant>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// At most so many keys at once are counted; of more, those that come late pass.
    pub(crate) fn new(pace: Pace, keys_max: usize) -> Self {
        Self { pace, keys_max, recent: HashMap::new(), before: HashMap::new(), turn: None }
    }

    /// Whether there is one for this key now; if so and it `counts`, there is one less.
    pub(crate) fn may(&mut self, key: K, now: Instant, counts: bool) -> bool {
        self.forget(now);
        let full_at = self.recent.get(&key).or_else(|| self.before.get(&key));
        let Ok(full_at) = self.pace.take(full_at.copied(), now) else { return false };
        if counts && (self.recent.len() < self.keys_max || self.recent.contains_key(&key)) {
            self.recent.insert(key, full_at);
        }
        true
    }

    /// Buckets that nobody took from while they could fill are full, and a full one needs no
    /// memory.
    fn forget(&mut self, now: Instant) {
        let (turn, fill) = (*self.turn.get_or_insert(now), self.pace.fill);
        if now >= turn + fill {
            self.before = std::mem::take(&mut self.recent);
            if now >= turn + fill * 2 {
                self.before.clear();
            }
            self.turn = Some(now);
        }
    }
}

/// Says something so often, and counts what it left out.
#[derive(Debug)]
pub(crate) struct LogLimiter {
    pace: Pace,
    full_at: Option<Instant>,
    suppressed: u64,
}

impl LogLimiter {
    pub(crate) const fn new(pace: Pace) -> Self {
        Self { pace, full_at: None, suppressed: 0 }
    }

    /// One more that could be said. If it may be: how many before it were left out.
    pub(crate) fn say(&mut self, now: Instant) -> Option<Suppressed> {
        match self.pace.take(self.full_at, now) {
            Ok(full_at) => {
                self.full_at = Some(full_at);
                Some(Suppressed(std::mem::take(&mut self.suppressed)))
            }
            Err(_wait) => self.leave_out(),
        }
    }

    fn leave_out(&mut self) -> Option<Suppressed> {
        self.suppressed = self.suppressed.saturating_add(1);
        None
    }
}

/// How many lines of a kind were left out before the one that says so. Shown as the end of that
/// line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suppressed(pub(crate) u64);

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} more like it were left out before)"),
        }
    }
}

/// One kind of line that others can have us say: some from each of them, and some from all
/// together.
#[derive(Debug)]
pub(crate) struct LogLimits<K>(Mutex<(Buckets<K>, LogLimiter)>);

impl<K: Eq + Hash> Default for LogLimits<K> {
    fn default() -> Self {
        let each = Pace::new(LOG_LINES_PER_CAUSE_BURST, LOG_LINES_PER_CAUSE_EVERY);
        Self::new(each, Pace::new(LOG_LINES_BURST, LOG_LINES_EVERY), LOG_CAUSES_MAX)
    }
}

impl<K: Eq + Hash> LogLimits<K> {
    /// At the paces of each and of all.
    fn new(each: Pace, all: Pace, keys_max: usize) -> Self {
        Self(Mutex::new((Buckets::new(each, keys_max), LogLimiter::new(all))))
    }

    /// One more that could be said, caused by this one. If it may be: how many of its kind before
    /// it were left out.
    pub(crate) fn say(&self, cause: K, now: Instant) -> Option<Suppressed> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (each, all) = &mut *lines;
        if each.may(cause, now, true) { all.say(now) } else { all.leave_out() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many of many at one moment pass.
    fn passing<K: Eq + Hash + Copy>(buckets: &mut Buckets<K>, key: K, now: Instant) -> usize {
        (0..5_000).filter(|_| buckets.may(key, now, true)).count()
    }

    fn buckets(per_second: u32, burst: u32) -> Buckets<u32> {
        Buckets::new(Pace::new(burst, SECOND / per_second), 1_000)
    }

    #[test]
    fn as_many_as_in_the_time_pass_at_once_and_then_one_at_a_time() {
        let (pace, now) = (Pace::per(4, SECOND), Instant::now());
        let mut full_at = None;
        for n in 1..=4 {
            full_at = Some(pace.take(full_at, now).expect("one of four"));
            assert_eq!(full_at, Some(now + n * SECOND / 4));
        }
        assert_eq!(pace.take(full_at, now), Err(SECOND / 4));
        assert!(pace.take(full_at, now + SECOND / 4 - Duration::from_nanos(1)).is_err());
        assert!(pace.take(full_at, now + SECOND / 4).is_ok());
        assert!(pace.take(full_at, now + 100 * SECOND).is_ok());
    }

    #[test]
    fn a_pace_of_none_is_one_and_the_fastest_is_counted_too() {
        let now = Instant::now();
        let none = Pace::per(0, SECOND);
        let after = none.take(None, now).expect("one");
        assert!(none.take(Some(after), now).is_err());
        let fast = Pace::per(1_000_000, SECOND);
        let mut full_at = None;
        let taken = (0..1_000_001).take_while(|_| match fast.take(full_at, now) {
            Ok(at) => full_at.replace(at).is_none_or(|before| before < at),
            Err(_) => false,
        });
        assert_eq!(taken.count(), 1_000_000);
    }

    #[test]
    fn a_burst_passes_and_one_more_does_not_until_there_was_time() {
        let (mut buckets, now) = (buckets(200, 1_000), Instant::now());
        assert_eq!(passing(&mut buckets, 1, now), 1_000);
        assert!(!buckets.may(1, now + Duration::from_millis(4), true));
        assert!(buckets.may(1, now + Duration::from_millis(5), true));
        assert_eq!(passing(&mut buckets, 1, now + SECOND), 199);
        assert_eq!(passing(&mut buckets, 1, now + 60 * SECOND), 1_000);
    }

    #[test]
    fn one_key_takes_nothing_from_another_and_what_does_not_count_takes_nothing() {
        let (mut buckets, now) = (buckets(1, 3), Instant::now());
        assert!((0..10).all(|_| buckets.may(1, now, false)));
        assert_eq!([1, 2, 1].map(|key| passing(&mut buckets, key, now)), [3, 3, 0]);
        assert!(!buckets.may(1, now, false));
    }

    #[test]
    fn nothing_is_forgotten_before_its_bucket_is_full_again() {
        let (mut buckets, now) = (buckets(1, 10), Instant::now());
        for second in 0..100 {
            let now = now + second * SECOND;
            // Others come all the while, so that the tables turn.
            assert!(buckets.may(2, now, true));
            let wanted = if second == 0 { 10 } else { 1 };
            assert_eq!(passing(&mut buckets, 1, now), wanted, "second {second}");
        }
    }

    #[test]
    fn a_flood_of_keys_takes_bounded_memory_and_shuts_nobody_out() {
        let (mut buckets, start) = (buckets(1, 10), Instant::now());
        for n in 0..3_000 {
            assert!(buckets.may(n, start + Duration::from_micros(n.into()), true));
        }
        assert_eq!(buckets.recent.len(), 1_000);
        assert!(buckets.may(9_999, start + SECOND, true));
        assert!(buckets.may(9_999, start + 60 * SECOND, true));
        assert_eq!((buckets.recent.len(), buckets.before.len()), (1, 0));
    }

    #[test]
    fn what_was_left_out_is_counted_in_the_next_line() {
        let (mut sparse, now) = (LogLimiter::new(Pace::new(1, 10 * SECOND)), Instant::now());
        assert_eq!(sparse.say(now), Some(Suppressed(0)));
        assert!((1..100).all(|n| sparse.say(now + n * SECOND / 10).is_none()));
        assert_eq!(sparse.say(now + 10 * SECOND), Some(Suppressed(99)));
        assert_eq!(sparse.say(now + 11 * SECOND), None);
    }

    #[test]
    fn lines_are_bounded_for_each_cause_and_for_all_of_them() {
        let now = Instant::now();
        let lines = LogLimits::new(Pace::new(2, 10 * SECOND), Pace::new(5, SECOND), 100);
        let said = |cause: u32, now| (0..10).filter(|_| lines.say(cause, now).is_some()).count();
        assert_eq!([1, 2, 3, 4].map(|cause| said(cause, now)), [2, 2, 1, 0]);
        // A quiet cause is heard beside a loud one.
        assert_eq!(said(1, now + SECOND), 0);
        assert_eq!(lines.say(5, now + SECOND), Some(Suppressed(29)));
    }

    #[test]
    fn a_line_shows_what_was_left_out_only_if_something_was() {
        assert_eq!(Suppressed(0).to_string(), "");
        assert_eq!(Suppressed(7).to_string(), " (7 more like it were left out before)");
    }
}
