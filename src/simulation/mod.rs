//! Nodes, agents and callers on a network in memory and on tokio's paused clock: an hour passes in
//! milliseconds, and every run is the same.

mod calls;
mod close;
mod service_changes;
mod initiator;
mod links;
mod readiness;
mod scripted_node;

use crate::{
    agent::{Agent, AgentBuilder},
    call::{Callee, Context},
    caller::{Caller, CallerBuilder},
    certs::Ca,
    link::ends,
    net::memory::MemoryNet,
    node::{AgentHandle, Node, NodeBuilder},
    policy::NodePolicy,
    serve::Service,
    status::{Code, Outcome, Status},
    tls::Credentials,
};
use std::{
    future::pending,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// The address of the node; a network in memory has one host.
const NODE: &str = "edge:4433";

fn credentials(peer: &str) -> Credentials {
    static CA: LazyLock<Ca> = LazyLock::new(ends::new_ca);
    ends::credentials(&CA, peer)
}

/// One network, and the handlers of its agents.
struct World {
    net: MemoryNet,
    stage: Stage,
}

/// The state that the handlers of a test share.
#[derive(Clone, Default)]
struct Stage {
    /// Notified each time that `Hold` begins.
    begun: Arc<Notify>,
    /// Lets one `Hold` end.
    release: Arc<Notify>,
}

impl Stage {
    /// `Echo` answers at once, `Hold` once it is released, `Never` not at all.
    fn service(&self) -> Service {
        let stage = self.clone();
        Service::new("Stage")
            .method("Echo", |text: String, _: Context| async move { Ok(text) })
            .method("Hold", move |text: String, _: Context| {
                let stage = stage.clone();
                async move {
                    stage.begun.notify_one();
                    stage.release.notified().await;
                    Ok(text)
                }
            })
            .method("Never", |(): (), _: Context| pending::<Result<(), Status>>())
    }
}

impl World {
    fn new() -> Self {
        Self { net: MemoryNet::new(1), stage: Stage::default() }
    }

    fn node(&self) -> NodeBuilder {
        Node::builder(credentials("node/edge"))
            .listen("192.0.2.1:4433")
            .policy(NodePolicy::allow_all())
            .net(self.net.shared())
    }

    fn agent(&self, name: &str) -> AgentBuilder {
        Agent::builder(credentials(&format!("agent/{name}")))
            .node(NODE)
            .serve(self.stage.service())
            .net(self.net.shared())
    }

    fn caller(&self, name: &str) -> CallerBuilder {
        Caller::builder(credentials(&format!("caller/{name}"))).node(NODE).net(self.net.shared())
    }
}

/// A node, the agent `shop` and the caller `ops`, all linked.
struct Scene {
    world: World,
    node: Node,
    agent: Agent,
    caller: Caller,
    /// The agent as the node's own program calls it.
    handle: AgentHandle,
}

impl Scene {
    async fn open() -> Self {
        let world = World::new();
        let node = world.node().start().await.expect("a node");
        let agent = world.agent("shop").start().expect("an agent");
        Self::of(world, node, agent).await
    }

    async fn of(world: World, node: Node, agent: Agent) -> Self {
        agent.registered(1).await;
        let handle = node.agent("shop").connected().await.expect("a name");
        let caller = world.caller("ops").connect().await.expect("a caller");
        Self { world, node, agent, caller, handle }
    }

    /// The agent as the remote caller calls it.
    fn by_caller(&self) -> Callee {
        self.caller.agent("shop").expect("a name")
    }

    /// A call of `Hold` that has begun.
    async fn holding(&self) -> Running<Result<String, Status>> {
        let call = self.by_caller().call::<String>("Stage/Hold", "held").timeout(HOUR);
        let running = spawn(async move { call.await });
        self.world.stage.begun.notified().await;
        running
    }
}

/// A task that ends with the test. Dropping it aborts it.
struct Running<T>(JoinSet<T>, AbortHandle);

fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Running<T> {
    let mut tasks = JoinSet::new();
    let handle = tasks.spawn(task);
    Running(tasks, handle)
}

impl<T: Send + 'static> Running<T> {
    fn is_finished(&self) -> bool {
        self.1.is_finished()
    }

    async fn ended(mut self) -> T {
        self.0.join_next().await.expect("a task").expect("no panic")
    }
}

#[track_caller]
fn check_status<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, outcome: Outcome) {
    let status = answer.expect_err("a failure");
    assert_eq!((status.code(), status.outcome()), (code, outcome), "{status}");
}
