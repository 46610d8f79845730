//! Pool of idle connections to one upstream: a few, for a short time.

use super::{connection::UpstreamConnection, reuse::Habit};
use crate::{
    drain::Tasks,
    limits::{FORWARD_IDLE_CONNECTIONS_MAX, FORWARD_IDLE_MAX},
};
use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::time::Instant;

/// Idle connections, most recently used last, and the tasks of all connections.
pub(in crate::agent::forward) struct Pool {
    idle: Mutex<IdleConnections<UpstreamConnection>>,
    tasks: Tasks,
    keep_alive: bool,
}

impl Pool {
    pub(in crate::agent::forward) fn new(tasks: Tasks, keep_alive: bool) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), tasks, keep_alive })
    }

    pub(in crate::agent::forward) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Takes a connection that can send a request now. While the upstream's behaviour is unknown,
    /// it waits until the connection has been idle for up to 100 ms, unless the deadline is nearer.
    /// Returns the start of its idle time with it.
    pub(in crate::agent::forward) async fn take(
        &self,
        deadline: Instant,
    ) -> Option<(UpstreamConnection, Instant)> {
        loop {
            let (IdleConnection { one: mut connection, since, .. }, ready_at) =
                self.idle().take(Instant::now())?;
            if deadline <= ready_at {
                return None;
            }
            let ended = connection.ended_by(ready_at).await;
            let (mut idle, now) = (self.idle(), Instant::now());
            if let Some(at) = ended {
                let idle_for = at.saturating_duration_since(since);
                idle.habit.was_closed(connection.answers(), idle_for, now);
                continue;
            }
            idle.habit.was_open(now.saturating_duration_since(since));
            if connection.is_ready() && idle.habit.allows(connection.answers(), now) {
                return Some((connection, since));
            }
        }
    }

    /// Notes that a connection was found closed, after this number of replies and this idle time.
    pub(in crate::agent::forward) fn was_closed(&self, answers: u32, idle_for: Duration) {
        self.idle().habit.was_closed(answers, idle_for, Instant::now());
    }

    pub(in crate::agent::forward) fn keep(self: &Arc<Self>, connection: UpstreamConnection) {
        let now = Instant::now();
        let Some(until) = connection.usable_until(now).filter(|_| self.keep_alive) else { return };
        let mut idle = self.idle();
        if idle.habit.allows(connection.answers(), now)
            && idle.keep(IdleConnection { one: connection, since: now, until })
        {
            self.tasks.spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, IdleConnections<UpstreamConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes expired idle connections, until none is left or the pool is dropped.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(FORWARD_IDLE_MAX).await;
        let Some(pool) = pool.upgrade() else { return };
        if pool.idle().sweep(Instant::now()) {
            return;
        }
    }
}

struct IdleConnection<T> {
    one: T,
    since: Instant,
    /// Time after which it is not used.
    until: Instant,
}

/// Idle connections, whether a sweep is running, and the behaviour of the upstream.
struct IdleConnections<T> {
    waiting: Vec<IdleConnection<T>>,
    is_swept: bool,
    habit: Habit,
}

impl<T> Default for IdleConnections<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), is_swept: false, habit: Habit::default() }
    }
}

impl<T> IdleConnections<T> {
    /// Takes the most recently used connection that has not expired, and the time from which it may
    /// be used; drops expired ones.
    fn take(&mut self, now: Instant) -> Option<(IdleConnection<T>, Instant)> {
        while let Some(waiting) = self.waiting.pop() {
            let ready_at = self.habit.ready_at(waiting.since);
            if now.max(ready_at) < waiting.until {
                return Some((waiting, ready_at));
            }
        }
        None
    }

    /// Adds a connection, if there is room. Returns whether a sweep has to be started.
    fn keep(&mut self, waiting: IdleConnection<T>) -> bool {
        if self.waiting.len() < FORWARD_IDLE_CONNECTIONS_MAX {
            self.waiting.push(waiting);
        }
        !std::mem::replace(&mut self.is_swept, true)
    }

    /// Drops expired connections. Returns whether none is left.
    fn sweep(&mut self, now: Instant) -> bool {
        self.waiting.retain(|waiting| now < waiting.until);
        self.is_swept = !self.waiting.is_empty();
        !self.is_swept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FORWARD_REST;

    fn waiting(one: usize, since: Instant) -> IdleConnection<usize> {
        IdleConnection { one, since, until: since + FORWARD_IDLE_MAX }
    }

    fn filled(count: usize, since: Instant) -> IdleConnections<usize> {
        let mut idle = IdleConnections::default();
        for one in 1..=count {
            idle.keep(waiting(one, since));
        }
        idle
    }

    #[test]
    fn the_last_used_connection_is_taken_and_expired_ones_are_dropped() {
        let now = Instant::now();
        let mut idle = filled(3, now);
        idle.keep(IdleConnection { one: 4, since: now, until: now + FORWARD_REST * 2 });
        let later = now + FORWARD_IDLE_MAX - Duration::from_millis(1);
        assert_eq!(idle.take(later).map(|(taken, _)| taken.one), Some(3), "4 is too old");
        assert_eq!(idle.waiting.len(), 2);
        assert!(idle.take(now + FORWARD_IDLE_MAX).is_none());
        assert!(idle.waiting.is_empty());
    }

    #[test]
    fn connection_rests_until_its_upstream_is_known_to_keep_connections() {
        let now = Instant::now();
        let mut idle = filled(2, now);
        assert_eq!(idle.take(now).map(|(_, ready_at)| ready_at), Some(now + FORWARD_REST));
        idle.habit.was_open(FORWARD_REST);
        assert_eq!(idle.take(now).map(|(_, ready_at)| ready_at), Some(now));
    }

    #[test]
    fn idle_connections_are_limited() {
        let now = Instant::now();
        let mut idle = filled(FORWARD_IDLE_CONNECTIONS_MAX, now);
        assert_eq!(idle.waiting.len(), FORWARD_IDLE_CONNECTIONS_MAX);
        idle.keep(waiting(0, now));
        assert_eq!(idle.waiting.len(), FORWARD_IDLE_CONNECTIONS_MAX);
    }

    #[test]
    fn one_sweep_runs_until_the_pool_is_empty_and_the_next_connection_starts_another() {
        let (mut idle, now) = (IdleConnections::default(), Instant::now());
        assert!(idle.keep(waiting(1, now)), "nobody sweeps yet");
        assert!(!idle.keep(waiting(2, now + FORWARD_REST)), "somebody does");
        assert!(!idle.sweep(now + FORWARD_IDLE_MAX), "the second is young");
        assert_eq!(idle.waiting.len(), 1);
        assert!(idle.sweep(now + 2 * FORWARD_IDLE_MAX));
        assert!(idle.keep(waiting(3, now + 2 * FORWARD_IDLE_MAX)));
    }
}
