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
use std::sync::Arc;

/// Enough for the largest load without queueing.
const CALLS_IN_FLIGHT: usize = 1024;

fn limits() -> Limits {
    Limits {
        calls_in_flight_max: CALLS_IN_FLIGHT,
        caller_calls_in_flight_max: CALLS_IN_FLIGHT,
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
    load::serve(DialbackEcho::new(agent.as_ref().clone())?).await
}

/// An agent.
pub async fn agent(node: &str) -> anyhow::Result<()> {
    let service = Service::new("Bench")
        .method("Echo", |message: ByteBuf, _| async move { Ok(message) })
        .method("Say", |message: String, _| async move { Ok(message) });
    let agent = Agent::builder(pki::load("agent-a")?).node(node).serve(service).limits(limits());
    let agent = agent.start()?;
    agent.registered(1).await;
    println!("ready");
    load::until_closed().await
}

/// A caller.
pub async fn caller(node: &str) -> anyhow::Result<()> {
    let caller = Caller::builder(pki::load("caller-c")?).node(node).limits(limits());
    let caller = caller.connect().await?;
    load::serve(DialbackEcho::new(caller.agent("a")?)?).await
}

/// An echo call through dialback.
#[derive(Clone)]
struct DialbackEcho {
    callee: Arc<Callee>,
    method: MethodPath,
}

impl DialbackEcho {
    fn new(callee: Callee) -> anyhow::Result<Self> {
        Ok(Self { callee: Arc::new(callee), method: "Bench/Echo".parse()? })
    }
}

impl Echo for DialbackEcho {
    async fn echo(&self, message: &[u8]) {
        let reply: ByteBuf =
            self.callee.call(&self.method, Bytes::new(message)).await.expect("a reply");
        assert_eq!(reply.len(), message.len());
    }
}
