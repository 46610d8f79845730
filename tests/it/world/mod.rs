//! A world on loopback for each test: a CA in memory, a node on a free port, agents and callers,
//! and handlers that record their runs. Two worlds share nothing, so tests run in any order and
//! concurrently.

mod rng;
mod ledger;
mod log;
mod oracle;
mod pki;
mod isolated_runtime;
mod raw;
mod relay;
mod baseline;
mod stage;
mod wait;

pub(crate) use baseline::{Baseline, Memory, run_in_own_process};
pub(crate) use isolated_runtime::IsolatedRuntime;
pub(crate) use ledger::Ledger;
pub(crate) use log::{lines_with, logged};
pub(crate) use oracle::Oracle;
pub(crate) use pki::Pki;
pub(crate) use raw::{
    Presented, RawNode, TicketStore, dial_early, dial_raw, dial_raw_from, quic_client, raw_endpoint,
};
pub(crate) use relay::{Burst, Dead, Direction, PathConditions, PathStats, Rate, Relay};
pub(crate) use rng::{Rng, seed};
pub(crate) use stage::{RunEnd, Stage};
pub(crate) use wait::{Background, poll_in_order, soon, spawn, take_turn, until, until_event};

use dialback::{
    Agent, AgentBuilder, Callee, Caller, CallerBuilder, Code, CredentialPem, Credentials, Limits,
    Node, NodeBuilder, NodePolicy, Outcome, PathChoice, PathSettings, PeerName, RevokedSerial,
    Role, Status, TunnelListen,
    certs::{Ca, LeafPem, LeafProfile},
};
use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, SystemTime},
};

/// One CA and the peers under it.
pub(crate) struct World {
    ca: Ca,
}

impl World {
    pub(crate) fn new() -> Self {
        log::record();
        Self { ca: Ca::generate("dialback.local", SystemTime::now()).expect("a CA") }
    }

    pub(crate) fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The profile of a valid leaf of the peer; nodes have every name of this machine.
    pub(crate) fn profile(&self, peer: &str) -> LeafProfile {
        let peer: PeerName = peer.parse().expect("a peer name");
        let hosts: &[&str] =
            if peer.role == Role::Node { &["localhost", "127.0.0.1", "::1"] } else { &[] };
        LeafProfile::new(self.ca.trust_domain(), &peer, hosts, SystemTime::now())
    }

    pub(crate) fn leaf(&self, peer: &str) -> LeafPem {
        self.ca.leaf(&self.profile(peer)).expect("a leaf")
    }

    pub(crate) fn credentials(&self, peer: &str) -> Credentials {
        self.presenting(&self.leaf(peer), None)
    }

    /// Credentials with this leaf that check the CRL.
    pub(crate) fn presenting(&self, leaf: &LeafPem, crl: Option<&str>) -> Credentials {
        let pem = CredentialPem {
            cert: leaf.cert.as_bytes(),
            key: leaf.key.as_bytes(),
            ca: self.ca.pem().as_bytes(),
            crl: crl.map(str::as_bytes),
            ..CredentialPem::default()
        };
        Credentials::from_pem(&pem).expect("credentials")
    }

    /// A CRL of this CA with these serial numbers.
    pub(crate) fn crl(&self, serials: &[&str]) -> String {
        let now = SystemTime::now();
        let entry = |serial: &&str| RevokedSerial { serial: (*serial).into(), since: now };
        let entries: Vec<_> = serials.iter().map(entry).collect();
        self.ca.crl(&entries, 2, now, now + Duration::from_secs(3600)).expect("a list")
    }

    /// A node on a free port that allows every call.
    pub(crate) fn node(&self) -> NodeBuilder {
        self.node_named("edge-1")
    }

    pub(crate) fn node_named(&self, name: &str) -> NodeBuilder {
        let node = Node::builder(self.credentials(&format!("node/{name}")))
            .listen("127.0.0.1:0")
            .policy(NodePolicy::allow_all());
        if is_tunnelled() { node.tunnel(TunnelListen::at(tunnel_at(0))) } else { node }
    }

    pub(crate) fn agent(&self, name: &str, node: SocketAddr) -> AgentBuilder {
        let agent = Agent::builder(self.credentials(&format!("agent/{name}")));
        agent.node(node.to_string()).paths(paths_to(node))
    }

    pub(crate) fn caller(&self, name: &str, node: SocketAddr) -> CallerBuilder {
        Caller::builder(self.credentials(&format!("caller/{name}")))
            .node(node.to_string())
            .paths(paths_to(node))
            .connect_timeout(wait::WAIT_MAX)
    }
}

