//! Decides about each datagram: a function of seed, settings, direction, number and time, and of
//! nothing else.

use super::super::rng::{Rng, mix};
use std::time::Duration;

/// The direction of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the dialler to the node.
    Up,
    /// From the node to the dialler.
    Down,
}

/// The conditions of a path in one direction. By default it delivers everything at once. Rates are
/// from 0.0 to 1.0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct PathConditions {
    /// Rate of independent losses.
    pub(crate) loss: f64,
    /// Losses in a row.
    pub(crate) burst: Option<Burst>,
    /// The delay of all datagrams.
    pub(crate) delay: Duration,
    /// A random additional delay up to this. Delayed datagrams may be overtaken.
    pub(crate) jitter: Duration,
    /// Rate of datagrams delayed by [`REORDER_DELAY`], so that later ones overtake them.
    pub(crate) reorder: f64,
    /// Rate of duplicates.
    pub(crate) duplicate: f64,
    /// Rate of datagrams with one corrupted byte.
    pub(crate) corrupt: f64,
    /// The bottleneck.
    pub(crate) rate: Option<Rate>,
    /// Larger datagrams are dropped, as by a path with a small MTU.
    pub(crate) bytes_max: Option<usize>,
    /// Times at which nothing is delivered.
    pub(crate) dead: Option<Dead>,
}

/// The additional delay of a reordered datagram.
pub(crate) const REORDER_DELAY: Duration = Duration::from_millis(5);

/// Burst losses: datagrams form rows of `length`, and this part of the rows is lost as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Burst {
    pub(crate) part: f64,
    pub(crate) length: u64,
}

/// A bottleneck with a queue before it; datagrams that do not fit the queue are dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) bytes_per_second: u64,
    pub(crate) queue_bytes: u64,
}

/// Dead for the first part of every interval: `dead 2 s of every 7`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Dead {
    pub(crate) lasts: Duration,
    pub(crate) every: Duration,
}

impl Dead {
    fn is_at(&self, at: Duration) -> bool {
        at.as_nanos() % self.every.as_nanos() < self.lasts.as_nanos()
    }
}

/// One datagram in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram {
    pub(crate) direction: Direction,
    /// Its number in its direction, from 0.
    pub(crate) number: u64,
    /// Its arrival, since the start of the path.
    pub(crate) at: Duration,
    pub(crate) bytes: usize,
}

/// The reason for which a datagram does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LossCause {
    Dead,
    TooLarge,
    Loss,
    Burst,
}

/// The decision about a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Dropped(LossCause),
    Delivered(Delivery),
}

/// The way in which it is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The delay between arrival and delivery.
    pub(crate) after: Duration,
    /// The delay of the duplicate.
    pub(crate) duplicate_after: Option<Duration>,
    /// The index of the corrupted byte, and the flipped bits.
    pub(crate) corrupted: Option<(usize, u8)>,
    pub(crate) is_reordered: bool,
}

/// Decides everything but the bottleneck, which depends on earlier datagrams: see [`Bottleneck`].
pub(crate) fn decide(seed: u64, conditions: &PathConditions, datagram: Datagram) -> Decision {
    if conditions.dead.is_some_and(|dead| dead.is_at(datagram.at)) {
        return Decision::Dropped(LossCause::Dead);
    }
    if conditions.bytes_max.is_some_and(|max| datagram.bytes > max) {
        return Decision::Dropped(LossCause::TooLarge);
    }
    if conditions.burst.is_some_and(|burst| burst.drops(seed, datagram)) {
        return Decision::Dropped(LossCause::Burst);
    }
    let mut rng = rng_for(seed, datagram.direction, datagram.number);
    if rng.happens(conditions.loss) {
        return Decision::Dropped(LossCause::Loss);
    }
    let is_reordered = rng.happens(conditions.reorder);
    let after =
        delayed(&mut rng, conditions) + if is_reordered { REORDER_DELAY } else { Duration::ZERO };
    let is_double = rng.happens(conditions.duplicate);
    let again = delayed(&mut rng, conditions);
    let is_changed = rng.happens(conditions.corrupt) && datagram.bytes > 0;
    let corrupted = (rng.below(datagram.bytes.max(1) as u64) as usize, 1 << rng.below(8));
    Decision::Delivered(Delivery {
        after,
        duplicate_after: is_double.then_some(again),
        corrupted: is_changed.then_some(corrupted),
        is_reordered,
    })
}

