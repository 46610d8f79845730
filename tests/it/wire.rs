//! The bytes that real peers send and accept, against `tests/data/wire` and `docs/protocol.md`.

use crate::raw_peer::{self, Issuer, RawLink, RawListener, RawStream, Settings, StreamEnd, soon};
use bytes::Bytes;
use dialback::*;
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A file of `tests/data/wire`: bytes, with wildcards for any byte.
struct Golden {
    name: &'static str,
    bytes: Vec<Option<u8>>,
}

fn golden_dir() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wire")
}

impl Golden {
    fn read(name: &'static str) -> Self {
        let text = std::fs::read_to_string(golden_dir().join(format!("{name}.hex")))
            .expect("a file of tests/data/wire");
        let tokens = text.lines().filter_map(|line| line.split('#').next());
        let bytes = tokens
            .flat_map(str::split_whitespace)
            .map(|token| match token {
                "??" => None,
                _ => Some(u8::from_str_radix(token, 16).expect("two digits")),
            })
            .collect();
        Self { name, bytes }
    }

    /// The bytes, with something in place of the wildcards.
    fn filled(&self) -> Vec<u8> {
        self.bytes.iter().map(|byte| byte.unwrap_or(0x37)).collect()
    }

    #[track_caller]
    fn check(&self, sent: &[u8]) {
        let differs = |(want, have): (&Option<u8>, &u8)| want.is_some_and(|want| want != *have);
        let at = self.bytes.iter().zip(sent).position(differs);
        assert!(
            at.is_none() && sent.len() == self.bytes.len(),
            "{} differs at {at:?}, {} bytes wanted, {} sent: {sent:02x?}",
            self.name,
            self.bytes.len(),
            sent.len()
        );
    }
}

/// The next bytes on a stream are this file.
async fn expect_next(stream: &mut RawStream, name: &'static str) {
    let golden = Golden::read(name);
    golden.check(&stream.bytes(golden.bytes.len()).await);
}

/// The rest of a stream is this file, followed by its end.
async fn expect_whole(stream: &mut RawStream, name: &'static str) {
    Golden::read(name).check(&stream.all().await);
}

async fn send(stream: &mut RawStream, name: &'static str) {
    stream.send(&Golden::read(name).filled()).await;
}

fn hello_service() -> Service {
    async fn hello(name: String, _: Context) -> Result<String, Status> {
        if name == "nobody" {
            return Err(Status::new(Code::NotFound, "nobody").with_details(&[1u8, 2][..]));
        }
        Ok(format!("hello:{name}"))
    }
    Service::new("HelloService").method("Hello", hello)
}

async fn node(issuer: &Issuer) -> Node {
    let forwards = AllowRule::parse("ops", "**", "tcp:*").expect("a rule");
    Node::builder(issuer.credentials("node/edge-1"))
        .listen("127.0.0.1:0")
        .policy(NodePolicy::allow_all().allow(forwards))
        .start()
        .await
        .expect("a node")
}

/// A raw agent that has sent and received the golden files.
async fn golden_agent(issuer: &Issuer, node: &Node) -> (RawLink, RawStream) {
    let link = RawLink::dial(node.local_addr(), &issuer.credentials("agent/warehouse")).await;
    let mut control = link.open().await;
    send(&mut control, "hello-agent").await;
    expect_next(&mut control, "welcome-agent").await;
    send(&mut control, "register").await;
    expect_next(&mut control, "registered").await;
    (link, control)
}

/// A raw node with a real agent that has sent the golden files.
async fn golden_node(issuer: &Issuer, service: Service) -> (Agent, RawLink, RawStream) {
    let listener = RawListener::bind(&issuer.credentials("node/edge-1"), Settings::default());
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .serve(service)
        .start()
        .expect("an agent");
    let link = listener.accept().await;
    let mut control = link.accept().await;
    expect_next(&mut control, "hello-agent").await;
    send(&mut control, "welcome-agent").await;
    expect_next(&mut control, "register").await;
    send(&mut control, "registered").await;
    (agent, link, control)
}

#[test]
fn every_golden_file_is_in_the_manual_verbatim() {
    let manual =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md"))
            .expect("docs/protocol.md");
    let mut count = 0;
    for entry in std::fs::read_dir(golden_dir()).expect("tests/data/wire") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        assert!(manual.contains(text.trim()), "{} is not in docs/protocol.md", path.display());
        count += 1;
    }
    assert!(count >= 27, "only {count} golden files");
}

