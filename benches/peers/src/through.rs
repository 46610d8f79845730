//! dialback: a node with the load in its own process, a node between a caller and an agent, and a
//! node with an HTTP gateway.

use crate::{
    load::{self, Echo},
    pki,
};
use dialback::{
    Agent, Callee, Caller, Gateway, Limits, MethodPath, Node, NodePolicy, Service,
    limits::Congestion,
};
use serde_bytes::{ByteBuf, Bytes};
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Enough for the largest load of `compare` without queueing.
const CALLS_IN_FLIGHT: usize = 1024;

fn limits() -> Limits {
    let calls_max = std::env::var("PEERS_CALLS_IN_FLIGHT")
        .map_or(CALLS_IN_FLIGHT, |count| count.parse().expect("a number"));
    Limits {
        calls_in_flight_max: calls_max,
        caller_calls_in_flight_max: calls_max,
        congestion: std::env::var("PEERS_CONGESTION")
            .map_or_else(|_| Congestion::default(), |name| name.parse().expect("a name")),
        ..Limits::default()
    }
}

async fn start_node() -> anyhow::Result<Node> {
    let node = Node::builder(pki::load("node-edge")?).listen(format!("{}:0", pki::host()));
    Ok(node.policy(NodePolicy::allow_all()).limits(limits()).start().await?)
}

/// A node between other processes, with a gateway.
pub async fn node() -> anyhow::Result<()> {
    let node = start_node().await?;
    let gateway = Gateway::builder(&node).listen("127.0.0.1:0").anonymous("c".parse()?);
    let gateway = gateway.start().await?;
    println!("at {} {}", node.local_addr(), gateway.local_addr());
    load::until_closed().await
}

/// A node that calls an agent from its own process.
pub async fn direct() -> anyhow::Result<()> {
    let node = start_node().await?;
    println!("at {}", node.local_addr());
    let agent = node.agent("a").connected().await?;
    load::serve(DialbackEcho::new(vec![agent.as_ref().clone()])?).await
}

fn service() -> Service {
    Service::new("Bench")
        .method("Echo", |message: ByteBuf, _| async move { Ok(message) })
        .method("Say", |message: String, _| async move { Ok(message) })
}

/// An agent.
pub async fn agent(node: &str) -> anyhow::Result<()> {
    let agent = Agent::builder(pki::load("agent-a")?).node(node).serve(service()).limits(limits());
    let agent = agent.start()?;
    agent.registered(1).await;
    println!("ready");
    load::until_closed().await
}

/// Agents that dial at once: a node lets so many handshakes wait at least.
const DIAL_AT_ONCE: usize = 256;

/// The agents of these numbers, with the default limits, each with its own certificate and socket.
pub async fn agents(node: &str, numbers: Range<usize>) -> anyhow::Result<()> {
    let mut agents = Vec::with_capacity(numbers.len());
    for some in pki::issue_agents(numbers)?.chunks(DIAL_AT_ONCE) {
        let first = agents.len();
        for credentials in some {
            let agent = Agent::builder(credentials.clone()).node(node).serve(service());
            agents.push(agent.start()?);
        }
        for agent in &agents[first..] {
            agent.registered(1).await;
        }
    }
    println!("ready");
    load::until_closed().await
}

async fn connect(node: &str) -> anyhow::Result<Caller> {
    let caller = Caller::builder(pki::load("caller-c")?).node(node).limits(limits());
    Ok(caller.connect().await?)
}

/// A caller.
pub async fn caller(node: &str) -> anyhow::Result<()> {
    load::serve(DialbackEcho::new(vec![connect(node).await?.agent("a")?])?).await
}

/// A caller that calls so many agents in turn, each by its name.
pub async fn caller_in_turn(node: &str, agents: usize) -> anyhow::Result<()> {
    let caller = connect(node).await?;
    let callees: Result<_, _> = (0..agents).map(|n| caller.agent(pki::agent_name(n))).collect();
    load::serve(DialbackEcho::new(callees?)?).await
}

/// A caller that names only the service, so that the node chooses the agent of each call.
pub async fn caller_any(node: &str) -> anyhow::Result<()> {
    load::serve(DialbackEcho::new(vec![connect(node).await?.any()])?).await
}

/// An echo call through dialback.
#[derive(Clone)]
struct DialbackEcho {
    /// Called in turn.
    callees: Arc<[Callee]>,
    turn: Arc<AtomicUsize>,
    method: MethodPath,
}

impl DialbackEcho {
    fn new(callees: Vec<Callee>) -> anyhow::Result<Self> {
        Ok(Self { callees: callees.into(), turn: Arc::default(), method: "Bench/Echo".parse()? })
    }
}

impl Echo for DialbackEcho {
    async fn echo(&self, message: &[u8]) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let callee = &self.callees[turn % self.callees.len()];
        let reply: ByteBuf = callee.call(&self.method, Bytes::new(message)).await.expect("a reply");
        assert_eq!(reply.len(), message.len());
    }
}
