//! Counts of calls, links and refusals, for metrics. No label of them is a text of a peer, so their
//! memory is fixed.

use super::{event::Event, peer_counts::PeerCounts};
use crate::{
    name::Role,
    status::{Code, Outcome},
    wire::CallKind,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

const KINDS: usize = 6;
const CODES: usize = 17;
const OUTCOMES: usize = 4;
/// Threads that count without waiting for each other; more of them share.
const SHARES: usize = 8;
const ROLES: usize = Role::ALL.len();

/// Upper bounds of the buckets of durations, in microseconds: a small call on one machine takes
/// some 100, and a stream hours.
pub(crate) const DURATION_BOUNDS_US: [u64; 17] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
];

/// Counts of one node or agent since its start.
#[derive(Debug, Default)]
pub(crate) struct ObservedCounts {
    /// What each thread counts, so that threads do not wait for each other's memory.
    shares: [ThreadShare; SHARES],
    links: [LinkCounts; ROLES],
    events: EventCounts,
    handshakes: [AtomicU64; HANDSHAKE_FAULTS.len()],
    /// Calls that wait for a permit, and those that got none.
    waiting: AtomicU64,
    limited: AtomicU64,
    waits: DurationCounts,
    pub(crate) peers: PeerCounts,
}

/// Why a handshake failed, for a label: [`LinkFault::kind`].
const HANDSHAKE_FAULTS: [&str; 5] = ["certificate", "protocol", "silent", "closed", "broken"];

/// In cache lines of its own; processors read them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ThreadShare {
    calls: [KindCounts; KINDS],
    /// Of handlers, on an agent.
    handlers: DurationCounts,
}

#[derive(Debug, Default)]
struct KindCounts {
    started: AtomicU64,
    ended: [[AtomicU64; OUTCOMES]; CODES],
    durations: DurationCounts,
    /// Of messages, in and out.
    bytes: [AtomicU64; 2],
}

/// Durations by bucket, and their sum.
#[derive(Debug, Default)]
struct DurationCounts {
    buckets: [AtomicU64; DURATION_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl DurationCounts {
    fn add(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < took_us);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(took_us, Relaxed);
    }
}

/// Durations as they are read: one number for each of [`DURATION_BOUNDS_US`], and those above.
#[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "read by the admin listener"))]
#[derive(Debug, Clone, Default)]
pub(crate) struct Durations {
    pub(crate) buckets: Vec<u64>,
    pub(crate) sum_us: u64,
}

impl Durations {
    fn of<'a>(counts: impl Iterator<Item = &'a DurationCounts> + Clone) -> Self {
        let sum = |one: &dyn Fn(&DurationCounts) -> &AtomicU64| -> u64 {
            counts.clone().map(|counts| one(counts).load(Relaxed)).sum()
        };
        let buckets = 0..=DURATION_BOUNDS_US.len();
        let buckets = buckets.map(|at| sum(&|counts| &counts.buckets[at])).collect();
        Self { buckets, sum_us: sum(&|counts| &counts.sum_us) }
    }
}

#[derive(Debug, Default)]
struct LinkCounts {
    opened: AtomicU64,
    ended: AtomicU64,
}

#[derive(Debug, Default)]
struct EventCounts {
    handshakes_ignored: AtomicU64,
    links_refused: AtomicU64,
    dials_refused: AtomicU64,
    links_moved: AtomicU64,
    links_evicted: AtomicU64,
    calls_refused: AtomicU64,
    http_refused: AtomicU64,
    configs_applied: AtomicU64,
}

/// The place of the thread that runs this among the shares.
fn place() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static PLACE: usize = THREADS.fetch_add(1, Relaxed) % SHARES);
    PLACE.with(|place| *place)
}

impl ObservedCounts {
    pub(crate) fn call_started(&self, kind: CallKind) {
        self.shares[place()].calls[kind as usize].started.fetch_add(1, Relaxed);
    }

