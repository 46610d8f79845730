//! Decisions of `docs/protocol.md` that other implementations depend on, with real nodes, agents
//! and callers against a raw peer.

use crate::raw_peer::{
    Cbor, Head, Issuer, RawLink, RawListener, RawStream, Settings, end, frame, kind, message,
    register, registered, soon, status,
};
use dialback::*;
use std::{future::IntoFuture, time::Duration};

const LONG: Duration = Duration::from_secs(20);

async fn node(issuer: &Issuer) -> Node {
    let host = HostRule::parse("*", "*").expect("a rule");
    let forwards = AllowRule::parse("ops", "**", "tcp:*").expect("a rule");
    Node::builder(issuer.credentials("node/edge-1"))
        .listen("127.0.0.1:0")
        .policy(NodePolicy::allow_all().host(host).allow(forwards))
        .serve(services())
        .start()
        .await
        .expect("a node")
}

#[tokio::test]
async fn a_node_refuses_calls_of_mcp_servers_over_links() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let caller = linked(&issuer, &node, "caller/ops", &[]).await;
    let target = Cbor::Array(vec![Cbor::text("POST"), Cbor::text("/")]);
    for method in ["mcp:jira", "mcp:jira/create_issue"] {
        let head = Head::agent(method, "warehouse").with(3, Cbor::Uint(4)).with(14, target.clone());
        let mut stream = caller.ask(&head, "x").await;
        let answer = stream.expect(kind::STATUS).await;
        assert!(String::from_utf8_lossy(&answer).contains("over the HTTP gateway"), "{answer:?}");
    }
}

/// HELLO with more keys than required.
fn hello_with(more: &[(u64, Cbor)]) -> Vec<u8> {
    let keys =
        [(0, Cbor::Uint(1)), (1, Cbor::Uint(1)), (3, Cbor::Bytes(vec![9; 16])), (5, Cbor::Uint(9))];
    let map = keys.iter().chain(more).cloned();
    frame(
        kind::HELLO,
        &Cbor::Map(map.map(|(key, value)| (Cbor::Uint(key), value)).collect()).encode(),
    )
}

async fn linked(issuer: &Issuer, node: &Node, peer: &str, more: &[(u64, Cbor)]) -> RawPeer {
    let link = RawLink::dial(node.local_addr(), &issuer.credentials(peer)).await;
    let mut control = link.open().await;
    control.send(&hello_with(more)).await;
    control.expect(kind::WELCOME).await;
    RawPeer { link, control }
}

/// A raw peer on a welcomed link.
struct RawPeer {
    link: RawLink,
    control: RawStream,
}

impl RawPeer {
    async fn register(&mut self, services: &[(&str, &[&str])]) {
        self.control.send(&register(1, services)).await;
        self.control.expect(kind::REGISTERED).await;
    }

    /// Sends a complete unary request.
    async fn ask(&self, head: &Head, text: &str) -> RawStream {
        let mut stream = self.link.open().await;
        stream.send(&[head.frame(), message(text), end()].concat()).await;
        stream.finish();
        stream
    }
}

async fn raw_agent(issuer: &Issuer, node: &Node, peer: &str) -> RawPeer {
    let mut agent = linked(issuer, node, peer, &[]).await;
    agent.register(&[("Echo", &["Echo"])]).await;
    agent
}

async fn caller(issuer: &Issuer, node: &Node) -> Caller {
    let at = node.local_addr().to_string();
    Caller::connect(at, issuer.credentials("caller/ops")).await.expect("a caller")
}

/// The next request on either link, with its head.
async fn next_request(agents: &[&RawPeer; 2]) -> (RawStream, Cbor) {
    let mut stream = tokio::select! {
        stream = agents[0].link.accept() => stream,
        stream = agents[1].link.accept() => stream,
    };
    let head = Cbor::decode(&stream.expect(kind::HEAD).await);
    (stream, head)
}

