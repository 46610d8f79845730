//! Tests of an agent against a scripted node: it confirms registrations wrongly, and sends more
//! calls than it may.

use super::*;
use crate::{
    call::{Body, CallMeta, Outbound, Reply, Request, Requester, Target, ask},
    limits::Limits,
    link::{ControlStream, Link, LinkListener},
    name::CallIds,
    wire::{
        CallKind, Control, Kind, PROTOCOL_VERSION, Register, Registered, RequestHead, RouteKind,
        StatusHead, Welcome, request_chunks,
    },
};
use tokio::time::Instant;

/// A node of which a test writes every control frame.
struct ScriptedNode {
    listener: LinkListener,
    limits: Arc<Limits>,
}

impl ScriptedNode {
    fn bind(world: &World) -> Self {
        let limits = Arc::new(Limits::default());
        let address = "192.0.2.1:4433".parse().expect("an address");
        let (net, credentials) = (world.net.shared(), credentials("node/edge"));
        let listener = LinkListener::bind(&net, address, &credentials, &limits, None);
        Self { listener: listener.expect("a listener"), limits }
    }

    /// Accepts the next link up to the first REGISTER.
    async fn next_registering(&self) -> (Link, ControlStream) {
        let incoming = self.listener.next_incoming().await.expect("a connection");
        let greeted = incoming.greet().await.unwrap_or_else(|refused| panic!("{}", refused.fault));
        let (link, mut control) = greeted.into_link(4, &self.limits);
        let welcome = Welcome {
            protocol: PROTOCOL_VERSION,
            node: "edge".into(),
            admission: 1,
            calls_in_flight_max: 4,
            message_bytes_max: self.limits.message_bytes_max as u64,
            view_version: 0,
        };
        control.send(&Control::Welcome(welcome)).await.expect("sent");
        let first = next_register(&mut control).await;
        assert_eq!((first.generation, first.services.len()), (1, 1));
        (link, control)
    }
}

async fn next_register(control: &mut ControlStream) -> Register {
    loop {
        if let Control::Register(frame) = control.next().await.expect("a frame") {
            return frame;
        }
    }
}

async fn confirm(control: &mut ControlStream, generation: u64) {
    control.send(&Control::Registered(Registered { generation })).await.expect("sent");
}

#[tokio::test(start_paused = true)]
async fn an_agent_ends_a_link_whose_node_confirms_another_registration() {
    let world = World::new();
    let node = ScriptedNode::bind(&world);
    let agent = world.agent("shop").start().expect("an agent");
    for generation in [0, 2] {
        let (link, mut control) = node.next_registering().await;
        confirm(&mut control, generation).await;
        tokio::time::timeout(SECOND, link.closed()).await.expect("the agent ends it");
        assert!(agent.nodes().is_empty(), "registered by generation {generation}");
    }
    let (_link, mut control) = node.next_registering().await;
    confirm(&mut control, 1).await;
    agent.registered(1).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stops_waits_until_its_own_unregistration_is_confirmed() {
    let world = World::new();
    let node = ScriptedNode::bind(&world);
    let agent = world.agent("shop").start().expect("an agent");
    let (_link, mut control) = node.next_registering().await;
    confirm(&mut control, 1).await;
    agent.registered(1).await;
    let closing = spawn(agent.shutdown());
    let second = next_register(&mut control).await;
    assert_eq!((second.generation, second.services.len()), (2, 0));
    confirm(&mut control, 1).await;
    let drained = async { while !matches!(control.next().await, Ok(Control::Drain(_))) {} };
    let early = tokio::time::timeout(SECOND / 2, drained).await;
    assert!(early.is_err(), "it took an old confirmation for the one it waits for");
    confirm(&mut control, 2).await;
    let drained = async { while !matches!(control.next().await, Ok(Control::Drain(_))) {} };
    tokio::time::timeout(SECOND / 2, drained).await.expect("DRAIN");
    drop(closing);
}

/// Makes a call over a link.
async fn asked(link: &Link, method: &str, kind: CallKind) -> Result<Reply, Status> {
    let call_id = CallIds::new([7; 16]).next_id();
    let (method, deadline) = (method.parse().expect("a method"), Instant::now() + SECOND);
    let mut request = Request {
        meta: CallMeta::new(method, kind, Target::Here, call_id, deadline),
        requester: Requester::Verified("node/edge".parse().expect("a peer")),
        body: Body::Message(bytes::Bytes::from_static(b"\x61x")),
    };
    ask(link, &mut request, (&Limits::default()).into(), None, None).await
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_replies_of_an_agent_holds_its_permit_against_a_node_that_counts_none() {
    let world = World::new();
    let node = ScriptedNode::bind(&world);
    let endless = |first: String, mut replies: Outbound<String>, _: Context| async move {
        replies.send(&first).await?;
        pending::<Result<(), Status>>().await
    };
    let limits = Limits { calls_in_flight_max: 1, queue_max: 0, ..Limits::default() };
    let agent = Agent::builder(credentials("agent/shop")).node(NODE).net(world.net.shared());
    let service = world.stage.service().server_stream("Endless", endless);
    let agent = agent.serve(service).limits(limits).start().expect("an agent");
    let (link, mut control) = node.next_registering().await;
    confirm(&mut control, 1).await;
    agent.registered(1).await;
    let stream = asked(&link, "Stage/Endless", CallKind::ServerStream).await.expect("a stream");
    let refused = asked(&link, "Stage/Echo", CallKind::Unary).await;
    check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
    drop(stream);
    tokio::time::sleep(SECOND).await;
    assert!(asked(&link, "Stage/Echo", CallKind::Unary).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_an_agent_reads_after_it_has_begun_to_drain_starts_no_handler() {
    let world = World::new();
    let node = ScriptedNode::bind(&world);
    let agent = world.agent("shop").start().expect("an agent");
    let (link, mut control) = node.next_registering().await;
    confirm(&mut control, 1).await;
    agent.registered(1).await;
    let head = RequestHead {
        method: "Stage/Echo",
        route: RouteKind::Here,
        agent: None,
        kind: CallKind::Unary,
        timeout_ms: 60_000,
        call_id: serde_bytes::ByteArray::new([7; 16]),
        attempt: 1,
        priority: 0,
        caller: None,
        traceparent: None,
        metadata: Vec::new(),
        content_type: None,
        caller_signature: None,
        wait: false,
        http: None,
    };
    let message = bytes::Bytes::from_static(b"\x61x");
    let chunks = || request_chunks(&head, &message).expect("a request");
    let [mut begun, mut rest] = [chunks(), chunks()];
    begun.as_mut()[0].truncate(1);
    drop(rest.as_mut()[0].split_to(1));
    let opened = link.open(|| Instant::now() + SECOND, 1 << 20).await;
    let mut stream = opened.expect("a stream");
    stream.sender.write(&mut begun).await.expect("written");
    tokio::time::sleep(SECOND).await;
    let _closing = spawn(agent.shutdown());
    assert_eq!(next_register(&mut control).await.generation, 2);
    confirm(&mut control, 2).await;
    while !matches!(control.next().await.expect("a frame"), Control::Drain(_)) {}
    tokio::time::sleep(SECOND).await;
    stream.sender.write(&mut rest).await.expect("written");
    stream.sender.finish();
    let reply = stream.reader.next().await.expect("a frame").expect("a reply");
    assert_eq!(reply.kind, Kind::Status, "it was answered");
    let refused = StatusHead::decode(&reply.payload).expect("a status");
    check_status(refused, Code::Unavailable, Outcome::NotExecuted);
}
