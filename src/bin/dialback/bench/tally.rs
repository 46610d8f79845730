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
    /// Traffic of the calls that succeeded in time.
    pub(super) traffic: Traffic,
    pub(super) failures: Vec<FailureKind>,
    /// Number of calls that succeeded after the planned end of the run.
    pub(super) late: u64,
    /// Time since the start when the last call succeeded.
    pub(super) succeeded_at: Duration,
}

/// End of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallEnd {
    /// Time since the start of the run.
    pub(super) at: Duration,
    pub(super) latency: Duration,
    /// True after the planned end of the run.
    pub(super) is_late: bool,
}

impl Tally {
    /// Counts a call.
    fn record(
        &mut self,
        CallEnd { at, latency, is_late }: CallEnd,
        ended: Result<Traffic, Status>,
    ) {
        match ended {
            Ok(traffic) => {
                self.succeeded_at = self.succeeded_at.max(at);
                self.latencies.record(latency);
                match is_late {
                    true => self.late += 1,
                    false => self.traffic.add(traffic),
                }
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
        self.late += other.late;
        self.succeeded_at = self.succeeded_at.max(other.succeeded_at);
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
    pub(super) fn record(&self, slot: usize, end: CallEnd, ended: Result<Traffic, Status>) {
        lock(&self.0[slot % TALLIES]).record(end, ended);
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

    /// A call that ended in time.
    fn end(at: Duration, latency: Duration) -> CallEnd {
        CallEnd { at, latency, is_late: false }
    }

    fn failed(code: Code, text: &str) -> Result<Traffic, Status> {
        Err(Status::not_executed(code, text))
    }

    #[test]
    fn calls_of_all_slots_are_counted_and_only_successes_have_a_latency() {
        let tallies = Tallies::new();
        for slot in 0..20 {
            tallies.record(slot, end(MS, MS), Ok(Traffic::unary(10, 20)));
        }
        tallies.record(3, end(MS, MS * 9), failed(Code::Unavailable, "x"));
        let total = tallies.total();
        assert_eq!((total.succeeded(), total.failed(), total.latencies.max()), (20, 1, MS));
        assert_eq!((total.traffic.bytes_sent, total.traffic.bytes_received), (200, 400));
        assert_eq!((total.traffic.messages_sent, total.traffic.messages_received), (20, 20));
    }

    #[test]
    fn late_calls_have_a_latency_and_no_part_in_the_traffic() {
        let tallies = Tallies::new();
        tallies.record(0, end(MS * 9, MS), Ok(Traffic::unary(10, 20)));
        let late = CallEnd { is_late: true, ..end(MS * 11, MS * 3) };
        tallies.record(1, late, Ok(Traffic::unary(10, 20)));
        tallies.record(2, CallEnd { at: MS * 30, ..late }, failed(Code::Unavailable, "x"));
        let total = tallies.total();
        assert_eq!((total.succeeded(), total.late, total.failed()), (2, 1, 1));
        assert_eq!((total.traffic, total.latencies.max()), (Traffic::unary(10, 20), MS * 3));
        assert_eq!(total.succeeded_at, MS * 11, "a failure does not count");
    }

    #[test]
    fn failures_are_counted_by_code_and_outcome_with_the_first_message_of_each() {
        let tallies = Tallies::new();
        tallies.record(0, end(MS * 2, MS), failed(Code::Unavailable, "second"));
        tallies.record(0, end(MS * 3, MS), failed(Code::Unavailable, "third"));
        tallies.record(1, end(MS, MS), failed(Code::Unavailable, "first"));
        tallies.record(1, end(MS, MS), Err(Status::unknown(Code::Unavailable, "may have run")));
        let failures = tallies.total().failures;
        let shown: Vec<_> =
            failures.iter().map(|kind| (kind.count, kind.outcome, kind.message.as_str())).collect();
        let expected = [(3, Outcome::NotExecuted, "first"), (1, Outcome::Unknown, "may have run")];
        assert_eq!(shown, expected);
    }
}
