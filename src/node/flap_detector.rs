//! Flap detection: limits how often superseded instances of one agent may return before their
//! certificate counts as used twice.

use crate::limits::{
    HELD_BACK_FOR, INSTANCES_REMEMBERED_MAX, NEW_INSTANCES_MIN, RETURNS_MAX, RETURNS_SUSPICIOUS,
    RETURNS_WITHIN,
};
use std::collections::VecDeque;
use tokio::time::Instant;

type Instance = [u8; 16];

/// History of takeovers of one agent. Empty for an agent with a single instance.
#[derive(Debug, Default)]
pub(super) struct FlapDetector {
    /// Superseded instances, the oldest first.
    superseded: VecDeque<Superseded>,
    /// Last returns, the oldest first; at most one more than allowed.
    returns: VecDeque<(Instance, Instant)>,
    /// Times at which new instances registered: the last ones, the oldest first.
    new_instances: VecDeque<Instant>,
    /// The instance that keeps its link while new ones are held back, and when one last tried.
    preferred: Option<(Instance, Instant)>,
    /// Time at which a held back instance last tried.
    tried_at: Option<Instant>,
}

#[derive(Debug)]
struct Superseded {
    instance: Instance,
    held_back_at: Option<Instant>,
}

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlapCheck {
    /// The instance may take over.
    Permitted,
    /// The instance was superseded and returned too often.
    HeldBack {
        /// True if it was not held back before.
        is_first: bool,
    },
}

impl FlapDetector {
    /// Checks an instance that has no link and registers one. `rival` is another instance that is
    /// attached; without one the instance is permitted. A permitted instance counts as a return
    /// again only after it was superseded again.
    pub(super) fn check(
        &mut self,
        instance: Instance,
        rival: Option<Instance>,
        now: Instant,
    ) -> FlapCheck {
        let Some(index) = self.superseded.iter().position(|one| one.instance == instance) else {
            return self.check_new_instance(rival, now);
        };
        let was_held_back =
            self.superseded[index].held_back_at.is_some_and(|at| is_within(at, now));
        let is_too_often = self.returns_too_often(instance, now) || was_held_back;
        if is_too_often {
            self.tried_at = Some(now);
        }
        // While new instances keep arriving, they are held back and not the returning one.
        if is_too_often && rival.is_some() && !self.new_instances_keep_arriving(now) {
            self.superseded[index].held_back_at = Some(now);
            return FlapCheck::HeldBack { is_first: !was_held_back };
        }
        self.superseded.remove(index);
        FlapCheck::Permitted
    }

    /// Checks a new instance. It takes over unless the attached one was superseded and returned
    /// while other new ones arrived: then a process with the same certificate keeps restarting.
    fn check_new_instance(&mut self, rival: Option<Instance>, now: Instant) -> FlapCheck {
        if self.new_instances.len() >= NEW_INSTANCES_MIN {
            self.new_instances.pop_front();
        }
        self.new_instances.push_back(now);
        let Some(rival) = rival else { return FlapCheck::Permitted };
        let preferred = |(who, at): &(Instance, Instant)| *who == rival && is_within(*at, now);
        let was_held_back = self.preferred.as_ref().is_some_and(preferred);
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= RETURNS_WITHIN;
        let returns = self.returns.iter().filter(|(who, at)| *who == rival && is_recent(*at));
        let is_returning = returns.count() >= RETURNS_SUSPICIOUS;
        let is_in_a_series = is_returning && self.new_instances_keep_arriving(now);
        if !(was_held_back || is_in_a_series) {
            return FlapCheck::Permitted;
        }
        self.tried_at = Some(now);
        self.preferred = Some((rival, now));
        FlapCheck::HeldBack { is_first: !was_held_back }
    }

    fn new_instances_keep_arriving(&self, now: Instant) -> bool {
        self.new_instances.len() >= NEW_INSTANCES_MIN
            && self
                .new_instances
                .front()
                .is_some_and(|at| now.saturating_duration_since(*at) <= RETURNS_WITHIN)
    }

