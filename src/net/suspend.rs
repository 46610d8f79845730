//! Detects suspends: that this process was stopped, or suspended with its machine. Requests that
//! came meanwhile are read when it continues, and some have timed out by then. tokio's ticker may
//! run after them, so the start of each request compares the clock that continues in suspend with
//! the last tick. A request that may have lain unread during a gap loses the gap from its timeout.

use crate::limits::{SUSPEND_MIN, SUSPEND_READ_TICKS, SUSPEND_SETTLED_TICKS, SUSPEND_TICK};
use std::{
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Two clocks at one moment, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    /// The clock that continues in suspend.
    boot: u64,
    /// The clock of tokio and std, by which deadlines are kept.
    monotonic: u64,
}

impl Reading {
    fn now() -> Self {
        Self { boot: boot_now(), monotonic: monotonic_now() }
    }
}

fn monotonic_now() -> u64 {
    static BEGIN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    millis(BEGIN.elapsed())
}

/// CLOCK_BOOTTIME. From the vDSO, so it costs no more than any clock.
#[cfg(target_os = "linux")]
fn boot_now() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::Boottime);
    // Neither is ever negative.
    (time.tv_sec as u64).saturating_mul(1_000).saturating_add(time.tv_nsec as u64 / 1_000_000)
}

/// Elsewhere a stop is detected, and a suspend as far as std's clock continues in it.
#[cfg(not(target_os = "linux"))]
fn boot_now() -> u64 {
    monotonic_now()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A pause of the process between a tick and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pause {
    /// By the clock that continues in suspend.
    gap: u64,
    /// The part of it in which the clock of deadlines did not run.
    suspended: u64,
}

/// Returns the pause between a tick and now, if it is more than a late tick.
fn pause(tick: Reading, now: Reading) -> Option<Pause> {
    let gap = now.boot.saturating_sub(tick.boot);
    let suspended = gap.saturating_sub(now.monotonic.saturating_sub(tick.monotonic));
    (u128::from(gap) > SUSPEND_MIN.as_millis()).then_some(Pause { gap, suspended })
}

/// Returns the deadline of a request that lost this much time, if any is left.
fn deadline_after(deadline: Instant, lost: Duration, now: Instant) -> Option<Instant> {
    deadline.checked_sub(lost).filter(|deadline| now < *deadline)
}

/// Detects that this process was suspended or stopped, and counts its pauses in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Suspend {
    /// The last tick, by the clock that continues; 0 before the first.
    ticked: AtomicU64,
    /// All gaps together.
    paused: AtomicU64,
    /// The part of them in which the clock of deadlines did not run.
    suspended: AtomicU64,
    /// The gaps after which the ticker has ticked on time for [`SUSPEND_SETTLED_TICKS`].
    settled: AtomicU64,
    /// The last tick. Held to change any of the four above.
    last: Mutex<Tick>,
    /// Held by the ticker.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tick {
    /// By both clocks.
    at: Reading,
    /// Ticks of the ticker since the last pause.
    since_pause: u32,
}

impl Suspend {
    /// Starts to count. The time before is not a pause.
    fn begin(&self, now: Reading) {
        let mut tick = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *tick = Tick { at: now, since_pause: 0 };
        self.settled.store(self.paused.load(Ordering::Relaxed), Ordering::Release);
        self.ticked.store(now.boot, Ordering::Release);
    }

    /// Detects a new pause, at a tick of the ticker or between two of them.
    fn note_tick(&self, is_tickers: bool, now: impl FnOnce() -> Reading) -> Option<Pause> {
        let mut tick = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        let pause = pause(tick.at, now);
        tick.at = now;
        if let Some(pause) = pause {
            if tick.since_pause >= SUSPEND_READ_TICKS {
                self.settled.store(self.paused.load(Ordering::Relaxed), Ordering::Release);
            }
            self.suspended.fetch_add(pause.suspended, Ordering::Relaxed);
            self.paused.fetch_add(pause.gap, Ordering::Relaxed);
            tick.since_pause = 0;
        } else if is_tickers {
            tick.since_pause = tick.since_pause.saturating_add(1);
            if tick.since_pause >= SUSPEND_SETTLED_TICKS {
                self.settled.store(self.paused.load(Ordering::Relaxed), Ordering::Release);
            }
        }
        // Last: a reader that sees this tick sees the pause before it.
        self.ticked.store(now.boot, Ordering::Release);
        pause
    }

