//! Measures the rate at which a path delivers, from the times of sending and of acknowledgement.
//!
//! After draft-cheng-iccrg-delivery-rate-estimation: a sample is what was delivered between the
//! sending and the acknowledgement of a packet, by the longer of the two intervals, so that bursts
//! of either do not raise it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Moments of sending that are closer together count as one.
const SPACING: Duration = Duration::from_millis(1);
/// Moments that are kept: of packets that only acknowledge, no acknowledgement comes.
const MOMENTS_MAX: usize = 4_096;

/// Counts deliveries.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    delivered: u64,
    delivered_at: Instant,
    /// Sending time of the packet that was acknowledged last: the start of the next send interval.
    first_sent_at: Instant,
    in_flight: u64,
    /// Until this many bytes are delivered, the program and not the path limits the rate.
    limited_until: u64,
    sends: VecDeque<Send>,
    acked: Option<Instant>,
}

/// The state at one moment of sending.
#[derive(Debug, Clone, Copy)]
struct Send {
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    is_limited: bool,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Sending time of the newest acknowledged packet.
    pub(super) sent_at: Instant,
    /// Between sending and acknowledgement.
    pub(super) rtt: Duration,
    /// Bytes per second.
    pub(super) rate: f64,
    /// The program sent less than the path could carry: the rate is a lower bound.
    pub(super) is_limited: bool,
}

impl Delivery {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_sent_at: now,
            in_flight: 0,
            limited_until: 0,
            sends: VecDeque::new(),
            acked: None,
        }
    }

    pub(super) fn sent(&mut self, now: Instant, bytes: u64) {
        if self.in_flight == 0 {
            (self.first_sent_at, self.delivered_at) = (now, now);
        }
        self.in_flight += bytes;
        if self.sends.back().is_none_or(|last| now - last.at >= SPACING) {
            if self.sends.len() >= MOMENTS_MAX {
                self.sends.pop_front();
            }
            self.sends.push_back(Send {
                at: now,
                delivered: self.delivered,
                delivered_at: self.delivered_at,
                first_sent_at: self.first_sent_at,
                is_limited: self.delivered < self.limited_until,
            });
        }
    }

    pub(super) fn acked(&mut self, now: Instant, sent_at: Instant, bytes: u64) {
        self.delivered += bytes;
        self.delivered_at = now;
        self.acked = self.acked.max(Some(sent_at));
    }

    /// Ends a batch of acknowledgements. `None` if it had none of packets that are newer than all
    /// before.
    pub(super) fn sample(
        &mut self,
        now: Instant,
        in_flight: u64,
        is_limited: bool,
    ) -> Option<Sample> {
        self.in_flight = in_flight;
        if is_limited {
            self.limited_until = self.delivered + in_flight.max(1);
        }
        let sent_at = self.acked.take()?;
        while self.sends.get(1).is_some_and(|next| next.at <= sent_at) {
            self.sends.pop_front();
        }
        let send = *self.sends.front().filter(|send| send.at <= sent_at)?;
        self.first_sent_at = sent_at;
        let interval = (sent_at - send.first_sent_at).max(now - send.delivered_at);
        let bytes = self.delivered - send.delivered;
        (!interval.is_zero()).then(|| Sample {
            sent_at,
            rtt: now - sent_at,
            rate: bytes as f64 / interval.as_secs_f64(),
            is_limited: send.is_limited,
        })
    }

    pub(super) const fn delivered(&self) -> u64 {
        self.delivered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends a packet of 1,000 bytes each millisecond; the first is acknowledged after 10.
    fn sample_of(ack_at: impl Fn(u32) -> Duration) -> Sample {
        let began = Instant::now();
        let mut delivery = Delivery::new(began);
        let mut last = None;
        let mut acked = 0;
        for n in 0..100 {
            let now = began + MS * n;
            delivery.sent(now, 1_000);
            while acked < n && began + ack_at(acked) <= now {
                delivery.acked(now, began + MS * acked, 1_000);
                acked += 1;
                last = delivery.sample(now, 1_000 * u64::from(n - acked), false).or(last);
            }
        }
        last.expect("a sample")
    }

    #[test]
    fn the_rate_is_what_was_delivered_between_sending_and_acknowledgement() {
        let sample = sample_of(|n| MS * (n + 10));
        assert!((sample.rate - 1e6).abs() < 1e5, "{sample:?}");
        assert_eq!((sample.rtt, sample.is_limited), (MS * 10, false));
    }

    #[test]
    fn acknowledgements_that_come_together_do_not_raise_the_rate() {
        let sample = sample_of(|n| MS * ((n / 20 + 1) * 20 + 10));
        assert!(sample.rate < 1.25e6, "{sample:?}");
    }

    #[test]
    fn a_rate_that_the_program_limits_is_marked() {
        let (began, mut now) = (Instant::now(), Instant::now());
        let mut delivery = Delivery::new(began);
        for n in 0..4 {
            delivery.sent(now, 1_000);
            let sent_at = now;
            now += MS * 10;
            delivery.acked(now, sent_at, 1_000);
            let sample = delivery.sample(now, 0, n < 2).expect("a sample");
            assert_eq!(sample.is_limited, n == 1 || n == 2, "{n}");
        }
    }

    #[test]
    fn packets_that_are_never_acknowledged_take_bounded_memory() {
        let began = Instant::now();
        let mut delivery = Delivery::new(began);
        for n in 0..3 * MOMENTS_MAX as u32 {
            delivery.sent(began + MS * n, 40);
        }
        assert_eq!(delivery.sends.len(), MOMENTS_MAX);
        for _ in 0..10 {
            delivery.sent(began + MS * 3 * MOMENTS_MAX as u32, 40);
        }
        assert!(delivery.sends.len() <= MOMENTS_MAX);
    }
}
