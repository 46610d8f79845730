//! Many agents that are disconnected at the same moment: all reconnect, and no other peer is
//! affected.

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

/// The time since which each agent is attached; detached agents are omitted.
fn attached_since(node: &Node) -> BTreeMap<String, u64> {
    let attached = node.agents().into_iter().filter(|agent| agent.attached);
    attached.map(|agent| (agent.name, agent.since_ms)).collect()
}

/// Waits for a state of all agents. It is checked whenever an agent attaches or detaches.
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

/// Calls an unaffected agent, one call after the other.
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
                let call = callee.call::<String>("Stage/Note", &format!("other-{calls}"));
                call.await.expect("a call of the unaffected agent");
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
    let bystander = Bystander::start(quiet.clone());
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
    let (calls, longest) = bystander.stop().await;
    println!(
        "{size} agents had reconnected after {took:?}; {calls} calls next to them, the longest {longest:?}"
    );
    assert!(calls > 0);
    assert_eq!(stage.all_runs(), calls, "each call of the unaffected agent ran once");
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
