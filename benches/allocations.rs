//! Allocations per call of 32 bytes, in all peers together: direct from node to agent, and from a
//! caller through the node.
//!
//! `cargo bench --features certs --bench allocations`

use dialback::{
    Agent, Caller, CredentialPem, Credentials, Node, NodePolicy, PeerName, Role, Service,
    certs::{Ca, LeafProfile},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::{alloc::System, time::SystemTime};

/// Calls that are counted, after as many that are not.
const CALLS: u32 = 20_000;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations and reallocations since the start.
fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

fn credentials(ca: &Ca, peer: &str) -> Credentials {
    let peer: PeerName = peer.parse().expect("a peer name");
    let hosts: &[&str] = if peer.role == Role::Node { &["localhost"] } else { &[] };
    let profile = LeafProfile::new(ca.trust_domain(), &peer, hosts, SystemTime::now());
    let leaf = ca.leaf(&profile).expect("a leaf");
    let pem = CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: ca.pem().as_bytes(),
        ..CredentialPem::default()
    };
    Credentials::from_pem(&pem).expect("credentials")
}

/// Prints the allocations of one call, on average.
async fn count(name: &str, callee: impl AsRef<dialback::Callee>) {
    let callee = callee.as_ref();
    let message = "x".repeat(32);
    let mut before = 0;
    for call in 0..2 * CALLS {
        if call == CALLS {
            before = allocations();
        }
        let reply: String = callee.call("Bench/Say", &message).await.expect("a reply");
        assert_eq!(reply.len(), 32);
    }
    let count = u32::try_from(allocations() - before).expect("fewer than four billion");
    println!("{name:8} {:.1} allocations per call", f64::from(count) / f64::from(CALLS));
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let ca = Ca::generate("bench.local", SystemTime::now()).expect("a CA");
    let node = Node::builder(credentials(&ca, "node/edge"))
        .listen("127.0.0.1:0")
        .policy(NodePolicy::allow_all())
        .start()
        .await
        .expect("a node");
    let at = format!("localhost:{}", node.local_addr().port());
    let say = Service::new("Bench").method("Say", |text: String, _| async move { Ok(text) });
    let agent = Agent::builder(credentials(&ca, "agent/warehouse"))
        .node(&at)
        .serve(say)
        .start()
        .expect("an agent");
    agent.registered(1).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    count("direct", &handle).await;
    let caller = Caller::connect(&at, credentials(&ca, "caller/ops")).await.expect("a caller");
    count("node", caller.agent("warehouse").expect("a name")).await;
}