#[tokio::test]
async fn a_service_description_is_sent_as_the_golden_bytes_and_listed() {
    let issuer = Issuer::new();
    let greets = Description::new("Greets.").request(r#"{"type":"string"}"#);
    let service = hello_service().describe("For greeting.").describe_method("Hello", greets);
    let listener = RawListener::bind(&issuer.credentials("node/edge-1"), Settings::default());
    let _agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .serve(service)
        .start()
        .expect("an agent");
    let mut control = listener.accept().await.accept().await;
    expect_next(&mut control, "hello-agent").await;
    send(&mut control, "welcome-agent").await;
    expect_next(&mut control, "register-described").await;

    let node = node(&issuer).await;
    let link = RawLink::dial(node.local_addr(), &issuer.credentials("agent/warehouse")).await;
    let mut control = link.open().await;
    send(&mut control, "hello-agent").await;
    expect_next(&mut control, "welcome-agent").await;
    send(&mut control, "register-described").await;
    expect_next(&mut control, "registered").await;
    let directory = node.directory_for(&"caller/ops".parse().expect("a peer name"));
    let [service] = &directory.services[..] else { panic!("{directory:?}") };
    let method = &service.methods[0];
    assert_eq!((&service.description[..], &method.description[..]), ("For greeting.", "Greets."));
    assert_eq!(
        (&method.request_schema[..], &method.reply_schema[..]),
        (r#"{"type":"string"}"#, "")
    );
}

#[tokio::test]
async fn a_node_and_an_agent_exchange_the_golden_bytes() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let (link, mut control) = golden_agent(&issuer, &node).await;
    // Ignored frames, and the heartbeat after them.
    send(&mut control, "reserved").await;
    send(&mut control, "optional").await;
    send(&mut control, "ping").await;
    expect_next(&mut control, "pong").await;
    // A call by a real caller through the real node.
    let caller = Caller::connect(node.local_addr().to_string(), issuer.credentials("caller/ops"))
        .await
        .expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    for (reply, wanted) in [
        ("reply", Ok("hello:dialback")),
        ("reply-metadata", Ok("hello:dialback")),
        ("status-app-error", Err((Code::NotFound, Outcome::AppError))),
        ("status-refused", Err((Code::Unimplemented, Outcome::NotExecuted))),
    ] {
        let call = callee.call::<String>("HelloService/Hello", "dialback");
        let call = call.timeout(Duration::from_secs(5)).raw();
        let answered = async {
            let mut stream = link.accept().await;
            expect_whole(&mut stream, "request-node").await;
            send(&mut stream, reply).await;
            stream.finish();
            stream
        };
        let (result, _stream) = tokio::join!(call, answered);
        match (result, wanted) {
            (Ok(got), Ok(text)) => {
                assert_eq!(got.message().expect("one")[1..], *text.as_bytes());
                let has_metadata = reply == "reply-metadata";
                assert_eq!(got.metadata.get("k"), has_metadata.then_some("v"));
                assert_eq!(got.trailing.get("t"), has_metadata.then_some("w"));
            }
            (Err(status), Err(wanted)) => assert_eq!((status.code(), status.outcome()), wanted),
            (got, wanted) => panic!("{reply}: {got:?} instead of {wanted:?}"),
        }
    }
}

#[tokio::test]
async fn a_real_agent_sends_the_golden_bytes_and_answers_golden_requests() {
    let issuer = Issuer::new();
    let (agent, link, mut control) = golden_node(&issuer, hello_service()).await;
    soon("registration", agent.registered(1)).await;
    send(&mut control, "reserved").await;
    send(&mut control, "ping").await;
    expect_next(&mut control, "pong").await;
    let mut stream = link.open().await;
    send(&mut stream, "request-node").await;
    stream.finish();
    expect_whole(&mut stream, "reply").await;
    // An optional frame may occur anywhere.
    let mut stream = link.open().await;
    send(&mut stream, "optional").await;
    send(&mut stream, "request-node").await;
    send(&mut stream, "optional").await;
    stream.finish();
    expect_whole(&mut stream, "reply").await;
}

#[tokio::test]
async fn statuses_of_a_real_agent_are_the_golden_bytes() {
    let issuer = Issuer::new();
    let (_agent, link, _control) = golden_node(&issuer, hello_service()).await;
    let ask = async |method: &str, text: &str| {
        let mut stream = link.open().await;
        stream.send(&raw_peer::Head::here(method).frame()).await;
        stream.send(&[raw_peer::message(text), raw_peer::end()].concat()).await;
        stream.finish();
        stream
    };
    expect_whole(&mut ask("HelloService/Bye", "x").await, "status-refused").await;
    expect_whole(&mut ask("HelloService/Hello", "nobody").await, "status-app-error").await;
}

/// A handler that answers with metadata before and after its message.
struct WithMetadata;

impl Handler for WithMetadata {
    async fn call(&self, request: Request) -> Result<Reply, Status> {
        let pair = |key: &str, value: &str| {
            [(key.to_owned(), value.to_owned())].into_iter().collect::<Metadata>()
        };
        assert_eq!(request.message()?[..], *b"\x68dialback");
        let message = Bytes::from_static(b"\x6ehello:dialback");
        Ok(Reply {
            body: Body::Message(message),
            metadata: pair("k", "v"),
            trailing: pair("t", "w"),
        })
    }
}

#[tokio::test]
async fn metadata_around_a_reply_is_the_golden_bytes() {
    let issuer = Issuer::new();
    let service = Service::new("HelloService").raw_method("Hello", WithMetadata);
    let (_agent, link, _control) = golden_node(&issuer, service).await;
    let mut stream = link.open().await;
    send(&mut stream, "request-node").await;
    stream.finish();
    expect_whole(&mut stream, "reply-metadata").await;
}

#[tokio::test]
async fn a_node_welcomes_and_answers_a_caller_with_the_golden_bytes() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let link = RawLink::dial(node.local_addr(), &issuer.credentials("caller/ops")).await;
    let mut control = link.open().await;
    send(&mut control, "hello-caller").await;
    expect_next(&mut control, "welcome-caller").await;
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(node.local_addr().to_string())
        .serve(hello_service())
        .start()
        .expect("an agent");
    soon("registration", agent.registered(1)).await;
    for request in ["request-caller", "request-full", "request-any"] {
        let mut stream = link.open().await;
        send(&mut stream, request).await;
        stream.finish();
        expect_whole(&mut stream, "reply").await;
    }
}

