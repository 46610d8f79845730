//! The last probe of each link of an agent.

use crate::limits::{HEALTH_CHECK_EVERY, PROBE_AGE_MAX};
use tokio::{sync::Mutex, time::Instant};

/// The last probe of one link. A question while one is under way waits for its result.
#[derive(Debug, Default)]
pub(super) struct LastProbe(pub(super) Mutex<ProbeTimes>);

#[derive(Debug, Default)]
pub(super) struct ProbeTimes {
    asked_at: Option<Instant>,
    answered_at: Option<Instant>,
    fault: Option<String>,
}

impl ProbeTimes {
    /// Records the result of a probe.
    pub(super) fn note(&mut self, asked_at: Instant, now: Instant, fault: Option<String>) {
        self.asked_at = Some(asked_at);
        if fault.is_none() {
            self.answered_at = Some(now);
        }
        self.fault = fault;
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|at| now.duration_since(at) >= HEALTH_CHECK_EVERY)
    }

    /// Why the link counts as not answering; `None` if it counts as answering.
    pub(super) fn fault(&self, now: Instant) -> Option<&str> {
        let fault = self.fault.as_deref()?;
        let is_old = |at: Instant| now.duration_since(at) > PROBE_AGE_MAX;
        self.answered_at.is_none_or(is_old).then_some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_link_answers_until_its_last_answer_is_too_old() {
        let (mut times, began) = (ProbeTimes::default(), Instant::now());
        let lost = || Some("no answer".to_owned());
        assert!(times.is_due(began));
        times.note(began, began, lost());
        assert_eq!(times.fault(began), Some("no answer"), "it never answered");
        times.note(began, began, None);
        assert!(!times.is_due(began + HEALTH_CHECK_EVERY / 2));
        times.note(began, began, lost());
        assert_eq!(times.fault(began + PROBE_AGE_MAX), None);
        let late = began + PROBE_AGE_MAX + Duration::from_millis(1);
        assert_eq!(times.fault(late), Some("no answer"));
        times.note(late, late, None);
        assert_eq!(times.fault(late), None);
    }
}
