//! Health of one service: assessed by how its last calls ended and, where they failed or a check is
//! configured, by a check of its upstream.

use crate::{
    limits::{HEALTH_CHECK_EVERY, HEALTH_CHECK_WAIT_MAX, HEALTH_KEPT, HUNG_CALLS_MIN},
    readiness::ServiceReadiness,
    status::{Code, Outcome},
};
use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::time::{Instant, timeout};

/// A check of an upstream: the error says why it failed.
pub(crate) type CheckFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// How the upstream of a service is checked.
pub(crate) struct HealthCheck {
    pub(crate) run: Box<dyn Fn() -> CheckFuture + Send + Sync>,
    /// True if it runs whether calls fail or not. Else it runs only after one has failed, until it
    /// succeeds once: databases block hosts that connect and send nothing.
    pub(crate) is_active: bool,
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck").field("is_active", &self.is_active).finish_non_exhaustive()
    }
}

/// Health of one service.
#[derive(Debug, Default)]
pub(crate) struct ServiceHealth {
    /// True if `calls` has something: a call that succeeds looks at nothing else.
    has_failed: AtomicBool,
    calls: Mutex<LastCalls>,
    check: Option<Arc<HealthCheck>>,
    checked: tokio::sync::Mutex<CheckResult>,
}

/// The last calls of a service, as far as they failed.
#[derive(Debug, Default)]
struct LastCalls {
    /// When the upstream was last found unreachable, if no call has succeeded since.
    unreached_at: Option<Instant>,
    /// Calls in a row whose deadline passed, and the time of the last one.
    late: u32,
    late_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct CheckResult {
    at: Option<Instant>,
    fault: Option<String>,
}

impl ServiceHealth {
    pub(crate) fn with_check(check: Option<Arc<HealthCheck>>) -> Self {
        Self { check, ..Self::default() }
    }

    /// True if both are checked in the same way: what is known of one holds for the other.
    pub(crate) fn has_check_of(&self, other: &Self) -> bool {
        match (&self.check, &other.check) {
            (Some(own), Some(others)) => Arc::ptr_eq(own, others),
            (own, others) => own.is_none() && others.is_none(),
        }
    }

    fn calls(&self) -> MutexGuard<'_, LastCalls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records how a call has ended. Codes that a handler chose say nothing about its health.
    pub(crate) fn call_ended(&self, code: Code, outcome: Outcome, now: Instant) {
        let is_own = matches!(outcome, Outcome::Ok | Outcome::AppError);
        match code {
            // Nearly every call ends here, on many threads at once.
            _ if is_own && !self.has_failed.load(Ordering::Relaxed) => {}
            _ if is_own => {
                let mut calls = self.calls();
                self.has_failed.store(false, Ordering::Relaxed);
                *calls = LastCalls::default();
            }
            Code::Unavailable => self.failed(|calls| calls.unreached_at = Some(now)),
            Code::DeadlineExceeded => self.failed(|calls| {
                calls.late = calls.late.saturating_add(1);
                calls.late_at = Some(now);
            }),
            // Cancelled, refused, or too large: that is not the service.
            _ => {}
        }
    }

    fn failed(&self, note: impl FnOnce(&mut LastCalls)) {
        let mut calls = self.calls();
        self.has_failed.store(true, Ordering::Relaxed);
        note(&mut calls);
    }

    /// Assesses the service. Runs its check if that is due, which takes up to two seconds.
    pub(crate) async fn assess(&self) -> ServiceReadiness {
        let fault = self.check_if_due().await;
        ServiceReadiness::new(self.reasons(fault, Instant::now()))
    }

    fn reasons(&self, check: Option<String>, now: Instant) -> Vec<String> {
        let calls = self.calls();
        let is_recent = |at: &Instant| now.duration_since(*at) < HEALTH_KEPT;
        let mut reasons = Vec::new();
        match check {
            Some(fault) => reasons.push(fault),
            // Nothing but time shows that it is back.
            None if self.check.is_none() && calls.unreached_at.filter(is_recent).is_some() => {
                reasons.push("the last call found it unavailable".to_owned());
            }
            None => {}
        }
        if calls.late >= HUNG_CALLS_MIN && calls.late_at.filter(is_recent).is_some() {
            reasons.push(format!("the deadlines of the last {} calls passed", calls.late));
        }
        reasons
    }

