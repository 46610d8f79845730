//! Memory held for callers: each has a share, and is refused beyond it.

use super::{Ledger, limits, linked, raw_agent};
use crate::raw_peer::{
    Cbor, Head, Issuer, RawLink, RawListener, RawStream, Settings, end, frame, header, kind,
    message, registered, soon, status, welcome,
};
use dialback::{Agent, Code, Limits, Node, NodePolicy, Outcome, StreamCode};

/// With 800,000 bytes a share is 200,000: one message of the largest size.
fn small_memory(memory_max: usize) -> Limits {
    Limits { memory_max: Some(memory_max), ..limits() }
}

async fn node(issuer: &Issuer, memory_max: usize) -> Node {
    let node = Node::builder(issuer.credentials("node/edge-1")).listen("127.0.0.1:0");
    let node = node.policy(NodePolicy::allow_all()).limits(small_memory(memory_max));
    node.serve(Ledger::default().service()).start().await.expect("a node")
}

/// Code and outcome of a call with a message of about this many bytes, and the code with which it
/// was stopped.
async fn call(link: &RawLink, head: &Head, bytes: usize) -> (u64, u64, Option<u64>) {
    let mut stream = link.open().await;
    stream.send(&[head.frame(), message(&"x".repeat(bytes)), end()].concat()).await;
    stream.finish();
    let reply = soon("the answer", stream.reply()).await;
    let stop = if reply.code == 0 { None } else { stream.stop_code().await };
    (reply.code, reply.outcome, stop)
}

const OK: (u64, u64, Option<u64>) = (0, 0, None);

/// Begins a call on one link whose message has only a header, and calls on another until that is
/// refused. A call that arrived too late, while such a call was in progress, is begun again.
async fn begin_call(link: &RawLink, other: &RawLink, head: &Head) -> RawStream {
    let (held, refused) = soon("its memory is counted", async {
        loop {
            let mut stream = link.open().await;
            stream.send(&[head.frame(), header(kind::MESSAGE, 190_000)].concat()).await;
            match call(other, head, 20_000).await {
                OK => stream.reset(4),
                refused => return (stream, refused),
            }
        }
    })
    .await;
    assert_eq!((refused.0, refused.1), exhausted(Outcome::NotExecuted));
    assert!(refused.2.is_none_or(|stop| stop == StreamCode::Overloaded.number()), "{refused:?}");
    held
}

fn exhausted(outcome: Outcome) -> (u64, u64) {
    (Code::ResourceExhausted.number().into(), outcome.number().into())
}

async fn until_served(link: &RawLink, head: &Head) {
    soon("it is returned", async { while call(link, head, 20_000).await != OK {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_uses_its_share_of_memory_is_refused_and_another_is_served() {
    let issuer = Issuer::new();
    let node = node(&issuer, 800_000).await;
    let (link, _control) = linked(&issuer, &node, "caller/ops").await;
    // A caller has one share, however many links it has.
    let (again, _its_control) = linked(&issuer, &node, "caller/ops").await;
    let (other, _others_control) = linked(&issuer, &node, "caller/other").await;
    let head = Head::here("Echo/Echo");
    assert_eq!(call(&link, &head, 190_000).await, OK);
    let held = begin_call(&link, &again, &head).await;
    assert_eq!(call(&link, &head, 1_000).await, OK, "small messages are not counted");
    assert_eq!(call(&other, &head, 190_000).await, OK);
    drop(held);
    until_served(&link, &head).await;
    assert!(link.is_open() && again.is_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_accounts_memory_to_the_caller_that_the_node_names() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = Agent::builder(issuer.credentials("agent/warehouse")).node(listener.address());
    let agent = agent.limits(small_memory(800_000)).serve(Ledger::default().service()).start();
    let agent = agent.expect("an agent");
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(kind::HELLO).await;
    control.send(&welcome(1)).await;
    control.expect(kind::REGISTER).await;
    control.send(&registered(1)).await;
    soon("registration", agent.registered(1)).await;
    let by = |caller| Head::here("Echo/Echo").with(8, Cbor::text(caller));
    let held = begin_call(&link, &link, &by("caller/ops")).await;
    assert_eq!(call(&link, &by("caller/other"), 190_000).await, OK);
    drop(held);
    until_served(&link, &by("caller/ops")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_over_its_callers_share_of_memory_ends_the_call_unknown() {
    let issuer = Issuer::new();
    // 200,000 bytes for a caller's replies.
    let node = node(&issuer, 400_000).await;
    let (agent, _control) = raw_agent(&issuer, &node, Settings::default(), 16).await;
    let (link, _its_control) = linked(&issuer, &node, "caller/ops").await;
    let begin_answer = async || {
        let mut call = link.open().await;
        call.send(&[Head::agent("Echo/Echo", "raw").frame(), message("x"), end()].concat()).await;
        call.finish();
        let mut answering = soon("the call", agent.accept()).await;
        answering.all().await;
        (call, answering)
    };
    let reply = frame(kind::MESSAGE, &[&[0x59, 0x75, 0x30][..], &[7; 30_000]].concat());
    let reply = [reply, status(0, 0)].concat();
    let refused = soon("its memory is counted", async {
        loop {
            // A reply that has begun, and another one next to it.
            let (_call, mut begin_call) = begin_answer().await;
            begin_call.send(&header(kind::MESSAGE, 190_000)).await;
            let (mut call, mut answering) = begin_answer().await;
            answering.send(&reply).await;
            answering.finish();
            let reply = soon("the answer", call.reply()).await;
            if reply.code != 0 {
                return (reply.code, reply.outcome);
            }
            begin_call.reset(4);
        }
    })
    .await;
    assert_eq!(refused, exhausted(Outcome::Unknown));
}
