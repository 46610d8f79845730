//! Instances of one agent that were superseded and come back: how often they may, before their certificate is in use twice.

use crate::limits::{HELD_BACK, INSTANCES_REMEMBERED_MAX, RETURNS_MAX, RETURNS_WITHIN};
use std::collections::VecDeque;
use tokio::time::Instant;

type Instance = [u8; 16];

/// Who was superseded, and when somebody came back. Nothing is kept of an agent that has always been one instance.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Who was superseded, the oldest first.
    superseded: VecDeque<Superseded>,
    /// The last returns, the oldest first; one more than are allowed at most.
    returns: VecDeque<Instant>,
    /// When a held back instance last tried.
    tried_at: Option<Instant>,
}

#[derive(Debug)]
struct Superseded {
    instance: Instance,
    held_back_at: Option<Instant>,
}

/// Whether an instance may take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Welcome,
    /// It was superseded, and has come back too often.
    HeldBack {
        /// Whether it is held back from now on, and was not before.
        is_first: bool,
    },
}

impl Past {
    /// Judges an instance that has no link and registers one; `has_rival` when another one is attached. Where there is none, nobody is held
    /// back. Whoever is welcome has to be superseded again before it can return again.
    pub(super) fn judge(&mut self, instance: Instance, has_rival: bool, now: Instant) -> Verdict {
        let Some(place) = self.superseded.iter().position(|past| past.instance == instance) else {
            return Verdict::Welcome;
        };
        let was_held_back =
            self.superseded[place].held_back_at.is_some_and(|at| is_within(at, now));
        let is_too_often = was_held_back || self.returns_too_often(now);
        if is_too_often {
            self.tried_at = Some(now);
        }
        if is_too_often && has_rival {
            self.superseded[place].held_back_at = Some(now);
            return Verdict::HeldBack { is_first: !was_held_back };
        }
        self.superseded.remove(place);
        Verdict::Welcome
    }

    /// Counts a return: whether it is one too many.
    fn returns_too_often(&mut self, now: Instant) -> bool {
        self.returns.retain(|at| now.saturating_duration_since(*at) <= RETURNS_WITHIN);
        self.returns.push_back(now);
        let is_too_often = self.returns.len() > RETURNS_MAX;
        if is_too_often {
            self.returns.pop_front();
        }
        is_too_often
    }

    /// An instance was superseded.
    pub(super) fn supersede(&mut self, instance: Instance) {
        if self.superseded.iter().any(|past| past.instance == instance) {
            return;
        }
        if self.superseded.len() >= INSTANCES_REMEMBERED_MAX {
            self.superseded.pop_front();
        }
        self.superseded.push_back(Superseded { instance, held_back_at: None });
    }

    /// Whether the certificate is in use twice, by what was seen lately.
    pub(super) fn is_used_twice(&self, now: Instant) -> bool {
        self.tried_at.is_some_and(|at| is_within(at, now))
    }
}

fn is_within(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) <= HELD_BACK
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: Instance = [1; 16];
    const SECOND: Duration = Duration::from_secs(1);
    const HELD: Verdict = Verdict::HeldBack { is_first: false };
    const HELD_FROM_NOW: Verdict = Verdict::HeldBack { is_first: true };

    /// A is superseded and comes back.
    fn comes_back(past: &mut Past, now: Instant) -> Verdict {
        past.supersede(A);
        past.judge(A, true, now)
    }

    /// A is held back since the moment that is given.
    fn held_back() -> (Past, Instant) {
        let (mut past, start) = (Past::default(), Instant::now());
        for _ in 0..RETURNS_MAX {
            assert_eq!(comes_back(&mut past, start), Verdict::Welcome);
        }
        assert!(!past.is_used_twice(start));
        assert_eq!(comes_back(&mut past, start), HELD_FROM_NOW);
        (past, start)
    }

    #[test]
    fn the_last_allowed_return_is_welcome_and_one_more_is_not_until_the_minute_is_over() {
        let (mut past, start) = (Past::default(), Instant::now());
        for n in 0..RETURNS_MAX as u32 {
            assert_eq!(comes_back(&mut past, start + n * SECOND), Verdict::Welcome);
        }
        // A moment after the minute of the first one it is no longer counted, within it is.
        let over = start + RETURNS_WITHIN + Duration::from_millis(1);
        assert_eq!(comes_back(&mut past, over), Verdict::Welcome);
        assert_eq!(comes_back(&mut past, over), HELD_FROM_NOW);
    }

    #[test]
    fn whoever_was_not_superseded_since_may_lose_its_link_and_come_back_as_often_as_it_likes() {
        let (mut past, start) = (Past::default(), Instant::now());
        assert_eq!(comes_back(&mut past, start), Verdict::Welcome);
        for _ in 0..100 {
            assert_eq!(past.judge(A, false, start), Verdict::Welcome);
        }
        assert!(!past.is_used_twice(start));
    }

    #[test]
    fn a_held_back_instance_is_welcome_once_it_has_not_tried_for_long_enough() {
        let (mut past, start) = held_back();
        let tried = start + HELD_BACK;
        assert_eq!(past.judge(A, true, tried), HELD, "at the end of the time");
        assert!(past.is_used_twice(tried + HELD_BACK), "each attempt shows that it is still there");
        let late = tried + HELD_BACK + Duration::from_millis(1);
        assert!(!past.is_used_twice(late));
        assert_eq!(past.judge(A, true, late), Verdict::Welcome, "a moment after it");
    }

    #[test]
    fn nobody_is_held_back_where_nobody_else_is_attached_but_the_fault_is_shown() {
        let (mut past, start) = held_back();
        assert_eq!(past.judge(A, false, start + SECOND), Verdict::Welcome);
        assert!(past.is_used_twice(start + SECOND));
        assert_eq!(comes_back(&mut past, start + SECOND), HELD_FROM_NOW, "with a rival again");
    }

    #[test]
    fn so_many_instances_are_remembered_and_the_oldest_is_then_as_good_as_new() {
        let (mut past, start) = held_back();
        let others = |count: usize| (0..count).map(|n| [100 + n as u8; 16]);
        others(INSTANCES_REMEMBERED_MAX - 1).for_each(|other| past.supersede(other));
        assert_eq!(past.judge(A, true, start), HELD, "the last place");
        past.supersede([99; 16]);
        assert_eq!(past.judge(A, true, start), Verdict::Welcome, "one past it");
        assert_eq!(past.superseded.len(), INSTANCES_REMEMBERED_MAX);
    }

    #[test]
    fn returns_are_counted_in_bounded_memory() {
        let (mut past, start) = held_back();
        for _ in 0..1_000 {
            past.supersede(A);
            past.judge(A, false, start);
        }
        assert_eq!((past.returns.len(), past.superseded.len()), (RETURNS_MAX, 0));
    }
}
