//! The oracle: compares the reported outcome of each call with the ledger and finds every outcome
//! that is not true.

use super::ledger::{Count, Ledger};
use dialback::{Outcome, Status};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Mutex,
};

/// The state of a call at its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallState {
    /// It has not ended.
    Pending,
    /// It has ended with this outcome.
    Outcome(Outcome),
    /// It has ended more than once.
    EndedTwice,
    /// Its caller was dropped before it ended. Only its runs can be checked.
    CallerGone,
}

/// Collects the outcomes of calls. Ids are those of the ledger and are unique.
#[derive(Debug, Default)]
pub(crate) struct Oracle(Mutex<BTreeMap<String, CallState>>);

/// A rule that an outcome or the ledger can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// not_executed: no handler started.
    FalseNotExecuted,
    /// ok: exactly one handler started, and it finished.
    FalseOk,
    /// app_error: exactly one handler started.
    FalseAppError,
    /// Never two handlers for one attempt.
    DoubleRun,
    /// Each call ends in exactly one outcome.
    NotOneOutcome,
    /// Nothing runs without a call.
    UnexpectedRun,
}

const RULES: [Rule; 6] = [
    Rule::FalseNotExecuted,
    Rule::FalseOk,
    Rule::FalseAppError,
    Rule::DoubleRun,
    Rule::NotOneOutcome,
    Rule::UnexpectedRun,
];

const OUTCOMES: [Outcome; 4] =
    [Outcome::Ok, Outcome::AppError, Outcome::NotExecuted, Outcome::Unknown];

/// The row of the calls whose callers were dropped.
const CALLER_GONE: &str = "(caller gone)";

impl Oracle {
    /// Records a new call.
    pub(crate) fn record_call(&self, id: &str) {
        let before = self.0.lock().expect("whole").insert(id.to_owned(), CallState::Pending);
        assert_eq!(before, None, "the id {id} was used twice: give each call its own id");
    }

    /// Records the outcome of a call.
    pub(crate) fn record_outcome(&self, id: &str, outcome: Outcome) {
        let mut calls = self.0.lock().expect("whole");
        let state = calls.get_mut(id).expect("the call was recorded");
        *state = if *state == CallState::Pending {
            CallState::Outcome(outcome)
        } else {
            CallState::EndedTwice
        };
    }

    /// Awaits the call and records its outcome. If the future is dropped, the caller is gone.
    pub(crate) async fn watch<R>(
        &self,
        id: &str,
        call: impl IntoFuture<Output = Result<R, Status>>,
    ) -> Result<R, Status> {
        self.record_call(id);
        let guard = DropGuard { oracle: self, id };
        let result = call.await;
        std::mem::forget(guard);
        self.record_outcome(id, result.as_ref().map_or_else(Status::outcome, |_| Outcome::Ok));
        result
    }

    /// The number of calls with this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        let calls = self.0.lock().expect("whole");
        calls.values().filter(|state| **state == CallState::Outcome(outcome)).count()
    }

    /// Verifies all calls, once nothing runs any more.
    pub(crate) fn verify(&self, ledger: &Ledger) -> Verdict {
        let calls = self.0.lock().expect("whole");
        let mut verdict = Verdict::default();
        for (id, state) in &*calls {
            let count = ledger.count(id);
            verdict.add(*state, &count);
            broken_by(*state, &count).for_each(|rule| verdict.breaks(rule, id));
        }
        let unasked = ledger.ids().filter(|id| !calls.contains_key(*id));
        unasked.for_each(|id| verdict.breaks(Rule::UnexpectedRun, id));
        verdict
    }
}

/// Dropped with the caller.
struct DropGuard<'a> {
    oracle: &'a Oracle,
    id: &'a str,
}

impl Drop for DropGuard<'_> {
    fn drop(&mut self) {
        self.oracle.0.lock().expect("whole").insert(self.id.to_owned(), CallState::CallerGone);
    }
}

/// The rules that one call breaks.
fn broken_by(state: CallState, count: &Count) -> impl Iterator<Item = Rule> + use<> {
    let (started, finished) = (count.started(), count.finished);
    let outcome = match state {
        CallState::Outcome(Outcome::NotExecuted) => (started > 0).then_some(Rule::FalseNotExecuted),
        CallState::Outcome(Outcome::Ok) => ((started, finished) != (1, 1)).then_some(Rule::FalseOk),
        CallState::Outcome(Outcome::AppError) => (started != 1).then_some(Rule::FalseAppError),
        CallState::Outcome(Outcome::Unknown) | CallState::CallerGone => None,
        CallState::Pending | CallState::EndedTwice => Some(Rule::NotOneOutcome),
    };
    let double = (count.most_for_one_attempt() > 1).then_some(Rule::DoubleRun);
    outcome.into_iter().chain(double)
}

/// The result of the oracle. Its `Display` is a table.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// By outcome: calls, and how many of them never started, started and finished.
    rows: BTreeMap<&'static str, [usize; 4]>,
    broken: BTreeMap<Rule, BTreeSet<String>>,
}