#[tokio::test]
async fn an_attempt_number_sent_by_a_caller_is_ignored_and_costs_no_retry() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let one = raw_agent(&issuer, &node, "agent/one").await;
    let two = raw_agent(&issuer, &node, "agent/two").await;
    let caller = linked(&issuer, &node, "caller/ops", &[]).await;
    for claimed in [None, Some(2), Some(3), Some(u64::from(u32::MAX))] {
        let mut head = Head::here("Echo/Echo").with(1, Cbor::Uint(2));
        if let Some(claimed) = claimed {
            head = head.with(6, Cbor::Uint(claimed));
        }
        let mut request_stream = caller.ask(&head, "x").await;
        let (mut first, head) = next_request(&[&one, &two]).await;
        assert_eq!(head.key(6), None, "claimed {claimed:?}");
        first.send(&status(14, 2)).await;
        first.finish();
        let (mut second, head) = next_request(&[&one, &two]).await;
        assert_eq!(head.key(6), Some(&Cbor::Uint(2)), "claimed {claimed:?}");
        second.send(&[message("x"), status(0, 0)].concat()).await;
        second.finish();
        assert_eq!(request_stream.reply().await.code, 0);
    }
}

#[tokio::test]
async fn a_caller_can_lower_the_priority_of_its_call_but_not_raise_it() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let agent = raw_agent(&issuer, &node, "agent/one").await;
    let caller = linked(&issuer, &node, "caller/ops", &[]).await;
    // Cbor::Negative(n) stands for -1 - n. A priority of 0 is not written.
    let raised = [1, 127].map(|claim| (Cbor::Uint(claim), None));
    let lowered = [0, 4, 127].map(|claim| (Cbor::Negative(claim), Some(Cbor::Negative(claim))));
    for (claimed, wanted) in raised.into_iter().chain(lowered) {
        for head in
            [Head::agent("Echo/Echo", "one"), Head::here("Echo/Echo").with(1, Cbor::Uint(2))]
        {
            let _asked = caller.ask(&head.with(7, claimed.clone()), "x").await;
            let passed = Cbor::decode(&agent.link.accept().await.expect(kind::HEAD).await);
            assert_eq!(passed.key(7), wanted.as_ref(), "claimed {claimed:?}");
        }
    }
}

#[tokio::test]
async fn a_node_forwards_only_the_head_keys_that_the_manual_lists() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let agent = raw_agent(&issuer, &node, "agent/one").await;
    let caller = linked(&issuer, &node, "caller/ops", &[]).await;
    let pair = Cbor::Array(vec![Cbor::text("k\u{1b}\n"), Cbor::text("")]);
    let head = Head::agent("Echo/Echo", "one")
        .with(6, Cbor::Uint(7))
        .with(7, Cbor::Uint(100))
        .with(8, Cbor::text("caller/root"))
        .with(9, Cbor::text("not a traceparent"))
        .with(10, Cbor::Array(vec![pair.clone()]))
        .with(11, Cbor::text("text/plain"))
        .with(12, Cbor::Bytes(vec![1]))
        .with(13, Cbor::Raw(vec![0xf5]))
        .with(99, Cbor::Uint(1));
    let _asked = caller.ask(&head, "x").await;
    let passed = Cbor::decode(&agent.link.accept().await.expect(kind::HEAD).await);
    for dropped in [1, 2, 6, 7, 11, 12, 99] {
        assert_eq!(passed.key(dropped), None, "key {dropped}");
    }
    assert_eq!(passed.key(8), Some(&Cbor::text("caller/ops")));
    assert_eq!(passed.key(9), Some(&Cbor::text("not a traceparent")));
    assert_eq!(passed.key(10), Some(&Cbor::Array(vec![pair])));
    assert_eq!(passed.key(13), Some(&Cbor::Raw(vec![0xf5])));
}

/// Calls by a real caller whose raw agent answers with these bytes and without FIN.
async fn without_fin(parts: &[Vec<u8>], timeout: Duration) -> Result<String, Status> {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let agent = raw_agent(&issuer, &node, "agent/one").await;
    let caller = caller(&issuer, &node).await;
    let callee = caller.agent("one").expect("a name");
    let call = callee.call::<String>("Echo/Echo", "x").timeout(timeout).into_future();
    let answered = async {
        let mut stream = agent.link.accept().await;
        stream.expect(kind::HEAD).await;
        stream.send(&parts.concat()).await;
        stream
    };
    let (result, _stream) = soon("the call's end", async { tokio::join!(call, answered) }).await;
    result
}