/// Returns the paths of all links of the tests. `make test-tunnel` runs tests of the suite once
/// more through tunnels, and tests of outcomes over relays that drop all datagrams half of the time
/// (`auto`).
pub(crate) fn path_choice() -> PathChoice {
    match std::env::var("DIALBACK_TEST_TUNNEL") {
        Err(_) => PathChoice::Udp,
        Ok(choice) if choice == "auto" => PathChoice::Auto,
        Ok(_) => PathChoice::Tunnel,
    }
}

fn is_tunnelled() -> bool {
    path_choice() != PathChoice::Udp
}

/// The address of the tunnels to a node with this UDP port. No connection leaves from this host, so
/// that the number is free for TCP there.
fn tunnel_at(port: u16) -> SocketAddr {
    ([127, 77, 0, 1], port).into()
}

fn paths_to(node: SocketAddr) -> PathSettings {
    if !is_tunnelled() {
        return PathSettings::udp();
    }
    let url = format!("wss://{}", tunnel_at(node.port())).parse().expect("a URL");
    PathSettings::udp().choice(path_choice()).tunnel_url(url)
}

/// The usual setup: a node, the agent `warehouse` with a [`Stage`], and the caller `ops`.
pub(crate) struct Setup {
    pub(crate) world: World,
    pub(crate) node: Node,
    pub(crate) agent: Agent,
    pub(crate) caller: Caller,
    pub(crate) stage: Stage,
}

/// The limits of every peer in a setup.
#[derive(Clone, Default)]
pub(crate) struct SetupLimits {
    pub(crate) node: Limits,
    pub(crate) agent: Limits,
    pub(crate) caller: Limits,
}

impl Setup {
    pub(crate) async fn open() -> Self {
        Self::with(SetupLimits::default()).await
    }

    pub(crate) async fn with(bounds: SetupLimits) -> Self {
        let (world, stage) = (World::new(), Stage::default());
        let node = world.node().limits(bounds.node).start().await.expect("a node");
        let at = node.local_addr();
        let agent = world.agent("warehouse", at).limits(bounds.agent).serve(stage.service());
        let agent = attached(agent).await;
        let caller = world.caller("ops", at).limits(bounds.caller).connect().await;
        Self { node, agent, caller: caller.expect("a caller"), stage, world }
    }

    /// The agent as the node's own program calls it.
    pub(crate) fn by_node(&self) -> Callee {
        let handle = self.node.agent("warehouse").handle().expect("a name");
        let callee: &Callee = handle.as_ref();
        callee.clone()
    }

    /// The agent as the remote caller calls it.
    pub(crate) fn by_caller(&self) -> Callee {
        self.caller.agent("warehouse").expect("a name")
    }

    /// Both of them: most guarantees apply to either.
    pub(crate) fn callees(&self) -> [(&'static str, Callee); 2] {
        [("node", self.by_node()), ("caller", self.by_caller())]
    }

    /// Calls of the node that the agent is answering, as the node counts them.
    pub(crate) fn in_flight(&self) -> u64 {
        self.node.agents().iter().map(|agent| agent.calls_in_flight).sum()
    }
}

/// Starts an agent and waits until it is registered.
pub(crate) async fn attached(agent: AgentBuilder) -> Agent {
    let agent = agent.start().expect("an agent");
    soon("the agent registers", agent.registered(1)).await;
    agent
}

/// Limits under which a dead peer is detected soon.
pub(crate) fn quick_detection() -> Limits {
    if path_choice() == PathChoice::Auto {
        // A link moves to a tunnel after three seconds without an acknowledgement.
        return Limits {
            idle_max: Duration::from_secs(8),
            heartbeat_every: Duration::from_millis(500),
            heartbeat_lost: Duration::from_secs(8),
            ..Limits::default()
        };
    }
    Limits {
        idle_max: Duration::from_millis(1_000),
        heartbeat_every: Duration::from_millis(200),
        heartbeat_lost: Duration::from_millis(1_000),
        ..Limits::default()
    }
}

/// A silent port on loopback, reserved until a node takes it.
pub(crate) struct SilentPort(UdpSocket);

impl SilentPort {
    pub(crate) fn take() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").expect("a port"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }
}

/// Starts a node on the port of one that has just stopped.
pub(crate) async fn start_at(at: SocketAddr, node: impl Fn() -> NodeBuilder) -> Node {
    soon("the port is free again", async {
        loop {
            match node().listen(at).start().await {
                Ok(node) => return node,
                Err(_in_use) => tokio::time::sleep(wait::STEP).await,
            }
        }
    })
    .await
}

/// A failure has this code and this outcome.
#[track_caller]
pub(crate) fn check_status<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    outcome: Outcome,
) -> Status {
    let status = result.expect_err("the call succeeded");
    assert_eq!((status.code(), status.outcome()), (code, outcome), "{status}");
    status
}
