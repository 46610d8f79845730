//! The HTTP gateway over real sockets: calls, streams, authentication, refusals, and isolation of
//! clients from each other.

mod authentication;
mod calls;
pub(crate) mod client;
mod early_answers;
mod floods;
mod h2;
mod heads;
mod hostile;
mod draining;
mod connection_limits;
mod streams;
mod tls;

use crate::world::{Stage, World, attached, soon};
use client::{Http, HttpReply};
use dialback::{
    Agent, Context, Gateway, GatewayBuilder, Node, NodeBuilder, NodePolicy, Outbound, PeerName,
    Service, Status,
    policy::{AllowRule, HostRule},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The token that the tests accept, of the caller `ops`.
const TOKEN: &str = "good-token-of-ops";

/// A node with a gateway, and the agent `warehouse`.
struct GatewaySetup {
    world: World,
    node: Node,
    agent: Agent,
    stage: Stage,
    ticks: Ticks,
    gateway: Gateway,
}

/// A streaming service that counts its running handlers and the bytes sent.
#[derive(Clone, Default)]
struct Ticks {
    running: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

struct RunningStream(Arc<AtomicUsize>);

impl Drop for RunningStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ticks {
    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    fn run(&self) -> RunningStream {
        self.running.fetch_add(1, Ordering::SeqCst);
        RunningStream(self.running.clone())
    }

    fn service(&self) -> Service {
        let [endless, silent] = std::array::from_fn(|_| self.clone());
        Service::new("Ticks")
            .server_stream("Count", |to: u64, mut out: Outbound<u64>, ctx: Context| async move {
                ctx.add_reply_metadata("unit", "tick");
                for tick in 0..to {
                    out.send(&tick).await?;
                }
                ctx.add_trailing_metadata("last", to.to_string());
                Ok(())
            })
            .server_stream("Fail", |(): (), mut out: Outbound<u64>, _: Context| async move {
                out.send(&7).await?;
                Err(Status::new(dialback::Code::OutOfRange, "no more"))
            })
            .server_stream("Endless", move |bytes: usize, mut out: Outbound<String>, _: Context| {
                let (run, sent) = (endless.run(), endless.sent.clone());
                async move {
                    let _run = run;
                    loop {
                        out.send(&"x".repeat(bytes)).await?;
                        sent.fetch_add(bytes, Ordering::SeqCst);
                    }
                }
            })
            .server_stream("Silent", move |(): (), out: Outbound<u64>, _: Context| {
                let run = silent.run();
                async move {
                    let _run = run;
                    out.closed().await;
                    std::future::pending::<()>().await;
                    drop(out);
                    Ok(())
                }
            })
    }
}

/// Verifies tokens in these tests.
fn verify_token(token: &str, _now: std::time::SystemTime) -> Result<PeerName, String> {
    if token == TOKEN {
        return Ok("caller/ops".parse().expect("a peer name"));
    }
    Err("the token is not known here".into())
}

impl GatewaySetup {
    /// Every client is the caller `ops`, who may call everything.
    async fn anonymous() -> Self {
        Self::with(|node| node, |gateway| gateway.anonymous("ops".parse().expect("a name"))).await
    }

    async fn with(
        node: impl FnOnce(NodeBuilder) -> NodeBuilder,
        gateway: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
    ) -> Self {
        let (world, stage, ticks) = (World::new(), Stage::default(), Ticks::default());
        let node = node(world.node().policy(policy())).start().await.expect("a node");
        let agent = world.agent("warehouse", node.local_addr());
        let agent = attached(agent.serve(stage.service()).serve(ticks.service())).await;
        let gateway = gateway(Gateway::builder(&node).listen("127.0.0.1:0"));
        let gateway = gateway.start().await.expect("a gateway");
        Self { world, node, agent, stage, ticks, gateway }
    }

    fn at(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    /// Sends a JSON POST on its own connection.
    async fn post(&self, path: &str, body: &str) -> HttpReply {
        self.post_with(path, &[], body).await
    }

    async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> HttpReply {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        soon("an answer arrives", Http::once(self.at(), "POST", path, &all, body.as_bytes())).await
    }
}

/// `ops` may call everything, `clerk` may call Stage on warehouse, other callers nothing; any agent
/// answers for any service.
fn policy() -> NodePolicy {
    let rule = |caller, agent, method| AllowRule::parse(caller, agent, method).expect("a rule");
    let mut policy = NodePolicy::default().allow(rule("ops", "**", "*/*")).allow(rule(
        "clerk",
        "warehouse",
        "Stage/*",
    ));
    policy.host.push(HostRule::parse("**", "**").expect("a rule"));
    policy
}
