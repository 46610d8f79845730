//! Makes the calls of a run: slots that call one after the other, as soon as they can or when the
//! next call is due.

use super::{
    schedule::Rate,
    tally::{CallEnd, Tallies, Tally, Traffic},
};
use dialback::Status;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinSet};

/// One slot's way to make a call: over a link, or over an HTTP connection.
pub(super) trait Way: Send + 'static {
    fn call(&mut self) -> impl Future<Output = Result<Traffic, Status>> + Send;
}

/// End of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// After this number of calls.
    Calls(u64),
    /// When this time has passed since the start.
    Elapsed(Duration),
}

/// Pause of a slot of a closed loop after a call that failed: failures may be much faster than
/// calls, and would flood the node.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Longest sleep of the pacer, which then looks whether the run has ended.
const PACER_SLEEP_MAX: Duration = Duration::from_millis(50);

/// A run may miss one call in this number of those that were due.
const MISSED_PART_MAX: u64 = 100;

/// Time for the last calls of an open loop to get a slot.
const LAST_WAIT_MAX: Duration = Duration::from_millis(10);

/// Start of the call that a slot makes, in nanoseconds since the start of the run, or `FREE`.
type CallStart = Arc<AtomicU64>;

/// The slot makes no call.
const FREE: u64 = u64::MAX;

/// Calls that a signal cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CutOff {
    pub(super) calls: u64,
    /// Time for which the oldest of them was in flight.
    pub(super) oldest: Duration,
}

/// A run: what is left to call, and what was counted.
pub(super) struct Run {
    began: Instant,
    until: Until,
    rate: Option<Rate>,
    /// Number of calls that slots have taken.
    taken: AtomicU64,
    /// Calls of an open loop that are due and not taken. Closed at the end.
    due: Semaphore,
    /// One for each slot.
    starts: Mutex<Vec<CallStart>>,
    tallies: Tallies,
}