    /// Counts a return and returns whether it is one too many.
    fn returns_too_often(&mut self, instance: Instance, now: Instant) -> bool {
        self.returns.retain(|(_, at)| now.saturating_duration_since(*at) <= RETURNS_WITHIN);
        self.returns.push_back((instance, now));
        let is_too_often = self.returns.len() > RETURNS_MAX;
        if is_too_often {
            self.returns.pop_front();
        }
        is_too_often
    }

    pub(super) fn supersede(&mut self, instance: Instance) {
        if self.superseded.iter().any(|one| one.instance == instance) {
            return;
        }
        if self.superseded.len() >= INSTANCES_REMEMBERED_MAX {
            self.superseded.pop_front();
        }
        self.superseded.push_back(Superseded { instance, held_back_at: None });
    }

    /// True if the certificate was recently used by two instances.
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
    const HELD: FlapCheck = FlapCheck::HeldBack { is_first: false };
    const HELD_FROM_NOW: FlapCheck = FlapCheck::HeldBack { is_first: true };

    /// A is superseded and returns.
    fn returns_after_supersede(detector: &mut FlapDetector, now: Instant) -> FlapCheck {
        detector.supersede(A);
        detector.check(A, Some(RIVAL), now)
    }

    /// A detector that holds A back since the returned time.
    fn held_back() -> (FlapDetector, Instant) {
        let (mut detector, start) = (FlapDetector::default(), Instant::now());
        for _ in 0..RETURNS_MAX {
            assert_eq!(returns_after_supersede(&mut detector, start), FlapCheck::Permitted);
        }
        assert!(!detector.is_used_twice(start));
        assert_eq!(returns_after_supersede(&mut detector, start), HELD_FROM_NOW);
        (detector, start)
    }

    #[test]
    fn one_more_return_than_allowed_is_held_back_until_the_minute_is_over() {
        let (mut detector, start) = (FlapDetector::default(), Instant::now());
        for n in 0..RETURNS_MAX as u32 {
            assert_eq!(
                returns_after_supersede(&mut detector, start + n * SECOND),
                FlapCheck::Permitted
            );
        }
        // The first return is no longer counted just after its minute.
        let over = start + RETURNS_WITHIN + Duration::from_millis(1);
        assert_eq!(returns_after_supersede(&mut detector, over), FlapCheck::Permitted);
        assert_eq!(returns_after_supersede(&mut detector, over), HELD_FROM_NOW);
    }

    #[test]
    fn an_instance_that_was_not_superseded_may_reconnect_without_limit() {
        let (mut detector, start) = (FlapDetector::default(), Instant::now());
        assert_eq!(returns_after_supersede(&mut detector, start), FlapCheck::Permitted);
        for _ in 0..100 {
            assert_eq!(detector.check(A, None, start), FlapCheck::Permitted);
        }
        assert!(!detector.is_used_twice(start));
    }

    #[test]
    fn a_held_back_instance_is_permitted_after_a_quiet_period() {
        let (mut detector, start) = held_back();
        let tried = start + HELD_BACK_FOR;
        assert_eq!(detector.check(A, Some(RIVAL), tried), HELD, "at the end of the time");
        assert!(
            detector.is_used_twice(tried + HELD_BACK_FOR),
            "each attempt shows that it is still there"
        );
        let late = tried + HELD_BACK_FOR + Duration::from_millis(1);
        assert!(!detector.is_used_twice(late));
        assert_eq!(detector.check(A, Some(RIVAL), late), FlapCheck::Permitted, "a moment after it");
    }

    #[test]
    fn no_instance_is_held_back_without_a_rival_but_the_fault_is_reported() {
        let (mut detector, start) = held_back();
        assert_eq!(detector.check(A, None, start + SECOND), FlapCheck::Permitted);
        assert!(detector.is_used_twice(start + SECOND));
        assert_eq!(
            returns_after_supersede(&mut detector, start + SECOND),
            HELD_FROM_NOW,
            "with a rival again"
        );
    }

