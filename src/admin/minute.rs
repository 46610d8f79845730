//! Rates of the last minute, from counts that are read every second.

use crate::{
    limits::{RATES_EVERY, RATES_OVER},
    observe::{CallCounts, DURATION_BOUNDS_US, ObservedCounts},
    status::{Code, Outcome},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

const BUCKETS: usize = DURATION_BOUNDS_US.len() + 1;

/// Counts of all kinds of calls at one moment.
#[derive(Debug, Clone)]
struct CallSample {
    at: Instant,
    started: u64,
    /// By code and outcome.
    ended: BTreeMap<(&'static str, &'static str), u64>,
    durations: [u64; BUCKETS],
}

impl CallSample {
    fn of(calls: impl Iterator<Item = CallCounts>, at: Instant) -> Self {
        let (started, ended) = (0, BTreeMap::new());
        let mut sample = Self { at, started, ended, durations: [0; BUCKETS] };
        for one in calls {
            sample.started += one.started;
            for (code, outcome, count) in one.ended {
                *sample.ended.entry((code.as_str(), outcome.as_str())).or_default() += count;
            }
            for (sum, count) in sample.durations.iter_mut().zip(one.durations.buckets) {
                *sum += count;
            }
        }
        sample
    }
}

/// Samples of the last minute, oldest first.
pub(super) struct LastMinute {
    counts: Arc<ObservedCounts>,
    samples: Mutex<VecDeque<CallSample>>,
}

/// Calls of some time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CallRates {
    /// The time, in seconds.
    pub(super) seconds: f64,
    pub(super) started: u64,
    pub(super) ended: u64,
    /// Those that did not end with OK.
    pub(super) failed: u64,
    pub(super) per_second: f64,
    /// Median and 99th percentile of the durations, by the bounds of the histogram.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    /// Failures by code and outcome, the most frequent first.
    pub(super) failures: Vec<FailureRate>,
}

/// Calls of one second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SecondRates {
    per_second: f64,
    failed_per_second: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FailureRate {
    pub(super) code: &'static str,
    pub(super) outcome: &'static str,
    pub(super) count: u64,
}

