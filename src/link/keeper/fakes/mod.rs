//! A role and links without a network, for tests of the keeper.

mod link;

use super::hooks::{KeeperHooks, KeeperSignals, Retry};
use crate::{
    drain::{Signal, SignalListener, Tasks},
    link::fault::LinkFault,
    name::NodeAddress,
    wire::CloseCode,
};
use link::FakeActive;
pub(super) use link::{EventLog, FakeLink};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::{sync::Notify, time::Instant};

/// Answers in the order in which they are given, for requests in the order in which they come.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Result<(), LinkFault>>>,
    given: Notify,
}

impl Script {
    fn give(&self, answer: Result<(), LinkFault>) {
        self.answers.lock().expect("answers").push_back(answer);
        self.given.notify_waiters();
    }

    async fn next(&self) -> Result<(), LinkFault> {
        loop {
            let given = self.given.notified();
            if let Some(answer) = self.answers.lock().expect("answers").pop_front() {
                return answer;
            }
            given.await;
        }
    }
}

/// A role whose dials and registrations end as its test decides.
#[derive(Clone)]
pub(super) struct FakeRole(Arc<FakeRoleState>);

struct FakeRoleState {
    address: NodeAddress,
    signals: KeeperSignals,
    unwanted: Signal,
    tasks: Tasks,
    log: EventLog,
    dials: Script,
    registrations: Script,
    began: Instant,
    dialled_at: Mutex<Vec<Duration>>,
    links: Mutex<Vec<FakeLink>>,
}

/// The time for which a replacement waits for a slot.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(25);

impl FakeRole {
    /// A role whose keeper has begun to dial.
    pub(super) async fn start() -> Self {
        let role = Self(Arc::new(FakeRoleState {
            address: "edge:4433".parse().expect("an address"),
            signals: KeeperSignals::default(),
            unwanted: Signal::default(),
            tasks: Tasks::default(),
            log: EventLog::default(),
            dials: Script::default(),
            registrations: Script::default(),
            began: Instant::now(),
            dialled_at: Mutex::default(),
            links: Mutex::default(),
        }));
        let (kept, log) = (role.clone(), role.0.log.clone());
        role.0.tasks.spawn_until_stopped(async move {
            super::keep(kept).await;
            log.push("stopped");
        });
        role.expect(&["dial"]).await;
        role
    }

    /// Creates the fakes with a first link.
    pub(super) async fn linked() -> Self {
        let role = Self::start().await;
        role.link_up().await;
        role.expect(&["register", "publish 1"]).await;
        role
    }

    /// Answers the dial and the registration.
    pub(super) async fn link_up(&self) {
        self.answer_dial(Ok(()));
        self.answer_registration(Ok(()));
        self.settle().await;
    }

    pub(super) fn answer_dial(&self, answer: Result<(), LinkFault>) {
        self.0.dials.give(answer);
    }

    pub(super) fn answer_registration(&self, answer: Result<(), LinkFault>) {
        self.0.registrations.give(answer);
    }

    pub(super) fn signals(&self) -> &KeeperSignals {
        &self.0.signals
    }

    /// The address is not wanted any more.
    pub(super) async fn is_unwanted(&self) {
        self.0.unwanted.notify();
        self.settle().await;
    }

    /// Ends the role at once.
    pub(super) fn stop_tasks(&self) {
        self.0.tasks.stop();
    }

    /// The link of this number, counted from 1.
    pub(super) fn link(&self, number: usize) -> FakeLink {
        self.0.links.lock().expect("links")[number - 1].clone()
    }

    /// When each dial began.
    pub(super) fn dialled_at(&self) -> Vec<Duration> {
        self.0.dialled_at.lock().expect("dials").clone()
    }

    /// Lets all that is ready run, without time passing.
    pub(super) async fn settle(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    /// Lets time pass.
    pub(super) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
        self.settle().await;
    }