#[tokio::test]
async fn a_complete_status_counts_without_fin() {
    let (m, ok) = (message("x"), status(0, 0));
    for timeout in [LONG, Duration::from_millis(500)] {
        assert_eq!(without_fin(&[m.clone(), ok.clone()], timeout).await, Ok("x".into()));
        for (code, outcome) in [(5, Outcome::AppError), (14, Outcome::NotExecuted)] {
            let failed = without_fin(&[status(code, outcome.number().into())], timeout).await;
            let failed = failed.expect_err("a failure");
            assert_eq!((u64::from(failed.code().number()), failed.outcome()), (code, outcome));
        }
        let optional = frame(0x80, b"a");
        assert_eq!(without_fin(&[m.clone(), ok.clone(), optional], timeout).await, Ok("x".into()));
    }
    for after in [m.clone(), vec![kind::MESSAGE], frame(0x14, &[])] {
        let failed = without_fin(&[m.clone(), ok.clone(), after], LONG).await;
        let failed = failed.expect_err("it continues after STATUS");
        assert_eq!((failed.code(), failed.outcome()), (Code::Internal, Outcome::Unknown));
    }
}

#[tokio::test]
async fn a_link_lost_after_status_does_not_change_the_outcome() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let agent = raw_agent(&issuer, &node, "agent/one").await;
    let handle = node.agent("one").connected().await.expect("a name");
    let call = handle.call::<String>("Echo/Echo", "x").timeout(LONG).into_future();
    let answered = async {
        let mut stream = agent.link.accept().await;
        stream.expect(kind::HEAD).await;
        stream.send(&[message("x"), status(0, 0)].concat()).await;
        // The node stops the stream without waiting for its end: STATUS was read.
        stream.send.stopped().await.expect("the link is up");
        agent.link.connection.close(0x40u32.into(), b"bye");
    };
    let (result, ()) = soon("the call's end", async { tokio::join!(call, answered) }).await;
    assert_eq!(result, Ok("x".into()));
}

#[tokio::test]
async fn a_stream_and_a_connection_end_with_their_status_without_fin() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let agent = raw_agent(&issuer, &node, "agent/one").await;
    let caller = caller(&issuer, &node).await;
    let callee = caller.agent("one").expect("a name");
    let answered = async |parts: &[Vec<u8>]| {
        let mut stream = agent.link.accept().await;
        stream.expect(kind::HEAD).await;
        stream.send(&parts.concat()).await;
        stream
    };
    let replies = callee.server_stream::<String, String>("Echo/Echo", &"x".to_owned());
    let parts = [message("a"), message("b"), status(0, 0)];
    let (replies, _kept) = tokio::join!(replies.timeout(LONG).into_future(), answered(&parts));
    let mut replies = replies.expect("a stream");
    for wanted in ["a", "b"] {
        assert_eq!(soon("a reply", replies.next()).await, Some(Ok(wanted.into())));
    }
    assert_eq!(soon("the end", replies.next()).await, None);

    let collected = async {
        let call = callee.client_stream::<String, String>("Echo/Echo").timeout(LONG);
        let (values, reply) = call.await.expect("a call");
        values.finish().await.expect("room");
        reply.await
    };
    let parts = [message("c"), status(0, 0)];
    let (reply, _kept) =
        soon("the reply", async { tokio::join!(collected, answered(&parts)) }).await;
    assert_eq!(reply, Ok("c".into()));

    let bytes = |bytes: &[u8]| frame(kind::MESSAGE, bytes);
    let parts = [bytes(b""), bytes(b"pong"), bytes(b""), status(0, 0)];
    let (opened, _kept) =
        tokio::join!(callee.tcp("db").timeout(LONG).into_future(), answered(&parts));
    let mut opened = opened.expect("a connection");
    let mut received = Vec::new();
    soon("its end", opened.read_to_end(&mut received)).await.expect("a clean end");
    assert_eq!(received, b"pong");
    drop(opened.shutdown().await);
}

