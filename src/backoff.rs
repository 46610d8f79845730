//! Waits between attempts. Pure: the attempt and the chance are arguments.

use std::time::Duration;

/// The kind of failure of the last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackoffCause {
    /// No answer, or a lost link: the other side may come back any moment.
    Unreachable,
    /// A refusal or an overload: a retry soon would fail again.
    Refused,
}

/// The longest wait for a node that does not answer. Its return is noticed within about 5 s.
pub(crate) const UNREACHABLE_CAP: Duration = Duration::from_secs(3);
/// After this long without any answer the waits may be longer.
pub(crate) const UNREACHABLE_LONG_AFTER: Duration = Duration::from_secs(600);
/// The longest wait then.
pub(crate) const UNREACHABLE_LONG_CAP: Duration = Duration::from_secs(30);
/// The first wait for an unreachable node.
pub(crate) const UNREACHABLE_BASE: Duration = Duration::from_millis(250);
/// The shortest wait after a refusal.
pub(crate) const REFUSED_BASE: Duration = Duration::from_secs(10);
/// The longest wait after refusals.
pub(crate) const REFUSED_CAP: Duration = Duration::from_secs(300);

/// Returns the wait before the next attempt. `failures` counts failed attempts in a row (the first
/// wait has 1), `failing_for` is how long they have gone on, `chance` is drawn evenly from 0.0 to
/// 1.0. Unreachable nodes get full jitter from 0 to the cap, so that agents that lost a node
/// together do not return together; refusals wait at least their base and up to half as much again.
pub(crate) fn wait(
    cause: BackoffCause,
    failures: u32,
    failing_for: Duration,
    chance: f64,
) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    match cause {
        BackoffCause::Unreachable => {
            let cap = if failing_for < UNREACHABLE_LONG_AFTER {
                UNREACHABLE_CAP
            } else {
                UNREACHABLE_LONG_CAP
            };
            (UNREACHABLE_BASE * (1 << doublings)).min(cap).mul_f64(chance.clamp(0.0, 1.0))
        }
        BackoffCause::Refused => {
            let base = (REFUSED_BASE * (1 << doublings)).min(REFUSED_CAP.mul_f64(2.0 / 3.0));
            base.mul_f64(1.0 + chance.clamp(0.0, 1.0) / 2.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_unreachable_node_is_tried_at_least_every_three_seconds_for_ten_minutes() {
        for failures in [1, 2, 5, 100, u32::MAX] {
            assert!(
                wait(BackoffCause::Unreachable, failures, 599 * SECOND, 1.0) <= UNREACHABLE_CAP
            );
            assert_eq!(wait(BackoffCause::Unreachable, failures, SECOND, 0.0), Duration::ZERO);
        }
        assert_eq!(wait(BackoffCause::Unreachable, 1, SECOND, 1.0), UNREACHABLE_BASE);
        assert_eq!(wait(BackoffCause::Unreachable, 100, 600 * SECOND, 1.0), UNREACHABLE_LONG_CAP);
    }

    #[test]
    fn a_refusal_waits_ten_seconds_at_least_and_five_minutes_at_most() {
        assert_eq!(wait(BackoffCause::Refused, 1, SECOND, 0.0), REFUSED_BASE);
        for failures in 1..40 {
            let longest = wait(BackoffCause::Refused, failures, SECOND, 1.0);
            assert!(longest <= REFUSED_CAP + Duration::from_millis(1), "{longest:?}");
            assert!(wait(BackoffCause::Refused, failures, SECOND, 0.5) >= REFUSED_BASE);
        }
    }
}
