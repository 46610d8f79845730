//! What becomes of a datagram: a function of seed, settings, direction, number and time, and of
//! nothing else.

use super::super::dice::{Dice, mixed};
use std::time::Duration;

/// Which way a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the dialling party to the node.
    Up,
    /// From the node to the dialling party.
    Down,
}

/// What a path does to the datagrams that go one way. The default is a path that carries everything
/// at once. Parts are from 0.0 to 1.0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Weather {
    /// So many are lost, each by itself.
    pub(crate) loss: f64,
    /// So many are lost in a row.
    pub(crate) burst: Option<Burst>,
    /// All take this long.
    pub(crate) delay: Duration,
    /// And up to so much more, by chance. What is late may be overtaken.
    pub(crate) jitter: Duration,
    /// So many are held back by [`HELD_BACK_FOR`], so that those behind them overtake them.
    pub(crate) reorder: f64,
    /// So many come twice.
    pub(crate) duplicate: f64,
    /// So many have one byte changed.
    pub(crate) corrupt: f64,
    /// The narrow place.
    pub(crate) rate: Option<Rate>,
    /// Larger datagrams are dropped, as by a path with a small MTU.
    pub(crate) bytes_max: Option<usize>,
    /// Times at which nothing comes through.
    pub(crate) dead: Option<Dead>,
}

/// How much later a datagram comes that was held back.
pub(crate) const HELD_BACK_FOR: Duration = Duration::from_millis(5);

/// Losses in a row: datagrams come in rows of `length`, and so many of the rows are lost as a
/// whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Burst {
    pub(crate) part: f64,
    pub(crate) length: u64,
}

/// A narrow place with a queue before it; what does not fit the queue is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) bytes_per_second: u64,
    pub(crate) queue_bytes: u64,
}

/// Dead for the first part of every so long: `dead 2 s of every 7`.
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

/// One datagram on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passing {
    pub(crate) way: Way,
    /// The how many-th of its way, from 0.
    pub(crate) number: u64,
    /// When it came, since the path was laid.
    pub(crate) at: Duration,
    pub(crate) bytes: usize,
}

/// Why a datagram does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    Dead,
    TooLarge,
    Loss,
    Burst,
}

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost(Lost),
    Carried(Carried),
}

/// How it is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    /// How much later it leaves than it came.
    pub(crate) after: Duration,
    /// How much later it leaves once more.
    pub(crate) again_after: Option<Duration>,
    /// Which byte is changed, and by which bits.
    pub(crate) changed: Option<(usize, u8)>,
    pub(crate) is_held_back: bool,
}

/// Decides, all but the narrow place, which depends on what went before: see [`Line`].
pub(crate) fn fate(seed: u64, weather: &Weather, passing: Passing) -> Fate {
    if weather.dead.is_some_and(|dead| dead.is_at(passing.at)) {
        return Fate::Lost(Lost::Dead);
    }
    if weather.bytes_max.is_some_and(|max| passing.bytes > max) {
        return Fate::Lost(Lost::TooLarge);
    }
    if weather.burst.is_some_and(|burst| burst.takes(seed, passing)) {
        return Fate::Lost(Lost::Burst);
    }
    let mut dice = dice(seed, passing.way, passing.number);
    if dice.hits(weather.loss) {
        return Fate::Lost(Lost::Loss);
    }
    let is_held_back = dice.hits(weather.reorder);
    let after =
        late(&mut dice, weather) + if is_held_back { HELD_BACK_FOR } else { Duration::ZERO };
    let is_double = dice.hits(weather.duplicate);
    let again = late(&mut dice, weather);
    let is_changed = dice.hits(weather.corrupt) && passing.bytes > 0;
    let changed = (dice.below(passing.bytes.max(1) as u64) as usize, 1 << dice.below(8));
    Fate::Carried(Carried {
        after,
        again_after: is_double.then_some(again),
        changed: is_changed.then_some(changed),
        is_held_back,
    })
}

fn dice(seed: u64, way: Way, number: u64) -> Dice {
    Dice::new(seed, mixed(number) ^ way as u64)
}

fn late(dice: &mut Dice, weather: &Weather) -> Duration {
    weather.delay + weather.jitter.mul_f64(dice.chance())
}

impl Burst {
    fn takes(&self, seed: u64, passing: Passing) -> bool {
        let row = passing.number / self.length.max(1);
        // Other throws than those for the datagram with the number of the row.
        dice(!seed, passing.way, row).hits(self.part)
    }
}

/// The narrow place of one way: when it has sent what stands before it.
#[derive(Debug, Default)]
pub(crate) struct Line {
    free_at: Duration,
}