fn rng_for(seed: u64, direction: Direction, number: u64) -> Rng {
    Rng::new(seed, mix(number) ^ direction as u64)
}

fn delayed(rng: &mut Rng, conditions: &PathConditions) -> Duration {
    conditions.delay + conditions.jitter.mul_f64(rng.fraction())
}

impl Burst {
    fn drops(&self, seed: u64, datagram: Datagram) -> bool {
        let row = datagram.number / self.length.max(1);
        // Other random numbers than those for the datagram with the number of the row.
        rng_for(!seed, datagram.direction, row).happens(self.part)
    }
}

/// The bottleneck of one direction: the time at which it has sent its queue.
#[derive(Debug, Default)]
pub(crate) struct Bottleneck {
    free_at: Duration,
}

impl Bottleneck {
    /// The time until a datagram has been sent; `None` if the queue has no room for it.
    pub(crate) fn admit(&mut self, rate: Rate, at: Duration, bytes: usize) -> Option<Duration> {
        let (bytes, speed) = (bytes as u64, rate.bytes_per_second.max(1) as f64);
        let waits = self.free_at.saturating_sub(at);
        if (waits.as_secs_f64() * speed) as u64 + bytes > rate.queue_bytes {
            return None;
        }
        let took = waits + Duration::from_secs_f64(bytes as f64 / speed);
        self.free_at = at + took;
        Some(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: Duration = Duration::ZERO;
    const MANY: u64 = 10_000;

    fn datagram(number: u64, at: Duration, bytes: usize) -> Datagram {
        Datagram { direction: Direction::Up, number, at, bytes }
    }

    fn decisions(seed: u64, conditions: &PathConditions, direction: Direction) -> Vec<Decision> {
        (0..MANY)
            .map(|number| {
                decide(seed, conditions, Datagram { direction, ..datagram(number, NO_TIME, 1_200) })
            })
            .collect()
    }

    /// Checks that about this part of the decisions fulfils a condition.
    #[track_caller]
    fn check_part(decisions: &[Decision], part: f64, is_so: impl Fn(&Decision) -> bool) {
        let have =
            decisions.iter().filter(|decide| is_so(decide)).count() as f64 / decisions.len() as f64;
        assert!((have - part).abs() < 0.02, "{have} instead of {part}");
    }

    fn delivery(decide: &Decision) -> Option<&Delivery> {
        match decide {
            Decision::Delivered(delivery) => Some(delivery),
            Decision::Dropped(_) => None,
        }
    }

    #[test]
    fn a_perfect_path_delivers_everything_at_once_and_unchanged() {
        let at_once = Delivery {
            after: NO_TIME,
            duplicate_after: None,
            corrupted: None,
            is_reordered: false,
        };
        let decisions = decisions(1, &PathConditions::default(), Direction::Up);
        assert!(decisions.iter().all(|decide| *decide == Decision::Delivered(at_once)));
    }

    #[test]
    fn a_seed_decides_and_each_direction_has_its_own_random_numbers() {
        let impaired =
            PathConditions { loss: 0.3, reorder: 0.3, duplicate: 0.3, ..PathConditions::default() };
        assert_eq!(decisions(1, &impaired, Direction::Up), decisions(1, &impaired, Direction::Up));
        assert_ne!(decisions(1, &impaired, Direction::Up), decisions(2, &impaired, Direction::Up));
        assert_ne!(
            decisions(1, &impaired, Direction::Up),
            decisions(1, &impaired, Direction::Down)
        );
    }

    #[test]
    fn loss_reordering_duplication_and_corruption_occur_at_the_given_rates() {
        let loss = PathConditions { loss: 0.3, ..PathConditions::default() };
        let is_lost = |decide: &Decision| *decide == Decision::Dropped(LossCause::Loss);
        check_part(&decisions(1, &loss, Direction::Down), 0.3, is_lost);
        let impaired = PathConditions {
            reorder: 0.4,
            duplicate: 0.25,
            corrupt: 0.02,
            ..PathConditions::default()
        };
        let decisions = decisions(1, &impaired, Direction::Down);
        check_part(&decisions, 0.4, |decide| {
            delivery(decide).expect("carried").after == REORDER_DELAY
        });
        check_part(&decisions, 0.25, |decide| {
            delivery(decide).expect("carried").duplicate_after.is_some()
        });
        check_part(&decisions, 0.02, |decide| {
            delivery(decide).expect("carried").corrupted.is_some()
        });
        let mut changes = decisions.iter().filter_map(|decide| delivery(decide)?.corrupted);
        assert!(changes.all(|(at, bits)| at < 1_200 && bits.is_power_of_two()));
    }

    #[test]
    fn bursts_lose_consecutive_datagrams() {
        let burst = Some(Burst { part: 0.1, length: 20 });
        let decisions =
            decisions(3, &PathConditions { burst, ..PathConditions::default() }, Direction::Up);
        check_part(&decisions, 0.1, |decide| *decide == Decision::Dropped(LossCause::Burst));
        assert!(decisions.chunks(20).all(|row| row.iter().all(|decide| *decide == row[0])));
    }

    #[test]
    fn delay_and_jitter_stay_in_their_range() {
        let [delay, jitter] = [30, 20].map(Duration::from_millis);
        let delayed = PathConditions { delay, jitter, ..PathConditions::default() };
        let afters: Vec<_> = decisions(1, &delayed, Direction::Up)
            .iter()
            .map(|decide| delivery(decide).expect("carried").after)
            .collect();
        assert!(afters.iter().all(|after| *after >= delay && *after <= delay + jitter));
        assert!(afters.iter().any(|after| *after > delay + jitter * 3 / 4));
    }

    #[test]
    fn a_datagram_at_the_size_passes_and_one_byte_more_does_not() {
        let small = PathConditions { bytes_max: Some(1_200), ..PathConditions::default() };
        assert!(delivery(&decide(1, &small, datagram(0, NO_TIME, 1_200))).is_some());
        assert_eq!(
            decide(1, &small, datagram(0, NO_TIME, 1_201)),
            Decision::Dropped(LossCause::TooLarge)
        );
    }

    #[test]
    fn a_path_is_dead_for_its_time_and_delivers_otherwise() {
        let [lasts, every] = [2_000, 7_000].map(Duration::from_millis);
        let dying =
            PathConditions { dead: Some(Dead { lasts, every }), ..PathConditions::default() };
        for (ms, is_dead) in [
            (0, true),
            (1_999, true),
            (2_000, false),
            (6_999, false),
            (7_000, true),
            (9_000, false),
        ] {
            let decide = decide(1, &dying, datagram(0, Duration::from_millis(ms), 1));
            assert_eq!(decide == Decision::Dropped(LossCause::Dead), is_dead, "at {ms} ms");
        }
    }

    #[test]
    fn a_bottleneck_delivers_its_rate_and_bounds_its_queue() {
        let rate = Rate { bytes_per_second: 1_000, queue_bytes: 2_000 };
        let mut bottleneck = Bottleneck::default();
        let second = Duration::from_secs(1);
        assert_eq!(bottleneck.admit(rate, NO_TIME, 1_000), Some(second));
        assert_eq!(bottleneck.admit(rate, NO_TIME, 1_000), Some(2 * second));
        assert_eq!(bottleneck.admit(rate, NO_TIME, 1), None, "the queue was full");
        assert_eq!(bottleneck.admit(rate, second, 1_000), Some(2 * second));
        assert_eq!(bottleneck.admit(rate, 10 * second, 500), Some(second / 2), "it had been idle");
    }
}
