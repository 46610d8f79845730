//! Outcomes are true. Agents are killed at five points in the life of a call, repeatedly, and the
//! oracle compares every reported outcome with the ledger. `DIALBACK_SEED` repeats a run.

use crate::{
    admin::expect_all_ended,
    world::{
        Background, Baseline, Direction, IsolatedRuntime, Ledger, Oracle, PathConditions, Rate,
        Relay, Rng, Stage, World, attached, lines_with, path_choice, poll_in_order,
        quick_detection, seed, soon, spawn, take_turn, until,
    },
};
use dialback::{Agent, AgentHandle, Callee, Caller, Limits, Node, Outcome, PathChoice, Status};
use serde::{Serialize, de::IgnoredAny};
use serde_bytes::ByteBuf;
use std::{
    future::{Future, IntoFuture},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The state of the calls when their agent is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// Most of them have no stream yet: they wait for a permit.
    BeforeTheStream,
    /// Most of them are half way to the agent.
    MidRequest,
    /// Their handlers run.
    InTheHandler,
    /// Their handlers have finished but not answered.
    AfterTheEffect,
    /// Most of the answers are half way back.
    MidReply,
}

const POINTS: [Point; 5] = [
    Point::BeforeTheStream,
    Point::MidRequest,
    Point::InTheHandler,
    Point::AfterTheEffect,
    Point::MidReply,
];

/// Shared by all points.
struct OutcomeSetup {
    world: World,
    node: Node,
    oracle: Arc<Oracle>,
    seed: u64,
}

impl OutcomeSetup {
    async fn new(seed: u64) -> Self {
        let world = World::new();
        // A call that waits for a permit still waits when the link is lost.
        let patient = Limits { queue_wait_max: Duration::from_secs(30), ..quick_detection() };
        let node = world.node().limits(patient).start().await.expect("a node");
        Self { world, node, oracle: Arc::default(), seed }
    }

    /// Repeats one point, each time with a new agent.
    async fn run_point(&self, point: Point, rounds: u64) -> Ledger {
        let caller = self.world.caller("ops", self.node.local_addr()).limits(quick_detection());
        let caller = caller.connect().await.expect("a caller");
        let mut ledger = Ledger::default();
        for number in 0..rounds {
            ledger.add(Round::begin(self, point, &caller, number).await.run().await);
        }
        ledger
    }
}

/// One agent, from its start until its calls have ended.
struct Round {
    point: Point,
    oracle: Arc<Oracle>,
    stage: Stage,
    path: Relay,
    agent: Option<IsolatedRuntime<Agent>>,
    handle: AgentHandle,
    callees: [Callee; 2],
    rng: Rng,
    prefix: String,
    next_id: usize,
}

type PendingCall = Background<()>;

/// Calls that reach the point, for each callee.
const CALLS_PER_CALLEE: usize = 20;

/// A path on which large messages take long and small ones do not.
const NARROW: Rate = Rate { bytes_per_second: 2_000_000, queue_bytes: 200_000 };

/// More than the windows hold, so that END waits for the other side to read; and less.
const SIZES: [usize; 2] = [600_000, 20_000];

impl Round {
    async fn begin(setup: &OutcomeSetup, point: Point, caller: &Caller, number: u64) -> Self {
        let prefix = format!("{point:?}-{number}");
        let rng = Rng::new(setup.seed, number << 8 | point as u64);
        // Duplicated and late packets must not run anything twice.
        let impaired = PathConditions { duplicate: 0.1, reorder: 0.1, ..PathConditions::default() };
        let seed = rng.clone().number();
        let path = Relay::by_seed(setup.node.local_addr(), [impaired; 2], seed).await;
        let (stage, name) = (Stage::default(), format!("{point:?}").to_lowercase());
        let permits = if point == Point::BeforeTheStream { 8 } else { 256 };
        let limits = Limits { calls_in_flight_max: permits, ..quick_detection() };
        let agent = setup.world.agent(&name, path.address()).limits(limits).serve(stage.service());
        let agent = Some(IsolatedRuntime::start(attached(agent)).await);
        let handle = setup.node.agent(&name).connected();
        let handle = soon("the node registers it", handle).await.expect("a name");
        let local: &Callee = handle.as_ref();
        let callees = [local.clone(), caller.agent(&name).expect("a name")];
        let oracle = setup.oracle.clone();
        Self { point, oracle, stage, path, agent, handle, callees, rng, prefix, next_id: 0 }
    }

