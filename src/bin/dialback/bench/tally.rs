//! What a run has counted: latencies of the calls that succeeded, bytes, and failures by kind.

use super::histogram::Histogram;
use dialback::{Code, Outcome, Status};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Messages and bytes of one call that succeeded, or of all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) messages_sent: u64,
    pub(super) messages_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

impl Traffic {
    /// One message each way.
    pub(super) const fn unary(bytes_sent: usize, bytes_received: usize) -> Self {
        Self {
            messages_sent: 1,
            messages_received: 1,
            bytes_sent: bytes_sent as u64,
            bytes_received: bytes_received as u64,
        }
    }

    const fn add(&mut self, other: Self) {
        self.messages_sent += other.messages_sent;
        self.messages_received += other.messages_received;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }
}

/// Failures of one code and outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailureKind {
    pub(super) code: Code,
    pub(super) outcome: Outcome,
    pub(super) count: u64,
    /// Message of the first of them, and its time since the start.
    pub(super) message: String,
    at: Duration,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) latencies: Histogram,
    pub(super) traffic: Traffic,
    pub(super) failures: Vec<FailureKind>,
    /// Time since the start when the last call ended.
    pub(super) ended_at: Duration,
}

impl Tally {
    /// Counts a call that ended at this time since the start.
    fn record(&mut self, at: Duration, latency: Duration, ended: Result<Traffic, Status>) {
        self.ended_at = self.ended_at.max(at);
        match ended {
            Ok(traffic) => {
                self.latencies.record(latency);
                self.traffic.add(traffic);
            }
            Err(status) => {
                let (code, outcome) = (status.code(), status.outcome());
                match self.kind(code, outcome) {
                    Some(kind) => kind.count += 1,
                    None => {
                        let message = status.message().to_owned();
                        self.failures.push(FailureKind { code, outcome, count: 1, message, at });
                    }
                }
            }
        }
    }

    fn kind(&mut self, code: Code, outcome: Outcome) -> Option<&mut FailureKind> {
        self.failures.iter_mut().find(|kind| (kind.code, kind.outcome) == (code, outcome))
    }

    fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies);
        self.traffic.add(other.traffic);
        self.ended_at = self.ended_at.max(other.ended_at);
        for more in &other.failures {
            match self.kind(more.code, more.outcome) {
                Some(kind) => {
                    let count = kind.count + more.count;
                    if more.at < kind.at {
                        *kind = more.clone();
                    }
                    kind.count = count;
                }
                None => self.failures.push(more.clone()),
            }
        }
    }

    /// Number of calls that succeeded.
    pub(super) const fn succeeded(&self) -> u64 {
        self.latencies.total()
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.iter().map(|kind| kind.count).sum()
    }
}

/// Tallies of a running load, apart from each other so that threads seldom wait for one.
pub(super) struct Tallies(Vec<Mutex<Tally>>);

/// Each tally has 36 KiB.
const TALLIES: usize = 16;

impl Tallies {
    pub(super) fn new() -> Self {
        Self((0..TALLIES).map(|_| Mutex::default()).collect())
    }

    /// Counts a call of this slot.
    pub(super) fn record(
        &self,
        slot: usize,
        at: Duration,
        latency: Duration,
        ended: Result<Traffic, Status>,
    ) {
        lock(&self.0[slot % TALLIES]).record(at, latency, ended);
    }

    /// All of them together; the most frequent failure first.
    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.0.iter().for_each(|tally| total.add(&lock(tally)));
        total.failures.sort_by_key(|kind| (std::cmp::Reverse(kind.count), kind.at));
        total
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn failed(code: Code, text: &str) -> Result<Traffic, Status> {
        Err(Status::not_executed(code, text))
    }

    #[test]
    fn calls_of_all_slots_are_counted_and_only_successes_have_a_latency() {
        let tallies = Tallies::new();
        for slot in 0..20 {
            tallies.record(slot, MS, MS, Ok(Traffic::unary(10, 20)));
        }
        tallies.record(3, MS, MS * 9, failed(Code::Unavailable, "x"));
        let total = tallies.total();
        assert_eq!((total.succeeded(), total.failed(), total.latencies.max()), (20, 1, MS));
        assert_eq!((total.traffic.bytes_sent, total.traffic.bytes_received), (200, 400));
        assert_eq!((total.traffic.messages_sent, total.traffic.messages_received), (20, 20));
    }

    #[test]
    fn failures_are_counted_by_code_and_outcome_with_the_first_message_of_each() {
        let tallies = Tallies::new();
        tallies.record(0, MS * 2, MS, failed(Code::Unavailable, "second"));
        tallies.record(0, MS * 3, MS, failed(Code::Unavailable, "third"));
        tallies.record(1, MS, MS, failed(Code::Unavailable, "first"));
        tallies.record(1, MS, MS, Err(Status::unknown(Code::Unavailable, "may have run")));
        let failures = tallies.total().failures;
        let shown: Vec<_> =
            failures.iter().map(|kind| (kind.count, kind.outcome, kind.message.as_str())).collect();
        let expected = [(3, Outcome::NotExecuted, "first"), (1, Outcome::Unknown, "may have run")];
        assert_eq!(shown, expected);
    }
}