impl Line {
    /// How long a datagram waits and is sent; `None` if the queue has no room for it.
    pub(crate) fn takes(&mut self, rate: Rate, at: Duration, bytes: usize) -> Option<Duration> {
        let (bytes, pace) = (bytes as u64, rate.bytes_per_second.max(1) as f64);
        let waits = self.free_at.saturating_sub(at);
        if (waits.as_secs_f64() * pace) as u64 + bytes > rate.queue_bytes {
            return None;
        }
        let took = waits + Duration::from_secs_f64(bytes as f64 / pace);
        self.free_at = at + took;
        Some(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: Duration = Duration::ZERO;
    const MANY: u64 = 10_000;

    fn passing(number: u64, at: Duration, bytes: usize) -> Passing {
        Passing { way: Way::Up, number, at, bytes }
    }

    fn fates(seed: u64, weather: &Weather, way: Way) -> Vec<Fate> {
        (0..MANY)
            .map(|number| fate(seed, weather, Passing { way, ..passing(number, NO_TIME, 1_200) }))
            .collect()
    }

    /// How many of the fates are so, and that it is about this part of them.
    #[track_caller]
    fn check_part(fates: &[Fate], part: f64, is_so: impl Fn(&Fate) -> bool) {
        let have = fates.iter().filter(|fate| is_so(fate)).count() as f64 / fates.len() as f64;
        assert!((have - part).abs() < 0.02, "{have} instead of {part}");
    }

    fn carried(fate: &Fate) -> Option<&Carried> {
        match fate {
            Fate::Carried(carried) => Some(carried),
            Fate::Lost(_) => None,
        }
    }

    #[test]
    fn fair_weather_carries_everything_at_once_and_unchanged() {
        let at_once =
            Carried { after: NO_TIME, again_after: None, changed: None, is_held_back: false };
        let fates = fates(1, &Weather::default(), Way::Up);
        assert!(fates.iter().all(|fate| *fate == Fate::Carried(at_once)));
    }

    #[test]
    fn a_seed_decides_and_each_way_has_its_own_luck() {
        let bad = Weather { loss: 0.3, reorder: 0.3, duplicate: 0.3, ..Weather::default() };
        assert_eq!(fates(1, &bad, Way::Up), fates(1, &bad, Way::Up));
        assert_ne!(fates(1, &bad, Way::Up), fates(2, &bad, Way::Up));
        assert_ne!(fates(1, &bad, Way::Up), fates(1, &bad, Way::Down));
    }

    #[test]
    fn as_many_are_lost_held_back_doubled_and_changed_as_was_asked_for() {
        let loss = Weather { loss: 0.3, ..Weather::default() };
        let is_lost = |fate: &Fate| *fate == Fate::Lost(Lost::Loss);
        check_part(&fates(1, &loss, Way::Down), 0.3, is_lost);
        let odd = Weather { reorder: 0.4, duplicate: 0.25, corrupt: 0.02, ..Weather::default() };
        let fates = fates(1, &odd, Way::Down);
        check_part(&fates, 0.4, |fate| carried(fate).expect("carried").after == HELD_BACK_FOR);
        check_part(&fates, 0.25, |fate| carried(fate).expect("carried").again_after.is_some());
        check_part(&fates, 0.02, |fate| carried(fate).expect("carried").changed.is_some());
        let mut changes = fates.iter().filter_map(|fate| carried(fate)?.changed);
        assert!(changes.all(|(at, bits)| at < 1_200 && bits.is_power_of_two()));
    }

    #[test]
    fn bursts_take_whole_rows() {
        let burst = Some(Burst { part: 0.1, length: 20 });
        let fates = fates(3, &Weather { burst, ..Weather::default() }, Way::Up);
        check_part(&fates, 0.1, |fate| *fate == Fate::Lost(Lost::Burst));
        assert!(fates.chunks(20).all(|row| row.iter().all(|fate| *fate == row[0])));
    }

    #[test]
    fn delay_and_jitter_are_kept_to() {
        let [delay, jitter] = [30, 20].map(Duration::from_millis);
        let late = Weather { delay, jitter, ..Weather::default() };
        let afters: Vec<_> = fates(1, &late, Way::Up)
            .iter()
            .map(|fate| carried(fate).expect("carried").after)
            .collect();
        assert!(afters.iter().all(|after| *after >= delay && *after <= delay + jitter));
        assert!(afters.iter().any(|after| *after > delay + jitter * 3 / 4));
    }

    #[test]
    fn a_datagram_at_the_size_passes_and_one_byte_more_does_not() {
        let small = Weather { bytes_max: Some(1_200), ..Weather::default() };
        assert!(carried(&fate(1, &small, passing(0, NO_TIME, 1_200))).is_some());
        assert_eq!(fate(1, &small, passing(0, NO_TIME, 1_201)), Fate::Lost(Lost::TooLarge));
    }

    #[test]
    fn a_path_is_dead_for_its_time_and_alive_for_the_rest() {
        let [lasts, every] = [2_000, 7_000].map(Duration::from_millis);
        let dying = Weather { dead: Some(Dead { lasts, every }), ..Weather::default() };
        for (ms, is_dead) in [
            (0, true),
            (1_999, true),
            (2_000, false),
            (6_999, false),
            (7_000, true),
            (9_000, false),
        ] {
            let fate = fate(1, &dying, passing(0, Duration::from_millis(ms), 1));
            assert_eq!(fate == Fate::Lost(Lost::Dead), is_dead, "at {ms} ms");
        }
    }

    #[test]
    fn a_narrow_place_lets_through_its_rate_and_keeps_its_queue() {
        let rate = Rate { bytes_per_second: 1_000, queue_bytes: 2_000 };
        let mut line = Line::default();
        let second = Duration::from_secs(1);
        assert_eq!(line.takes(rate, NO_TIME, 1_000), Some(second));
        assert_eq!(line.takes(rate, NO_TIME, 1_000), Some(2 * second));
        assert_eq!(line.takes(rate, NO_TIME, 1), None, "the queue was full");
        assert_eq!(line.takes(rate, second, 1_000), Some(2 * second));
        assert_eq!(line.takes(rate, 10 * second, 500), Some(second / 2), "it had been idle");
    }
}
