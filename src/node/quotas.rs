//! Quotas: usage of each caller under rules that count calls (`rate` and `in_flight`). A map in
//! bounded memory, with the time as an argument.
//!
//! Separate from the policy, so that reloading it does not refill all buckets. A rule is identified
//! by its content, so that it keeps its counts wherever it is in the file.

use crate::{
    limits::{RULE_CALLERS_MAX, SWEEP_EVERY},
    name::PeerName,
    policy::{AllowRule, Rate},
    rate_limit::RateLimit,
    status::{Code, Status},
};
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// One caller under one rule, identified by a hash of its content with a key of this process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RuleCaller {
    rule: u64,
    caller: PeerName,
}

#[derive(Debug, Default)]
struct RuleUsage {
    /// Time at which the bucket of its rate will be full again.
    full_at: Option<Instant>,
    in_flight: u32,
}

impl RuleUsage {
    /// True if it equals no usage.
    fn is_idle(&self, now: Instant) -> bool {
        self.in_flight == 0 && self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

/// Quotas of all callers. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Quotas(Arc<QuotaState>);

#[derive(Debug)]
struct QuotaState {
    hashes: RandomState,
    accounts_max: usize,
    accounts: Mutex<UsageAccounts>,
}

#[derive(Debug, Default)]
struct UsageAccounts {
    used: HashMap<RuleCaller, RuleUsage>,
    /// Number of accounts at which idle ones are searched for: each search is paid for by the
    /// accounts added since the last.
    sweep_at: usize,
    /// Time of the last search: a full map is not searched on every call.
    swept_at: Option<Instant>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self::with_room_for(RULE_CALLERS_MAX)
    }
}

impl Quotas {
    fn with_room_for(accounts_max: usize) -> Self {
        let accounts = Mutex::default();
        Self(Arc::new(QuotaState { hashes: RandomState::new(), accounts_max, accounts }))
    }

    fn accounts(&self) -> MutexGuard<'_, UsageAccounts> {
        self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges one call to a rule's quotas, or nothing if a limit is exceeded. The result is held
    /// until the call has ended; `None` for a rule that does not count calls in flight.
    pub(super) fn take(
        &self,
        rule: &AllowRule,
        caller: &PeerName,
        now: Instant,
    ) -> Result<Option<InFlight>, UsedUp> {
        if !rule.counts_calls() {
            return Ok(None);
        }
        let account = RuleCaller { rule: self.identity(rule), caller: caller.clone() };
        let mut accounts = self.accounts();
        accounts.make_room(&account, self.0.accounts_max, now)?;
        let usage = accounts.used.entry(account.clone()).or_default();
        if let Some(most) = rule.in_flight.filter(|most| usage.in_flight >= *most) {
            return Err(UsedUp::InFlight(most));
        }
        if let Some(rate) = rule.rate {
            let taken = RateLimit::per(rate.calls(), rate.per()).take(usage.full_at, now);
            usage.full_at = Some(taken.map_err(|wait| UsedUp::Rate { rate, wait })?);
        }
        if rule.in_flight.is_none() {
            return Ok(None);
        }
        usage.in_flight += 1;
        drop(accounts);
        Ok(Some(InFlight { quotas: self.clone(), account }))
    }

    fn identity(&self, rule: &AllowRule) -> u64 {
        let mut state = self.0.hashes.build_hasher();
        rule.hash_identity(&mut state);
        state.finish()
    }
}

impl UsageAccounts {
    /// Removes idle accounts when the map has doubled since the last time, and when it is full.
    fn make_room(&mut self, account: &RuleCaller, most: usize, now: Instant) -> Result<(), UsedUp> {
        if self.used.len() < self.sweep_at.min(most) || self.used.contains_key(account) {
            return Ok(());
        }
        let was_swept = self.swept_at.is_some_and(|at| now < at + SWEEP_EVERY);
        if self.used.len() >= most && was_swept {
            return Err(UsedUp::Callers(most));
        }
        self.swept_at = Some(now);
        self.used.retain(|_, usage| !usage.is_idle(now));
        self.sweep_at = (self.used.len() * 2).max(64);
        if self.used.len() < most { Ok(()) } else { Err(UsedUp::Callers(most)) }
    }
}

/// Permit for one of a caller's calls in flight under a rule. Returned on drop.
#[derive(Debug)]
pub(super) struct InFlight {
    quotas: Quotas,
    account: RuleCaller,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(usage) = self.quotas.accounts().used.get_mut(&self.account) {
            usage.in_flight = usage.in_flight.saturating_sub(1);
        }
    }
}

/// An exceeded limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsedUp {
    #[error(
        "the rule's limit of {rate} calls (rate) is used up; the next one passes in {millis} ms",
        millis = wait.as_nanos().div_ceil(1_000_000)
    )]
    Rate {
        rate: Rate,
        /// Time until the next call is allowed, if no other comes first.
        wait: Duration,
    },
    #[error("the rule's limit of {0} calls in flight (in_flight) is reached")]
    InFlight(u32),
    /// The table of accounts is full.
    #[error(
        "the limit of {0} counted callers under rules with a rate or an in_flight is reached; try again"
    )]
    Callers(usize),
}