    /// Counts the end of a call, and the bytes of its messages in and out, as far as known.
    pub(super) fn call_ended(
        &self,
        kind: CallKind,
        (code, outcome): (Code, Outcome),
        took: Duration,
        bytes: [Option<u64>; 2],
    ) {
        let counts = &self.shares[place()].calls[kind as usize];
        counts.durations.add(took);
        for (count, bytes) in counts.bytes.iter().zip(bytes) {
            if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
                count.fetch_add(bytes, Relaxed);
            }
        }
        counts.ended[code as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// Counts a call that waits for a permit, as long as the guard lives.
    pub(crate) fn call_waits(self: &Arc<Self>) -> WaitingCall {
        self.waiting.fetch_add(1, Relaxed);
        WaitingCall { counts: self.clone(), began: Instant::now() }
    }

    /// Counts a call that got no permit.
    pub(crate) fn call_limited(&self) {
        self.limited.fetch_add(1, Relaxed);
    }

    /// Counts the time of a handler.
    pub(crate) fn handled(&self, took: Duration) {
        self.shares[place()].handlers.add(took);
    }

    pub(super) fn event(&self, event: &Event<'_>) {
        let events = &self.events;
        let (count, by) = match event {
            Event::HandshakesIgnored { count, .. } => (&events.handshakes_ignored, *count),
            Event::HandshakeRefused { reason, .. } => {
                let at = HANDSHAKE_FAULTS.iter().position(|kind| *kind == reason.kind());
                (&self.handshakes[at.unwrap_or(HANDSHAKE_FAULTS.len() - 1)], 1)
            }
            Event::LinkRefused { .. } => (&events.links_refused, 1),
            Event::DialRefused { .. } => (&events.dials_refused, 1),
            Event::LinkUp { peer, .. } => (&self.of_role(peer.peer_name().role).opened, 1),
            Event::LinkDown { peer, .. } => (&self.of_role(peer.peer_name().role).ended, 1),
            Event::LinkMoved { .. } | Event::PathChanged(_) => (&events.links_moved, 1),
            Event::LinkEvicted { .. } => (&events.links_evicted, 1),
            Event::CallRefused { .. } => (&events.calls_refused, 1),
            Event::HttpRefused { .. } => (&events.http_refused, 1),
            Event::ConfigApplied { .. } => (&events.configs_applied, 1),
            _ => return,
        };
        count.fetch_add(by, Relaxed);
    }

    fn of_role(&self, role: Role) -> &LinkCounts {
        &self.links[role as usize]
    }
}

/// A call that waits for a permit.
#[derive(Debug)]
pub(crate) struct WaitingCall {
    counts: Arc<ObservedCounts>,
    began: Instant,
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.counts.waiting.fetch_sub(1, Relaxed);
        self.counts.waits.add(self.began.elapsed());
    }
}

/// Counts of one kind of call, read at one moment: `started` is what ended and what is in flight.
#[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "read by the admin listener"))]
pub(crate) struct CallCounts {
    pub(crate) kind: CallKind,
    pub(crate) started: u64,
    pub(crate) in_flight: u64,
    /// Ended calls by code and outcome, without those that have not occurred.
    pub(crate) ended: Vec<(Code, Outcome, u64)>,
    /// Of ended calls.
    pub(crate) durations: Durations,
    /// Of the messages of ended calls, in and out.
    pub(crate) bytes: [u64; 2],
}

