//! Schedule of renewals and retries. Pure: time and randomness are arguments.

use crate::limits::{RENEWAL_RETRY_MAX, RENEWAL_RETRY_MIN};
use std::time::{Duration, SystemTime};

/// Shortest wait after a rejection.
const REFUSED_MIN: Duration = Duration::from_secs(10);

/// Time of a renewal: just before two thirds of its life, from which on its holder is warned, less
/// a random twentieth of it at most, so that machines that joined together do not renew together.
pub(super) fn due(from: SystemTime, until: SystemTime, chance: f64) -> SystemTime {
    let life = until.duration_since(from).unwrap_or_default();
    from + life.mul_f64(0.66 - chance.clamp(0.0, 1.0) / 20.0)
}

/// The wait after a failed attempt: a twentieth of what is left, so that a short life has many.
pub(super) fn retry(until: SystemTime, now: SystemTime, is_refusal: bool, chance: f64) -> Duration {
    let left = until.duration_since(now).unwrap_or_default();
    let least = if is_refusal { REFUSED_MIN } else { RENEWAL_RETRY_MIN };
    (left / 20).clamp(least, RENEWAL_RETRY_MAX).mul_f64(1.0 + chance.clamp(0.0, 1.0) / 2.0)
}

/// A random number that stays the same for one certificate, from its serial number.
pub(super) fn chance_of(serial: &str) -> f64 {
    let digits = serial.get(serial.len().saturating_sub(4)..).unwrap_or_default();
    u16::from_str_radix(digits, 16).map_or(0.5, |number| f64::from(number) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const SECOND: Duration = Duration::from_secs(1);
    const START: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn a_renewal_is_due_before_two_thirds_and_not_before_three_fifths() {
        let days = |chance| {
            let due = due(START, START + 90 * DAY, chance);
            due.duration_since(START).expect("later").as_secs_f64() / DAY.as_secs_f64()
        };
        assert!((days(0.0) - 59.4).abs() < 0.001 && (days(1.0) - 54.9).abs() < 0.001);
        assert_eq!(due(START + DAY, START, 1.0), START + DAY, "a life that is none is due at once");
    }

    #[test]
    fn retries_become_more_frequent_toward_expiry_and_stay_within_their_limits() {
        let wait = |left, is_refusal| retry(START + left, START, is_refusal, 0.0);
        assert_eq!(wait(30 * DAY, false), RENEWAL_RETRY_MAX);
        assert_eq!(wait(400 * SECOND, false), 20 * SECOND);
        assert_eq!(wait(3 * SECOND, false), RENEWAL_RETRY_MIN);
        assert_eq!(wait(3 * SECOND, true), REFUSED_MIN);
        assert_eq!(retry(START, START + DAY, false, 1.0), RENEWAL_RETRY_MIN.mul_f64(1.5));
    }

    #[test]
    fn the_jitter_of_a_certificate_is_constant_and_differs_from_that_of_others() {
        assert_eq!(chance_of("40aa0000"), 0.0);
        assert_eq!(chance_of("40aaffff"), 1.0);
        for odd in ["", "4", "zz", "é"] {
            assert!((0.0..=1.0).contains(&chance_of(odd)), "{odd:?}");
        }
    }
}
