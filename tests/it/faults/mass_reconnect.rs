//! Many agents that were all sent away at the same moment: all come back, and nobody else notices.

use crate::world::{Background, Baseline, Stage, World, attached, spawn, take_turn};
use dialback::{Agent, Callee, Node};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Since when each agent is attached; those who are not are left out.
fn attached_since(node: &Node) -> BTreeMap<String, u64> {
    let attached = node.agents().into_iter().filter(|agent| agent.attached);
    attached.map(|agent| (agent.name, agent.since_ms)).collect()
}

/// Waits for a state of the whole crowd. It is looked at when somebody has come or gone.
async fn within(time: Duration, what: &str, node: &Node, holds: impl Fn() -> bool) {
    let mut events = node.events();
    let held = async {
        while !holds() {
            events.next().await.expect("the node runs");
        }
    };
    let in_time = tokio::time::timeout(time, held).await;
    assert!(in_time.is_ok(), "it did not happen within {time:?} that {what}");
}

/// Calls somebody who is not concerned, one call after the other.
struct Bystander {
    is_over: Arc<AtomicBool>,
    calling: Background<(usize, Duration)>,
}

impl Bystander {
    fn start(callee: Callee) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let calling = spawn(async move {
            let (mut calls, mut longest) = (0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let call = callee.call::<String>("Stage/Note", &format!("beside-{calls}"));
                call.await.expect("a call beside the crowd");
                (calls, longest) = (calls + 1, longest.max(began.elapsed()));
            }
            (calls, longest)
        });
        Self { is_over, calling }
    }

    async fn stop(self) -> (usize, Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        self.calling.await
    }
}

async fn check_mass_reconnect(size: usize, time: Duration) {
    let _turn = take_turn().await;
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let _quiet = attached(world.agent("quiet", at).serve(stage.service())).await;
    let start = |n| world.agent(&format!("crowd-{n}"), at).start().expect("an agent");
    let all: Vec<Agent> = (0..size).map(start).collect();
    within(2 * time, "all attach", &node, || attached_since(&node).len() == size + 1).await;
    let (baseline, before) = (Baseline::measure(), attached_since(&node));
    let quiet = node.agent("quiet").handle().expect("a name");
    let quiet: &Callee = quiet.as_ref();
    let beside = Bystander::start(quiet.clone());
    let began = Instant::now();
    for agent in &all {
        node.agent(agent.name().as_str()).handle().expect("a name").disconnect();
    }
    within(time, "all are back", &node, || {
        let now = attached_since(&node);
        now.len() == size + 1
            && now.iter().filter(|(name, at)| before[*name] < **at).count() == size
    })
    .await;
    let took = began.elapsed();
    let (calls, longest) = beside.stop().await;
    println!(
        "{size} agents were back after {took:?}; {calls} calls beside them, the longest {longest:?}"
    );
    assert!(calls > 0);
    assert_eq!(stage.all_runs(), calls, "each call beside the crowd ran once");
    baseline.wait_until_restored(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_agents_reconnect_at_once_while_other_calls_continue() {
    check_mass_reconnect(100, Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form; `make test-long` runs it"]
async fn five_hundred_agents_reconnect_at_once_while_other_calls_continue() {
    check_mass_reconnect(500, Duration::from_secs(60)).await;
}
