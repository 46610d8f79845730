//! Peers that break the protocol: each is handled as `docs/protocol.md` says, and no other peer is
//! affected.

mod control;
mod credit;
mod admission;
mod floods;
mod memory;
mod parts;
mod replies;
mod requests;
mod silence;
mod slow_path;
// Only Linux has all of 127.0.0.0/8 on its loopback interface.
#[cfg(target_os = "linux")]
mod unauthenticated;

use crate::raw_peer::{
    Issuer, RawLink, RawListener, RawStream, Settings, end, hello, kind, message, register,
    registered, soon, welcome,
};
use dialback::*;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Counts the runs of handlers.
#[derive(Clone, Default)]
struct Ledger(Arc<AtomicUsize>);

impl Ledger {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// `Echo/Echo` returns its text and counts the run.
    fn service(&self) -> Service {
        let ledger = self.clone();
        Service::new("Echo").method("Echo", move |text: String, _: Context| {
            ledger.0.fetch_add(1, Ordering::SeqCst);
            async move { Ok(text) }
        })
    }
}

const MESSAGE_BYTES_MAX: usize = 200_000;

fn limits() -> Limits {
    Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() }
}

/// A real node that hosts `Echo` itself.
async fn node(issuer: &Issuer, ledger: &Ledger) -> Node {
    Node::builder(issuer.credentials("node/edge-1"))
        .listen("127.0.0.1:0")
        .policy(NodePolicy::allow_all())
        .limits(limits())
        .serve(ledger.service())
        .start()
        .await
        .expect("a node")
}

/// A real agent that hosts `Echo`.
fn agent(issuer: &Issuer, at: &str, ledger: &Ledger) -> Agent {
    Agent::builder(issuer.credentials("agent/warehouse"))
        .node(at)
        .limits(limits())
        .serve(ledger.service())
        .start()
        .expect("an agent")
}

/// Dials a node and is welcomed.
async fn linked(issuer: &Issuer, node: &Node, peer: &str) -> (RawLink, RawStream) {
    let link = RawLink::dial(node.local_addr(), &issuer.credentials(peer)).await;
    let mut control = link.open().await;
    control.send(&hello([1, 1], 16)).await;
    control.expect(kind::WELCOME).await;
    (link, control)
}

/// Dials a node, is welcomed and registers `Echo`.
async fn raw_agent(
    issuer: &Issuer,
    node: &Node,
    settings: Settings,
    calls: u64,
) -> (RawLink, RawStream) {
    let credentials = issuer.credentials("agent/raw");
    let link =
        RawLink::dial_with(node.local_addr(), &credentials, settings).await.expect("a handshake");
    let mut control = link.open().await;
    control.send(&hello([1, 1], calls)).await;
    control.expect(kind::WELCOME).await;
    control.send(&register(1, &[("Echo", &["Echo"])])).await;
    control.expect(kind::REGISTERED).await;
    (link, control)
}

/// A raw node on which a real agent is registered.
async fn raw_node(issuer: &Issuer, ledger: &Ledger) -> (Agent, RawLink, RawStream) {
    raw_node_with(issuer, ledger, Settings::default()).await
}

async fn raw_node_with(
    issuer: &Issuer,
    ledger: &Ledger,
    settings: Settings,
) -> (Agent, RawLink, RawStream) {
    let listener = RawListener::bind(&issuer.credentials("node/raw"), settings);
    let agent = agent(issuer, &listener.address(), ledger);
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(kind::HELLO).await;
    control.send(&welcome(1)).await;
    control.expect(kind::REGISTER).await;
    control.send(&registered(1)).await;
    soon("registration", agent.registered(1)).await;
    (agent, link, control)
}

/// MESSAGE and END of a valid request.
fn good_body() -> Vec<u8> {
    [message("x"), end()].concat()
}