impl LastMinute {
    pub(super) fn new(counts: Arc<ObservedCounts>) -> Self {
        let first = CallSample::of(counts.calls(), Instant::now());
        Self { counts, samples: Mutex::new([first].into()) }
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<CallSample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the counts every second, for as long as it is polled.
    pub(super) async fn watch(&self) {
        let mut ticks = tokio::time::interval(RATES_EVERY);
        loop {
            ticks.tick().await;
            let sample = CallSample::of(self.counts.calls(), Instant::now());
            let mut samples = self.samples();
            // One older than a minute stays, from which a whole minute is counted.
            while samples.get(1).is_some_and(|next| sample.at - next.at >= RATES_OVER) {
                samples.pop_front();
            }
            samples.push_back(sample);
        }
    }

    /// Calls of each second of the last minute, oldest first.
    pub(super) fn seconds(&self) -> Vec<SecondRates> {
        let samples: Vec<_> = self.samples().iter().cloned().collect();
        let pairs = samples.windows(2).filter(|pair| pair[1].at > pair[0].at);
        pairs
            .map(|pair| {
                let CallRates { seconds, failed, per_second, p50_ms, p99_ms, .. } =
                    rates(&pair[0], &pair[1]);
                let failed_per_second = failed as f64 / seconds;
                SecondRates { per_second, failed_per_second, p50_ms, p99_ms }
            })
            .collect()
    }

    /// Calls since the oldest sample.
    pub(super) fn rates(&self) -> CallRates {
        let now = CallSample::of(self.counts.calls(), Instant::now());
        let before = self.samples().front().cloned();
        rates(before.as_ref().unwrap_or(&now), &now)
    }
}

fn rates(before: &CallSample, now: &CallSample) -> CallRates {
    let seconds = (now.at - before.at).as_secs_f64();
    let was = |key: &(&'static str, &'static str)| before.ended.get(key).copied().unwrap_or(0);
    let ended: Vec<_> = now
        .ended
        .iter()
        .map(|(key, count)| (*key, count.saturating_sub(was(key))))
        .filter(|(_, count)| *count > 0)
        .collect();
    let is_failure = |(code, outcome): (&str, &str)| {
        code != Code::Ok.as_str() || outcome != Outcome::Ok.as_str()
    };
    let mut failures: Vec<_> = ended
        .iter()
        .filter(|(key, _)| is_failure(*key))
        .map(|((code, outcome), count)| FailureRate { code, outcome, count: *count })
        .collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
    let mut durations = now.durations;
    for (sum, earlier) in durations.iter_mut().zip(before.durations) {
        *sum = sum.saturating_sub(earlier);
    }
    let started = now.started.saturating_sub(before.started);
    CallRates {
        seconds,
        started,
        ended: ended.iter().map(|(_, count)| count).sum(),
        failed: failures.iter().map(|failure| failure.count).sum(),
        per_second: if seconds > 0.0 { started as f64 / seconds } else { 0.0 },
        p50_ms: quantile(&durations, 0.5),
        p99_ms: quantile(&durations, 0.99),
        failures,
    }
}

/// Estimates a quantile in milliseconds: linear between the bounds of its bucket. `None` without
/// calls; what is above the highest bound counts as that.
fn quantile(durations: &[u64; BUCKETS], part: f64) -> Option<f64> {
    let all: u64 = durations.iter().sum();
    let wanted = part * all as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, bound) in durations.iter().zip(DURATION_BOUNDS_US) {
        let (count, bound) = (*count as f64, bound as f64);
        if count > 0.0 && below + count >= wanted {
            let us = lower + (bound - lower) * ((wanted - below) / count);
            return Some(us / 1_000.0);
        }
        (below, lower) = (below + count, bound);
    }
    (all > 0).then_some(lower / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::CallKind;
    use std::time::Duration;

    fn sample(at: Instant, ok: u64, late: u64) -> CallSample {
        let mut durations = [0; BUCKETS];
        // Up to a millisecond, and up to five seconds.
        (durations[3], durations[13]) = (ok, late);
        let ended = [(("OK", "ok"), ok), (("DEADLINE_EXCEEDED", "unknown"), late)];
        CallSample { at, started: ok + late + 1, ended: ended.into(), durations }
    }

    #[test]
    fn rates_are_differences_of_two_samples() {
        let began = Instant::now();
        let (before, now) = (sample(began, 100, 1), sample(began + RATES_OVER, 400, 3));
        let rates = rates(&before, &now);
        assert_eq!((rates.started, rates.ended, rates.failed), (302, 302, 2));
        assert!((rates.per_second - 302.0 / 60.0).abs() < 0.001, "{rates:?}");
        let late = FailureRate { code: "DEADLINE_EXCEEDED", outcome: "unknown", count: 2 };
        assert_eq!(rates.failures, [late]);
        let (p50, p99) = (rates.p50_ms.expect("calls"), rates.p99_ms.expect("calls"));
        assert!((0.5..=1.0).contains(&p50) && (0.5..=1.0).contains(&p99), "{p50} {p99}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_second_of_the_last_minute_has_its_rates() {
        let counts = Arc::<ObservedCounts>::default();
        let minute = LastMinute::new(counts.clone());
        let watched = async {
            tokio::time::sleep(RATES_EVERY * 3 / 2).await;
            (0..5).for_each(|_| counts.call_started(CallKind::Unary));
            tokio::time::sleep(RATES_OVER * 2).await;
        };
        tokio::select! {
            () = minute.watch() => {}
            () = watched => {}
        }
        let seconds = minute.seconds();
        assert!((60..=61).contains(&seconds.len()), "{}", seconds.len());
        assert!(seconds.iter().all(|second| second.per_second == 0.0), "it is long ago");
    }

    #[test]
    fn a_time_without_calls_has_no_durations() {
        let now = sample(Instant::now(), 5, 0);
        let rates = rates(&now, &now);
        assert_eq!((rates.started, rates.p50_ms, rates.per_second), (0, None, 0.0));
    }

    #[test]
    fn quantiles_are_within_their_bucket_and_at_most_the_highest_bound() {
        let mut durations = [0; BUCKETS];
        durations[BUCKETS - 1] = 1;
        assert_eq!(quantile(&durations, 0.5), Some(600_000.0));
        durations[0] = 99;
        let p50 = quantile(&durations, 0.5).expect("calls");
        assert!(p50 > 0.0 && p50 <= 0.1, "{p50}");
        assert_eq!(quantile(&durations, 1.0), Some(600_000.0));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_last_minute_is_counted() {
        let counts = Arc::<ObservedCounts>::default();
        let minute = LastMinute::new(counts.clone());
        counts.call_started(CallKind::Unary);
        let passed = tokio::time::timeout(RATES_OVER / 2, minute.watch()).await;
        assert!(passed.is_err());
        assert_eq!(minute.rates().started, 1);
        let passed = tokio::time::timeout(2 * RATES_OVER, minute.watch()).await;
        assert!(passed.is_err());
        let rates = minute.rates();
        assert_eq!(rates.started, 0);
        let second = Duration::from_secs(1).as_secs_f64();
        assert!((60.0..=60.0 + 2.0 * second).contains(&rates.seconds), "{rates:?}");
    }
}