    /// Returns all pauses until now, in milliseconds. Usually reads one clock and writes nothing.
    pub(crate) fn paused(&self) -> u64 {
        let ticked = self.ticked.load(Ordering::Acquire);
        if ticked != 0 && u128::from(boot_now().saturating_sub(ticked)) > SUSPEND_MIN.as_millis() {
            self.note_tick(false, Reading::now).inspect(log_pause);
        }
        self.paused.load(Ordering::Relaxed)
    }

    /// Ticks as long as it is polled. One of several callers ticks; the others wait to take over.
    pub(crate) async fn tick(&self) {
        let _turn = self.turn.lock().await;
        self.begin(Reading::now());
        loop {
            tokio::time::sleep(SUSPEND_TICK).await;
            self.note_tick(true, Reading::now).inspect(log_pause);
        }
    }

    #[cfg(test)]
    pub(crate) fn add_pause(&self, gap: Duration) {
        self.paused.fetch_add(millis(gap), Ordering::Relaxed);
    }

    /// Returns the entry of a request that comes now, after the pauses that are `cleared`.
    pub(crate) fn entered_after(&self, cleared: u64) -> Entered {
        let owed = self.paused().saturating_sub(cleared);
        Entered { owed, suspended: self.suspended.load(Ordering::Relaxed) }
    }

    /// Returns the deadline of a request less its pauses; `None` if it has passed.
    pub(crate) fn deadline(&self, entered: Entered, deadline: Instant) -> Option<Instant> {
        let suspended = self.suspended.load(Ordering::Relaxed);
        let lost = entered.owed + suspended.saturating_sub(entered.suspended);
        deadline_after(deadline, Duration::from_millis(lost), Instant::now())
    }

    /// Returns true if the last pause is so long ago that requests that are read now came after it.
    pub(crate) fn is_settled(&self) -> bool {
        self.paused() == self.settled.load(Ordering::Acquire)
    }

    /// Returns the entry of a request that comes now and not over a link, so that no PONG can clear
    /// it. A request that is read within a second after a pause may have lain unread during it.
    #[cfg(feature = "gateway")]
    pub(crate) fn enter(&self) -> Entered {
        // The pauses first: one that settles in between is owed, and not missed.
        self.entered_after(self.settled.load(Ordering::Acquire))
    }

    /// Called last before such a request starts. Returns its deadline less the pauses; `None` if it
    /// has passed. After a pause it waits for a tick, in which the request is dropped if its client
    /// has hung up.
    #[cfg(feature = "gateway")]
    pub(crate) async fn pass(&self, entered: Entered, deadline: Instant) -> Option<Instant> {
        if !entered.is_owed() && self.is_settled() {
            return Some(deadline);
        }
        // Boxed: few calls meet a pause, so the others need not carry room for it.
        Box::pin(async {
            let by = self.deadline(entered, deadline)?;
            tokio::time::sleep_until(by.min(Instant::now() + SUSPEND_TICK)).await;
            self.deadline(entered, deadline)
        })
        .await
    }
}

fn log_pause(pause: &Pause) {
    tracing::warn!(
        duration_ms = pause.gap,
        "process was suspended for {:.1} s: calls whose deadline passed are not started",
        Duration::from_millis(pause.gap).as_secs_f64()
    );
}

/// The entry of a request, with the pauses that its deadline does not show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entered {
    /// Pauses in which it may have lain unread.
    owed: u64,
    /// The time until then in which the clock of deadlines did not run.
    suspended: u64,
}