#[tokio::test]
async fn a_real_caller_sends_the_golden_bytes() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/edge-1"), Settings::default());
    let linked = async {
        let link = listener.accept().await;
        let mut control = link.accept().await;
        expect_next(&mut control, "hello-caller").await;
        send(&mut control, "welcome-caller").await;
        (link, control)
    };
    let connect = Caller::connect(listener.address(), issuer.credentials("caller/ops"));
    let (caller, (link, _control)) = tokio::join!(connect, linked);
    let callee = caller.expect("a caller").agent("warehouse").expect("a name");
    let call = || {
        let call = callee.call::<String>("HelloService.Hello", "dialback");
        call.timeout(Duration::from_secs(5))
    };
    let full = call()
        .priority(-5)
        .traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .metadata("k", "v")
        .metadata("k", "w");
    for (call, request) in [(call(), "request-caller"), (full, "request-full")] {
        let answered = async {
            let mut stream = link.accept().await;
            expect_whole(&mut stream, request).await;
            send(&mut stream, "reply").await;
            stream.finish();
            stream
        };
        let (result, _stream) = tokio::join!(call.into_future(), answered);
        assert_eq!(result, Ok("hello:dialback".into()));
    }
}

#[tokio::test]
async fn a_real_agent_sends_golden_pings_with_increasing_numbers() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/edge-1"), Settings::default());
    let limits = Limits { heartbeat_every: Duration::from_millis(20), ..Limits::default() };
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .limits(limits)
        .start()
        .expect("an agent");
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(raw_peer::kind::HELLO).await;
    send(&mut control, "welcome-agent").await;
    control.expect(raw_peer::kind::REGISTER).await;
    send(&mut control, "registered").await;
    let ping = control.expect(raw_peer::kind::PING).await;
    assert_eq!(ping, Golden::read("ping").filled()[3..]);
    send(&mut control, "pong").await;
    let second = control.expect(raw_peer::kind::PING).await;
    assert_eq!(second, [0xa1, 0x00, 0x02]);
    assert_eq!(agent.nodes().len(), 1);
}

