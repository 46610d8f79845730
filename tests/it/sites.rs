//! HTTP requests that are passed on as they are: sites and paths of the gateway, through a node and
//! an agent, to HTTP servers.

mod bodies;
mod credentials;
mod failures;
mod heads;
mod http2;
mod paths;
mod upgrades;

use crate::{
    forward::upstream::HttpUpstream,
    http::client::{Http, HttpReply},
    world::{World, attached, soon},
};
use dialback::{
    Agent, Gateway, GatewayBuilder, HttpForward, Node, NodePolicy, PeerName, Site, SiteHost,
    policy::{AllowRule, HostRule},
};
use std::net::SocketAddr;

/// The token of the caller `ops`.
const TOKEN: &str = "good-token-of-ops";

/// A node with a gateway whose sites lead to the forward `web` of the agent `warehouse`: `web.test`
/// for callers, `open.test` for everybody, `any.test` to any agent.
struct SiteSetup {
    world: World,
    node: Node,
    agent: Agent,
    gateway: Gateway,
}

fn host(text: &str) -> SiteHost {
    text.parse().expect("a host")
}

fn rule(caller: &str, method: &str) -> AllowRule {
    AllowRule::parse(caller, "**", method).expect("a rule")
}

/// `ops` and everybody may use the forward.
fn policy() -> NodePolicy {
    let host = HostRule::parse("**", "http:web").expect("a rule");
    NodePolicy::default()
        .allow(rule("ops", "http:*"))
        .allow(rule("everybody", "http:web"))
        .host(host)
}

fn caller_of(token: &str) -> Result<PeerName, String> {
    if token == TOKEN {
        return Ok("caller/ops".parse().expect("a peer name"));
    }
    Err("the token is not known here".into())
}

fn forward(url: &str) -> HttpForward {
    let [name, url] = ["web", url];
    HttpForward::new(name.parse().expect("a name"), url.parse().expect("a URL"), None)
        .expect("a forward")
}

fn sites(gateway: GatewayBuilder) -> GatewayBuilder {
    let name = |text: &str| text.parse().expect("a name");
    let site = |at: &str| Site::new(host(at), name("warehouse"), name("web"));
    gateway
        .site(site("web.test"))
        .site(site("open.test").public(name("everybody")))
        .site(Site::of_any_agent(host("any.test"), name("web")))
}

impl SiteSetup {
    async fn to(url: &str) -> Self {
        Self::with(forward(url), policy(), |gateway| gateway).await
    }

    async fn with(
        forward: HttpForward,
        policy: NodePolicy,
        gateway: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
    ) -> Self {
        let world = World::new();
        let node = world.node().policy(policy).start().await.expect("a node");
        let agent = attached(world.agent("warehouse", node.local_addr()).http(forward)).await;
        let builder = Gateway::builder(&node).listen("127.0.0.1:0");
        let builder = builder.tokens(|token, _| caller_of(token));
        let gateway = gateway(sites(builder)).start().await.expect("a gateway");
        Self { world, node, agent, gateway }
    }

    fn at(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    /// Sends bytes on a connection of its own, and reads one response.
    async fn raw(&self, bytes: impl AsRef<[u8]>) -> HttpReply {
        let mut http = Http::connect(self.at()).await;
        http.send(bytes).await;
        soon("a response", http.reply()).await.expect("a response")
    }

    /// A GET at the site that is open to everybody.
    async fn get(&self, path: &str) -> HttpReply {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: open.test\r\n\r\n")).await
    }
}

/// The upstream that answers every request with this reply, and what leads to it.
async fn answering(reply: Vec<u8>) -> (HttpUpstream, SiteSetup) {
    let upstream = HttpUpstream::answering(reply).await;
    let setup = SiteSetup::to(&upstream.url()).await;
    (upstream, setup)
}