#[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "read by the admin listener"))]
impl ObservedCounts {
    /// Counts of the kinds of calls that have occurred.
    pub(crate) fn calls(&self) -> impl Iterator<Item = CallCounts> + '_ {
        let sum = |one: &dyn Fn(&ThreadShare) -> &AtomicU64| -> u64 {
            self.shares.iter().map(|share| one(share).load(Relaxed)).sum()
        };
        CallKind::ALL.iter().copied().filter_map(move |kind| {
            let at = kind as usize;
            let durations =
                Durations::of(self.shares.iter().map(|share| &share.calls[at].durations));
            let bytes = [0, 1].map(|way| sum(&|share| &share.calls[at].bytes[way]));
            let mut ended = Vec::new();
            for code in (0..CODES as u8).filter_map(Code::from_number) {
                for outcome in (0..OUTCOMES as u8).filter_map(Outcome::from_number) {
                    let (code_at, outcome_at) = (code as usize, outcome as usize);
                    let count = sum(&|share| &share.calls[at].ended[code_at][outcome_at]);
                    ended.extend((count > 0).then_some((code, outcome, count)));
                }
            }
            // Read last: no call that has ended is missing.
            let started = sum(&|share| &share.calls[at].started);
            let all_ended = ended.iter().map(|(_, _, count)| count).sum();
            let in_flight = started.saturating_sub(all_ended);
            let counts = CallCounts { kind, started, in_flight, ended, durations, bytes };
            (started > 0).then_some(counts)
        })
    }

    /// Links of peers of this role that were opened, and those that are up.
    pub(crate) fn links(&self, role: Role) -> [u64; 2] {
        let links = self.of_role(role);
        let ended = links.ended.load(Relaxed);
        let opened = links.opened.load(Relaxed);
        [opened, opened.saturating_sub(ended)]
    }

    /// Handshakes that failed, by reason.
    pub(crate) fn handshakes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.handshakes.iter().map(|count| count.load(Relaxed));
        HANDSHAKE_FAULTS.into_iter().zip(counts)
    }

    /// Calls that wait for a permit now, and how long those waited that do not any more.
    pub(crate) fn waits(&self) -> (u64, Durations) {
        (self.waiting.load(Relaxed), Durations::of(std::iter::once(&self.waits)))
    }

    /// Times of handlers, on an agent.
    pub(crate) fn handlers(&self) -> Durations {
        Durations::of(self.shares.iter().map(|share| &share.handlers))
    }

    /// The other events, with the names and descriptions of their metrics.
    pub(crate) fn events(&self) -> [(&'static str, &'static str, u64); 9] {
        let events = &self.events;
        [
            ("calls_limited", "Calls that got no permit", &self.limited),
            (
                "handshakes_ignored",
                "Handshakes that were ignored because too many waited",
                &events.handshakes_ignored,
            ),
            (
                "links_refused",
                "Links of authenticated peers that were refused",
                &events.links_refused,
            ),
            ("dials_refused", "Dials that ended with a refusal", &events.dials_refused),
            ("links_moved", "Changes of the address or the path of a link", &events.links_moved),
            (
                "links_evicted",
                "Links closed because their peer had too many",
                &events.links_evicted,
            ),
            ("calls_refused", "Calls refused by a rule or its quota", &events.calls_refused),
            ("http_refused", "HTTP requests and connections refused", &events.http_refused),
            ("configs_applied", "Configurations applied", &events.configs_applied),
        ]
        .map(|(name, help, count)| (name, help, count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_started_have_ended_or_are_in_flight() {
        let counts = ObservedCounts::default();
        (0..5).for_each(|_| counts.call_started(CallKind::Unary));
        let ms = Duration::from_millis;
        counts.call_ended(CallKind::Unary, (Code::Ok, Outcome::Ok), ms(1), [Some(3), None]);
        counts.call_ended(CallKind::Unary, (Code::Ok, Outcome::Ok), ms(2), [Some(4), Some(9)]);
        let hour = Duration::from_secs(3_600);
        let refused = (Code::Unavailable, Outcome::NotExecuted);
        counts.call_ended(CallKind::Unary, refused, hour, [None; 2]);
        let all: Vec<_> = counts.calls().collect();
        let [calls] = &all[..] else { panic!("{} kinds", all.len()) };
        assert_eq!((calls.kind, calls.started, calls.in_flight), (CallKind::Unary, 5, 2));
        let ended = [(Code::Ok, Outcome::Ok, 2), (Code::Unavailable, Outcome::NotExecuted, 1)];
        assert_eq!(calls.ended, ended);
        // A bound belongs to its bucket.
        let by_bound = |us| DURATION_BOUNDS_US.iter().position(|bound| *bound == us);
        assert_eq!(by_bound(1_000).map(|at| calls.durations.buckets[at]), Some(1));
        assert_eq!(by_bound(2_500).map(|at| calls.durations.buckets[at]), Some(1));
        assert_eq!(calls.durations.buckets.last(), Some(&1));
        assert_eq!(calls.durations.sum_us, 3_600_003_000);
        assert_eq!(calls.bytes, [7, 9]);
    }

    #[test]
    fn calls_that_wait_are_counted_until_they_do_not() {
        let counts = Arc::<ObservedCounts>::default();
        let waiting = [counts.call_waits(), counts.call_waits()];
        assert_eq!(counts.waits().0, 2);
        drop(waiting);
        let (now, waited) = counts.waits();
        assert_eq!((now, waited.buckets.iter().sum()), (0, 2));
    }

    #[test]
    fn every_kind_code_outcome_and_role_has_its_place() {
        let counts = ObservedCounts::default();
        assert_eq!(CallKind::ALL.len(), KINDS);
        for &kind in CallKind::ALL {
            for code in (0..=u8::MAX).filter_map(Code::from_number) {
                for outcome in (0..=u8::MAX).filter_map(Outcome::from_number) {
                    counts.call_started(kind);
                    counts.call_ended(kind, (code, outcome), Duration::ZERO, [None; 2]);
                }
            }
        }
        let places = (CODES * OUTCOMES) as u64;
        assert!(counts.calls().all(|calls| calls.started == places && calls.in_flight == 0));
        assert!(counts.calls().all(|calls| calls.ended.len() as u64 == places));
        assert!(Role::ALL.iter().all(|role| counts.links(*role) == [0, 0]));
    }
}
