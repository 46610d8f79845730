//! The ledger: how often each call ran, recorded by the handlers.

use std::collections::BTreeMap;

/// The runs of one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count {
    /// Started handlers by attempt.
    attempts: BTreeMap<u32, usize>,
    /// Handlers that finished.
    pub(crate) finished: usize,
}

impl Count {
    /// Handlers that started.
    pub(crate) fn started(&self) -> usize {
        self.attempts.values().sum()
    }

    /// The most handlers that started for one attempt.
    pub(crate) fn most_for_one_attempt(&self) -> usize {
        self.attempts.values().copied().max().unwrap_or(0)
    }
}

/// Counts by the id of the call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(BTreeMap<String, Count>);

impl Ledger {
    /// Reads the output of `Demo/Append`: lines `started ID` and `done ID`. They name no attempt,
    /// so all count as one.
    pub(crate) fn from_lines(lines: &str) -> Self {
        let mut ledger = Self::default();
        for line in lines.lines() {
            match line.split_once(' ') {
                Some(("started", id)) => ledger.started(id, 1),
                Some(("done", id)) => ledger.finished(id),
                _ => panic!("not a line of a ledger: {line:?}"),
            }
        }
        ledger
    }

    pub(crate) fn started(&mut self, id: &str, attempt: u32) {
        *self.entry(id).attempts.entry(attempt).or_default() += 1;
    }

    pub(crate) fn finished(&mut self, id: &str) {
        self.entry(id).finished += 1;
    }

    fn entry(&mut self, id: &str) -> &mut Count {
        self.0.entry(id.to_owned()).or_default()
    }

    /// Adds the ledger of another handler.
    pub(crate) fn add(&mut self, other: Self) {
        for (id, count) in other.0 {
            let entry = self.entry(&id);
            entry.finished += count.finished;
            for (attempt, started) in count.attempts {
                *entry.attempts.entry(attempt).or_default() += started;
            }
        }
    }

    pub(crate) fn count(&self, id: &str) -> Count {
        self.0.get(id).cloned().unwrap_or_default()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[test]
fn lines_are_counted_by_id_and_ledgers_add_up() {
    let mut ledger = Ledger::from_lines("started a\nstarted b\ndone a\n");
    ledger.add(Ledger::from_lines("started a\n"));
    let count = |id: &str| (ledger.count(id).started(), ledger.count(id).finished);
    assert_eq!([count("a"), count("b"), count("c")], [(2, 1), (1, 0), (0, 0)]);
    assert_eq!(ledger.ids().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(ledger.count("a").most_for_one_attempt(), 2);
    let mut retried = Ledger::default();
    retried.started("a", 1);
    retried.started("a", 2);
    assert_eq!((retried.count("a").started(), retried.count("a").most_for_one_attempt()), (2, 1));
}
