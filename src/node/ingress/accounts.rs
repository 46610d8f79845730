//! Accounts of the gateway's callers: permits and resets, which other peers have per link, for a
//! client with any number of connections.

use crate::{
    call::Permits,
    limits::{GATEWAY_CALLERS_MAX, Limits, SWEEP_EVERY},
    name::PeerName,
    node::reset_limiter::ResetLimiter,
    observe::ObservedCounts,
    status::{Code, Status},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

/// The accounts of all callers of the gateway, in bounded memory.
#[derive(Default)]
pub(super) struct CallerAccounts {
    all: HashMap<PeerName, Arc<CallerAccount>>,
    /// When idle accounts were last removed: a full map is not searched on every call.
    swept_at: Option<Instant>,
    counts: Arc<ObservedCounts>,
}

/// Permits and resets of one caller.
pub(super) struct CallerAccount {
    pub(super) permits: Permits,
    resets: Mutex<ResetLimiter>,
}

impl CallerAccount {
    fn new(limits: &Limits, counts: &Arc<ObservedCounts>) -> Self {
        let Limits { caller_calls_in_flight_max, queue_max, .. } = *limits;
        let permits = Permits::counted(caller_calls_in_flight_max, queue_max, counts.clone());
        Self { permits, resets: Mutex::new(ResetLimiter::new(limits.resets_max)) }
    }

    fn is_in_use(self: &Arc<Self>, now: Instant) -> bool {
        Arc::strong_count(self) > 1 || self.permits.in_flight() > 0 || self.resets().has_some(now)
    }

    fn resets(&self) -> MutexGuard<'_, ResetLimiter> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a caller's calls while it has reset too many; it has no link that could be closed.
    pub(super) fn expect_few_resets(&self, resets_max: usize) -> Result<(), Status> {
        if self.resets().is_full(Instant::now()) {
            let text = format!("more than {resets_max} calls were reset in 10 s (resets_max)");
            return Err(Status::not_executed(Code::ResourceExhausted, text));
        }
        Ok(())
    }
}

/// Counts a reset of the caller if it is dropped while armed.
pub(super) struct ResetGuard {
    pub(super) account: Arc<CallerAccount>,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
    /// False once the call has ended by itself.
    pub(super) is_armed: bool,
}

impl Drop for ResetGuard {
    fn drop(&mut self) {
        if self.is_armed {
            self.account.resets().count_reset(self.began, self.deadline, Instant::now());
        }
    }
}

impl CallerAccounts {
    /// Without accounts; what their callers wait for is counted here.
    pub(super) fn counted(counts: Arc<ObservedCounts>) -> Self {
        Self { counts, ..Self::default() }
    }

    /// The account of a caller, made if it has none. Fails, not executed, if all are in use.
    pub(super) fn of(
        &mut self,
        caller: &PeerName,
        limits: &Limits,
        now: Instant,
    ) -> Result<Arc<CallerAccount>, Status> {
        let Self { all, swept_at, counts } = self;
        if all.len() >= GATEWAY_CALLERS_MAX && !all.contains_key(caller) {
            if swept_at.is_none_or(|at| now >= at + SWEEP_EVERY) {
                *swept_at = Some(now);
                all.retain(|_, account| account.is_in_use(now));
            }
            if all.len() >= GATEWAY_CALLERS_MAX {
                let text = format!(
                    "the limit of {GATEWAY_CALLERS_MAX} concurrent callers of the gateway is reached; try again"
                );
                return Err(Status::not_executed(Code::ResourceExhausted, text));
            }
        }
        let permit_limits = (limits.caller_calls_in_flight_max, limits.queue_max);
        let account = all
            .entry(caller.clone())
            .or_insert_with(|| Arc::new(CallerAccount::new(limits, counts)));
        // New limits apply once the last call under the old ones has ended.
        if !account.is_in_use(now) && !account.permits.is_bounded_by(permit_limits) {
            *account = Arc::new(CallerAccount::new(limits, counts));
        }
        Ok(account.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RESETS_WITHIN;

    #[test]
    fn a_new_caller_beyond_the_limit_is_refused_until_an_account_is_idle() {
        let (mut accounts, limits, now) =
            (CallerAccounts::default(), Limits::default(), Instant::now());
        let mut of = |n: usize, now| {
            accounts.of(&format!("caller/c{n}").parse().expect("a name"), &limits, now)
        };
        let mut held: Vec<_> =
            (0..GATEWAY_CALLERS_MAX).map(|n| of(n, now).expect("at the limit")).collect();
        let refused = of(GATEWAY_CALLERS_MAX, now).map(drop).expect_err("one past the limit");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.is_safe_to_retry(), "{refused}");
        assert!(of(0, now).is_ok(), "one that has an account keeps it");
        held.pop();
        assert!(of(GATEWAY_CALLERS_MAX, now).is_err(), "looked for once a second");
        assert!(of(GATEWAY_CALLERS_MAX, now + SWEEP_EVERY).is_ok());
        assert!(
            of(GATEWAY_CALLERS_MAX + 1, now + SWEEP_EVERY * 2).is_ok(),
            "the one before is idle"
        );
    }

    #[test]
    fn new_limits_apply_to_an_account_only_once_it_is_idle() {
        let (mut accounts, now) = (CallerAccounts::default(), Instant::now());
        let caller = "caller/ops".parse().expect("a name");
        let old = Limits::default();
        let new = Limits { queue_max: old.queue_max + 1, ..old.clone() };
        let mut of = |limits: &Limits| accounts.of(&caller, limits, now).expect("an account");
        let in_use = of(&old);
        assert!(Arc::ptr_eq(&in_use, &of(&new)), "permits of calls in flight are still counted");
        drop(in_use);
        let bounds = (new.caller_calls_in_flight_max, new.queue_max);
        assert!(of(&new).permits.is_bounded_by(bounds));
    }

    #[test]
    fn an_account_with_recent_resets_is_not_replaced() {
        let (mut accounts, now) = (CallerAccounts::default(), Instant::now());
        let caller = "caller/ops".parse().expect("a name");
        let old = Limits::default();
        let new = Limits { queue_max: old.queue_max + 1, ..old.clone() };
        let mut of = |limits: &Limits, now| accounts.of(&caller, limits, now).expect("an account");
        of(&old, now).resets().count_violation(now);
        let account = of(&new, now);
        assert!(account.resets().has_some(now), "its resets were forgotten");
        drop(account);
        let later = now + RESETS_WITHIN;
        let bounds = (new.caller_calls_in_flight_max, new.queue_max);
        assert!(of(&new, later).permits.is_bounded_by(bounds));
    }

    #[test]
    fn a_call_that_ended_is_not_counted_as_a_reset_and_a_dropped_one_is() {
        let account = Arc::new(CallerAccount::new(&Limits::default(), &Arc::default()));
        let now = Instant::now();
        let deadline = now + RESETS_WITHIN;
        let guard =
            |is_armed| ResetGuard { account: account.clone(), began: now, deadline, is_armed };
        let mut ended = guard(true);
        ended.is_armed = false;
        drop((ended, guard(false)));
        assert!(!account.resets().has_some(now));
        drop(guard(true));
        assert!(account.resets().has_some(now));
    }
}
