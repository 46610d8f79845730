//! Instances of one agent that were superseded and come back: how often they may, before their
//! certificate is in use twice.

use crate::limits::{
    HELD_BACK_FOR, INSTANCES_REMEMBERED_MAX, NEWCOMERS_MIN, RETURNS_MAX, RETURNS_SUSPICIOUS,
    RETURNS_WITHIN,
};
use std::collections::VecDeque;
use tokio::time::Instant;

type Instance = [u8; 16];

/// Who was superseded, and when somebody came back. Nothing is kept of an agent that has always
/// been one instance.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Who was superseded, the oldest first.
    superseded: VecDeque<Superseded>,
    /// The last returns, the oldest first; one more than are allowed at most.
    returns: VecDeque<(Instance, Instant)>,
    /// When instances registered that were never seen before: the last ones, the oldest first.
    newcomers: VecDeque<Instant>,
    /// The instance that stays while new ones are held back, and when one last tried.
    stays: Option<(Instance, Instant)>,
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
    /// Judges an instance that has no link and registers one; `rival` is another one that is
    /// attached. Where there is none, nobody is held back. Whoever is welcome has to be superseded
    /// again before it can return again.
    pub(super) fn judge(
        &mut self,
        instance: Instance,
        rival: Option<Instance>,
        now: Instant,
    ) -> Verdict {
        let Some(place) = self.superseded.iter().position(|past| past.instance == instance) else {
            return self.judge_newcomer(rival, now);
        };
        let was_held_back =
            self.superseded[place].held_back_at.is_some_and(|at| is_within(at, now));
        let is_too_often = self.returns_too_often(instance, now) || was_held_back;
        if is_too_often {
            self.tried_at = Some(now);
        }
        // While new instances keep arriving it is they who are held back, and not the one that
        // stays.
        if is_too_often && rival.is_some() && !self.newcomers_keep_arriving(now) {
            self.superseded[place].held_back_at = Some(now);
            return Verdict::HeldBack { is_first: !was_held_back };
        }
        self.superseded.remove(place);
        Verdict::Welcome
    }

    /// Judges an instance that was never seen before. It takes over, unless the one that is
    /// attached was superseded and came back while other new ones arrived: then a process with the
    /// same certificate is started anew again and again.
    fn judge_newcomer(&mut self, rival: Option<Instance>, now: Instant) -> Verdict {
        if self.newcomers.len() >= NEWCOMERS_MIN {
            self.newcomers.pop_front();
        }
        self.newcomers.push_back(now);
        let Some(rival) = rival else { return Verdict::Welcome };
        let stays = |(who, at): &(Instance, Instant)| *who == rival && is_within(*at, now);
        let was_held_back = self.stays.as_ref().is_some_and(stays);
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= RETURNS_WITHIN;
        let returns = self.returns.iter().filter(|(who, at)| *who == rival && is_recent(*at));
        let is_returning = returns.count() >= RETURNS_SUSPICIOUS;
        let is_in_a_series = is_returning && self.newcomers_keep_arriving(now);
        if !(was_held_back || is_in_a_series) {
            return Verdict::Welcome;
        }
        self.tried_at = Some(now);
        self.stays = Some((rival, now));
        Verdict::HeldBack { is_first: !was_held_back }
    }

    fn newcomers_keep_arriving(&self, now: Instant) -> bool {
        self.newcomers.len() >= NEWCOMERS_MIN
            && self
                .newcomers
                .front()
                .is_some_and(|at| now.saturating_duration_since(*at) <= RETURNS_WITHIN)
    }

    /// Counts a return: whether it is one too many.
    fn returns_too_often(&mut self, instance: Instance, now: Instant) -> bool {
        self.returns.retain(|(_, at)| now.saturating_duration_since(*at) <= RETURNS_WITHIN);
        self.returns.push_back((instance, now));
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
    now.saturating_duration_since(at) <= HELD_BACK_FOR
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: Instance = [1; 16];
    const RIVAL: Instance = [2; 16];
    const SECOND: Duration = Duration::from_secs(1);
    const HELD: Verdict = Verdict::HeldBack { is_first: false };
    const HELD_FROM_NOW: Verdict = Verdict::HeldBack { is_first: true };

    /// A is superseded and comes back.
    fn comes_back(past: &mut Past, now: Instant) -> Verdict {
        past.supersede(A);
        past.judge(A, Some(RIVAL), now)
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
            assert_eq!(past.judge(A, None, start), Verdict::Welcome);
        }
        assert!(!past.is_used_twice(start));
    }

    #[test]
    fn a_held_back_instance_is_welcome_once_it_has_not_tried_for_long_enough() {
        let (mut past, start) = held_back();
        let tried = start + HELD_BACK_FOR;
        assert_eq!(past.judge(A, Some(RIVAL), tried), HELD, "at the end of the time");
        assert!(
            past.is_used_twice(tried + HELD_BACK_FOR),
            "each attempt shows that it is still there"
        );
        let late = tried + HELD_BACK_FOR + Duration::from_millis(1);
        assert!(!past.is_used_twice(late));
        assert_eq!(past.judge(A, Some(RIVAL), late), Verdict::Welcome, "a moment after it");
    }

    #[test]
    fn nobody_is_held_back_where_nobody_else_is_attached_but_the_fault_is_shown() {
        let (mut past, start) = held_back();
        assert_eq!(past.judge(A, None, start + SECOND), Verdict::Welcome);
        assert!(past.is_used_twice(start + SECOND));
        assert_eq!(comes_back(&mut past, start + SECOND), HELD_FROM_NOW, "with a rival again");
    }

    #[test]
    fn so_many_instances_are_remembered_and_the_oldest_is_then_as_good_as_new() {
        let (mut past, start) = held_back();
        let others = |count: usize| (0..count).map(|n| [100 + n as u8; 16]);
        others(INSTANCES_REMEMBERED_MAX - 1).for_each(|other| past.supersede(other));
        assert_eq!(past.judge(A, Some(RIVAL), start), HELD, "the last place");
        past.supersede([99; 16]);
        assert_eq!(past.judge(A, Some(RIVAL), start), Verdict::Welcome, "one past it");
        assert_eq!(past.superseded.len(), INSTANCES_REMEMBERED_MAX);
    }

    #[test]
    fn returns_are_counted_in_bounded_memory() {
        let (mut past, start) = held_back();
        for _ in 0..1_000 {
            past.supersede(A);
            past.judge(A, None, start);
        }
        assert_eq!((past.returns.len(), past.superseded.len()), (RETURNS_MAX, 0));
    }

    /// A thief's process, and when it is killed and started again.
    struct Thief {
        every: u32,
        comes_back_after: u32,
    }

    /// How many new instances took over from A in five minutes, and how many were held back.
    fn robbed(thief: &Thief) -> (usize, usize) {
        let (mut past, start) = (Past::default(), Instant::now());
        assert_eq!(past.judge(A, None, start), Verdict::Welcome);
        let (mut attached, mut superseded_at) = (A, None);
        let (mut taken, mut held) = (0, 0);
        for second in 1..300_u32 {
            let now = start + second * SECOND;
            if superseded_at.is_some_and(|at| second >= at + thief.comes_back_after) {
                assert_eq!(past.judge(A, Some(attached), now), Verdict::Welcome, "at {second} s");
                past.supersede(attached);
                (attached, superseded_at) = (A, None);
            }
            if second % thief.every == 0 {
                let mut new = [7; 16];
                new[..4].copy_from_slice(&second.to_be_bytes());
                if past.judge(new, Some(attached), now) == Verdict::Welcome {
                    past.supersede(attached);
                    superseded_at = superseded_at.or(Some(second));
                    (attached, taken) = (new, taken + 1);
                } else {
                    held += 1;
                }
            }
        }
        assert_eq!(past.is_used_twice(start + 300 * SECOND), held > 0);
        (taken, held)
    }

    #[test]
    fn a_thief_that_starts_anew_each_time_is_held_back_and_the_one_that_returns_stays() {
        for (every, comes_back_after, most_taken) in
            [(1, 12, 26), (2, 15, 16), (5, 12, 8), (9, 15, 6)]
        {
            let (taken, held) = robbed(&Thief { every, comes_back_after });
            assert!(taken <= most_taken && held > 20, "every {every} s: {taken} and {held}");
        }
    }

    #[test]
    fn a_restart_loop_of_an_honest_agent_alone_is_never_held_back() {
        for has_rival in [true, false] {
            let (mut past, start) = (Past::default(), Instant::now());
            let mut before = None;
            for n in 0..1_000_u32 {
                let mut new = [7; 16];
                new[..4].copy_from_slice(&n.to_be_bytes());
                let rival = before.filter(|_| has_rival);
                assert_eq!(past.judge(new, rival, start + n * SECOND / 2), Verdict::Welcome);
                before.replace(new).into_iter().for_each(|old| past.supersede(old));
            }
            assert!(!past.is_used_twice(start + 500 * SECOND));
            assert!(past.newcomers.len() <= NEWCOMERS_MIN, "in bounded memory");
        }
    }
}