#[tokio::test]
async fn a_stopping_node_sends_the_golden_bytes() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let (link, mut control) = golden_agent(&issuer, &node).await;
    let stopping = node.shutdown();
    let other_side = async {
        expect_next(&mut control, "drain").await;
        expect_next(&mut control, "goodbye").await;
        link.connection.close(0x40u32.into(), b"all is here");
    };
    tokio::join!(stopping, other_side);
}

#[tokio::test]
async fn a_stopping_agent_sends_the_golden_bytes() {
    let issuer = Issuer::new();
    let (agent, link, mut control) = golden_node(&issuer, hello_service()).await;
    soon("registration", agent.registered(1)).await;
    let mut stream = link.open().await;
    send(&mut stream, "request-node").await;
    stream.finish();
    expect_whole(&mut stream, "reply").await;
    let other_side = async {
        expect_next(&mut control, "unregister").await;
        send(&mut control, "unregistered").await;
        expect_next(&mut control, "drain-agent").await;
        expect_next(&mut control, "goodbye-agent").await;
        link.connection.close(0x40u32.into(), b"all is here");
    };
    tokio::join!(agent.shutdown(), other_side);
}

#[tokio::test]
async fn a_real_node_answers_a_draining_agent_with_the_golden_bytes() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let (link, mut control) = golden_agent(&issuer, &node).await;
    send(&mut control, "unregister").await;
    expect_next(&mut control, "unregistered").await;
    send(&mut control, "drain-agent").await;
    send(&mut control, "goodbye-agent").await;
    assert_eq!(link.closed().await, (0x40, "the agent stops".into()));
}

/// STREAM frames, if the stream data arrived in one chunk: the frame cannot span two datagrams, so
/// one frame is one datagram.
async fn in_one_frame(link: &RawLink, stream: &mut RawStream, frames_before: u64) -> Bytes {
    let chunk = soon("a chunk", stream.recv.read_chunk(usize::MAX, true)).await;
    let bytes = chunk.expect("readable").expect("not the end").bytes;
    assert_eq!(stream.frame().await, Err(StreamEnd::Fin));
    let frames = link.connection.stats().frame_rx.stream - frames_before;
    assert_eq!(frames, 1, "it came in {frames} STREAM frames");
    bytes
}

/// A real agent sends PINGs far apart, so that no heartbeat is counted.
fn no_heartbeat() -> Limits {
    Limits {
        heartbeat_every: Duration::from_secs(60),
        heartbeat_lost: Duration::from_secs(120),
        ..Limits::default()
    }
}

// On one thread the transport runs when the writer is done, as on a busy machine; on several it may
// send the FIN later.
#[tokio::test]
async fn a_unary_request_of_32_bytes_is_sent_in_one_datagram() {
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let (link, _control) = golden_agent(&issuer, &node).await;
    let agent = node.agent("warehouse").connected().await.expect("a name");
    for _ in 0..3 {
        let before = link.connection.stats().frame_rx.stream;
        let text = "x".repeat(30);
        let call = agent.call::<String>("HelloService/Hello", &text).into_future();
        let answered = async {
            let mut stream = link.accept().await;
            let bytes = in_one_frame(&link, &mut stream, before).await;
            assert!(bytes.ends_with(&[b'x', 0x12, 0x00]), "{bytes:02x?}");
            send(&mut stream, "reply").await;
            stream.finish();
            stream
        };
        let (result, _stream) = tokio::join!(call, answered);
        assert_eq!(result, Ok("hello:dialback".into()));
    }
}

#[tokio::test]
async fn a_unary_reply_of_32_bytes_is_sent_in_one_datagram() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/edge-1"), Settings::default());
    let _agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .serve(hello_service())
        .limits(no_heartbeat())
        .start()
        .expect("an agent");
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(raw_peer::kind::HELLO).await;
    send(&mut control, "welcome-agent").await;
    control.expect(raw_peer::kind::REGISTER).await;
    send(&mut control, "registered").await;
    for _ in 0..3 {
        let before = link.connection.stats().frame_rx.stream;
        let mut stream = link.open().await;
        let head = raw_peer::Head::here("HelloService/Hello").frame();
        let text = "x".repeat(24);
        stream.send(&[head, raw_peer::message(&text), raw_peer::end()].concat()).await;
        stream.finish();
        let bytes = in_one_frame(&link, &mut stream, before).await;
        assert!(bytes.ends_with(&[0x13, 0x40, 0x05, 0xa2, 0x00, 0x00, 0x01, 0x00]), "{bytes:02x?}");
        assert_eq!(bytes[..2], [0x11, 32]);
    }
}