    #[test]
    fn the_oldest_superseded_instance_is_forgotten_at_the_limit() {
        let (mut detector, start) = held_back();
        let others = |count: usize| (0..count).map(|n| [100 + n as u8; 16]);
        others(INSTANCES_REMEMBERED_MAX - 1).for_each(|other| detector.supersede(other));
        assert_eq!(detector.check(A, Some(RIVAL), start), HELD, "at the limit");
        detector.supersede([99; 16]);
        assert_eq!(detector.check(A, Some(RIVAL), start), FlapCheck::Permitted, "one past it");
        assert_eq!(detector.superseded.len(), INSTANCES_REMEMBERED_MAX);
    }

    #[test]
    fn returns_are_counted_in_bounded_memory() {
        let (mut detector, start) = held_back();
        for _ in 0..1_000 {
            detector.supersede(A);
            detector.check(A, None, start);
        }
        assert_eq!((detector.returns.len(), detector.superseded.len()), (RETURNS_MAX, 0));
    }

    /// Restart intervals of a second process with a stolen certificate, and the time after which A
    /// returns.
    struct Thief {
        every: u32,
        comes_back_after: u32,
    }

    /// Number of new instances that took over from A in five minutes, and of those that were held
    /// back.
    fn robbed(thief: &Thief) -> (usize, usize) {
        let (mut detector, start) = (FlapDetector::default(), Instant::now());
        assert_eq!(detector.check(A, None, start), FlapCheck::Permitted);
        let (mut attached, mut superseded_at) = (A, None);
        let (mut taken, mut held) = (0, 0);
        for second in 1..300_u32 {
            let now = start + second * SECOND;
            if superseded_at.is_some_and(|at| second >= at + thief.comes_back_after) {
                assert_eq!(
                    detector.check(A, Some(attached), now),
                    FlapCheck::Permitted,
                    "at {second} s"
                );
                detector.supersede(attached);
                (attached, superseded_at) = (A, None);
            }
            if second % thief.every == 0 {
                let mut new = [7; 16];
                new[..4].copy_from_slice(&second.to_be_bytes());
                if detector.check(new, Some(attached), now) == FlapCheck::Permitted {
                    detector.supersede(attached);
                    superseded_at = superseded_at.or(Some(second));
                    (attached, taken) = (new, taken + 1);
                } else {
                    held += 1;
                }
            }
        }
        assert_eq!(detector.is_used_twice(start + 300 * SECOND), held > 0);
        (taken, held)
    }

    #[test]
    fn a_restarting_thief_is_held_back_and_the_returning_instance_stays() {
        for (every, comes_back_after, most_taken) in
            [(1, 12, 26), (2, 15, 16), (5, 12, 8), (9, 15, 6)]
        {
            let (taken, held) = robbed(&Thief { every, comes_back_after });
            assert!(taken <= most_taken && held > 20, "every {every} s: {taken} and {held}");
        }
    }

    #[test]
    fn a_restart_loop_of_a_single_agent_is_never_held_back() {
        for has_rival in [true, false] {
            let (mut detector, start) = (FlapDetector::default(), Instant::now());
            let mut before = None;
            for n in 0..1_000_u32 {
                let mut new = [7; 16];
                new[..4].copy_from_slice(&n.to_be_bytes());
                let rival = before.filter(|_| has_rival);
                assert_eq!(
                    detector.check(new, rival, start + n * SECOND / 2),
                    FlapCheck::Permitted
                );
                before.replace(new).into_iter().for_each(|old| detector.supersede(old));
            }
            assert!(!detector.is_used_twice(start + 500 * SECOND));
            assert!(detector.new_instances.len() <= NEW_INSTANCES_MIN, "in bounded memory");
        }
    }
}