#[tokio::test]
async fn an_answer_at_the_deadline_wins_over_the_requesters_clock() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let caller = caller(&issuer, &node).await;
    let callee = caller.agent("absent").expect("a name");
    for _ in 0..20 {
        let call = callee.call::<String>("Echo/Echo", "x").wait(true);
        let failed = call.timeout(Duration::from_millis(30)).await.expect_err("it is absent");
        assert_eq!((failed.code(), failed.outcome()), (Code::Unavailable, Outcome::NotExecuted));
    }
}

/// A service that meets each limit in each way.
fn services() -> Service {
    async fn long(bytes: usize, _: Context) -> Result<String, Status> {
        Ok("x".repeat(bytes - 3))
    }
    async fn count(text: String, _: Context) -> Result<usize, Status> {
        Ok(text.len())
    }
    Service::new("Sizes")
        .method("Long", long)
        .method("Count", count)
        .server_stream("Longs", |bytes: usize, mut out: Outbound<String>, _: Context| async move {
            out.send(&"x".repeat(bytes - 3)).await
        })
        .bidirectional(
            "First",
            |mut texts: Inbound<String>, mut out: Outbound<String>, _: Context| async move {
                match texts.next().await {
                    Some(text) => out.send(&text?).await,
                    None => Ok(()),
                }
            },
        )
}

/// A call of `Sizes` over a raw link: code and outcome.
async fn size_of_reply(link: &RawLink, method: &str, call: u64, bytes: u64) -> (u64, u64) {
    let head = Head::here(method).with(3, Cbor::Uint(call));
    let mut stream = link.open().await;
    let argument = frame(kind::MESSAGE, &Cbor::Uint(bytes).encode());
    stream.send(&[head.frame(), argument, end()].concat()).await;
    stream.finish();
    let reply = stream.reply().await;
    (reply.code, reply.outcome)
}

#[tokio::test]
async fn a_node_honours_the_message_limit_that_a_dialler_names_in_hello() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let max = Cbor::Uint(1_000);
    let mut agent = linked(&issuer, &node, "agent/one", &[(7, max.clone())]).await;
    agent.register(&[("Echo", &["Echo"])]).await;
    let handle = node.agent("one").connected().await.expect("a name");
    let text = |bytes: usize| "x".repeat(bytes - 3);
    let over = handle.call::<String>("Echo/Echo", &text(1_001)).timeout(LONG).await;
    let over = over.expect_err("over the limit of the agent");
    assert_eq!((over.code(), over.outcome()), (Code::ResourceExhausted, Outcome::NotExecuted));
    assert!(over.message().contains("1000 bytes (message_bytes_max of agent/one)"), "{over}");
    let at_limit = text(1_000);
    let call = handle.call::<String>("Echo/Echo", &at_limit).timeout(LONG).into_future();
    let answered = async {
        let mut stream = agent.link.accept().await;
        stream.expect(kind::HEAD).await;
        assert_eq!(stream.expect(kind::MESSAGE).await.len(), 1_000);
        stream.send(&[message("x"), status(0, 0)].concat()).await;
        stream.finish();
    };
    let (passed, ()) = tokio::join!(call, answered);
    assert_eq!(passed, Ok("x".into()));

    // Replies to a caller that has named a limit and to two that have not.
    let narrow = linked(&issuer, &node, "caller/narrow", &[(7, max)]).await;
    assert_eq!(size_of_reply(&narrow.link, "Sizes/Long", 0, 1_000).await, (0, 0));
    assert_eq!(size_of_reply(&narrow.link, "Sizes/Long", 0, 1_001).await, (13, 3));
    assert_eq!(size_of_reply(&narrow.link, "Sizes/Longs", 1, 1_000).await, (0, 0));
    assert_ne!(size_of_reply(&narrow.link, "Sizes/Longs", 1, 1_001).await.0, 0);
    for more in [&[][..], &[(7, Cbor::Uint(0))]] {
        let older = linked(&issuer, &node, "caller/older", more).await;
        assert_eq!(size_of_reply(&older.link, "Sizes/Long", 0, 100_000).await, (0, 0));
    }
}

