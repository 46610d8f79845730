//! No request starts that came to its end while this process stood still: stopped by a signal, or asleep with its machine.
//!
//! Right after a pause the task that takes calls may run before anything else, on datagrams that lay in the socket all the while, and by
//! tokio's clock, which stands still in suspend, nothing is late. So each start compares the clock that goes on with the last tick of a
//! ticker. After a gap the link is asked for a PONG, behind which all has come that the peer had to say, as that it gave a call up; and what
//! came before it loses the gap from its time.

use crate::{
    limits::{PAUSE_MIN, PAUSE_TICK},
    link::Link,
    status::{Code, Status},
};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Two clocks at one moment, in milliseconds since any.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    /// Goes on in suspend.
    boot: u64,
    /// tokio's and std's, by which deadlines are kept.
    monotonic: u64,
}

impl Reading {
    fn now() -> Self {
        static BEGIN: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        Self { boot: boot_now(), monotonic: millis(BEGIN.elapsed()) }
    }
}

/// CLOCK_BOOTTIME. From the vDSO, so it costs no more than any clock.
#[cfg(target_os = "linux")]
fn boot_now() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::Boottime);
    // Neither is ever negative.
    (time.tv_sec as u64).saturating_mul(1_000).saturating_add(time.tv_nsec as u64 / 1_000_000)
}

/// Elsewhere a stop is noticed, and sleep as far as std's clock goes on in it.
#[cfg(not(target_os = "linux"))]
fn boot_now() -> u64 {
    static BEGIN: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    millis(BEGIN.elapsed())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long the process stood still between a tick and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pause {
    /// By the clock on the wall.
    gap: u64,
    /// The part of it in which deadlines stood still as well.
    suspended: u64,
}

/// Whether the time from a tick until now is a pause, and not only a late tick.
fn pause(tick: Reading, now: Reading) -> Option<Pause> {
    let gap = now.boot.saturating_sub(tick.boot);
    let suspended = gap.saturating_sub(now.monotonic.saturating_sub(tick.monotonic));
    (u128::from(gap) > PAUSE_MIN.as_millis()).then_some(Pause { gap, suspended })
}

/// The deadline of a request that lost so much time, if there is anything left of it.
fn deadline_after(deadline: Instant, lost: Duration, now: Instant) -> Option<Instant> {
    deadline.checked_sub(lost).filter(|deadline| now < *deadline)
}

/// What the process knows of its pauses, in milliseconds.
struct Pauses {
    /// The last tick by the clock that goes on; 0 before the first.
    ticked: AtomicU64,
    /// All gaps together.
    paused: AtomicU64,
    /// Of that, what deadlines stood still.
    suspended: AtomicU64,
    /// The last tick by both clocks. Whoever changes the three above holds it.
    tick: Mutex<Reading>,
}

static PAUSES: Pauses = Pauses::new();

impl Pauses {
    const fn new() -> Self {
        Self {
            ticked: AtomicU64::new(0),
            paused: AtomicU64::new(0),
            suspended: AtomicU64::new(0),
            tick: Mutex::new(Reading { boot: 0, monotonic: 0 }),
        }
    }

    /// Begins to count: what was before is no pause.
    fn begin(&self, now: Reading) {
        *self.tick.lock().unwrap_or_else(PoisonError::into_inner) = now;
        self.ticked.store(now.boot, Ordering::Release);
    }

    /// A tick: notices a pause that nobody has noticed yet.
    fn tick(&self, now: impl FnOnce() -> Reading) -> Option<Pause> {
        let mut tick = self.tick.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        let pause = pause(*tick, now);
        if let Some(pause) = pause {
            self.suspended.fetch_add(pause.suspended, Ordering::Relaxed);
            self.paused.fetch_add(pause.gap, Ordering::Relaxed);
        }
        *tick = now;
        // Last: whoever sees this tick sees the pause before it.
        self.ticked.store(now.boot, Ordering::Release);
        pause
    }

    /// All gaps together, with one that ends now. On the usual way one clock is read and nothing written.
    fn until_now(&self) -> u64 {
        let ticked = self.ticked.load(Ordering::Acquire);
        if ticked != 0 && u128::from(boot_now().saturating_sub(ticked)) > PAUSE_MIN.as_millis() {
            self.tick(Reading::now).inspect(say);
        }
        self.paused.load(Ordering::Relaxed)
    }
}

fn say(pause: &Pause) {
    tracing::warn!(
        "this process stood still for {:.1} s; calls whose time passed meanwhile are not started",
        Duration::from_millis(pause.gap).as_secs_f64()
    );
}

/// Ticks for the whole process as long as it is polled. Of several one ticks, and the others wait to take its place.
pub(crate) async fn tick() {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = TURN.lock().await;
    PAUSES.begin(Reading::now());
    loop {
        tokio::time::sleep(PAUSE_TICK).await;
        PAUSES.tick(Reading::now).inspect(say);
    }
}

/// Guards the starts of what comes over one link.
pub(crate) struct Fence {
    link: Link,
    /// The pauses before the last PONG that was waited for.
    cleared: AtomicU64,
    /// Held while waiting for a PONG; those who come meanwhile have it too.
    turn: tokio::sync::Mutex<()>,
    /// Told when a request has met a pause that no PONG was waited for.
    is_owed: Notify,
}

/// A request when it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entered {
    /// Pauses in which it may have lain unread.
    owed: u64,
    /// What deadlines stood still until then.
    suspended: u64,
}