impl Entered {
    /// Returns true if it may have lain unread through a pause.
    pub(crate) const fn is_owed(&self) -> bool {
        self.owed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(boot: u64, monotonic: u64) -> Reading {
        Reading { boot, monotonic }
    }

    #[test]
    fn a_late_tick_is_not_a_suspend_and_a_gap_over_half_a_second_is() {
        let tick = at(1_000, 70);
        for late in [0, 100, 500] {
            assert_eq!(pause(tick, at(1_000 + late, 70 + late)), None, "{late} ms");
        }
        let stopped = Pause { gap: 501, suspended: 0 };
        assert_eq!(pause(tick, at(1_501, 571)), Some(stopped));
    }

    #[test]
    fn deadlines_count_time_stopped_and_not_time_suspended_with_the_machine() {
        let tick = at(5_000, 5_000);
        assert_eq!(pause(tick, at(25_000, 25_000)), Some(Pause { gap: 20_000, suspended: 0 }));
        assert_eq!(pause(tick, at(25_000, 5_100)), Some(Pause { gap: 20_000, suspended: 19_900 }));
        // Clocks that seem to go backwards are not a pause.
        assert_eq!(pause(tick, at(4_000, 4_000)), None);
    }

    #[test]
    fn suspended_time_is_deducted_from_the_deadline_and_a_passed_deadline_is_refused() {
        let now = Instant::now() + Duration::from_secs(1_000);
        let lost = Duration::from_secs(3);
        let after = |seconds| deadline_after(now + Duration::from_secs(seconds), lost, now);
        assert_eq!(after(5), Some(now + Duration::from_secs(2)));
        assert_eq!((after(3), after(1)), (None, None));
    }

    #[test]
    fn totals_add_up_and_each_suspend_is_reported_once() {
        let suspend = Suspend::default();
        suspend.begin(at(100_000, 0));
        assert_eq!(suspend.note_tick(true, || at(100_100, 100)), None);
        assert_eq!(
            suspend.note_tick(true, || at(103_100, 200)),
            Some(Pause { gap: 3_000, suspended: 2_900 })
        );
        assert_eq!(suspend.note_tick(true, || at(103_200, 300)), None);
        assert_eq!(
            suspend.note_tick(true, || at(104_200, 1_300)),
            Some(Pause { gap: 1_000, suspended: 0 })
        );
        let sums = (&suspend.paused, &suspend.suspended);
        assert_eq!(
            (sums.0.load(Ordering::Relaxed), sums.1.load(Ordering::Relaxed)),
            (4_000, 2_900)
        );
    }

    #[test]
    fn a_pause_is_settled_after_a_second_of_ticks_on_time_and_not_before() {
        let suspend = Suspend::default();
        let settled = || suspend.settled.load(Ordering::Relaxed);
        suspend.begin(at(100_000, 100_000));
        let mut now = 100_000;
        let mut after = |ms: u64, is_tickers: bool| {
            now += ms;
            suspend.note_tick(is_tickers, || at(now, now));
        };
        after(3_000, false);
        (1..SUSPEND_SETTLED_TICKS).for_each(|_| after(100, true));
        // Looks between two ticks do not count.
        (0..100).for_each(|_| after(0, false));
        assert_eq!(settled(), 0);
        after(100, true);
        assert_eq!(settled(), 3_000);
        // Another pause in between starts over, and ticks that are late count as one each.
        after(1_000, true);
        (1..SUSPEND_READ_TICKS).for_each(|_| after(400, true));
        after(600, true);
        assert_eq!(settled(), 3_000);
        (1..SUSPEND_SETTLED_TICKS).for_each(|_| after(400, true));
        assert_eq!(settled(), 3_000);
        after(100, true);
        assert_eq!(settled(), 4_600);
        // Time before the ticker started is not a pause.
        suspend.begin(at(now + 60_000, now + 60_000));
        assert_eq!((settled(), suspend.paused.load(Ordering::Relaxed)), (4_600, 4_600));
    }

    #[test]
    fn repeated_suspends_do_not_add_up() {
        let suspend = Suspend::default();
        suspend.begin(at(100_000, 100_000));
        let mut now = 100_000;
        let mut after = |ms: u64| {
            now += ms;
            suspend.note_tick(true, || at(now, now));
        };
        for _ in 0..50 {
            (0..SUSPEND_READ_TICKS).for_each(|_| after(100));
            after(600);
        }
        let owed = suspend.paused.load(Ordering::Relaxed) - suspend.settled.load(Ordering::Relaxed);
        assert_eq!(owed, 600);
    }

    #[test]
    fn a_request_loses_only_the_time_that_it_may_have_been_unread() {
        let deadline = Instant::now() + Duration::from_secs(10);
        let fresh = Entered { owed: 0, suspended: 0 };
        let suspend = Suspend::default();
        assert_eq!(suspend.deadline(fresh, deadline), Some(deadline));
        let stale = Entered { owed: 3_000, suspended: 0 };
        assert_eq!(suspend.deadline(stale, deadline), Some(deadline - Duration::from_secs(3)));
        assert_eq!(suspend.deadline(Entered { owed: 10_001, suspended: 0 }, deadline), None);
        assert!(stale.is_owed() && !fresh.is_owed());
    }

    #[test]
    fn a_start_right_after_a_pause_notices_it_before_any_ticker_does() {
        let suspend = Suspend::default();
        // Before the first tick nothing is a pause.
        assert_eq!(suspend.paused(), 0);
        let mut long_ago = Reading::now();
        long_ago.boot = long_ago.boot.saturating_sub(5_000).max(1);
        suspend.begin(long_ago);
        let noticed = suspend.paused();
        assert!(noticed > 0);
        assert_eq!(suspend.paused(), noticed);
    }
}
