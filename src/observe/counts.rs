//! Counts of calls, links and refusals, for metrics. No label of them is a text of a peer, so their
//! memory is fixed.

use super::event::Event;
use crate::{
    name::Role,
    status::{Code, Outcome},
    wire::CallKind,
};
use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

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
}

/// In cache lines of its own; processors read them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ThreadShare {
    calls: [KindCounts; KINDS],
}

#[derive(Debug, Default)]
struct KindCounts {
    started: AtomicU64,
    ended: [[AtomicU64; OUTCOMES]; CODES],
    durations: [AtomicU64; DURATION_BOUNDS_US.len() + 1],
    duration_us: AtomicU64,
}

#[derive(Debug, Default)]
struct LinkCounts {
    opened: AtomicU64,
    ended: AtomicU64,
}

#[derive(Debug, Default)]
struct EventCounts {
    handshakes_refused: AtomicU64,
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
    pub(super) fn call_started(&self, kind: CallKind) {
        self.shares[place()].calls[kind as usize].started.fetch_add(1, Relaxed);
    }

    pub(super) fn call_ended(&self, kind: CallKind, code: Code, outcome: Outcome, took: Duration) {
        let counts = &self.shares[place()].calls[kind as usize];
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < took_us);
        counts.durations[bucket].fetch_add(1, Relaxed);
        counts.duration_us.fetch_add(took_us, Relaxed);
        counts.ended[code as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn event(&self, event: &Event<'_>) {
        let events = &self.events;
        let (count, by) = match event {
            Event::HandshakesIgnored { count, .. } => (&events.handshakes_ignored, *count),
            Event::HandshakeRefused { .. } => (&events.handshakes_refused, 1),
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

/// Counts of one kind of call, read at one moment: `started` is what ended and what is in flight.
#[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "read by the admin listener"))]
pub(crate) struct CallCounts {
    pub(crate) kind: CallKind,
    pub(crate) started: u64,
    pub(crate) in_flight: u64,
    /// Ended calls by code and outcome, without those that have not occurred.
    pub(crate) ended: Vec<(Code, Outcome, u64)>,
    /// Ended calls by duration: one for each of [`DURATION_BOUNDS_US`], and those above.
    pub(crate) durations: Vec<u64>,
    pub(crate) duration_us: u64,
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
            let durations: Vec<u64> = (0..=DURATION_BOUNDS_US.len())
                .map(|bucket| sum(&|share| &share.calls[at].durations[bucket]))
                .collect();
            let duration_us = sum(&|share| &share.calls[at].duration_us);
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
            let counts = CallCounts { kind, started, in_flight, ended, durations, duration_us };
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

    /// The other events, with the names and descriptions of their metrics.
    pub(crate) fn events(&self) -> [(&'static str, &'static str, u64); 9] {
        let events = &self.events;
        [
            (
                "handshakes_refused",
                "Handshakes of clients that failed, or whose first frames did",
                &events.handshakes_refused,
            ),
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
        counts.call_ended(CallKind::Unary, Code::Ok, Outcome::Ok, ms(1));
        counts.call_ended(CallKind::Unary, Code::Ok, Outcome::Ok, ms(2));
        let hour = Duration::from_secs(3_600);
        counts.call_ended(CallKind::Unary, Code::Unavailable, Outcome::NotExecuted, hour);
        let all: Vec<_> = counts.calls().collect();
        let [calls] = &all[..] else { panic!("{} kinds", all.len()) };
        assert_eq!((calls.kind, calls.started, calls.in_flight), (CallKind::Unary, 5, 2));
        let ended = [(Code::Ok, Outcome::Ok, 2), (Code::Unavailable, Outcome::NotExecuted, 1)];
        assert_eq!(calls.ended, ended);
        // A bound belongs to its bucket.
        let by_bound = |us| DURATION_BOUNDS_US.iter().position(|bound| *bound == us);
        assert_eq!(by_bound(1_000).map(|at| calls.durations[at]), Some(1));
        assert_eq!(by_bound(2_500).map(|at| calls.durations[at]), Some(1));
        assert_eq!(calls.durations.last(), Some(&1));
        assert_eq!(calls.duration_us, 3_600_003_000);
    }

    #[test]
    fn every_kind_code_outcome_and_role_has_its_place() {
        let counts = ObservedCounts::default();
        assert_eq!(CallKind::ALL.len(), KINDS);
        for &kind in CallKind::ALL {
            for code in (0..=u8::MAX).filter_map(Code::from_number) {
                for outcome in (0..=u8::MAX).filter_map(Outcome::from_number) {
                    counts.call_started(kind);
                    counts.call_ended(kind, code, outcome, Duration::ZERO);
                }
            }
        }
        let places = (CODES * OUTCOMES) as u64;
        assert!(counts.calls().all(|calls| calls.started == places && calls.in_flight == 0));
        assert!(counts.calls().all(|calls| calls.ended.len() as u64 == places));
        assert!(Role::ALL.iter().all(|role| counts.links(*role) == [0, 0]));
    }
}