    /// Why the last check failed, after another one if it is time.
    async fn check_if_due(&self) -> Option<String> {
        let check = self.check.as_ref()?;
        let mut last = self.checked.lock().await;
        let unreached_at = self.calls().unreached_at;
        if !check.is_active && unreached_at.is_none() {
            *last = CheckResult::default();
            return None;
        }
        let is_fresh = |at: Instant| at.elapsed() < HEALTH_CHECK_EVERY;
        if last.at.is_some_and(is_fresh) {
            return last.fault.clone();
        }
        let checked = timeout(HEALTH_CHECK_WAIT_MAX, (check.run)()).await;
        last.fault = match checked {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(format!("its upstream failed the check: {why}")),
            Err(_elapsed) => Some("its upstream did not answer the check in time".to_owned()),
        };
        last.at = Some(Instant::now());
        if last.fault.is_none() {
            let mut calls = self.calls();
            // A call that has failed during the check is newer than what it showed.
            if calls.unreached_at == unreached_at {
                calls.unreached_at = None;
            }
        }
        last.fault.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{Arc, atomic::AtomicUsize},
        time::Duration,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn ended(health: &ServiceHealth, code: Code, outcome: Outcome) {
        health.call_ended(code, outcome, Instant::now());
    }

    async fn is_ready(health: &ServiceHealth) -> bool {
        health.assess().await.ready
    }

    /// An upstream that is up or down, and how often it was checked.
    #[derive(Default)]
    struct Upstream {
        is_down: AtomicBool,
        checks: AtomicUsize,
    }

    fn checked(is_active: bool) -> (Arc<Upstream>, ServiceHealth) {
        let upstream = Arc::<Upstream>::default();
        let checked = upstream.clone();
        let run = move || -> CheckFuture {
            checked.checks.fetch_add(1, Ordering::Relaxed);
            let is_down = checked.is_down.load(Ordering::Relaxed);
            Box::pin(async move { if is_down { Err("refused".to_owned()) } else { Ok(()) } })
        };
        let check = HealthCheck { run: Box::new(run), is_active };
        (upstream, ServiceHealth::with_check(Some(Arc::new(check))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_is_ready_until_its_last_calls_say_otherwise() {
        let health = ServiceHealth::default();
        assert!(is_ready(&health).await);
        ended(&health, Code::Unavailable, Outcome::AppError);
        ended(&health, Code::PermissionDenied, Outcome::NotExecuted);
        ended(&health, Code::Cancelled, Outcome::Unknown);
        assert!(is_ready(&health).await, "no fault of the service");
        ended(&health, Code::Unavailable, Outcome::NotExecuted);
        assert!(!is_ready(&health).await);
        ended(&health, Code::Ok, Outcome::Ok);
        assert!(is_ready(&health).await);
        ended(&health, Code::Unavailable, Outcome::Unknown);
        tokio::time::advance(HEALTH_KEPT).await;
        assert!(is_ready(&health).await, "it is long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn several_deadlines_in_a_row_show_a_handler_that_hangs() {
        let health = ServiceHealth::default();
        let late = || ended(&health, Code::DeadlineExceeded, Outcome::Unknown);
        (1..HUNG_CALLS_MIN).for_each(|_| late());
        ended(&health, Code::NotFound, Outcome::AppError);
        (1..HUNG_CALLS_MIN).for_each(|_| late());
        assert!(is_ready(&health).await, "not in a row");
        late();
        let assessed = health.assess().await;
        assert_eq!(assessed.reasons, ["the deadlines of the last 3 calls passed"]);
        ended(&health, Code::Ok, Outcome::Ok);
        assert!(is_ready(&health).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_is_checked_after_a_failure_until_it_is_back_and_not_before() {
        let (upstream, health) = checked(false);
        let checks = || upstream.checks.load(Ordering::Relaxed);
        assert!(is_ready(&health).await);
        assert_eq!(checks(), 0);
        upstream.is_down.store(true, Ordering::Relaxed);
        ended(&health, Code::Unavailable, Outcome::NotExecuted);
        for _ in 0..10 {
            let assessed = health.assess().await;
            assert_eq!(assessed.reasons, ["its upstream failed the check: refused"]);
        }
        assert_eq!(checks(), 1, "it was checked a moment ago");
        upstream.is_down.store(false, Ordering::Relaxed);
        tokio::time::advance(HEALTH_CHECK_EVERY).await;
        for _ in 0..3 {
            assert!(is_ready(&health).await);
            tokio::time::advance(HEALTH_CHECK_EVERY).await;
        }
        assert_eq!(checks(), 2);
        // The next outage is assessed for itself.
        upstream.is_down.store(true, Ordering::Relaxed);
        ended(&health, Code::Unavailable, Outcome::Unknown);
        assert!(!is_ready(&health).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_active_check_needs_no_call() {
        let (upstream, health) = checked(true);
        assert!(is_ready(&health).await);
        upstream.is_down.store(true, Ordering::Relaxed);
        tokio::time::advance(HEALTH_CHECK_EVERY).await;
        assert!(!is_ready(&health).await);
        upstream.is_down.store(false, Ordering::Relaxed);
        tokio::time::advance(HEALTH_CHECK_EVERY).await;
        assert!(is_ready(&health).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_has_failed() {
        let run = || -> CheckFuture { Box::pin(std::future::pending()) };
        let check = HealthCheck { run: Box::new(run), is_active: true };
        let health = ServiceHealth::with_check(Some(Arc::new(check)));
        let begun = Instant::now();
        assert!(!is_ready(&health).await);
        assert!(begun.elapsed() <= HEALTH_CHECK_WAIT_MAX + SECOND);
    }
}