impl Fence {
    /// Pauses before now do not concern a new link.
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            cleared: AtomicU64::new(PAUSES.until_now()),
            turn: tokio::sync::Mutex::default(),
            is_owed: Notify::new(),
        }
    }

    /// Waits for the PONGs that requests are owed, until the link ends. A request whose own time does not suffice for that is refused, and
    /// without this so would be all that come after it, for ever, if none has more time than the pause took.
    pub(crate) async fn mind(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.link.closed() => return,
                () = self.is_owed.notified() => {}
            }
            // It fails with the link, and then that is over.
            if self.clear(PAUSES.until_now()).await.is_err() {
                return;
            }
        }
    }

    /// Notes a request. To be called as soon as there is one.
    pub(crate) fn enter(&self) -> Entered {
        let paused = PAUSES.until_now();
        Entered {
            owed: paused.saturating_sub(self.cleared.load(Ordering::Acquire)),
            suspended: PAUSES.suspended.load(Ordering::Relaxed),
        }
    }

    /// The last thing before its handler starts. Gives the deadline that the request really has.
    ///
    /// # Errors
    /// It has passed, or the link is lost: not executed.
    pub(crate) async fn pass(
        &self,
        entered: Entered,
        deadline: Instant,
    ) -> Result<Instant, Status> {
        let paused = PAUSES.until_now();
        if entered.owed == 0 && paused == self.cleared.load(Ordering::Acquire) {
            return Ok(deadline);
        }
        // Boxed: hardly a call meets a pause, and none need carry room for it.
        Box::pin(self.pass_after(paused, entered, deadline)).await
    }

    async fn pass_after(
        &self,
        paused: u64,
        entered: Entered,
        deadline: Instant,
    ) -> Result<Instant, Status> {
        self.is_owed.notify_one();
        let suspended = PAUSES.suspended.load(Ordering::Relaxed);
        let lost = entered.owed + suspended.saturating_sub(entered.suspended);
        let too_late = || {
            let text = "the deadline passed while the agent stood still";
            Status::not_executed(Code::DeadlineExceeded, text)
        };
        let left = |now| deadline_after(deadline, Duration::from_millis(lost), now);
        let deadline = left(Instant::now()).ok_or_else(too_late)?;
        match tokio::time::timeout_at(deadline, self.clear(paused)).await {
            Ok(Ok(())) => left(Instant::now()).ok_or_else(too_late),
            Ok(Err(status)) => Err(status),
            Err(_elapsed) => Err(too_late()),
        }
    }

    /// Waits for a PONG to a PING that was sent after these pauses, unless one has come.
    async fn clear(&self, paused: u64) -> Result<(), Status> {
        let _turn = self.turn.lock().await;
        if self.cleared.load(Ordering::Acquire) >= paused {
            return Ok(());
        }
        self.link
            .ping()
            .await
            .map_err(|fault| Status::not_executed(Code::Unavailable, fault.to_string()))?;
        // The PONG may be read before the tasks of streams that came ahead of it have run: they are given a moment.
        tokio::time::sleep(PAUSE_TICK).await;
        self.cleared.store(paused, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(boot: u64, monotonic: u64) -> Reading {
        Reading { boot, monotonic }
    }

    #[test]
    fn a_late_tick_is_no_pause_and_a_gap_over_half_a_second_is() {
        let tick = at(1_000, 70);
        for late in [0, 100, 500] {
            assert_eq!(pause(tick, at(1_000 + late, 70 + late)), None, "{late} ms");
        }
        let stopped = Pause { gap: 501, suspended: 0 };
        assert_eq!(pause(tick, at(1_501, 571)), Some(stopped));
    }

    #[test]
    fn a_stop_goes_on_for_deadlines_and_a_suspended_machine_does_not() {
        let tick = at(5_000, 5_000);
        assert_eq!(pause(tick, at(25_000, 25_000)), Some(Pause { gap: 20_000, suspended: 0 }));
        assert_eq!(pause(tick, at(25_000, 5_100)), Some(Pause { gap: 20_000, suspended: 19_900 }));
        // Clocks that seem to go backwards are no pause.
        assert_eq!(pause(tick, at(4_000, 4_000)), None);
    }

    #[test]
    fn what_was_lost_comes_off_the_deadline_and_what_is_past_it_is_refused() {
        let now = Instant::now() + Duration::from_secs(1_000);
        let lost = Duration::from_secs(3);
        let after = |seconds| deadline_after(now + Duration::from_secs(seconds), lost, now);
        assert_eq!(after(5), Some(now + Duration::from_secs(2)));
        assert_eq!((after(3), after(1)), (None, None));
    }

    #[test]
    fn pauses_add_up_and_are_noticed_once() {
        let pauses = Pauses::new();
        pauses.begin(at(100_000, 0));
        assert_eq!(pauses.tick(|| at(100_100, 100)), None);
        assert_eq!(pauses.tick(|| at(103_100, 200)), Some(Pause { gap: 3_000, suspended: 2_900 }));
        assert_eq!(pauses.tick(|| at(103_200, 300)), None);
        assert_eq!(pauses.tick(|| at(104_200, 1_300)), Some(Pause { gap: 1_000, suspended: 0 }));
        let sums = (&pauses.paused, &pauses.suspended);
        assert_eq!(
            (sums.0.load(Ordering::Relaxed), sums.1.load(Ordering::Relaxed)),
            (4_000, 2_900)
        );
    }

    #[test]
    fn a_start_right_after_a_pause_notices_it_before_any_ticker_does() {
        let pauses = Pauses::new();
        // Before the first tick nothing is a pause.
        assert_eq!(pauses.until_now(), 0);
        let mut long_ago = Reading::now();
        long_ago.boot = long_ago.boot.saturating_sub(5_000).max(1);
        pauses.begin(long_ago);
        let noticed = pauses.until_now();
        assert!(noticed > 0);
        assert_eq!(pauses.until_now(), noticed);
    }
}
