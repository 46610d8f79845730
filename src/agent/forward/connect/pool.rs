//! Connections to one upstream that wait for their next call: a few, for a short time.

use super::line::Line;
use crate::{
    drain::Tasks,
    limits::{FORWARD_IDLE_CONNECTIONS_MAX, FORWARD_IDLE_MAX},
};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::time::Instant;

/// The idle ones, those used last at the end, and the tasks of all.
pub(super) struct Pool {
    idle: Mutex<Idle<Line>>,
    tasks: Tasks,
}

impl Pool {
    pub(super) fn new(tasks: Tasks) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), tasks })
    }

    /// Where connections run.
    pub(super) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// One that can carry a request now.
    pub(super) fn take(&self) -> Option<Line> {
        self.idle().take(Instant::now(), Line::is_ready)
    }

    /// Keeps one whose exchange is over for the next call.
    pub(super) fn keep(self: &Arc<Self>, line: Line) {
        if self.idle().keep(line, Instant::now()) {
            self.tasks.spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle<Line>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what nobody has used, until there is nothing left or the pool is gone.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(FORWARD_IDLE_MAX).await;
        let Some(pool) = pool.upgrade() else { return };
        if pool.idle().sweep(Instant::now()) {
            return;
        }
    }
}

/// What waits, since when, and whether somebody sweeps.
struct Idle<T> {
    waiting: Vec<(T, Instant)>,
    is_swept: bool,
}

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), is_swept: false }
    }
}

impl<T> Idle<T> {
    /// The one used last of those that are fit; what is not, or is too old, is dropped on the way.
    fn take(&mut self, now: Instant, is_fit: impl Fn(&T) -> bool) -> Option<T> {
        while let Some((one, since)) = self.waiting.pop() {
            if now.saturating_duration_since(since) >= FORWARD_IDLE_MAX {
                // Those before it wait for even longer.
                self.waiting.clear();
                return None;
            }
            if is_fit(&one) {
                return Some(one);
            }
        }
        None
    }

    /// Keeps one, if there is room. Says whether somebody is to begin sweeping.
    fn keep(&mut self, one: T, now: Instant) -> bool {
        if self.waiting.len() < FORWARD_IDLE_CONNECTIONS_MAX {
            self.waiting.push((one, now));
        }
        !std::mem::replace(&mut self.is_swept, true)
    }

    /// Drops what is too old. Says whether nothing is left to sweep.
    fn sweep(&mut self, now: Instant) -> bool {
        self.waiting.retain(|(_, since)| now.saturating_duration_since(*since) < FORWARD_IDLE_MAX);
        self.is_swept = !self.waiting.is_empty();
        !self.is_swept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ALMOST: Duration = FORWARD_IDLE_MAX.saturating_sub(Duration::from_millis(1));

    #[test]
    fn the_one_used_last_is_taken_and_what_is_unfit_or_too_old_is_dropped() {
        let (mut idle, now) = (Idle::default(), Instant::now());
        (1..=4).for_each(|n| {
            idle.keep(n, now);
        });
        assert_eq!(idle.take(now + ALMOST, |n| *n != 4), Some(3), "4 is not fit");
        assert_eq!(idle.waiting.len(), 2);
        assert_eq!(idle.take(now + FORWARD_IDLE_MAX, |_| true), None);
        assert!(idle.waiting.is_empty());
    }

    #[test]
    fn as_many_wait_as_there_is_room_for_and_not_one_more() {
        let (mut idle, now) = (Idle::default(), Instant::now());
        (0..FORWARD_IDLE_CONNECTIONS_MAX).for_each(|n| {
            idle.keep(n, now);
        });
        assert_eq!(idle.waiting.len(), FORWARD_IDLE_CONNECTIONS_MAX);
        idle.keep(usize::MAX, now);
        assert_eq!(idle.waiting.len(), FORWARD_IDLE_CONNECTIONS_MAX);
    }

    #[test]
    fn one_sweeps_until_nothing_is_left_and_the_next_that_waits_begins_anew() {
        let (mut idle, now) = (Idle::default(), Instant::now());
        assert!(idle.keep(1, now), "nobody sweeps yet");
        assert!(!idle.keep(2, now + ALMOST), "somebody does");
        assert!(!idle.sweep(now + FORWARD_IDLE_MAX), "the second is young");
        assert_eq!(idle.waiting.len(), 1);
        assert!(idle.sweep(now + 2 * FORWARD_IDLE_MAX));
        assert!(idle.keep(3, now + 2 * FORWARD_IDLE_MAX));
    }
}
