//! Times at which the calls of an open loop are due.

use std::{fmt, str::FromStr, time::Duration};

/// Calls per second of an open loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(f64);

const RATE_MAX: f64 = 1_000_000.0;

impl Rate {
    pub(super) const fn per_second(self) -> f64 {
        self.0
    }

    /// Time since the start at which a call is due; the first is number 0.
    pub(super) fn due(self, number: u64) -> Duration {
        Duration::try_from_secs_f64(number as f64 / self.0).unwrap_or(Duration::MAX)
    }

    /// Number of calls that are due before this time since the start.
    pub(super) fn due_before(self, elapsed: Duration) -> u64 {
        let near = (elapsed.as_secs_f64() * self.0) as u64;
        // Rounding errs by one at most.
        (near.saturating_sub(1)..).find(|number| self.due(*number) >= elapsed).unwrap_or(near)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix("/s").unwrap_or(text).parse::<f64>() {
            Ok(rate) if (0.001..=RATE_MAX).contains(&rate) => Ok(Self(rate)),
            _ => Err("expected calls per second, from 0.001 to 1000000, as 500 or 0.5".into()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls/s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn calls_are_due_at_even_intervals_from_the_start() {
        let rate = rate("200");
        let due: Vec<_> = (0..3).map(|number| rate.due(number).as_millis()).collect();
        assert_eq!(due, [0, 5, 10]);
        assert_eq!("0.001".parse().map(|slow: Rate| slow.due(u64::MAX)), Ok(Duration::MAX));
        // Nothing adds up: the call after a day is due at the day.
        assert_eq!(rate.due(200 * 86_400), Duration::from_secs(86_400));
    }

    #[test]
    fn due_calls_are_counted_with_the_one_at_the_start_and_without_the_one_at_the_end() {
        for rate in ["1", "3", "7.3", "1000", "333333/s"].map(rate) {
            assert_eq!(rate.due_before(Duration::ZERO), 0);
            for number in 1..1_000 {
                let due = rate.due(number);
                assert_eq!(rate.due_before(due), number, "{rate}");
                assert_eq!(rate.due_before(due + Duration::from_nanos(1)), number + 1, "{rate}");
            }
        }
        assert_eq!(rate("100").due_before(Duration::from_secs(2)), 200);
    }

    #[test]
    fn a_rate_is_a_positive_number() {
        assert_eq!(rate("0.5").due(1), Duration::from_secs(2));
        assert_eq!(rate("50/s"), rate("50"));
        for bad in ["0", "-1", "nan", "inf", "fast", "", "5/m", "1000001"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
