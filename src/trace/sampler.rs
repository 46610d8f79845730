//! Decides which calls are sampled: their spans are exported.

use super::context::TraceContext;
use crate::rate_limit::RateLimit;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Where a call comes from, with the context that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanOrigin {
    /// Another process.
    Peer,
    /// The program itself, whose decisions are followed without a limit.
    Program,
}

/// Follows the decision in the context of a call, and decides for calls without one.
///
/// A peer chooses its own decision, and its own trace id: only so many calls a second are sampled
/// because a peer says so. Those beyond are decided upon like calls without a context, by chance
/// and not by the id.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// Chances below it are sampled.
    below: u64,
    peer_sampled_max: u32,
    /// When peers may again have as many calls sampled as at first.
    full_at: Mutex<Option<Instant>>,
}

impl Sampler {
    /// Samples this part of the calls without a context, from 0 to 1, and at most this number of
    /// calls a second that a peer has sampled.
    pub(crate) fn new(sample: f64, peer_sampled_max: u32) -> Self {
        // A product of 2^64 saturates, and no chance is as high as that: see `is_below`.
        let below = (sample * (u64::MAX as f64)) as u64;
        Self { below, peer_sampled_max, full_at: Mutex::default() }
    }

    /// Whether a call is sampled. `chance` is any number, each equally likely.
    pub(super) fn samples(
        &self,
        parent: Option<TraceContext>,
        origin: SpanOrigin,
        chance: u64,
        now: Instant,
    ) -> bool {
        match (parent, origin) {
            (Some(parent), _) if !parent.is_sampled() => false,
            (Some(_), SpanOrigin::Program) => true,
            (Some(_), SpanOrigin::Peer) if self.admits(now) => true,
            _ => self.is_below(chance),
        }
    }

    const fn is_below(&self, chance: u64) -> bool {
        chance < self.below || self.below == u64::MAX
    }

    fn admits(&self, now: Instant) -> bool {
        if self.peer_sampled_max == 0 {
            return false;
        }
        let limit = RateLimit::per(self.peer_sampled_max, Duration::from_secs(1));
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        match limit.take(*full_at, now) {
            Ok(next) => {
                *full_at = Some(next);
                true
            }
            Err(_wait) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parent(is_sampled: bool) -> Option<TraceContext> {
        let context = TraceContext::parse(SAMPLED)?;
        Some(if is_sampled { context } else { context.unsampled() })
    }

    #[test]
    fn a_part_of_the_calls_without_a_context_is_sampled_by_chance() {
        let now = Instant::now();
        for (sample, chance, expected) in [
            (0.0, 0, false),
            (0.25, 0, true),
            (0.25, u64::MAX / 5, true),
            (0.25, u64::MAX / 3, false),
            (1.0, u64::MAX, true),
        ] {
            let sampler = Sampler::new(sample, 10);
            for origin in [SpanOrigin::Peer, SpanOrigin::Program] {
                assert_eq!(sampler.samples(None, origin, chance, now), expected, "{sample}");
            }
        }
    }

    #[test]
    fn an_unsampled_context_stays_so_from_any_origin() {
        let sampler = Sampler::new(1.0, 10);
        for origin in [SpanOrigin::Peer, SpanOrigin::Program] {
            assert!(!sampler.samples(parent(false), origin, 0, Instant::now()));
        }
    }

    #[test]
    fn peers_have_so_many_calls_a_second_sampled_and_the_program_any_number() {
        let (sampler, now) = (Sampler::new(0.0, 10), Instant::now());
        let count = |origin, now| {
            (0..1_000).filter(|_| sampler.samples(parent(true), origin, 0, now)).count()
        };
        assert_eq!(count(SpanOrigin::Peer, now), 10);
        assert_eq!(count(SpanOrigin::Peer, now), 0);
        assert_eq!(count(SpanOrigin::Peer, now + Duration::from_secs(1)), 10);
        assert_eq!(count(SpanOrigin::Program, now), 1_000);
        assert!(
            !Sampler::new(0.0, 0).samples(parent(true), SpanOrigin::Peer, 0, now),
            "none at all"
        );
    }

    #[test]
    fn calls_beyond_what_peers_may_have_are_decided_upon_by_chance() {
        let (sampler, now) = (Sampler::new(0.5, 0), Instant::now());
        assert!(sampler.samples(parent(true), SpanOrigin::Peer, 0, now));
        assert!(!sampler.samples(parent(true), SpanOrigin::Peer, u64::MAX, now));
    }
}