    /// The time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Checks what happens now in tasks that run in any order.
    pub(super) async fn expect_in_any_order(&self, expected: &[&str]) {
        self.settle().await;
        let (mut happened, mut expected) = (self.happened(), expected.to_vec());
        happened.sort();
        expected.sort_unstable();
        assert_eq!(happened, expected);
    }

    /// Takes what has happened since the last check.
    pub(super) fn happened(&self) -> Vec<String> {
        self.0.log.take()
    }

    /// Checks what has happened since the last check.
    #[track_caller]
    pub(super) fn check(&self, expected: &[&str]) {
        assert_eq!(self.0.log.take(), expected);
    }

    /// Checks what happens now, without time passing.
    pub(super) async fn expect(&self, expected: &[&str]) {
        self.settle().await;
        self.check(expected);
    }
}

/// Logs that a step was cancelled.
struct Abandoned<'a>(Option<&'static str>, &'a EventLog);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(step) = self.0 {
            self.1.push(format!("{step} given up"));
        }
    }
}

impl KeeperHooks for FakeRole {
    type Dialled = FakeLink;
    type Active = FakeActive;

    fn address(&self) -> &NodeAddress {
        &self.0.address
    }

    fn signals(&self) -> &KeeperSignals {
        &self.0.signals
    }

    fn stop(&self) -> SignalListener {
        self.0.signals.stop.listen().or(self.0.unwanted.listen())
    }

    fn is_stopped(&self) -> bool {
        self.0.signals.stop.is_notified() || self.0.unwanted.is_notified()
    }

    fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// The longest waits of an unreachable peer.
    fn chance(&self) -> f64 {
        1.0
    }

    fn drain_max(&self) -> Duration {
        DRAIN_MAX
    }

    async fn dial(&self, newer_than: Option<SystemTime>) -> Result<FakeLink, LinkFault> {
        let Self(state) = self;
        state.dialled_at.lock().expect("dials").push(state.began.elapsed());
        assert!(newer_than.is_none_or(|end| end == FakeLink::expiry()));
        state.log.push(if newer_than.is_some() { "dial for a newer certificate" } else { "dial" });
        let mut abandoned = Abandoned(Some("dial"), &state.log);
        let answer = state.dials.next().await;
        abandoned.0 = None;
        answer?;
        let mut links = state.links.lock().expect("links");
        let link = FakeLink::new(links.len() + 1, &state.log);
        links.push(link.clone());
        Ok(link)
    }

    async fn establish(&self, link: FakeLink) -> Result<FakeActive, LinkFault> {
        let Self(state) = self;
        state.log.push("register");
        let active = FakeActive { link, unwanted: state.unwanted.listen() };
        let mut abandoned = Abandoned(Some("registration"), &state.log);
        let answer = state.registrations.next().await;
        abandoned.0 = None;
        answer.map(|()| active)
    }

    fn publish(&self, active: &mut FakeActive) {
        active.link.log("publish");
    }

    fn down(&self, fault: &LinkFault) {
        let what = match fault {
            LinkFault::Draining { .. } => "draining".to_owned(),
            LinkFault::Silent(why) => (*why).to_owned(),
            LinkFault::Closed { code, .. } => code.to_string(),
            other => other.to_string(),
        };
        self.0.log.push(format!("down: {what}"));
    }

    fn refused(&self, _: &LinkFault) {
        self.0.log.push("refused");
    }

    fn log_retry(&self, retry: &Retry<'_>) {
        assert!(retry.to_string().contains("node edge:4433: "), "{retry}");
        self.0.log.push("retry");
    }
}

/// A fault as if a peer does not answer.
pub(super) const fn silence() -> LinkFault {
    LinkFault::Silent("silence")
}

/// A link that the peer has closed with this code.
pub(super) fn closed_with(code: CloseCode) -> LinkFault {
    LinkFault::Closed { code, text: String::new(), by_peer: true }
}
