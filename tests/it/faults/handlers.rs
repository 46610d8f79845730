//! Handlers that panic, block their thread, or spin. Only their own call fails, and its permit is
//! returned.

use crate::world::{
    Baseline, IsolatedRuntime, Stage, World, attached, check_status, soon, spawn, until,
};
use dialback::{Agent, Callee, Code, Context, Limits, Outcome, Service, Status};
use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

/// Blocks the threads of its handlers until it is released.
#[derive(Clone, Default)]
struct Misbehaving {
    is_let_go: Arc<AtomicBool>,
    running: Arc<AtomicUsize>,
}

impl Misbehaving {
    /// `Block` sleeps as a thread, `Spin` keeps its thread busy, `Panic` panics.
    fn service(&self) -> Service {
        let [block, spin] = [self.clone(), self.clone()];
        Service::new("Bad")
            .method("Block", move |(): (), _: Context| {
                let block = block.clone();
                async move {
                    // In its first poll it would sometimes block the task that its own call has
                    // just woken: see docs/calls.md.
                    tokio::task::yield_now().await;
                    block.block_until_released(|| std::thread::sleep(Duration::from_millis(5)))
                }
            })
            .method("Spin", move |(): (), _: Context| {
                let spin = spin.clone();
                async move {
                    tokio::task::yield_now().await;
                    spin.block_until_released(std::hint::spin_loop)
                }
            })
            .method("Panic", |(): (), _: Context| async move { panic_on_purpose() })
    }

    fn block_until_released(&self, meanwhile: impl Fn()) -> Result<(), Status> {
        self.running.fetch_add(1, SeqCst);
        while !self.is_let_go.load(SeqCst) {
            meanwhile();
        }
        self.running.fetch_sub(1, SeqCst);
        Ok(())
    }
}

#[expect(clippy::panic, reason = "that is what the method is for")]
fn panic_on_purpose() -> Result<(), Status> {
    panic!("a handler panics on purpose")
}

/// One such call next to others: the others are answered while it misbehaves, only it fails, and
/// its permit is returned, on the agent too.
async fn check(method: &'static str, code: Code) {
    const PERMITS: usize = 4;
    let (world, stage, bad) = (World::new(), Stage::default(), Misbehaving::default());
    let node = world.node().start().await.expect("a node");
    let limits = Limits { calls_in_flight_max: PERMITS, ..Limits::default() };
    let agent = world.agent("warehouse", node.local_addr()).limits(limits);
    let agent = agent.serve(stage.service()).serve(bad.service());
    let agent: IsolatedRuntime<Agent> = IsolatedRuntime::with_threads(2, attached(agent)).await;
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    let handle = node.agent("warehouse").handle().expect("a name");
    let local: &Callee = handle.as_ref();
    // The node may start its part of a link a moment after the other side knows of it.
    drop(caller.agents().await);
    let baseline = Baseline::measure();
    for (way, callee) in
        [local.clone(), caller.agent("warehouse").expect("a name")].iter().enumerate()
    {
        bad.is_let_go.store(false, SeqCst);
        let call = callee.call::<()>(method, &()).timeout(Duration::from_secs(3)).into_future();
        let call = spawn(call);
        if code != Code::Internal {
            until("the handler runs", || bad.running.load(SeqCst) == 1).await;
        }
        for n in 0..50 {
            let id = format!("{way}-{n}");
            let call = callee.call::<String>("Stage/Note", &id);
            let call = call.timeout(Duration::from_secs(20)).into_future();
            assert_eq!(soon("another call ends", call).await.as_deref(), Ok(&*id));
        }
        check_status(soon("the bad call ends", call).await, code, Outcome::Unknown);
        bad.is_let_go.store(true, SeqCst);
        until("the handler has ended", || bad.running.load(SeqCst) == 0).await;
        baseline.wait_until_restored(&node).await;
    }
    // All permits of the agent are free: that many handlers run at once.
    let held: Vec<_> = (0..PERMITS)
        .map(|n| spawn(local.call::<String>("Stage/Hold", &format!("{n}")).into_future()))
        .collect();
    stage.busy(PERMITS).await;
    stage.open();
    for call in held {
        assert!(soon("a held call ends", call).await.is_ok());
    }
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_fails_alone() {
    check("Bad/Panic", Code::Internal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_blocks_its_thread_fails_alone() {
    check("Bad/Block", Code::DeadlineExceeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_spins_fails_alone() {
    check("Bad/Spin", Code::DeadlineExceeded).await;
}
