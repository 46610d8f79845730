//! Retry budget: retries are at most a tenth of the calls. Counts only, without a clock.

use crate::limits::{RETRIES_PER_HUNDRED, RETRIES_SAVED_MAX};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The retries that are left, in hundredths, and how many were made. Every call earns a tenth of
/// one.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    left: AtomicU32,
    spent: AtomicU64,
}

const ONE: u32 = 100;

impl Default for RetryBudget {
    fn default() -> Self {
        Self { left: AtomicU32::new(RETRIES_SAVED_MAX * ONE), spent: AtomicU64::new(0) }
    }
}

impl RetryBudget {
    /// A call is made for the first time. The usual case, a full budget, only reads.
    pub(crate) fn earn(&self) {
        let max = RETRIES_SAVED_MAX * ONE;
        if self.left.load(Ordering::Relaxed) < max {
            let earned = |left: u32| Some((left + RETRIES_PER_HUNDRED).min(max));
            // It always gives a new value, so it cannot fail.
            let _always = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
        }
    }

    /// The retries that were made.
    #[cfg(feature = "admin")]
    pub(crate) fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// Takes one retry, if there is one.
    pub(crate) fn spend(&self) -> bool {
        let spent = |left: u32| left.checked_sub(ONE);
        let has_one = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok();
        self.spent.fetch_add(u64::from(has_one), Ordering::Relaxed);
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savings_are_spent_first_and_then_a_tenth_of_the_calls() {
        let budget = RetryBudget::default();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), RETRIES_SAVED_MAX as usize);
        let retried = (0..1_000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(retried.count(), 100);
    }

    #[test]
    fn savings_are_limited() {
        let budget = RetryBudget::default();
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), RETRIES_SAVED_MAX as usize);
    }
}
