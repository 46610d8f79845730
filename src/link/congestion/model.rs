//! Model of a path: its rate and its round-trip time, and the number of bytes in flight that fill
//! it.
//!
//! The transport paces at five quarters of a window per round trip whatever a controller says, so
//! only the window counts. A window of rate times round-trip time fills the path and leaves its
//! queue empty; losses at random change neither of the two. Like BBR (draft-cardwell-iccrg-bbr),
//! the model probes for a higher rate in one of eight round trips and drains its own queue in the
//! next. A queue that does not empty then is that of others: the window doubles, to get its share.
//! A round trip that loses more than chance would bounds the window, which a short queue needs.

use super::delivery::{Delivery, Sample};
use std::time::{Duration, Instant};

/// Round trips for which the highest rate counts.
const RATE_ROUNDS: usize = 10;
/// Half of the time for which the shortest round-trip time counts.
const RTT_HALF: Duration = Duration::from_secs(5);
/// Added to the round-trip time. Covers acknowledgements that wait for a processor, which on a path
/// without a delay take longer than the path.
const SLACK: Duration = Duration::from_millis(2);
/// Growth of the window in each round trip of the start.
const STARTUP_GAIN: f64 = 2.0;
/// The start ends after three round trips in which the rate grew by less than a quarter.
const STARTUP_GROWTH: f64 = 1.25;
const STARTUP_FLAT_ROUNDS: u8 = 3;
/// Gains of a cycle: one round trip up, one down, and six in between.
const CYCLE: [f64; 8] = [1.25, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// Against others that fill the queue, and for a program that does not fill the window.
const SHARING_GAIN: f64 = 2.0;
/// Part of a round trip's bytes whose loss is more than chance.
const LOSS_MAX: f64 = 0.08;
/// Fewer lost packets say nothing about their part.
const LOST_PACKETS_MIN: u64 = 6;
/// What is left of the window after such a loss, and its recovery with each round trip.
const LOSS_FACTOR: f64 = 0.85;
const RECOVERY: f64 = 1.03;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Doubles until the rate grows no more.
    Startup { best: f64, flat_rounds: u8 },
    /// Until no more is in flight than the path takes.
    Drain,
    /// A round trip of the cycle.
    Cycle(usize),
}

/// The shortest of recent times, in two halves of a window.
#[derive(Debug, Clone, Copy)]
struct ShortestRtt {
    began: Instant,
    now: Duration,
    before: Duration,
}

impl ShortestRtt {
    fn add(&mut self, now: Instant, rtt: Duration) {
        if now - self.began >= RTT_HALF {
            (self.began, self.before, self.now) = (now, self.now, rtt);
        }
        self.now = self.now.min(rtt);
    }

    fn get(&self) -> Duration {
        self.now.min(self.before)
    }
}

/// The highest of a value in each of the last round trips.
#[derive(Debug, Clone, Copy, Default)]
struct Highest {
    rounds: [f64; RATE_ROUNDS],
    at: usize,
}

impl Highest {
    fn add(&mut self, value: f64) {
        self.rounds[self.at] = self.rounds[self.at].max(value);
    }

    fn next_round(&mut self) {
        self.at = (self.at + 1) % RATE_ROUNDS;
        self.rounds[self.at] = 0.0;
    }

    fn get(&self) -> f64 {
        self.rounds.iter().copied().fold(0.0, f64::max)
    }
}

/// Sums of the present round trip.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// It ends when a packet is acknowledged that was sent later.
    began: Instant,
    delivered_before: u64,
    lost: u64,
    is_congested: bool,
    is_limited: bool,
}

/// The model of one path.
#[derive(Debug, Clone)]
pub(super) struct Model {
    delivery: Delivery,
    packet_bytes: u64,
    window: f64,
    window_min: f64,
    rate: Highest,
    /// Bytes that came at once beyond the rate, by acknowledgements that were held back together.
    burst: Highest,
    burst_began: Instant,
    burst_delivered: u64,
    rtt: ShortestRtt,
    phase: Phase,
    round: Round,
    /// Shortest round-trip time of the present cycle.
    cycle_rtt: Duration,
    shares_queue: bool,
    /// Bound by losses.
    ceiling: f64,
}

impl Model {
    pub(super) fn new(now: Instant, window: u64, packet_bytes: u64) -> Self {
        let delivery = Delivery::new(now);
        Self {
            delivery,
            packet_bytes,
            window: window as f64,
            window_min: (4 * packet_bytes) as f64,
            rate: Highest::default(),
            burst: Highest::default(),
            burst_began: now,
            burst_delivered: 0,
            rtt: ShortestRtt { began: now, now: Duration::MAX, before: Duration::MAX },
            phase: Phase::Startup { best: 0.0, flat_rounds: 0 },
            round: Round {
                began: now,
                delivered_before: 0,
                lost: 0,
                is_congested: false,
                is_limited: false,
            },
            cycle_rtt: Duration::MAX,
            shares_queue: false,
            ceiling: f64::INFINITY,
        }
    }

