//! Peers that do allowed things far too often: endless handshakes, calls that are reset as soon as
//! they are begun.

use super::{Ledger, linked, node, raw_agent};
use crate::{
    audit::AuditLog,
    raw_peer::{
        Cbor, Head, Issuer, RawLink, Settings, end, frame, header, kind, message, soon, status,
    },
    world::{Background, Setup, World, check_status, logged, spawn},
};
use dialback::{
    CloseCode, Code, Context, Inbound, Limits, Node, NodePolicy, Outbound, Outcome, Service,
};
use quinn::crypto::rustls::QuicClientConfig;
use std::{future::IntoFuture, net::SocketAddr, sync::Arc, time::Duration};

/// Begins a call and resets it. The node cannot have answered it: the message is missing.
async fn begin_and_reset(link: &RawLink) {
    let mut stream = link.open().await;
    stream.send(&Head::here("Echo/Echo").frame()).await;
    stream.reset(4);
    drop(stream.recv.stop(4u8.into()));
}

/// The link is open: a call on it is answered.
async fn expect_up(link: &RawLink) {
    let mut stream = link.open().await;
    stream.send(&[Head::here("Echo/Echo").frame(), message("x"), end()].concat()).await;
    stream.finish();
    assert_eq!(stream.reply().await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_reset_a_hundred_calls_and_one_more_closes_its_link() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let (other, _control) = linked(&issuer, &node, "caller/other").await;
    let (link, _its_control) = linked(&issuer, &node, "caller/raw").await;
    for _ in 0..100 {
        begin_and_reset(&link).await;
    }
    expect_up(&link).await;
    begin_and_reset(&link).await;
    let (code, text) = soon("the node closes the link", link.closed()).await;
    assert_eq!(code, CloseCode::ExcessiveLoad.number(), "{text}");
    assert!(text.contains("more than 100 calls were reset in 10 s (resets_max)"), "{text}");
    expect_up(&other).await;
    // Only the link is closed; the caller is not blocked.
    let (again, _control) = linked(&issuer, &node, "caller/raw").await;
    expect_up(&again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_reset_by_an_agent_leave_its_link_open() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let (link, _control) = raw_agent(&issuer, &node, Settings::default(), 16).await;
    for _ in 0..200 {
        begin_and_reset(&link).await;
    }
    expect_up(&link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_pass_their_deadlines_do_not_count_as_resets() {
    let setup = Setup::open().await;
    let callee = setup.by_caller();
    let calls: Vec<_> = (0..120)
        .map(|n| callee.call::<String>("Stage/Hold", &format!("{n}")))
        .map(|call| spawn(call.timeout(Duration::from_secs(2)).into_future()))
        .collect();
    for call in calls {
        let failed = soon("a deadline passes", call).await;
        check_status(failed, Code::DeadlineExceeded, Outcome::Unknown);
    }
    assert_eq!(callee.call::<String>("Stage/Note", "after").await.as_deref(), Ok("after"));
}

/// Dials from an address of this machine until it is accepted, in the background.
fn dial_until_accepted(issuer: &Issuer, from: [u8; 4], to: SocketAddr) -> Background<()> {
    let tls = issuer.credentials("caller/raw").dialling_config(dialback::ALPN).expect("TLS");
    let tls = QuicClientConfig::try_from(tls).expect("a suite for QUIC");
    let endpoint = quinn::Endpoint::client((from, 0).into()).expect("a socket");
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let connecting = endpoint.connect_with(config, to, "127.0.0.1").expect("an address");
    spawn(async move { drop((connecting.await.expect("a handshake"), endpoint)) })
}

// Only Linux has all of 127.0.0.0/8 on its loopback interface.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_over_the_rate_of_an_address_wait_and_other_addresses_do_not() {
    // Creating a world starts the log recorder.
    let (_world, issuer) = (World::new(), Issuer::new());
    let credentials = issuer.credentials("node/edge-1");
    let slow = Limits { handshakes_per_address: 1, handshakes_burst: 3, ..Limits::default() };
    let audit_log = AuditLog::default();
    let node = Node::builder(credentials).listen("127.0.0.1:0").limits(slow);
    let node = node.audit(audit_log.audit()).start().await.expect("a node");
    let at = node.local_addr();
    for n in 0..3 {
        soon(&format!("handshake {n} passes"), dial_until_accepted(&issuer, [127, 0, 0, 2], at))
            .await;
    }
    // One a second is accepted, however slow this machine is; all of these at once are not.
    let late: Vec<_> = (0..4).map(|_| dial_until_accepted(&issuer, [127, 0, 0, 2], at)).collect();
    logged(&["ignored 1 handshakes, the last from 127.0.0.2:", "handshakes_per_address"]).await;
    let line = audit_log.wait_for("handshakes_ignored", &[]).await;
    assert!(
        line["count"] == 1 && line["address"].as_str().expect("text").starts_with("127.0.0.2:")
    );
    soon("another address passes", dial_until_accepted(&issuer, [127, 0, 0, 3], at)).await;
    // An ignored client retries and is accepted in turn.
    for late in late {
        soon("a late handshake passes", late).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_status_of_an_agent_is_not_a_reset_of_the_caller() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let (agent, _control) = raw_agent(&issuer, &node, Settings::default(), 16).await;
    let (caller, _its_control) = linked(&issuer, &node, "caller/raw").await;
    for n in 0..120 {
        let mut call = caller.open().await;
        call.send(&[Head::agent("Echo/Echo", "raw").frame(), message("x"), end()].concat()).await;
        call.finish();
        let mut answering = soon("the call", agent.accept()).await;
        assert!(!answering.all().await.is_empty(), "call {n}");
        // CANCELLED, not executed: the node once took this for a reset by the caller.
        answering.send(&status(1, 2)).await;
        answering.finish();
        assert_eq!(soon("the answer", call.reply()).await.code, 1, "call {n}");
    }
    expect_up(&caller).await;
}

/// A call that the node has to reset, and its answer.
async fn call_and_be_reset(link: &RawLink, bytes: &[u8]) {
    let mut stream = link.open().await;
    stream.send(bytes).await;
    stream.finish();
    // To the end, so that the node resets it.
    while soon("the answer", stream.frame()).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_may_send_a_hundred_malformed_calls_and_one_more_closes_the_link() {
    let head = Head::here("Echo/Echo").frame();
    for (what, bytes) in [
        ("a first frame that is not HEAD", message("x")),
        ("a head that is not one", frame(kind::HEAD, &[0x80])),
        ("a head that claims 2^40", header(kind::HEAD, 1 << 40)),
        ("an unknown kind of frame", [head.clone(), frame(0x0a, &[])].concat()),
        ("two messages", [head.clone(), message("x"), message("x"), end()].concat()),
        ("no END", [head.clone(), message("x")].concat()),
        ("an end inside a frame", [head, message("x")[..6].to_vec()].concat()),
    ] {
        let issuer = Issuer::new();
        let node = node(&issuer, &Ledger::default()).await;
        let (other, _control) = linked(&issuer, &node, "caller/other").await;
        let (link, _its_control) = linked(&issuer, &node, "caller/raw").await;
        for _ in 0..100 {
            call_and_be_reset(&link, &bytes).await;
        }
        expect_up(&link).await;
        call_and_be_reset(&link, &bytes).await;
        let (code, text) = soon(what, link.closed()).await;
        assert_eq!(code, CloseCode::ExcessiveLoad.number(), "{what}: {text}");
        expect_up(&other).await;
    }
}

/// A node whose `Feed/Sum` and `Feed/Echo` read a stream to its end.
async fn streaming_node(issuer: &Issuer) -> Node {
    let feed = Service::new("Feed")
        .client_stream("Sum", async |mut texts: Inbound<String>, _: Context| {
            let mut count = 0_u64;
            while let Some(text) = texts.next().await {
                text?;
                count += 1;
            }
            Ok(count)
        })
        .bidirectional(
            "Echo",
            async |mut texts: Inbound<String>, mut out: Outbound<String>, _: Context| {
                while let Some(text) = texts.next().await {
                    out.send(&text?).await?;
                }
                Ok(())
            },
        );
    let echo = Ledger::default().service();
    let node = Node::builder(issuer.credentials("node/edge-1")).listen("127.0.0.1:0");
    let node = node.policy(NodePolicy::allow_all()).limits(super::limits()).serve(feed).serve(echo);
    node.start().await.expect("a node")
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_errors_after_the_first_message_are_counted() {
    for (method, kind_number) in [("Feed/Sum", 2), ("Feed/Echo", 3)] {
        let head = Head::here(method).with(3, Cbor::Uint(kind_number)).frame();
        let begun = [head, message("x")].concat();
        for (what, rest) in [
            ("an unknown kind of frame", frame(0x0a, &[])),
            ("no END", vec![]),
            ("an end inside a frame", message("x")[..2].to_vec()),
            ("a message over the limit", header(kind::MESSAGE, 1 << 40)),
        ] {
            let issuer = Issuer::new();
            let node = streaming_node(&issuer).await;
            let (link, _control) = linked(&issuer, &node, "caller/raw").await;
            let bytes = [&begun[..], &rest].concat();
            for _ in 0..100 {
                call_and_be_reset(&link, &bytes).await;
            }
            expect_up(&link).await;
            call_and_be_reset(&link, &bytes).await;
            let (code, text) = soon(&format!("{method}, {what}"), link.closed()).await;
            assert_eq!(code, CloseCode::ExcessiveLoad.number(), "{method}, {what}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_a_handler_ends_early_are_not_counted() {
    let issuer = Issuer::new();
    let node = streaming_node(&issuer).await;
    let (link, _control) = linked(&issuer, &node, "caller/raw").await;
    // The message is not a text: the handler ends early, which is allowed by the protocol.
    let bytes =
        [Head::here("Feed/Echo").with(3, Cbor::Uint(3)).frame(), frame(kind::MESSAGE, &[1]), end()];
    for _ in 0..120 {
        call_and_be_reset(&link, &bytes.concat()).await;
    }
    expect_up(&link).await;
}
