//! Peers that begin something and then go silent. These tests wait for the real timeout of a limit,
//! concurrently.

use super::{Ledger, MESSAGE_BYTES_MAX, agent, good_body, linked, node, raw_node, raw_node_with};
use crate::raw_peer::{
    Head, Issuer, RawLink, RawListener, Settings, end, header, hello, kind, message, soon,
};
use crate::world::quick_detection;
use dialback::{Agent, CloseCode, Code, Limits, Node, NodePolicy, Outcome, StreamCode};
use std::time::{Duration, Instant};

const HEAD_WAIT: Duration = Duration::from_secs(5);
const STALL_WAIT: Duration = Duration::from_secs(10);

/// Opens a silent stream after these bytes; other calls continue, and it is ended after its timeout
/// and not before.
async fn check_silent(link: &RawLink, head: &Head, after: Vec<u8>, wait: Duration) {
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut stream = link.open().await;
        stream.send(&after).await;
        silent.push(stream);
    }
    for _ in 0..20 {
        let mut stream = link.open().await;
        stream.send(&[head.frame(), good_body()].concat()).await;
        stream.finish();
        let reply = stream.reply().await;
        assert_eq!((reply.code, reply.outcome), (0, 0), "{}", reply.text);
    }
    assert!(began.elapsed() < wait, "other calls waited for the silent streams");
    for stream in &mut silent {
        let reply = stream.reply().await;
        let wanted = (Code::ResourceExhausted.number(), Outcome::NotExecuted.number());
        assert_eq!((reply.code, reply.outcome), (wanted.0.into(), wanted.1.into()));
        assert_eq!(stream.stop_code().await, Some(StreamCode::Slow.number()));
    }
    let took = began.elapsed();
    assert!(took >= wait && took < wait + Duration::from_secs(8), "it took {took:?}");
    assert!(link.is_open());
}

/// Silence before the first byte of HEAD, within HEAD, after it, and within MESSAGE.
async fn check_all(link: &RawLink, head: Head) {
    let bytes = head.frame();
    let began = |rest: &[u8]| [&bytes[..], rest].concat();
    tokio::join!(
        // QUIC announces a stream to the peer with its first byte; a kind is the least that can be
        // sent.
        check_silent(link, &head, vec![kind::HEAD], HEAD_WAIT),
        check_silent(link, &head, bytes[..bytes.len() - 1].to_vec(), HEAD_WAIT),
        check_silent(link, &head, began(&[]), STALL_WAIT),
        check_silent(link, &head, began(&header(kind::MESSAGE, 100_000)), STALL_WAIT),
    );
}

async fn on_a_node_by_a_caller() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let node = node(&issuer, &ledger).await;
    let agent = agent(&issuer, &node.local_addr().to_string(), &ledger);
    soon("registration", agent.registered(1)).await;
    let (link, mut control) = linked(&issuer, &node, "caller/ops").await;
    keep_alive(&mut control, check_all(&link, Head::agent("Echo/Echo", "warehouse"))).await;
}

async fn on_a_node_by_an_agent() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let node = node(&issuer, &ledger).await;
    let (link, mut control) = linked(&issuer, &node, "agent/raw").await;
    // An agent that does not register is closed before these waits are over.
    control.send(&crate::raw_peer::register(1, &[])).await;
    control.expect(kind::REGISTERED).await;
    keep_alive(&mut control, check_all(&link, Head::here("Echo/Echo"))).await;
}

async fn on_an_agent_by_a_node() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let (_agent, link, mut control) = raw_node(&issuer, &ledger).await;
    keep_alive(&mut control, check_all(&link, Head::here("Echo/Echo"))).await;
}

// One test, so that the waits are concurrent on a machine of any size.
#[tokio::test]
async fn silent_streams_delay_no_other_call_and_time_out() {
    tokio::join!(on_a_node_by_a_caller(), on_a_node_by_an_agent(), on_an_agent_by_a_node());
}

#[tokio::test]
async fn an_agent_that_never_registers_times_out() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let node = node(&issuer, &ledger).await;
    let (link, mut control) = linked(&issuer, &node, "agent/raw").await;
    let (code, text) = soon("the close", link.closed()).await;
    assert_eq!((code, text.contains("REGISTER")), (CloseCode::Idle.number(), true), "{text}");
    drop(control);
    let (_link, registered) = linked(&issuer, &node, "agent/raw").await;
    control = registered;
    control.send(&crate::raw_peer::register(1, &[])).await;
    control.expect(kind::REGISTERED).await;
}

