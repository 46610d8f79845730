//! Limits the calls that a caller resets one after the other: each costs the node its start, and
//! the caller nothing. CVE-2023-44487 in HTTP/2.

use crate::limits::RESETS_WITHIN;
use std::collections::VecDeque;
use tokio::time::Instant;

/// Recent resets of one link.
pub(super) struct ResetLimiter {
    most: usize,
    /// The last ones, oldest first; at most as many as are allowed.
    recent: VecDeque<Instant>,
}

impl ResetLimiter {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, recent: VecDeque::new() }
    }

    /// Counts the reset of a call. Returns whether it is one too many. A call that lasted for half
    /// of its time or longer does not count: a caller whose deadlines pass correctly resets its
    /// calls a moment before the node's clock would.
    pub(super) fn count_reset(&mut self, began: Instant, deadline: Instant, now: Instant) -> bool {
        if (now - began) * 2 >= deadline - began {
            return false;
        }
        self.count_violation(now)
    }

    /// Counts a protocol violation, whatever time its call had. Returns whether it is one too many.
    pub(super) fn count_violation(&mut self, now: Instant) -> bool {
        self.forget(now);
        if self.recent.len() >= self.most {
            return true;
        }
        self.recent.push_back(now);
        false
    }

    fn forget(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|then| *then + RESETS_WITHIN <= now) {
            self.recent.pop_front();
        }
    }
}

#[cfg(feature = "gateway")]
impl ResetLimiter {
    /// True if the limit is reached, so that no more calls may begin.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.recent.len() >= self.most
    }

    pub(super) fn has_some(&mut self, now: Instant) -> bool {
        self.forget(now);
        !self.recent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn one(resets: &mut ResetLimiter, now: Instant) -> bool {
        resets.count_reset(now, now + 30 * SECOND, now)
    }

    #[test]
    fn one_more_reset_than_allowed_is_too_many() {
        let (mut resets, now) = (ResetLimiter::new(100), Instant::now());
        assert!((0..100).all(|n| !one(&mut resets, now + n * SECOND / 100)));
        assert!(one(&mut resets, now + 9 * SECOND));
        assert!(one(&mut resets, now + 9 * SECOND));
    }

    #[test]
    fn resets_are_forgotten_after_ten_seconds() {
        let (mut resets, now) = (ResetLimiter::new(100), Instant::now());
        // Ten per second, for a long time.
        assert!((0..10_000).all(|n| !one(&mut resets, now + n * SECOND / 10)));
        assert!(resets.recent.len() <= 100);
        let mut resets = ResetLimiter::new(1);
        assert!(!one(&mut resets, now) && one(&mut resets, now + 9 * SECOND));
        assert!(!one(&mut resets, now + 10 * SECOND));
    }

    #[test]
    fn resets_near_the_deadline_are_not_counted() {
        let (mut resets, now) = (ResetLimiter::new(1), Instant::now());
        let after = |millis| now + Duration::from_millis(millis);
        assert!((0..1_000).all(|_| !resets.count_reset(now, after(200), after(190))));
        assert!((0..1_000).all(|_| !resets.count_reset(now, after(200), after(100))));
        assert!(!resets.count_reset(now, after(200), after(99)));
        assert!(resets.count_reset(now, after(200), after(99)));
    }

    #[test]
    fn protocol_violations_are_counted_regardless_of_the_deadline() {
        let (mut resets, now) = (ResetLimiter::new(2), Instant::now());
        assert!(!resets.count_violation(now) && !resets.count_violation(now));
        assert!(resets.count_violation(now), "one past the limit");
        assert!(!resets.count_violation(now + RESETS_WITHIN), "forgotten");
    }

    #[cfg(feature = "gateway")]
    #[test]
    fn a_full_limiter_has_room_again_after_ten_seconds() {
        let (mut resets, now) = (ResetLimiter::new(1), Instant::now());
        assert!(!resets.is_full(now));
        resets.count_violation(now);
        assert!(resets.is_full(now) && resets.is_full(now + 9 * SECOND));
        assert!(!resets.is_full(now + 10 * SECOND));
    }
}