/// WELCOME of a node that accepts messages of this many bytes.
fn welcome(bytes_max: u64) -> Vec<u8> {
    let keys = [
        (0, Cbor::Uint(1)),
        (1, Cbor::text("raw")),
        (2, Cbor::Uint(1)),
        (3, Cbor::Uint(16)),
        (4, Cbor::Uint(bytes_max)),
    ];
    frame(kind::WELCOME, &Cbor::map(keys).encode())
}

/// A real agent with [`services`], linked to a raw node.
async fn agent_of(issuer: &Issuer, bytes_max: u64, limits: Limits) -> (Agent, RawPeer) {
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .limits(limits)
        .serve(services())
        .start()
        .expect("an agent");
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(kind::HELLO).await;
    control.send(&welcome(bytes_max)).await;
    control.expect(kind::REGISTER).await;
    control.send(&registered(1)).await;
    soon("registration", agent.registered(1)).await;
    (agent, RawPeer { link, control })
}

#[tokio::test]
async fn an_agent_and_a_caller_honour_the_message_limit_of_welcome() {
    let issuer = Issuer::new();
    let (_agent, node) = agent_of(&issuer, 1_000, Limits::default()).await;
    assert_eq!(size_of_reply(&node.link, "Sizes/Long", 0, 1_000).await, (0, 0));
    assert_eq!(size_of_reply(&node.link, "Sizes/Long", 0, 1_001).await, (13, 3));

    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let connect = Caller::connect(listener.address(), issuer.credentials("caller/ops"));
    let greeted = async {
        let link = listener.accept().await;
        let mut control = link.accept().await;
        control.expect(kind::HELLO).await;
        control.send(&welcome(1_000)).await;
        (link, control)
    };
    let (caller, _kept) = tokio::join!(connect, greeted);
    let caller = caller.expect("a caller");
    let over = caller.node().call::<String>("Echo/Echo", &"x".repeat(998)).timeout(LONG).await;
    let over = over.expect_err("over the limit of the node");
    assert_eq!((over.code(), over.outcome()), (Code::ResourceExhausted, Outcome::NotExecuted));
}

#[tokio::test]
async fn request_data_that_a_handler_leaves_unread_is_stopped_with_cancelled() {
    let issuer = Issuer::new();
    let (_agent, node) = agent_of(&issuer, 4 << 20, Limits::default()).await;
    let mut stream = node.link.open().await;
    let head = Head::here("Sizes/First").with(3, Cbor::Uint(3));
    stream.send(&[head.frame(), message("first"), message("second")].concat()).await;
    assert_eq!(stream.reply().await.code, 0);
    assert_eq!(stream.stop_code().await, Some(StreamCode::Cancelled.number()));
}

#[tokio::test]
async fn a_call_that_expires_before_its_handler_is_stopped_with_refused() {
    let issuer = Issuer::new();
    let limits = Limits { stream_idle_max: Duration::from_millis(100), ..Limits::default() };
    let (_agent, node) = agent_of(&issuer, 4 << 20, limits).await;
    let stream_head = Head::here("Sizes/First").with(3, Cbor::Uint(3));
    let unary_head = Head::here("Sizes/Count").with(4, Cbor::Uint(100));
    for (what, head) in [("no first message", stream_head), ("the deadline", unary_head)] {
        let mut stream = node.link.open().await;
        stream.send(&head.frame()).await;
        let reply = stream.reply().await;
        assert_eq!((reply.code, reply.outcome), (4, 2), "{what}: {}", reply.text);
        assert_eq!(stream.stop_code().await, Some(StreamCode::Refused.number()), "{what}");
    }
}