impl Run {
    pub(super) fn new(until: Until, rate: Option<Rate>) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            until,
            rate,
            taken: AtomicU64::new(0),
            due: Semaphore::new(0),
            starts: Mutex::default(),
            tallies: Tallies::new(),
        })
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn tally(&self) -> Tally {
        self.tallies.total()
    }

    /// Time that the rates are of: up to the planned end or the signal. Without a planned end it is
    /// up to the end of the last call that succeeded.
    pub(super) fn span(&self, tally: &Tally, elapsed: Duration, interrupted: bool) -> Duration {
        match self.planned_end() {
            Some(end) if interrupted => end.min(elapsed),
            Some(end) => end,
            None if interrupted || tally.succeeded() == 0 => elapsed,
            None => tally.succeeded_at,
        }
    }

    /// Time since the start when the run ends by plan; calls that end later are late. A number of
    /// calls without a rate may take any time.
    fn planned_end(&self) -> Option<Duration> {
        match (self.until, self.rate) {
            (Until::Elapsed(end), _) => Some(end),
            // The last call has its interval too.
            (Until::Calls(calls), Some(rate)) => Some(rate.due(calls)),
            (Until::Calls(_), None) => None,
        }
    }

    /// Number of calls that were due by this time, and for which no slot was free.
    pub(super) fn missed(&self, elapsed: Duration) -> u64 {
        let due = self.rate.map_or(0, |rate| self.due_calls(rate, elapsed));
        due.saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// Returns `true` if so many calls were missed that the load was not the one asked for.
    pub(super) fn has_missed_many(&self, missed: u64) -> bool {
        let due = missed.saturating_add(self.taken.load(Ordering::Relaxed));
        missed > due / MISSED_PART_MAX
    }

    /// Calls in flight at the end of the run, which a signal has stopped at this time.
    pub(super) fn cut_off(&self, elapsed: Duration) -> CutOff {
        let starts = self.starts();
        let starts = starts.iter().map(|start| start.load(Ordering::Relaxed));
        starts.filter(|start| *start != FREE).fold(CutOff::default(), |cut_off, start| CutOff {
            calls: cut_off.calls + 1,
            oldest: cut_off.oldest.max(elapsed.saturating_sub(Duration::from_nanos(start))),
        })
    }

    fn starts(&self) -> MutexGuard<'_, Vec<CallStart>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due_calls(&self, rate: Rate, elapsed: Duration) -> u64 {
        match self.until {
            Until::Calls(calls) => rate.due_before(elapsed).min(calls),
            Until::Elapsed(end) => rate.due_before(elapsed.min(end)),
        }
    }

    /// Takes the next call. Returns the time from which its latency counts: now, or the time when
    /// it was due. `None` at the end of the run.
    async fn take(&self) -> Option<Instant> {
        match self.rate {
            None => self.take_now(),
            Some(rate) => {
                self.due.acquire().await.ok()?.forget();
                Some(self.began + rate.due(self.taken.fetch_add(1, Ordering::Relaxed)))
            }
        }
    }

    fn take_now(&self) -> Option<Instant> {
        let now = Instant::now();
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let has_ended = match self.until {
            Until::Calls(calls) => number >= calls,
            Until::Elapsed(end) => now.duration_since(self.began) >= end,
        };
        (!has_ended).then_some(now)
    }

    /// Releases the calls of an open loop that are due now, after `released` before. Returns their
    /// number in all, and the time until the next; `None` if there is no next.
    fn release(&self, rate: Rate, released: u64, elapsed: Duration) -> (u64, Option<Duration>) {
        // A nanosecond later, so that a call is due at its time.
        let due = self.due_calls(rate, elapsed + Duration::from_nanos(1)).max(released);
        self.due.add_permits((due - released) as usize);
        let next = rate.due(due);
        let is_over = match self.until {
            Until::Calls(calls) => due >= calls,
            Until::Elapsed(end) => elapsed >= end,
        };
        let end = match self.until {
            Until::Elapsed(end) => next.min(end),
            Until::Calls(_) => next,
        };
        (due, (!is_over).then(|| end.saturating_sub(elapsed)))
    }

    /// Releases calls when they are due. A thread of its own: a timer of the runtime is late by up
    /// to a millisecond.
    fn release_due(&self, rate: Rate) {
        let mut released = 0;
        while !self.due.is_closed() {
            let (due, next) = self.release(rate, released, self.elapsed());
            released = due;
            match next {
                Some(left) => std::thread::sleep(left.min(PACER_SLEEP_MAX)),
                None => return self.finish(),
            }
        }
    }

    /// Waits until slots have taken all calls that are due, then closes. At the end of the time,
    /// calls that get no slot are given up.
    fn finish(&self) {
        let give_up =
            matches!(self.until, Until::Elapsed(_)).then(|| self.elapsed() + LAST_WAIT_MAX);
        while self.due.available_permits() > 0
            && !self.due.is_closed()
            && give_up.is_none_or(|at| self.elapsed() < at)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.due.close();
    }

    /// End of a call now.
    fn call_end(&self, since: Instant) -> CallEnd {
        let at = self.elapsed();
        let is_late = self.planned_end().is_some_and(|end| at > end);
        CallEnd { at, latency: since.elapsed(), is_late }
    }

    async fn run_slot<W: Way>(&self, slot: usize, mut way: W) -> W {
        let start = CallStart::new(FREE.into());
        self.starts().push(start.clone());
        while let Some(since) = self.take().await {
            let nanos = since.duration_since(self.began).as_nanos();
            start.store(u64::try_from(nanos).unwrap_or(FREE), Ordering::Relaxed);
            let ended = way.call().await;
            let has_failed = ended.is_err();
            self.tallies.record(slot, self.call_end(since), ended);
            start.store(FREE, Ordering::Relaxed);
            if has_failed && self.rate.is_none() {
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        }
        way
    }

    /// Makes calls in as many slots as there are ways, and returns when all calls have ended. Calls
    /// in flight at the end of the time may finish. Dropping it cancels them.
    pub(super) async fn complete<W: Way>(self: &Arc<Self>, ways: Vec<W>) -> Vec<W> {
        let _closes = CloseOnDrop(self);
        if let Some(rate) = self.rate {
            let run = self.clone();
            drop(std::thread::spawn(move || run.release_due(rate)));
        }
        let mut slots = JoinSet::new();
        for (slot, way) in ways.into_iter().enumerate() {
            let run = self.clone();
            slots.spawn(async move { run.run_slot(slot, way).await });
        }
        slots.join_all().await
    }
}

