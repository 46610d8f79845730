//! Histogram of latencies in fixed memory: buckets of at most 0.8 % of their value.
//!
//! Log-linear, as HdrHistogram's: each power of two is split into 128 buckets of one width. The
//! crate `hdrhistogram` would do the same with two more packages.

use std::time::Duration;

/// Each power of two has `1 << SUB_BITS` buckets.
const SUB_BITS: u32 = 7;
const SUB: usize = 1 << SUB_BITS;

/// Longer latencies, over 73 minutes, count as this one.
const NANOS_MAX: u64 = (1 << 42) - 1;

const BUCKETS: usize = bucket(NANOS_MAX) + 1;

/// Bucket of a latency. Below 256 ns each nanosecond has its own.
const fn bucket(nanos: u64) -> usize {
    let magnitude = (nanos | SUB as u64).ilog2() - SUB_BITS;
    SUB * magnitude as usize + (nanos >> magnitude) as usize
}

/// The largest latency that a bucket counts.
const fn upper(bucket: usize) -> u64 {
    let magnitude = (bucket / SUB).saturating_sub(1);
    ((bucket - magnitude * SUB + 1) as u64) * (1 << magnitude) - 1
}

/// Counts of latencies, and their exact minimum, maximum and mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), total: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).min(NANOS_MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.sum = self.sum.saturating_add(nanos);
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn min(&self) -> Duration {
        Duration::from_nanos(self.min.min(self.max))
    }

    pub(super) const fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    pub(super) const fn mean(&self) -> Duration {
        Duration::from_nanos(match self.total {
            0 => 0,
            total => self.sum / total,
        })
    }

    /// The latency that this part of all, 0 to 1, did not exceed; zero without any.
    pub(super) fn quantile(&self, part: f64) -> Duration {
        let rank = ((part * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        Duration::from_nanos(found.map_or(0, upper).min(self.max))
    }

    /// Calls of each step of a scale, from the shortest latency to the longest: its upper bound,
    /// which belongs to the next step, and its number.
    pub(super) fn steps(&self) -> Vec<(Duration, u64)> {
        let mut steps = Vec::new();
        let mut counts = self.counts.iter().enumerate().filter(|(_, count)| **count > 0).peekable();
        for bound in scale() {
            let mut calls = 0;
            while let Some((_, count)) = counts.next_if(|(at, _)| upper(*at) < bound) {
                calls += count;
            }
            if calls > 0 || !steps.is_empty() {
                steps.push((Duration::from_nanos(bound), calls));
            }
            if counts.peek().is_none() {
                break;
            }
        }
        steps
    }
}

/// 1, 2, 5, 10, 20, 50 us and so on.
fn scale() -> impl Iterator<Item = u64> {
    (3..).flat_map(|power| [1, 2, 5].map(|first| first * 10_u64.pow(power)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nanos: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        nanos.into_iter().for_each(|nanos| histogram.record(Duration::from_nanos(nanos)));
        histogram
    }

    #[test]
    fn buckets_follow_each_other_and_are_narrower_than_one_percent() {
        assert_eq!((bucket(0), upper(0)), (0, 0));
        for at in 1..BUCKETS {
            let low = upper(at - 1) + 1;
            assert_eq!((bucket(low), bucket(upper(at))), (at, at), "{at}");
            assert!(upper(at) - low <= low / 128, "{at}");
        }
        assert_eq!(upper(BUCKETS - 1), NANOS_MAX);
    }

    #[test]
    fn quantiles_are_exact_to_one_percent_and_the_ends_are_exact() {
        let histogram = of((1..=10_000).map(|ms| ms * 1_000_003));
        for (part, ms) in [(0.0, 1), (0.5, 5_000), (0.9, 9_000), (0.999, 9_990), (1.0, 10_000)] {
            let exact = ms * 1_000_003;
            let found = histogram.quantile(part).as_nanos() as u64;
            assert!((exact..=exact + exact / 100).contains(&found), "{part}: {found}");
        }
        let [low, middle] = [0.5, 0.34].map(|part| of([10, 20, 30]).quantile(part).as_nanos());
        assert_eq!((low, middle), (20, 20), "the least that covers the part");
        assert_eq!(histogram.min().as_nanos(), 1_000_003);
        assert_eq!(histogram.max().as_nanos(), 10_000 * 1_000_003);
        assert_eq!(histogram.quantile(1.0), histogram.max());
        assert_eq!(histogram.mean().as_nanos(), 10_001 * 1_000_003 / 2);
    }

    #[test]
    fn an_empty_histogram_has_zeros() {
        let empty = Histogram::default();
        let zero = Duration::ZERO;
        assert_eq!([empty.min(), empty.mean(), empty.quantile(0.5), empty.max()], [zero; 4]);
        assert_eq!(empty.steps(), []);
    }

    #[test]
    fn two_added_histograms_are_one_of_both() {
        let mut both = of([5, 300]);
        both.add(&of([7, 1 << 30]));
        assert_eq!(both, of([5, 300, 7, 1 << 30]));
        both.add(&Histogram::default());
        assert_eq!(both.min().as_nanos(), 5);
    }

    #[test]
    fn a_latency_beyond_the_last_bucket_counts_as_the_longest() {
        let histogram = of([u64::MAX]);
        assert_eq!(histogram.max().as_nanos(), u128::from(NANOS_MAX));
        assert_eq!(histogram.quantile(0.5), histogram.max());
    }

    #[test]
    fn steps_run_from_the_first_with_a_call_to_the_last() {
        let steps = of([90_000, 110_000, 120_000, 1_500_000]).steps();
        let shown: Vec<_> = steps.iter().map(|(to, calls)| (to.as_micros(), *calls)).collect();
        assert_eq!(shown, [(100, 1), (200, 2), (500, 0), (1_000, 0), (2_000, 1)]);
        assert_eq!(of([0]).steps(), [(Duration::from_micros(1), 1)]);
    }
}