/// Two numbers for each number, and the double of each.
fn meter() -> Service {
    Service::new("Meter")
        .server_stream("Watch", |first: u64, mut replies: Outbound<u64>, _: Context| async move {
            replies.send(&first).await?;
            replies.send(&(2 * first)).await
        })
        .bidirectional(
            "Double",
            |mut values: Inbound<u64>, mut out: Outbound<u64>, _: Context| async move {
                while let Some(value) = values.next().await {
                    out.send(&(2 * value?)).await?;
                }
                Ok(())
            },
        )
}

#[tokio::test]
async fn a_node_requests_streams_with_the_golden_bytes() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let issuer = Issuer::new();
    let node = node(&issuer).await;
    let (link, _control) = golden_agent(&issuer, &node).await;
    let caller = Caller::connect(node.local_addr().to_string(), issuer.credentials("caller/ops"))
        .await
        .expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let answered = async |request| {
        let mut stream = link.accept().await;
        expect_whole(&mut stream, request).await;
        send(&mut stream, "reply-stream").await;
        stream.finish();
    };
    let call = callee.server_stream::<u64, u64>("Meter/Watch", &2).timeout(TIMEOUT);
    let (replies, ()) = tokio::join!(call.into_future(), answered("request-server-stream"));
    let mut replies = replies.expect("a stream");
    assert_eq!((replies.next().await, replies.next().await), (Some(Ok(2)), Some(Ok(4))));
    assert_eq!(replies.next().await, None);
    let opened = callee.tcp("db").timeout(TIMEOUT).into_future();
    let exchange = async {
        let mut stream = opened.await.expect("a connection");
        stream.write_all(b"ping").await.and(stream.shutdown().await).expect("written");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.map(|_| received).expect("a clean end")
    };
    let answered_by_bytes = async {
        let mut stream = link.accept().await;
        // The caller sends once it is connected.
        let golden = Golden::read("request-tcp");
        let (begun, rest) = golden.bytes.split_at(golden.bytes.len() - 8);
        let name = "request-tcp";
        Golden { name, bytes: begun.into() }.check(&stream.bytes(begun.len()).await);
        let reply = Golden::read("reply-tcp").filled();
        stream.send(&reply[..2]).await;
        Golden { name, bytes: rest.into() }.check(&stream.all().await);
        stream.send(&reply[2..]).await;
        stream.finish();
    };
    let (received, ()) = tokio::join!(exchange, answered_by_bytes);
    assert_eq!(received, b"pong");
    let call = callee.bidirectional::<u64, u64>("Meter/Double").timeout(TIMEOUT);
    let (mut values, mut replies) = call.await.expect("a call");
    let sent = async {
        values.send(&1).await.expect("room");
        values.send(&2).await.expect("room");
        values.finish().await.expect("room");
    };
    tokio::join!(sent, answered("request-bidirectional"));
    assert_eq!((replies.next().await, replies.next().await), (Some(Ok(2)), Some(Ok(4))));
    assert_eq!(replies.next().await, None);
}

/// Answers every method with its name.
struct Named;

impl DynHandler for Named {
    fn call_boxed(self: std::sync::Arc<Self>, request: Request) -> ReplyFuture {
        // A text of less than 24 bytes: its first byte has its length.
        let name = request.meta.method.method().as_bytes();
        let text = [&[0x60 + u8::try_from(name.len()).expect("a short one")], name].concat();
        Box::pin(async move { Ok(Reply::new(text.into())) })
    }
}

#[tokio::test]
async fn a_fallback_service_is_registered_with_the_golden_bytes() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/edge-1"), Settings::default());
    let kinds = [CallKind::Unary, CallKind::ServerStream];
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .serve(Service::fallback("HelloService", kinds, None, Named))
        .start()
        .expect("an agent");
    let link = listener.accept().await;
    let mut control = link.accept().await;
    expect_next(&mut control, "hello-agent").await;
    send(&mut control, "welcome-agent").await;
    expect_next(&mut control, "register-whole").await;
    send(&mut control, "registered").await;
    soon("registration", agent.registered(1)).await;
}

