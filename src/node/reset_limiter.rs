//! Calls that a caller breaks off one after the other: each costs the node its start, and the
//! caller nothing. CVE-2023-44487 in HTTP/2.

use crate::limits::RESETS_WITHIN;
use std::collections::VecDeque;
use tokio::time::Instant;

/// What one link broke off lately.
pub(super) struct ResetLimiter {
    most: usize,
    /// The last ones, oldest first; never more than are allowed.
    lately: VecDeque<Instant>,
}

impl ResetLimiter {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, lately: VecDeque::new() }
    }

    /// One more call was broken off. Says whether that is one too many.
    ///
    /// A call that lived for half of its time or longer is not counted: a caller whose deadlines
    /// pass breaks its calls off a moment before our own clock would, and is none the worse for it.
    pub(super) fn is_too_many(&mut self, began: Instant, deadline: Instant, now: Instant) -> bool {
        if (now - began) * 2 >= deadline - began {
            return false;
        }
        self.is_one_too_many(now)
    }

    /// One more call was broken off, whatever time it had. Says whether that is one too many.
    pub(super) fn is_one_too_many(&mut self, now: Instant) -> bool {
        self.forget(now);
        if self.lately.len() >= self.most {
            return true;
        }
        self.lately.push_back(now);
        false
    }

    fn forget(&mut self, now: Instant) {
        while self.lately.front().is_some_and(|then| *then + RESETS_WITHIN <= now) {
            self.lately.pop_front();
        }
    }
}

#[cfg(feature = "gateway")]
impl ResetLimiter {
    /// Whether as many were broken off as are allowed, and no more may begin.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.lately.len() >= self.most
    }

    /// Whether some were broken off lately.
    pub(super) fn has_some(&mut self, now: Instant) -> bool {
        self.forget(now);
        !self.lately.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn one(breaks: &mut ResetLimiter, now: Instant) -> bool {
        breaks.is_too_many(now, now + 30 * SECOND, now)
    }

    #[test]
    fn the_last_that_is_allowed_passes_and_one_more_does_not() {
        let (mut breaks, now) = (ResetLimiter::new(100), Instant::now());
        assert!((0..100).all(|n| !one(&mut breaks, now + n * SECOND / 100)));
        assert!(one(&mut breaks, now + 9 * SECOND));
        assert!(one(&mut breaks, now + 9 * SECOND));
    }

    #[test]
    fn what_is_ten_seconds_old_is_forgotten() {
        let (mut breaks, now) = (ResetLimiter::new(100), Instant::now());
        // Ten a second, for ever.
        assert!((0..10_000).all(|n| !one(&mut breaks, now + n * SECOND / 10)));
        assert!(breaks.lately.len() <= 100);
        let mut breaks = ResetLimiter::new(1);
        assert!(!one(&mut breaks, now) && one(&mut breaks, now + 9 * SECOND));
        assert!(!one(&mut breaks, now + 10 * SECOND));
    }

    #[test]
    fn calls_whose_time_was_over_are_not_counted() {
        let (mut breaks, now) = (ResetLimiter::new(1), Instant::now());
        let after = |millis| now + Duration::from_millis(millis);
        assert!((0..1_000).all(|_| !breaks.is_too_many(now, after(200), after(190))));
        assert!((0..1_000).all(|_| !breaks.is_too_many(now, after(200), after(100))));
        assert!(!breaks.is_too_many(now, after(200), after(99)));
        assert!(breaks.is_too_many(now, after(200), after(99)));
    }

    #[test]
    fn what_breaks_the_protocol_is_counted_however_little_time_the_call_had() {
        let (mut breaks, now) = (ResetLimiter::new(2), Instant::now());
        assert!(!breaks.is_one_too_many(now) && !breaks.is_one_too_many(now));
        assert!(breaks.is_one_too_many(now), "one past the limit");
        assert!(!breaks.is_one_too_many(now + RESETS_WITHIN), "forgotten");
    }
}