    async fn run(mut self) -> Ledger {
        let ordinary = self.small_calls(8, 6);
        wait_for_all(ordinary).await;
        let mut pending = self.reach_point().await;
        let background_calls = BackgroundCalls::start(&mut self);
        // Any moment is fine, as long as it differs each time.
        tokio::time::sleep(Duration::from_millis(self.rng.below(20))).await;
        self.agent.take().expect("alive").kill().await;
        // Neither side has detected the loss yet.
        pending.extend(self.small_calls(2, 1));
        wait_for_all(pending).await;
        background_calls.stop().await;
        soon("the node detects the loss", self.handle.disconnected()).await;
        let late = self.small_calls(4, 1);
        wait_for_all(late).await;
        self.stage.busy(0).await;
        self.stage.ledger()
    }

    /// Makes calls and returns them when they have reached the point.
    async fn reach_point(&mut self) -> Vec<PendingCall> {
        match self.point {
            Point::BeforeTheStream => {
                let mut pending = self.call_from_each(4, "Stage/Hold");
                self.stage.busy(8).await;
                pending.extend(self.queue().await);
                pending
            }
            Point::MidRequest => {
                self.narrow(Direction::Down).await;
                let pending = self.call_large("Stage/Weigh", |id, bytes| {
                    (id.to_owned(), ByteBuf::from(vec![7; bytes]))
                });
                self.wait_for_bytes(Direction::Down, &pending).await;
                pending
            }
            Point::InTheHandler => {
                let pending = self.call_from_each(CALLS_PER_CALLEE, "Stage/Hold");
                self.stage.busy(2 * CALLS_PER_CALLEE).await;
                pending
            }
            Point::AfterTheEffect => {
                let before = self.stage.all_runs();
                let pending = self.call_from_each(CALLS_PER_CALLEE, "Stage/Linger");
                let stage = self.stage.clone();
                let all = before + 2 * CALLS_PER_CALLEE;
                until("all have done their work", move || stage.all_runs() == all).await;
                pending
            }
            Point::MidReply => {
                self.narrow(Direction::Up).await;
                let pending = self.call_large("Stage/Huge", |id, bytes| (id.to_owned(), bytes));
                self.stage.busy(pending.len()).await;
                self.stage.open();
                self.wait_for_bytes(Direction::Up, &pending).await;
                pending
            }
        }
    }

    fn next_id(&mut self) -> String {
        self.next_id += 1;
        format!("{}-{}", self.prefix, self.next_id)
    }

    /// Calls that are answered at once, this many per callee: some with a value, some with an
    /// error.
    fn small_calls(&mut self, good: usize, failing: usize) -> Vec<PendingCall> {
        let mut pending = self.call_from_each(good, "Stage/Note");
        pending.extend(self.call_from_each(failing, "Stage/Fail"));
        pending
    }

    fn call_from_each(&mut self, count: usize, method: &'static str) -> Vec<PendingCall> {
        let mut pending = Vec::new();
        for _ in 0..count {
            for direction in self.callees.clone() {
                let id = self.next_id();
                let call = direction.call::<IgnoredAny>(method, &id);
                pending.push(self.spawn_call(id, call.into_future()));
            }
        }
        pending
    }

    /// Large calls and smaller ones, for each callee.
    fn call_large<M: Serialize>(
        &mut self,
        method: &'static str,
        message: impl Fn(&str, usize) -> M,
    ) -> Vec<PendingCall> {
        let mut pending = Vec::new();
        for n in 0..16 {
            let (id, bytes) = (self.next_id(), SIZES[n / 2 % 2]);
            let call = self.callees[n % 2].call::<IgnoredAny>(method, &message(&id, bytes));
            pending.push(self.spawn_call(id, call.into_future()));
        }
        pending
    }

    fn spawn_call<R, F>(&self, id: String, call: F) -> PendingCall
    where
        F: Future<Output = Result<R, Status>> + Send + 'static,
    {
        let oracle = self.oracle.clone();
        spawn(async move { drop(oracle.watch(&id, call).await) })
    }

    /// The node's own calls are queued once they are polled; those of the caller arrive later.
    async fn queue(&mut self) -> Vec<PendingCall> {
        let ids: Vec<_> = (0..CALLS_PER_CALLEE).map(|_| self.next_id()).collect();
        let calls = ids.iter().map(|id| self.callees[0].call::<String>("Stage/Note", id));
        let calls = poll_in_order(calls).await;
        let mut pending: Vec<_> =
            ids.into_iter().zip(calls).map(|(id, call)| self.spawn_call(id, call)).collect();
        let remote = self.callees[1].clone();
        for _ in 0..CALLS_PER_CALLEE {
            let id = self.next_id();
            pending.push(
                self.spawn_call(id.clone(), remote.call::<String>("Stage/Note", &id).into_future()),
            );
        }
        pending
    }