#[tokio::test]
async fn a_node_sends_any_method_of_a_service_to_an_agent_with_a_fallback_for_it() {
    let issuer = Issuer::new();
    let host = HostRule::parse("warehouse", "*").expect("a rule");
    let node = Node::builder(issuer.credentials("node/edge-1"))
        .listen("127.0.0.1:0")
        .policy(NodePolicy::allow_all().host(host))
        .start()
        .await
        .expect("a node");
    let at = node.local_addr().to_string();
    let kinds = [CallKind::Unary];
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(&at)
        .serve(Service::fallback("HelloService", kinds, None, Named))
        .start()
        .expect("an agent");
    soon("registration", agent.registered(1)).await;
    let caller = Caller::connect(at, issuer.credentials("caller/ops")).await.expect("a caller");
    for method in ["Hello", "Bye"] {
        let path = format!("HelloService/{method}");
        assert_eq!(caller.any().call::<String>(path.as_str(), "x").await, Ok(method.into()));
    }
    let other = caller.any().call::<String>("Other/Hello", "x").await.expect_err("another service");
    assert_eq!((other.code(), other.outcome()), (Code::Unavailable, Outcome::NotExecuted));
    let listed = caller.services("warehouse").await.expect("a list");
    assert!(listed[0].methods[0].is_any(), "{listed:?}");
}

/// A raw node with a real agent that hosts [`meter`], whose registration differs from the golden
/// file.
async fn golden_streams(
    issuer: &Issuer,
    db: TcpForward,
    http: HttpForward,
) -> (Agent, RawLink, RawStream) {
    let listener = RawListener::bind(&issuer.credentials("node/edge-1"), Settings::default());
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .serve(meter())
        .tcp(db)
        .http(http)
        .start()
        .expect("an agent");
    let link = listener.accept().await;
    let mut control = link.accept().await;
    expect_next(&mut control, "hello-agent").await;
    send(&mut control, "welcome-agent").await;
    drop(control.expect(raw_peer::kind::REGISTER).await);
    send(&mut control, "registered").await;
    (agent, link, control)
}

#[tokio::test]
async fn a_real_agent_answers_golden_streams() {
    let issuer = Issuer::new();
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = upstream.local_addr().expect("an address");
    let db = format!("db={at}").parse().expect("a forward");
    let web = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", web.local_addr().expect("an address"));
    let url = url.parse().expect("an upstream");
    let http = HttpForward::new("web".parse().expect("a name"), url, None).expect("a forward");
    let (agent, link, _control) = golden_streams(&issuer, db, http).await;
    soon("registration", agent.registered(1)).await;
    let mut stream = link.open().await;
    send(&mut stream, "request-tcp").await;
    stream.finish();
    let mut accepted = soon("it connects", upstream.accept()).await.expect("a connection").0;
    let mut received = Vec::new();
    soon("its direction ends", accepted.read_to_end(&mut received)).await.expect("a clean end");
    assert_eq!(received, b"ping");
    accepted.write_all(b"pong").await.expect("written");
    drop(accepted);
    expect_whole(&mut stream, "reply-tcp").await;
    let mut stream = link.open().await;
    send(&mut stream, "request-http").await;
    stream.finish();
    let mut accepted = soon("it connects", web.accept()).await.expect("a connection").0;
    let mut request = Vec::new();
    while !request.ends_with(b"2\r\nhi\r\n0\r\n\r\n") {
        assert_ne!(soon("a request", accepted.read_buf(&mut request)).await.expect("bytes"), 0);
    }
    assert!(request.starts_with(b"POST /a?x=1 HTTP/1.1\r\naccept: */*\r\n"), "{request:?}");
    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-of: up\r\n\r\nok";
    accepted.write_all(response).await.expect("written");
    expect_whole(&mut stream, "reply-http").await;
    for request in ["request-server-stream", "request-bidirectional"] {
        let mut stream = link.open().await;
        send(&mut stream, request).await;
        stream.finish();
        expect_whole(&mut stream, "reply-stream").await;
    }
}
