//! A node, an agent and a caller of dialback in this process, and the certificates of all peers.

use super::Echo;
use dialback::{
    Agent, AgentHandle, Callee, Caller, CredentialPem, Credentials, Limits, MethodPath, Node,
    NodePolicy, PeerName, Role, Service,
    certs::{Ca, LeafProfile},
};
use std::{sync::Arc, time::SystemTime};
use tokio::runtime::Handle;

/// Enough for the largest load without queueing.
pub(crate) const CALLS_IN_FLIGHT: u32 = 1024;

/// A CA in memory.
pub(crate) struct Authority(Ca);

impl Authority {
    pub(crate) fn new() -> Self {
        Self(Ca::generate("bench.local", SystemTime::now()).expect("a CA"))
    }

    /// Credentials of a peer.
    pub(crate) fn credentials(&self, peer: &str) -> Credentials {
        let peer: PeerName = peer.parse().expect("a peer name");
        let hosts: &[&str] = if peer.role == Role::Node { &["localhost"] } else { &[] };
        let leaf = self
            .0
            .leaf(&LeafProfile::new(self.0.trust_domain(), &peer, hosts, SystemTime::now()))
            .expect("a leaf");
        let pem = CredentialPem {
            cert: leaf.cert.as_bytes(),
            key: leaf.key.as_bytes(),
            ca: self.0.pem().as_bytes(),
            ..CredentialPem::default()
        };
        Credentials::from_pem(&pem).expect("credentials")
    }

    /// TLS for the accepting side of raw quinn.
    pub(crate) fn accepting(&self) -> rustls::ServerConfig {
        self.credentials("node/raw").accepting_config(b"raw").expect("TLS")
    }

    /// TLS for the dialling side of raw quinn.
    pub(crate) fn dialling(&self) -> rustls::ClientConfig {
        self.credentials("agent/raw").dialling_config(b"raw").expect("TLS")
    }
}

/// The peers.
pub(crate) struct World {
    node: Node,
    agent: Agent,
    caller: Caller,
    handle: AgentHandle,
}

impl World {
    /// Node and caller on the current runtime, where the load is, and the agent on the other.
    pub(crate) async fn start(responder: &Handle) -> Self {
        let ca = Authority::new();
        let calls = CALLS_IN_FLIGHT as usize;
        let limits = Limits {
            calls_in_flight_max: calls,
            caller_calls_in_flight_max: calls,
            ..Limits::default()
        };
        let node = Node::builder(ca.credentials("node/edge"))
            .listen("127.0.0.1:0")
            .policy(NodePolicy::allow_all())
            .limits(limits.clone())
            .start()
            .await
            .expect("a node");
        let at = format!("localhost:{}", node.local_addr().port());
        let echo = Service::new("Bench")
            .method("Echo", |message: serde_bytes::ByteBuf, _| async move { Ok(message) });
        let agent =
            Agent::builder(ca.credentials("agent/a")).node(&at).serve(echo).limits(limits.clone());
        let agent = responder.spawn(async move { agent.start() }).await.expect("no panic");
        let agent = agent.expect("an agent");
        let caller = Caller::builder(ca.credentials("caller/c")).node(&at).limits(limits);
        let caller = caller.connect().await.expect("a caller");
        let handle = node.agent("a").connected().await.expect("a name");
        Self { node, agent, caller, handle }
    }

    /// Calls from the node's own process.
    pub(crate) fn in_process(&self) -> DialbackEcho {
        DialbackEcho::new(self.handle.as_ref().clone())
    }

    /// Calls of a caller, through the node.
    pub(crate) fn through_node(&self) -> DialbackEcho {
        DialbackEcho::new(self.caller.agent("a").expect("a name"))
    }

    pub(crate) async fn stop(self) {
        self.caller.close().await;
        self.agent.shutdown().await;
        self.node.shutdown().await;
    }
}

/// An echo call through dialback.
#[derive(Clone)]
pub(crate) struct DialbackEcho {
    callee: Arc<Callee>,
    method: MethodPath,
}

impl DialbackEcho {
    fn new(callee: Callee) -> Self {
        Self { callee: Arc::new(callee), method: "Bench/Echo".parse().expect("a method") }
    }
}

impl Echo for DialbackEcho {
    async fn echo(&self, message: &serde_bytes::ByteBuf) {
        let reply: serde_bytes::ByteBuf =
            self.callee.call(&self.method, message).await.expect("a reply");
        assert_eq!(reply.len(), message.len());
    }
}