#[tokio::test]
async fn an_unread_reply_times_out_and_a_read_one_arrives() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let small = Settings { stream_window: 64 << 10, ..Settings::default() };
    let (_agent, link, mut control) = raw_node_with(&issuer, &ledger, small).await;
    let text = "x".repeat(MESSAGE_BYTES_MAX / 2);
    let request = [Head::here("Echo/Echo").frame(), message(&text), end()].concat();
    let check = async {
        let (mut unread, mut read) = (link.open().await, link.open().await);
        unread.send(&request).await;
        unread.finish();
        read.send(&request).await;
        read.finish();
        let reply = read.reply().await;
        assert!(reply.code == 0 && reply.message.is_some_and(|bytes| bytes.len() > text.len()));
        let reset = soon("the reset", unread.recv.received_reset()).await.expect("the link is up");
        assert_eq!(reset.map(quinn::VarInt::into_inner), Some(StreamCode::Slow.number()));
    };
    keep_alive(&mut control, check).await;
}

/// Keeps the heartbeat of a link alive while a check runs on it: sends PINGs and answers them.
async fn keep_alive(control: &mut crate::raw_peer::RawStream, check: impl Future<Output = ()>) {
    let heartbeat = async {
        let mut ticks = tokio::time::interval(Duration::from_secs(3));
        for number in 1.. {
            ticks.tick().await;
            control.send(&crate::raw_peer::ping(number)).await;
            loop {
                match control.frame().await {
                    Ok((kind::PING, payload)) => {
                        control.send(&crate::raw_peer::frame(kind::PONG, &payload)).await;
                    }
                    Ok((kind::PONG, _)) => break,
                    other => panic!("on the control stream: {other:02x?}"),
                }
            }
        }
    };
    tokio::select! {
        () = check => {}
        () = heartbeat => {}
    }
}

#[tokio::test]
async fn a_peer_that_never_sends_hello_times_out_and_delays_no_other() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let node = node(&issuer, &ledger).await;
    let credentials = issuer.credentials("caller/ops");
    let (at, began) = (node.local_addr(), Instant::now());
    let silent = RawLink::dial(at, &credentials).await;
    let empty = RawLink::dial(at, &credentials).await;
    let mut half = RawLink::dial(at, &credentials).await;
    let mut control = half.open().await;
    control.send(&hello([1, 1], 1)[..9]).await;
    let _empty_stream = empty.open().await;
    linked(&issuer, &node, "caller/other").await;
    assert!(began.elapsed() < HEAD_WAIT, "a valid caller waited for the silent ones");
    for link in [&silent, &empty, &mut half] {
        let (code, text) = link.closed().await;
        assert_eq!(code, CloseCode::Protocol.number(), "{text}");
        assert!(text.contains("no HELLO"), "{text}");
        assert!(began.elapsed() >= HEAD_WAIT, "it was closed before its time");
    }
}

/// Limits under which a missing heartbeat is detected soon and an idle connection is kept.
fn alert() -> Limits {
    let heartbeat_lost = Duration::from_secs(2);
    Limits { heartbeat_lost, idle_max: Duration::from_secs(600), ..quick_detection() }
}

/// Makes one call after the other on a link without a heartbeat, until the peer closes it.
async fn check_ended(link: &RawLink) {
    let mut answered = 0;
    let calls = async {
        loop {
            let mut stream = link.open().await;
            stream.send(&[Head::here("Echo/Echo").frame(), good_body()].concat()).await;
            stream.finish();
            assert_eq!(stream.reply().await.code, 0);
            answered += 1;
        }
    };
    let (code, text) = tokio::select! {
        biased;
        closed = soon("the close", link.closed()) => closed,
        () = calls => unreachable!("it never returns"),
    };
    assert_eq!(code, CloseCode::Idle.number(), "{text}");
    assert!(text.contains("no heartbeat came"), "{text}");
    assert!(answered > 0, "no call was answered: the connection was not alive");
}

#[tokio::test]
async fn a_node_closes_a_link_without_a_heartbeat_despite_active_calls() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let node = Node::builder(issuer.credentials("node/edge-1"))
        .listen("127.0.0.1:0")
        .policy(NodePolicy::allow_all())
        .limits(alert())
        .serve(ledger.service());
    let node = node.start().await.expect("a node");
    let of_caller = async {
        let (link, _control) = linked(&issuer, &node, "caller/ops").await;
        check_ended(&link).await;
    };
    let of_agent = async {
        let (link, mut control) = linked(&issuer, &node, "agent/raw").await;
        control.send(&crate::raw_peer::register(1, &[])).await;
        control.expect(kind::REGISTERED).await;
        check_ended(&link).await;
    };
    tokio::join!(of_caller, of_agent);
}

#[tokio::test]
async fn an_agent_closes_a_link_without_a_heartbeat_despite_active_calls() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .limits(alert())
        .serve(ledger.service());
    let _agent = agent.start().expect("an agent");
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(kind::HELLO).await;
    control.send(&crate::raw_peer::welcome(1)).await;
    control.expect(kind::REGISTER).await;
    control.send(&crate::raw_peer::registered(1)).await;
    // Its PINGs reach the node and are not answered.
    check_ended(&link).await;
}