#[tokio::test]
async fn a_repeated_registration_is_listed_once_and_any_generation_is_echoed() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let RawPeer { link: _link, mut control } = linked(&issuer, &node, "agent/one", &[]).await;
    let twice: [(&str, &[&str]); 2] = [("Echo", &["Echo", "Echo"]), ("Echo", &["Echo", "Other"])];
    for generation in [7, 7, 0, 9] {
        control.send(&register(generation, &twice)).await;
        let echoed = Cbor::decode(&control.expect(kind::REGISTERED).await);
        assert_eq!(echoed.key(0), Some(&Cbor::Uint(generation)));
        let seen = node.directory_for(&"caller/ops".parse().expect("a peer name"));
        let listed: Vec<_> = seen
            .services
            .iter()
            .map(|service| (&service.name[..], service.methods.len()))
            .collect();
        assert_eq!(listed, [("Echo", 2)]);
    }
    // Deregistered, and registered again.
    for (services, attached) in [(&[][..], false), (&twice[..], true)] {
        control.send(&register(10, services)).await;
        control.expect(kind::REGISTERED).await;
        let handle = node.agent("one").handle().expect("a name");
        assert_eq!(handle.is_attached(), attached);
    }
}

#[tokio::test]
async fn a_registration_of_a_reserved_service_ends_the_link() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    for name in ["dialback", "dialback.v1.Directory", "dialback.mine", "tcp", "http"] {
        let RawPeer { link, mut control } = linked(&issuer, &node, "agent/one", &[]).await;
        control.send(&register(1, &[("Good", &["Good"]), (name, &["X"])])).await;
        let (code, text) = link.closed().await;
        assert_eq!(code, CloseCode::Protocol.number(), "{name}: {text}");
        assert!(text.contains("reserved") && text.contains(name), "{text}");
    }
    let mut good = linked(&issuer, &node, "agent/one", &[]).await;
    good.register(&[("dialbacks", &["X"]), ("my.dialback", &["X"]), ("tcp_", &["X"])]).await;
}

#[tokio::test]
async fn a_call_by_agent_name_reaches_services_that_are_not_registered() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let agent = raw_agent(&issuer, &node, "agent/one").await;
    let caller = linked(&issuer, &node, "caller/ops", &[]).await;
    for (method, call) in [("Echo/Other", 0), ("Elsewhere/At", 0), ("Echo/Echo", 1)] {
        let head = Head::agent(method, "one").with(3, Cbor::Uint(call));
        let mut request_stream = caller.ask(&head, "x").await;
        let mut stream = agent.link.accept().await;
        let head = Cbor::decode(&stream.expect(kind::HEAD).await);
        assert_eq!(head.key(0), Some(&Cbor::text(method)));
        stream.send(&status(12, 2)).await;
        stream.finish();
        let reply = request_stream.reply().await;
        assert_eq!((reply.code, reply.outcome), (12, 2), "{method}");
    }
}

/// DRAIN with this last stream.
fn drain(last_stream: u64) -> Vec<u8> {
    frame(kind::DRAIN, &Cbor::map([(2, Cbor::Uint(last_stream))]).encode())
}

#[tokio::test]
async fn a_status_above_the_last_stream_of_a_drain_counts_and_a_reset_there_is_not_executed() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let caller = linked(&issuer, &node, "caller/ops", &[]).await;
    for (name, is_answered) in [("one", true), ("two", false)] {
        let mut agent = raw_agent(&issuer, &node, &format!("agent/{name}")).await;
        let mut request_stream = caller.ask(&Head::agent("Echo/Echo", name), "x").await;
        let mut stream = agent.link.accept().await;
        for part in [kind::HEAD, kind::MESSAGE, kind::END] {
            stream.expect(part).await;
        }
        agent.control.send(&drain(0)).await;
        // PONG: the node has read everything sent before it.
        agent.control.send(&crate::raw_peer::ping(1)).await;
        agent.control.expect(kind::PONG).await;
        if is_answered {
            stream.send(&[message("x"), status(0, 0)].concat()).await;
            stream.finish();
        } else {
            // INTERNAL: without DRAIN the call would be unknown.
            stream.reset(0x08);
        }
        let reply = request_stream.reply().await;
        let wanted = if is_answered { 0 } else { 2 };
        assert_eq!(reply.outcome, wanted, "answered: {is_answered}, {}", reply.text);
    }
}

#[tokio::test]
async fn a_control_stream_that_is_stopped_ends_the_link_at_the_next_frame() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let mut caller = linked(&issuer, &node, "caller/ops", &[]).await;
    caller.control.recv.stop(0x04u32.into()).expect("an open stream");
    caller.control.send(&crate::raw_peer::ping(1)).await;
    let (code, text) = caller.link.closed().await;
    assert_eq!(code, CloseCode::Protocol.number(), "{text}");
    linked(&issuer, &node, "caller/ops", &[]).await;
}