    async fn narrow(&self, direction: Direction) {
        let narrow = PathConditions { rate: Some(NARROW), ..PathConditions::default() };
        let mut conditions = [PathConditions::default(); 2];
        conditions[direction as usize] = narrow;
        self.path.conditions(conditions).await;
    }

    /// Waits until some of the data, but far from all, has passed the bottleneck. On a machine that
    /// stalls until the link is lost, the calls end before, and their outcomes must still be true.
    async fn wait_for_bytes(&mut self, direction: Direction, pending: &[PendingCall]) {
        let mark = self.path.stats().delivered(direction) + 100_000 + self.rng.below(900_000);
        let path = &self.path;
        let are_over = || pending.iter().all(PendingCall::is_finished);
        until("some of it has passed", || path.stats().delivered(direction) >= mark || are_over())
            .await;
    }
}

async fn wait_for_all(pending: Vec<PendingCall>) {
    for call in pending {
        soon("a call ends", call).await;
    }
}

/// Small calls one after the other for each callee, from before the kill until after it. Some have
/// a deadline that they may miss, some have a caller that may drop them.
struct BackgroundCalls {
    is_over: Arc<AtomicBool>,
    talking: [PendingCall; 2],
}

impl BackgroundCalls {
    /// More calls would only add ones that fail at once to the log.
    const CALLS_MAX: usize = 20;

    fn start(round: &mut Round) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let talking = [0, 1].map(|direction| {
            let (oracle, over) = (round.oracle.clone(), is_over.clone());
            let (callee, prefix) =
                (round.callees[direction].clone(), format!("{}-c{direction}", round.prefix));
            let mut rng = Rng::new(round.rng.number(), 0);
            spawn(async move {
                for n in 0..Self::CALLS_MAX {
                    let id = format!("{prefix}-{n}");
                    let call = callee.call::<String>("Stage/Note", &id);
                    let soon = Duration::from_micros(rng.below(10_000) + 1_000);
                    match rng.below(6) {
                        0 => drop(oracle.watch(&id, call.timeout(soon)).await),
                        1 => drop(tokio::time::timeout(soon, oracle.watch(&id, call)).await),
                        _ => drop(oracle.watch(&id, call).await),
                    }
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            })
        });
        Self { is_over, talking }
    }

    async fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        wait_for_all(self.talking.into()).await;
    }
}

/// Runs all points concurrently and verifies them.
async fn run(rounds: u64) -> Arc<Oracle> {
    let seed = seed();
    println!("DIALBACK_SEED={seed}");
    let setup = OutcomeSetup::new(seed).await;
    let baseline = Baseline::measure();
    let [a, b, c, d, e] = POINTS.map(|point| setup.run_point(point, rounds));
    let ledgers = tokio::join!(a, b, c, d, e);
    let mut ledger = ledgers.0;
    [ledgers.1, ledgers.2, ledgers.3, ledgers.4].into_iter().for_each(|more| ledger.add(more));
    let verdict = setup.oracle.verify(&ledger);
    println!("{verdict}");
    verdict.expect_true();
    baseline.wait_until_restored(&setup.node).await;
    expect_all_ended(&setup.node).await;
    setup.oracle
}

/// Expects a minimum of calls and of each outcome, so that the oracle has verified something.
#[track_caller]
fn expect_enough(oracle: &Oracle, calls: usize, each: usize) {
    let counts = [Outcome::Ok, Outcome::AppError, Outcome::NotExecuted, Outcome::Unknown]
        .map(|outcome| oracle.count(outcome));
    assert!(counts.iter().sum::<usize>() >= calls, "{counts:?}");
    assert!(counts.iter().all(|count| *count >= each), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_true_however_agents_are_killed() {
    let _turn = take_turn().await;
    expect_enough(&*run(6).await, 2_000, 200);
    let tunnels = lines_with("through a tunnel over TCP").len();
    assert!(tunnels > 0 || path_choice() != PathChoice::Auto, "no path has changed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form; `make test-long` runs it"]
async fn outcomes_are_true_however_often_agents_are_killed() {
    let _turn = take_turn().await;
    expect_enough(&*run(60).await, 20_000, 2_000);
}