/// Ends the pacer.
struct CloseOnDrop<'a>(&'a Run);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.due.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialback::Code;
    use std::sync::atomic::AtomicUsize;

    const MS: Duration = Duration::from_millis(1);

    /// A way without a socket: counts calls in flight, and fails every call of a number.
    #[derive(Clone, Default)]
    struct FakeWay {
        state: Arc<FakeState>,
        fails_every: Option<usize>,
    }

    #[derive(Default)]
    struct FakeState {
        calls: AtomicUsize,
        in_flight: AtomicUsize,
        in_flight_max: AtomicUsize,
    }

    impl Way for FakeWay {
        async fn call(&mut self) -> Result<Traffic, Status> {
            let FakeState { calls, in_flight, in_flight_max } = &*self.state;
            let number = calls.fetch_add(1, Ordering::Relaxed) + 1;
            in_flight_max
                .fetch_max(in_flight.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            in_flight.fetch_sub(1, Ordering::Relaxed);
            match self.fails_every {
                Some(every) if number % every == 0 => Err(Status::new(Code::Aborted, "no")),
                _ => Ok(Traffic::unary(1, 2)),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_makes_that_many_calls_with_so_many_in_flight() {
        let way = FakeWay { fails_every: Some(10), ..FakeWay::default() };
        let (run, began) = (Run::new(Until::Calls(1_000), None), tokio::time::Instant::now());
        assert_eq!(run.complete(vec![way.clone(); 7]).await.len(), 7);
        assert!(began.elapsed() >= FAILURE_PAUSE * 100 / 7, "a failure is followed by a pause");
        let tally = run.tally();
        assert_eq!((tally.succeeded(), tally.failed(), run.missed(MS)), (900, 100, 0));
        assert_eq!(way.state.in_flight_max.load(Ordering::Relaxed), 7);
        assert_eq!((run.span(&tally, MS * 9_999, false), tally.late), (tally.succeeded_at, 0));
    }

    #[tokio::test]
    async fn an_open_loop_makes_that_many_calls_with_one_slot_too() {
        let way = FakeWay::default();
        let run = Run::new(Until::Calls(50), Some("100000".parse().expect("a rate")));
        run.complete(vec![way.clone()]).await;
        assert_eq!((run.tally().succeeded(), run.missed(MS)), (50, 0));
    }

    #[tokio::test]
    async fn a_run_that_is_dropped_ends_its_pacer() {
        let run = Run::new(Until::Calls(50), Some("0.001".parse().expect("a rate")));
        let stopped = tokio::time::timeout(MS, run.complete(vec![FakeWay::default()])).await;
        assert!(stopped.is_err() && run.due.is_closed());
    }

    /// A way whose calls do not end.
    struct StalledWay;

    impl Way for StalledWay {
        async fn call(&mut self) -> Result<Traffic, Status> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_a_stop_cuts_off_are_counted_with_the_age_of_the_oldest() {
        let run = Run::new(Until::Calls(2), None);
        let ways = [(); 3].map(|()| StalledWay).into();
        assert!(tokio::time::timeout(MS, run.complete(ways)).await.is_err());
        let CutOff { calls, oldest } = run.cut_off(MS * 9_999);
        assert_eq!(calls, 2, "the third slot got no call");
        assert!(oldest <= MS * 9_999 && oldest > Duration::ZERO, "{oldest:?}");
        for (start, at) in run.starts().iter().zip([5_000_000, FREE, 9_000_000]) {
            start.store(at, Ordering::Relaxed);
        }
        assert_eq!(run.cut_off(MS * 20), CutOff { calls: 2, oldest: MS * 15 });
        let run = Run::new(Until::Calls(2), None);
        run.complete(vec![FakeWay::default()]).await;
        assert_eq!(run.cut_off(MS), CutOff::default());
    }

    #[tokio::test]
    async fn latency_of_an_open_loop_counts_from_when_the_call_was_due() {
        let run = Run::new(Until::Calls(3), Some("1000".parse().expect("a rate")));
        run.release("1000".parse().expect("a rate"), 0, MS * 5);
        for due in 0..3 {
            assert_eq!(run.take().await, Some(run.began + MS * due));
        }
    }

    #[test]
    fn calls_are_released_when_they_are_due_and_no_more_than_there_are() {
        let rate: Rate = "1000".parse().expect("a rate");
        let run = Run::new(Until::Calls(4), Some(rate));
        assert_eq!(run.release(rate, 0, Duration::ZERO), (1, Some(MS)));
        assert_eq!(run.release(rate, 1, MS / 2), (1, Some(MS / 2)));
        assert_eq!(run.release(rate, 1, MS * 2), (3, Some(MS)));
        assert_eq!(run.release(rate, 3, MS * 9), (4, None));
        assert_eq!(run.due.available_permits(), 4);
        let run = Run::new(Until::Elapsed(MS * 2), Some(rate));
        assert_eq!(run.release(rate, 0, MS), (2, Some(MS)));
        assert_eq!(run.release(rate, 2, MS * 3), (2, None), "the third is due at the end");
    }

    #[test]
    fn calls_that_were_due_and_got_no_slot_are_missed() {
        let rate: Rate = "1000".parse().expect("a rate");
        let run = Run::new(Until::Elapsed(MS * 10), Some(rate));
        run.taken.store(4, Ordering::Relaxed);
        assert_eq!([run.missed(MS * 3), run.missed(MS * 8), run.missed(MS * 99)], [0, 4, 6]);
    }

    #[test]
    fn more_than_one_missed_call_in_a_hundred_is_too_many() {
        let has_missed_many = |taken, missed| {
            let run = Run::new(Until::Calls(1), None);
            run.taken.store(taken, Ordering::Relaxed);
            run.has_missed_many(missed)
        };
        assert!(!has_missed_many(0, 0) && has_missed_many(0, 1));
        assert!(!has_missed_many(990, 10) && has_missed_many(989, 11));
    }

    #[test]
    fn the_span_of_a_run_ends_as_planned_or_with_a_signal_or_with_the_last_success() {
        let of = |until, rate: Option<&str>, interrupted| {
            let run = Run::new(until, rate.map(|rate| rate.parse().expect("a rate")));
            let mut tally = Tally { succeeded_at: MS * 40, ..Tally::default() };
            tally.latencies.record(MS);
            run.span(&tally, MS * 45, interrupted)
        };
        assert_eq!(of(Until::Elapsed(MS * 30), None, false), MS * 30, "the last call ran on");
        assert_eq!(of(Until::Elapsed(MS * 60), Some("100"), true), MS * 45);
        assert_eq!(of(Until::Elapsed(MS * 30), None, true), MS * 30, "the last calls ran on");
        assert_eq!(of(Until::Calls(5), Some("100"), false), MS * 50);
        assert_eq!(of(Until::Calls(5), Some("1000"), false), MS * 5);
        assert_eq!(of(Until::Calls(5), None, false), MS * 40, "the rest failed");
        assert_eq!(of(Until::Calls(5), None, true), MS * 45);
        let failed = Run::new(Until::Calls(5), None).span(&Tally::default(), MS * 45, false);
        assert_eq!(failed, MS * 45);
    }

    #[test]
    fn calls_that_end_after_the_planned_end_are_late() {
        let is_late = |until, rate: Option<&str>| {
            let run = Run::new(until, rate.map(|rate| rate.parse().expect("a rate")));
            run.call_end(run.began).is_late
        };
        assert!(is_late(Until::Elapsed(Duration::ZERO), None));
        assert!(!is_late(Until::Elapsed(Duration::MAX), None));
        assert!(is_late(Until::Calls(0), Some("1")) && !is_late(Until::Calls(9_999), Some("1")));
        assert!(!is_late(Until::Calls(0), None));
    }
}