    pub(super) fn window(&self) -> u64 {
        self.window as u64
    }

    pub(super) fn set_packet_bytes(&mut self, bytes: u64) {
        self.packet_bytes = bytes;
        self.window_min = (4 * bytes) as f64;
        self.window = self.window.max(self.window_min);
    }

    pub(super) fn sent(&mut self, now: Instant, bytes: u64) {
        self.delivery.sent(now, bytes);
    }

    pub(super) fn acked(&mut self, now: Instant, sent_at: Instant, bytes: u64) {
        self.delivery.acked(now, sent_at, bytes);
    }

    /// Counts lost bytes. None at all are a mark of congestion (ECN).
    pub(super) fn lost(&mut self, bytes: u64) {
        self.round.lost += bytes;
        self.round.is_congested |= bytes == 0;
    }

    /// Nothing was delivered for so long that the path is another one.
    pub(super) fn restart(&mut self, now: Instant) {
        let (delivery, packet_bytes) = (self.delivery.clone(), self.packet_bytes);
        *self = Self { delivery, ..Self::new(now, 4 * packet_bytes, packet_bytes) };
        self.round.delivered_before = self.delivery.delivered();
        self.burst_delivered = self.delivery.delivered();
    }

    /// Ends a batch of acknowledgements.
    pub(super) fn end_acks(&mut self, now: Instant, in_flight: u64, is_limited: bool) {
        self.round.is_limited |= is_limited;
        let Some(sample) = self.delivery.sample(now, in_flight, is_limited) else { return };
        self.rtt.add(now, sample.rtt);
        self.cycle_rtt = self.cycle_rtt.min(sample.rtt);
        self.measure(now, sample);
        if sample.sent_at >= self.round.began {
            self.end_round(now);
        }
        if self.phase == Phase::Drain && in_flight as f64 <= self.path_bytes() {
            self.begin_cycle(2);
        }
        self.set_window();
    }

    fn measure(&mut self, now: Instant, sample: Sample) {
        if !sample.is_limited || sample.rate > self.rate.get() {
            self.rate.add(sample.rate);
        }
        let expected = self.rate.get() * (now - self.burst_began).as_secs_f64();
        let came = (self.delivery.delivered() - self.burst_delivered) as f64;
        if came <= expected {
            (self.burst_began, self.burst_delivered) = (now, self.delivery.delivered());
        } else {
            self.burst.add(came - expected);
        }
    }

    fn end_round(&mut self, now: Instant) {
        let delivered = self.delivery.delivered() - self.round.delivered_before;
        let lost_part = self.round.lost as f64 / (delivered + self.round.lost).max(1) as f64;
        let is_loss =
            self.round.lost >= LOST_PACKETS_MIN * self.packet_bytes && lost_part > LOSS_MAX;
        let is_limited = self.round.is_limited;
        if is_loss || self.round.is_congested {
            self.ceiling = (self.window.min(self.ceiling) * LOSS_FACTOR).max(self.window_min);
        } else {
            self.ceiling *= RECOVERY;
        }
        match &mut self.phase {
            Phase::Startup { best, flat_rounds } if !is_limited || is_loss => {
                let rate = self.rate.get();
                if rate >= *best * STARTUP_GROWTH {
                    (*best, *flat_rounds) = (rate, 0);
                } else {
                    *flat_rounds += 1;
                }
                if *flat_rounds >= STARTUP_FLAT_ROUNDS || is_loss {
                    self.phase = Phase::Drain;
                }
            }
            Phase::Cycle(at) => {
                let next = (*at + 1) % CYCLE.len();
                self.begin_cycle(next);
            }
            Phase::Startup { .. } | Phase::Drain => {}
        }
        if !is_limited {
            self.rate.next_round();
            self.burst.next_round();
        }
        self.round = Round {
            began: now,
            delivered_before: self.delivery.delivered(),
            lost: 0,
            is_congested: false,
            is_limited: false,
        };
    }

    fn begin_cycle(&mut self, at: usize) {
        if at == 0 {
            let empty = self.rtt.get().mul_f64(1.25) + SLACK;
            self.shares_queue = self.cycle_rtt > empty;
            self.cycle_rtt = Duration::MAX;
        }
        self.phase = Phase::Cycle(at);
    }

    /// Bytes in flight that fill the path.
    fn path_bytes(&self) -> f64 {
        self.rate.get() * (self.rtt.get() + SLACK).as_secs_f64()
    }

    fn set_window(&mut self) {
        if self.rate.get() == 0.0 {
            return;
        }
        let path = self.path_bytes();
        let target = match self.phase {
            Phase::Startup { .. } => (path * STARTUP_GAIN).max(self.window),
            Phase::Drain => path,
            Phase::Cycle(_) if self.round.is_limited => path * SHARING_GAIN,
            Phase::Cycle(at) if self.shares_queue => path * SHARING_GAIN * CYCLE[at],
            Phase::Cycle(at) => path * CYCLE[at] + self.burst.get().min(path),
        };
        self.window = target.min(self.ceiling).max(self.window_min);
    }
}