impl Verdict {
    fn add(&mut self, state: CallState, count: &Count) {
        let name = match state {
            CallState::Outcome(outcome) => outcome.as_str(),
            CallState::CallerGone => CALLER_GONE,
            CallState::Pending | CallState::EndedTwice => return,
        };
        let row = self.rows.entry(name).or_default();
        let started = count.started();
        let columns = [true, started == 0, started > 0, count.finished > 0];
        row.iter_mut().zip(columns).for_each(|(sum, holds)| *sum += usize::from(holds));
    }

    fn breaks(&mut self, rule: Rule, id: &str) {
        self.broken.entry(rule).or_default().insert(id.to_owned());
    }

    /// The calls with this outcome, and how many of them never started.
    pub(crate) fn ended(&self, outcome: Outcome) -> (usize, usize) {
        self.rows.get(outcome.as_str()).map_or((0, 0), |[calls, idle, ..]| (*calls, *idle))
    }

    /// The number of calls that break a rule.
    pub(crate) fn broken(&self, rule: Rule) -> usize {
        self.broken.get(&rule).map_or(0, BTreeSet::len)
    }

    /// Every outcome was true.
    #[track_caller]
    pub(crate) fn expect_true(&self) {
        assert!(self.broken.is_empty(), "an outcome was not true:\n{self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "outcome       calls  not started   started  finished")?;
        for name in OUTCOMES.map(Outcome::as_str).into_iter().chain([CALLER_GONE]) {
            let [calls, idle, started, finished] = self.rows.get(name).copied().unwrap_or_default();
            writeln!(f, "{name:12} {calls:6} {idle:12} {started:9} {finished:9}")?;
        }
        writeln!(f, "rule                broken  by")?;
        for rule in RULES {
            let ids = self.broken.get(&rule).into_iter().flatten().take(3);
            let ids: Vec<_> = ids.map(String::as_str).collect();
            writeln!(f, "{:18} {:7}  {}", format!("{rule:?}"), self.broken(rule), ids.join(" "))?;
        }
        Ok(())
    }
}

/// Checks which rules these outcomes break against this ledger.
#[cfg(test)]
#[track_caller]
fn check(state: &[(&str, Outcome)], ledger: &str, broken: &[Rule]) {
    let oracle = Oracle::default();
    for (id, outcome) in state {
        oracle.record_call(id);
        oracle.record_outcome(id, *outcome);
    }
    let verdict = oracle.verify(&Ledger::from_lines(ledger));
    assert_eq!(verdict.broken.keys().copied().collect::<Vec<_>>(), broken, "{verdict}");
}

#[test]
fn true_outcomes_break_no_rule() {
    check(&[("a", Outcome::Ok)], "started a\ndone a\n", &[]);
    check(&[("a", Outcome::AppError)], "started a\n", &[]);
    check(&[("a", Outcome::AppError)], "started a\ndone a\n", &[]);
    check(&[("a", Outcome::NotExecuted)], "", &[]);
    for ledger in ["", "started a\n", "started a\ndone a\n"] {
        check(&[("a", Outcome::Unknown)], ledger, &[]);
    }
}

#[test]
fn every_untrue_outcome_breaks_its_rule() {
    check(&[("a", Outcome::NotExecuted)], "started a\n", &[Rule::FalseNotExecuted]);
    check(&[("a", Outcome::Ok)], "", &[Rule::FalseOk]);
    check(&[("a", Outcome::Ok)], "started a\n", &[Rule::FalseOk]);
    check(&[("a", Outcome::AppError)], "", &[Rule::FalseAppError]);
    let twice = "started a\nstarted a\n";
    check(&[("a", Outcome::Unknown)], twice, &[Rule::DoubleRun]);
    check(&[("a", Outcome::Ok)], twice, &[Rule::FalseOk, Rule::DoubleRun]);
    check(&[("a", Outcome::Ok)], "started a\ndone a\nstarted b\n", &[Rule::UnexpectedRun]);
}

#[test]
fn a_call_that_never_ends_or_ends_twice_breaks_a_rule() {
    let oracle = Oracle::default();
    oracle.record_call("endless");
    oracle.record_call("twice");
    oracle.record_outcome("twice", Outcome::Ok);
    oracle.record_outcome("twice", Outcome::Ok);
    let verdict = oracle.verify(&Ledger::from_lines("started twice\ndone twice\n"));
    assert_eq!(verdict.broken(Rule::NotOneOutcome), 2, "{verdict}");
}

#[tokio::test]
async fn a_call_without_its_caller_is_checked_by_its_runs() {
    let oracle = Oracle::default();
    let watched = oracle.watch("a", std::future::pending::<Result<(), Status>>());
    assert!(tokio::time::timeout(std::time::Duration::ZERO, watched).await.is_err());
    for (ledger, double) in [("", 0), ("started a\n", 0), ("started a\nstarted a\n", 1)] {
        let verdict = oracle.verify(&Ledger::from_lines(ledger));
        assert_eq!(verdict.broken(Rule::DoubleRun), double, "{verdict}");
        assert_eq!(verdict.broken.values().map(BTreeSet::len).sum::<usize>(), double, "{verdict}");
    }
}
