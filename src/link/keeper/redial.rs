//! Decides when to dial again, and whether to log the reason. Pure: time and chance are arguments.

use crate::{
    backoff::{self, BackoffCause},
    limits::{NEWER_CHECK_EVERY, STEADY_LINK_MIN},
    link::fault::LinkFault,
    rate_limit::RepeatLimiter,
    wire::CloseCode,
};
use std::time::Duration;
use tokio::time::Instant;

/// The same reason is logged again after this long, which shows retries but does not fill the log.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The consecutive failures of one address.
#[derive(Debug, Default)]
pub(super) struct Redial {
    failures: u32,
    failing_since: Option<Instant>,
    /// When the present link came up.
    linked_at: Option<Instant>,
    logged: RepeatLimiter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) duration: Duration,
    /// True if the reason is new, or was last logged long ago.
    pub(super) should_log: bool,
}

impl Redial {
    /// Resets the waits: the next failure counts as the first.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Records that a link is up. It counts as a success only if it lasts: a peer that closes each
    /// link at once is dialled as rarely as one that does not answer.
    pub(super) fn linked(&mut self, now: Instant) {
        self.linked_at = Some(now);
        self.logged = RepeatLimiter::default();
    }

    /// Returns the wait after a dial that failed, or a link that was lost.
    pub(super) fn failed(&mut self, fault: &LinkFault, now: Instant, chance: f64) -> Wait {
        let has_lasted = |since: Instant| now.saturating_duration_since(since) >= STEADY_LINK_MIN;
        if self.linked_at.take().is_some_and(has_lasted) {
            self.succeeded();
        }
        // Another instance has taken over, which is not a refusal, so the wait does not grow.
        let is_superseded =
            matches!(fault, LinkFault::Closed { code: CloseCode::Superseded, by_peer: true, .. });
        // A clock that is behind is set soon, and the wait after that must not be minutes.
        if is_superseded || fault.is_not_valid_yet() {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let failing_for = now.saturating_duration_since(*self.failing_since.get_or_insert(now));
        let duration = match fault.backoff() {
            // A look, not a failure. Its interval is random: peers of a node do not look at once.
            _ if matches!(fault, LinkFault::NotNewer) => NEWER_CHECK_EVERY.mul_f64(0.5 + chance),
            // At once the first time only: a peer that always closes must not be hammered.
            None if self.failures == 1 => Duration::ZERO,
            cause => {
                let cause = cause.unwrap_or(BackoffCause::Unreachable);
                backoff::wait(cause, self.failures, failing_for, chance)
            }
        };
        let should_log = self.logged.admits(fault.to_string(), now, LOG_AGAIN_AFTER);
        Wait { duration, should_log }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn silent() -> LinkFault {
        LinkFault::Silent("x")
    }

    #[test]
    fn a_drained_link_is_dialled_again_at_once_but_not_over_and_over() {
        let drained =
            LinkFault::Closed { code: CloseCode::Drained, text: String::new(), by_peer: true };
        let mut redial = Redial::default();
        let now = Instant::now();
        assert_eq!(redial.failed(&drained, now, 1.0).duration, Duration::ZERO);
        assert!(redial.failed(&drained, now, 1.0).duration > Duration::ZERO);
        redial.succeeded();
        assert_eq!(redial.failed(&drained, now, 1.0).duration, Duration::ZERO);
    }

    #[test]
    fn a_link_that_lasted_resets_the_waits_and_one_that_is_lost_at_once_does_not() {
        let drained =
            LinkFault::Closed { code: CloseCode::Drained, text: String::new(), by_peer: true };
        let (mut redial, mut now) = (Redial::default(), Instant::now());
        let mut waits = Vec::new();
        for lasted in [SECOND, SECOND, SECOND, 60 * SECOND, SECOND] {
            redial.linked(now);
            now += lasted;
            waits.push(redial.failed(&drained, now, 1.0).duration);
        }
        assert_eq!((waits[0], waits[3]), (Duration::ZERO, Duration::ZERO));
        assert!(waits[1] > Duration::ZERO && waits[2] > waits[1] && waits[4] == waits[1]);
    }

    #[test]
    fn a_refusal_waits_longer_than_silence() {
        let refused =
            LinkFault::Closed { code: CloseCode::Unauthorized, text: String::new(), by_peer: true };
        let now = Instant::now();
        assert!(Redial::default().failed(&refused, now, 0.0).duration >= 10 * SECOND);
        assert!(Redial::default().failed(&silent(), now, 1.0).duration <= SECOND);
    }

    #[test]
    fn the_same_reason_is_logged_again_only_after_a_while() {
        let mut redial = Redial::default();
        let now = Instant::now();
        assert!(redial.failed(&silent(), now, 0.5).should_log);
        assert!(!redial.failed(&silent(), now + 29 * SECOND, 0.5).should_log);
        assert!(redial.failed(&LinkFault::Silent("y"), now + 29 * SECOND, 0.5).should_log);
        assert!(redial.failed(&LinkFault::Silent("y"), now + 59 * SECOND, 0.5).should_log);
    }

    #[test]
    fn a_certificate_that_is_not_valid_yet_is_tried_again_every_ten_to_fifteen_seconds() {
        let early = LinkFault::Handshake {
            is_identity: true,
            is_not_valid_yet: true,
            reason: "not valid yet".into(),
            remedy: String::new(),
        };
        let (mut redial, now) = (Redial::default(), Instant::now());
        for chance in [0.0, 0.5, 1.0, 1.0, 1.0, 1.0] {
            let wait = redial.failed(&early, now, chance).duration;
            assert!(wait >= 10 * SECOND && wait <= 15 * SECOND, "{wait:?}");
        }
    }

    #[test]
    fn a_superseded_link_waits_ten_seconds_each_time_and_a_refused_one_longer_and_longer() {
        let closed = |code| LinkFault::Closed { code, text: String::new(), by_peer: true };
        let (mut superseded, mut refused) = (Redial::default(), Redial::default());
        let now = Instant::now();
        for n in 0..6 {
            let wait = superseded.failed(&closed(CloseCode::Superseded), now, 0.0).duration;
            assert_eq!(wait, 10 * SECOND);
            let wait = refused.failed(&closed(CloseCode::Unauthorized), now, 0.0).duration;
            assert!(n == 0 || wait > 10 * SECOND);
        }
    }

    #[test]
    fn a_look_for_a_newer_certificate_does_not_wait_longer_each_time() {
        let (mut redial, now) = (Redial::default(), Instant::now());
        for chance in [0.0, 1.0, 0.0, 1.0] {
            let wait = redial.failed(&LinkFault::NotNewer, now, chance).duration;
            assert_eq!(wait, NEWER_CHECK_EVERY.mul_f64(0.5 + chance));
        }
    }

    #[test]
    fn a_reason_is_logged_again_after_a_link_was_up() {
        let (mut redial, now) = (Redial::default(), Instant::now());
        assert!(redial.failed(&silent(), now, 0.5).should_log);
        redial.linked(now);
        assert!(redial.failed(&silent(), now, 0.5).should_log);
        assert!(!redial.failed(&silent(), now, 0.5).should_log);
    }

    #[test]
    fn a_superseded_link_resets_the_waits_for_a_silent_peer() {
        let superseded =
            LinkFault::Closed { code: CloseCode::Superseded, text: String::new(), by_peer: true };
        let (mut redial, now) = (Redial::default(), Instant::now());
        for _ in 0..5 {
            redial.failed(&silent(), now, 1.0);
        }
        redial.failed(&superseded, now, 1.0);
        assert_eq!(redial.failed(&silent(), now, 1.0).duration, 2 * backoff::UNREACHABLE_BASE);
    }

    #[test]
    fn a_link_that_this_side_closes_as_superseded_is_an_unreachable_peer() {
        let ours =
            LinkFault::Closed { code: CloseCode::Superseded, text: String::new(), by_peer: false };
        let (mut redial, now) = (Redial::default(), Instant::now());
        assert_eq!(redial.failed(&ours, now, 1.0).duration, backoff::UNREACHABLE_BASE);
        assert_eq!(redial.failed(&ours, now, 1.0).duration, 2 * backoff::UNREACHABLE_BASE);
    }
}