#[tokio::test]
async fn the_directory_answers_with_its_own_errors_and_hides_other_services_of_the_node() {
    let issuer = Issuer::new();
    let allow = AllowRule::parse("ops", "absent", "*/*").expect("a rule");
    let policy = NodePolicy::default().allow(allow);
    let node = Node::builder(issuer.credentials("node/edge-1"))
        .listen("127.0.0.1:0")
        .policy(policy)
        .serve(services())
        .start()
        .await
        .expect("a node");
    let caller = linked(&issuer, &node, "caller/ops", &[]).await;
    const DIRECTORY: &str = "dialback.v1.Directory";
    for (method, argument, wanted) in [
        ("Services", "absent", (14, 1)),
        ("Services", "hidden", (7, 1)),
        ("Services", "No Name", (3, 1)),
        ("Hosts", "no method", (3, 1)),
        ("Hosts", "Some/Method", (0, 0)),
    ] {
        let head = Head::here(&format!("{DIRECTORY}/{method}"));
        let reply = caller.ask(&head, argument).await.reply().await;
        assert_eq!((reply.code, reply.outcome), wanted, "{method} {argument}: {}", reply.text);
    }
    for method in ["Sizes/Count", "Absent/Method", "dialback.v2.Directory/Agents"] {
        let reply = caller.ask(&Head::here(method), "x").await.reply().await;
        assert_eq!((reply.code, reply.outcome), (7, 2), "{method}: {}", reply.text);
    }
}

#[tokio::test]
async fn the_node_truncates_status_texts_over_their_limits() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let agent = raw_agent(&issuer, &node, "agent/one").await;
    let caller = linked(&issuer, &node, "caller/ops", &[]).await;
    for (text, details) in [(2_048, 4_096), (2_049, 4_097)] {
        let received = Cbor::map([
            (0, Cbor::Uint(5)),
            (1, Cbor::Uint(1)),
            (2, Cbor::text(&"x".repeat(text))),
            (3, Cbor::Bytes(vec![7; details])),
        ]);
        let mut request_stream = caller.ask(&Head::agent("Echo/Echo", "one"), "x").await;
        let mut stream = agent.link.accept().await;
        stream.expect(kind::HEAD).await;
        stream.send(&frame(kind::STATUS, &received.encode())).await;
        stream.finish();
        let received = Cbor::decode(&request_stream.expect(kind::STATUS).await);
        assert_eq!(received.key(2).map(|text| text.as_text().len()), Some(2_048));
        let details = (details == 4_096).then(|| Cbor::Bytes(vec![7; 4_096]));
        assert_eq!(received.key(3), details.as_ref());
    }
}

#[tokio::test]
async fn the_rest_of_a_stream_is_stopped_with_cancelled_or_with_too_large_by_a_rule() {
    let issuer = Issuer::new();
    let wide = AllowRule::parse("ops", "*", "Wide/*").expect("a rule");
    let mut narrow = AllowRule::parse("ops", "*", "Narrow/*").expect("a rule");
    narrow.message_bytes_max = Some(100);
    let node = Node::builder(issuer.credentials("node/edge-1"))
        .listen("127.0.0.1:0")
        .policy(NodePolicy::default().allow(wide).allow(narrow))
        .start()
        .await
        .expect("a node");
    let caller = linked(&issuer, &node, "caller/ops", &[]).await;
    for (method, wanted, stop) in [
        ("Wide/Chat", (14, 2), StreamCode::Cancelled),
        ("Narrow/Chat", (8, 2), StreamCode::TooLarge),
    ] {
        let mut stream = caller.link.open().await;
        let head = Head::agent(method, "absent").with(3, Cbor::Uint(3));
        stream.send(&[head.frame(), message(&"x".repeat(200))].concat()).await;
        let reply = stream.reply().await;
        assert_eq!((reply.code, reply.outcome), wanted, "{method}: {}", reply.text);
        assert_eq!(stream.stop_code().await, Some(stop.number()), "{method}");
    }
}