impl From<UsedUp> for Status {
    fn from(used_up: UsedUp) -> Self {
        Self::not_executed(Code::ResourceExhausted, used_up.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rule(rate: Option<&str>, in_flight: Option<u32>) -> AllowRule {
        let mut rule = AllowRule::parse("**", "**", "*/*").expect("a rule");
        rule.rate = rate.map(|rate| rate.parse().expect("a rate"));
        rule.in_flight = in_flight;
        rule
    }

    fn caller(name: &str) -> PeerName {
        format!("caller/{name}").parse().expect("a peer")
    }

    /// Number of calls that pass at one moment, each ended before the next.
    fn passing(quotas: &Quotas, rule: &AllowRule, name: &str, now: Instant) -> usize {
        (0..500).filter(|_| quotas.take(rule, &caller(name), now).is_ok()).count()
    }

    #[test]
    fn a_rule_without_limits_counts_nothing() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        assert_eq!(passing(&quotas, &rule(None, None), "ops", now), 500);
        assert!(quotas.accounts().used.is_empty());
    }

    #[test]
    fn each_caller_has_a_burst_of_the_rate_and_then_one_call_per_interval() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        let rule = rule(Some("100/s"), None);
        assert_eq!(passing(&quotas, &rule, "ops", now), 100);
        assert_eq!(passing(&quotas, &rule, "billing", now), 100);
        let refused = quotas.take(&rule, &caller("ops"), now).expect_err("one more");
        assert_eq!(
            refused.to_string(),
            "the rule's limit of 100/s calls (rate) is used up; the next one passes in 10 ms"
        );
        assert_eq!(passing(&quotas, &rule, "ops", now + SECOND / 2), 50);
        assert_eq!(passing(&quotas, &rule, "ops", now + 100 * SECOND), 100);
    }

    #[test]
    fn calls_beyond_in_flight_are_refused_until_one_ends() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        let rule = rule(None, Some(2));
        let take = |name| quotas.take(&rule, &caller(name), now);
        let (first, second) = (take("ops").expect("one"), take("ops").expect("two"));
        assert!(first.is_some() && second.is_some());
        let refused = take("ops").expect_err("a third");
        let text = "the rule's limit of 2 calls in flight (in_flight) is reached";
        assert_eq!(refused.to_string(), text);
        let status = Status::from(refused);
        assert!(status.is_safe_to_retry() && status.code() == Code::ResourceExhausted);
        let _other = take("billing").expect("another caller's own");
        drop(first);
        assert!(take("ops").is_ok());
    }

    #[test]
    fn a_call_refused_by_in_flight_takes_nothing_from_the_rate() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        let rule = rule(Some("3/h"), Some(1));
        let held = quotas.take(&rule, &caller("ops"), now).expect("one of three");
        assert_eq!(passing(&quotas, &rule, "ops", now), 0);
        drop(held);
        assert_eq!(passing(&quotas, &rule, "ops", now), 2);
    }

    #[test]
    fn a_moved_rule_keeps_its_counts_and_a_changed_one_starts_at_zero() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        let mut moved = rule(Some("5/s"), None);
        assert_eq!(passing(&quotas, &moved, "ops", now), 5);
        moved.origin = crate::policy::Origin::at("node.toml", 99);
        assert_eq!(passing(&quotas, &moved, "ops", now), 0);
        assert_eq!(passing(&quotas, &rule(Some("6/s"), None), "ops", now), 6);
    }

    #[test]
    fn a_permit_returns_to_its_own_account() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        let (one, two) = (rule(None, Some(1)), rule(None, Some(2)));
        let held = quotas.take(&one, &caller("ops"), now).expect("a permit");
        let other = quotas.take(&two, &caller("ops"), now).expect("a permit");
        drop(other);
        assert!(quotas.take(&one, &caller("ops"), now).is_err());
        drop(held);
        assert!(quotas.take(&one, &caller("ops"), now).is_ok());
    }

    #[test]
    fn accounts_take_bounded_memory_and_idle_ones_are_removed() {
        let (quotas, now) = (Quotas::with_room_for(100), Instant::now());
        let rule = rule(Some("1/s"), Some(1));
        let take = |n: usize, now| quotas.take(&rule, &caller(&format!("c{n}")), now);
        let held: Vec<_> = (0..100).map(|n| take(n, now).expect("room")).collect();
        let refused = take(100, now).expect_err("no room");
        assert!(matches!(refused, UsedUp::Callers(100)), "{refused}");
        // Accounts with permits stay; their buckets alone would not keep them.
        assert!(take(100, now + 10 * SECOND).is_err());
        drop(held);
        assert!(take(100, now + SECOND / 2).is_err(), "a bucket that is not full was forgotten");
        for n in 0..10_000 {
            assert!(take(n, now + (n as u32 + 11) * SECOND).is_ok(), "{n}");
            assert!(quotas.accounts().used.len() <= 100);
        }
    }

    #[test]
    fn a_full_table_still_serves_the_callers_that_are_in_it() {
        let (quotas, now) = (Quotas::with_room_for(2), Instant::now());
        let rule = rule(None, Some(2));
        let take = |name| quotas.take(&rule, &caller(name), now);
        let _held = [take("ops").expect("room"), take("billing").expect("room")];
        assert_eq!(take("late").expect_err("no room"), UsedUp::Callers(2));
        assert!(take("ops").is_ok());
    }

    #[test]
    fn an_account_whose_bucket_is_not_full_is_not_removed() {
        let (quotas, now) = (Quotas::with_room_for(2), Instant::now());
        let rule = rule(Some("1/h"), None);
        let take = |name, now| quotas.take(&rule, &caller(name), now).map(drop);
        assert_eq!((take("ops", now), take("billing", now)), (Ok(()), Ok(())));
        let later = now + SWEEP_EVERY;
        assert_eq!(take("late", later), Err(UsedUp::Callers(2)));
        assert!(matches!(take("ops", later), Err(UsedUp::Rate { .. })));
    }
}
