//! Drain, takeover and reconnect, against a peer that speaks the protocol byte by byte and so can
//! do what a real peer never does.

use crate::raw_peer::{
    Cbor, Head, Issuer, RawLink, RawListener, RawStream, Settings, StreamEnd, drain, end, goodbye,
    hello_of, kind, message, ping, register, registered, soon, status, welcome,
};
use crate::world::{
    Background, Stage, World, check_status, logged, poll_in_order, spawn, until_event,
};
use dialback::{
    Agent, AgentEvent, Callee, Caller, CloseCode, Code, ConfigUpdate, Node, NodeEvent, NodePolicy,
    Outcome, Status, StreamCode,
};
use std::{future::IntoFuture, time::Duration};

const ONE: [u8; 16] = [1; 16];
const TWO: [u8; 16] = [2; 16];

/// A real node that hosts the stage itself.
async fn node(issuer: &Issuer, stage: &Stage) -> Node {
    Node::builder(issuer.credentials("node/edge-1"))
        .listen("127.0.0.1:0")
        .policy(NodePolicy::allow_all())
        .serve(stage.service())
        .start()
        .await
        .expect("a node")
}

/// Dials as an instance of a peer and is welcomed.
async fn linked(
    issuer: &Issuer,
    node: &Node,
    peer: &str,
    instance: [u8; 16],
) -> (RawLink, RawStream) {
    let link = RawLink::dial(node.local_addr(), &issuer.credentials(peer)).await;
    let mut control = link.open().await;
    control.send(&hello_of(instance, [1, 1], 16)).await;
    control.expect(kind::WELCOME).await;
    (link, control)
}

/// The agent `raw`, registered as this instance.
async fn raw_agent(issuer: &Issuer, node: &Node, instance: [u8; 16]) -> (RawLink, RawStream) {
    let (link, mut control) = linked(issuer, node, "agent/raw", instance).await;
    control.send(&register(1, &[("Echo", &["Echo"])])).await;
    control.expect(kind::REGISTERED).await;
    (link, control)
}

/// Everything sent on the control stream before has been read.
async fn is_read(control: &mut RawStream) {
    control.send(&ping(9)).await;
    control.expect(kind::PONG).await;
}

/// Sends a request on a new stream.
async fn ask(link: &RawLink, head: Head, text: &str) -> RawStream {
    let mut stream = link.open().await;
    stream.send(&[head.frame(), message(text), end()].concat()).await;
    stream.finish();
    stream
}

async fn answer(stream: &mut RawStream, text: &str) {
    stream.send(&[message(text), status(0, 0)].concat()).await;
    stream.finish();
}

/// A call by the node's own program to the agent `raw`.
fn call(node: &Node) -> Background<Result<String, Status>> {
    let agent = node.agent("raw").handle().expect("a name");
    spawn(agent.call("Echo/Echo", "x").into_future())
}

/// The last stream that a DRAIN names.
fn last_stream(payload: &[u8]) -> u64 {
    Cbor::decode(payload).key(2).expect("last_stream").as_uint()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_finishes_accepted_calls_and_starts_none_above_the_last_stream() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    let (link, mut control) = linked(&issuer, &node, "caller/ops", ONE).await;
    let mut taken = ask(&link, Head::here("Stage/Hold"), "taken").await;
    stage.started("taken").await;
    let stopping = spawn(node.shutdown());
    assert_eq!(last_stream(&control.expect(kind::DRAIN).await), 4);
    for _ in 0..3 {
        let mut late = ask(&link, Head::here("Stage/Note"), "late").await;
        assert_eq!(late.frame().await, Err(StreamEnd::Reset(StreamCode::Draining.number())));
        assert!(late.stop_code().await.is_none_or(|code| code == StreamCode::Draining.number()));
    }
    is_read(&mut control).await;
    assert!(!stopping.is_finished() && link.is_open());
    stage.open();
    let reply = taken.reply().await;
    assert_eq!((reply.code, reply.outcome), (0, 0), "{}", reply.text);
    let payload = Cbor::decode(&control.expect(kind::GOODBYE).await);
    assert_eq!(payload.key(0), Some(&Cbor::Uint(CloseCode::Drained.number())));
    // The node stops waiting for a peer that does not close the link itself.
    assert_eq!(link.closed().await, (CloseCode::Drained.number(), "the node stops".into()));
    soon("the node stops", stopping).await;
    assert_eq!((stage.runs("taken"), stage.runs("late")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_notifies_every_peer_first_and_ends_once_all_have_closed() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    let (agent, mut of_agent) = raw_agent(&issuer, &node, ONE).await;
    let (caller, mut of_caller) = linked(&issuer, &node, "caller/ops", TWO).await;
    let mut held = ask(&caller, Head::here("Stage/Hold"), "held").await;
    stage.started("held").await;
    let stopping = spawn(node.shutdown());
    assert_eq!(last_stream(&of_agent.expect(kind::DRAIN).await), 0);
    assert_eq!(last_stream(&of_caller.expect(kind::DRAIN).await), 4);
    stage.open();
    assert_eq!(held.reply().await.code, 0);
    for (link, control) in [(agent, &mut of_agent), (caller, &mut of_caller)] {
        control.expect(kind::GOODBYE).await;
        link.connection.close(0x40u32.into(), b"all is here");
    }
    soon("the node stops", stopping).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_above_the_last_stream_of_a_drain_were_not_executed_and_others_may_have_been() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    let (link, mut control) = raw_agent(&issuer, &node, ONE).await;
    let first = call(&node);
    let mut taken = link.accept().await;
    taken.expect(kind::HEAD).await;
    let second = call(&node);
    let mut late = link.accept().await;
    late.expect(kind::HEAD).await;
    // Streams of a node are 1, 5, 9 and so on.
    control.send(&drain(1)).await;
    is_read(&mut control).await;
    link.connection.close(0x42u32.into(), b"gone");
    let first = soon("the first call ends", first).await;
    let first = check_status(first, Code::Unavailable, Outcome::Unknown);
    assert!(first.message().contains("DRAINED"), "{first}");
    let second = soon("the second call ends", second).await;
    check_status(second, Code::Unavailable, Outcome::NotExecuted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_unregisters_gets_no_new_calls_and_finishes_its_own() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    let mut events = node.events();
    let (link, mut control) = raw_agent(&issuer, &node, ONE).await;
    let in_flight = call(&node);
    let mut stream = link.accept().await;
    stream.expect(kind::HEAD).await;
    control.send(&register(2, &[])).await;
    control.expect(kind::REGISTERED).await;
    let refused = soon("a new call ends", call(&node)).await;
    check_status(refused, Code::Unavailable, Outcome::NotExecuted);
    let info = node.agents().remove(0);
    assert!(info.attached && info.draining && !info.certificate_used_twice, "{info:?}");
    // GOODBYE arrives before the last reply: the node, the last receiver, still waits for the
    // reply.
    control.send(&[drain(1), goodbye(0x40)].concat()).await;
    is_read(&mut control).await;
    assert!(link.is_open() && !in_flight.is_finished());
    answer(&mut stream, "late but complete").await;
    let reply = soon("the call in flight ends", in_flight).await;
    assert_eq!(reply.as_deref(), Ok("late but complete"));
    assert_eq!(link.closed().await, (0x40, "raw has finished".into()));
    until_event("the node detects it", node.events(), || !node.agents()[0].attached).await;
    assert!(!node.agents()[0].draining);
    let mut next = async || soon("an event", events.next()).await.expect("the node runs");
    assert!(matches!(next().await, NodeEvent::Attached { agent, .. } if agent.as_str() == "raw"));
    assert!(matches!(next().await, NodeEvent::Draining { agent } if agent.as_str() == "raw"));
    let lost = next().await;
    assert!(
        matches!(&lost, NodeEvent::Lost { reason, .. } if reason.to_string().contains("GOODBYE")),
        "{lost:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_only_drains_counts_as_unregistered_and_may_register_again() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    let (link, mut control) = raw_agent(&issuer, &node, ONE).await;
    control.send(&register(2, &[])).await;
    control.expect(kind::REGISTERED).await;
    control.send(&register(3, &[("Echo", &["Echo"])])).await;
    control.expect(kind::REGISTERED).await;
    let again = call(&node);
    answer(&mut link.accept().await, "back").await;
    assert_eq!(soon("the call ends", again).await.as_deref(), Ok("back"));
    control.send(&drain(1)).await;
    is_read(&mut control).await;
    let refused = soon("a new call ends", call(&node)).await;
    check_status(refused, Code::Unavailable, Outcome::NotExecuted);
    assert!(link.is_open());
}

/// Accepts and welcomes the next peer that dials a raw node.
async fn welcomed(listener: &RawListener) -> (RawLink, RawStream) {
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(kind::HELLO).await;
    control.send(&welcome(1)).await;
    (link, control)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reattaches_before_the_link_of_a_draining_node_is_closed() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .serve(stage.service())
        .start()
        .expect("an agent");
    let attached = async || {
        let (link, mut control) = welcomed(&listener).await;
        control.expect(kind::REGISTER).await;
        control.send(&registered(1)).await;
        (link, control)
    };
    let (old, mut of_old) = attached().await;
    let mut in_flight = ask(&old, Head::here("Stage/Hold"), "held").await;
    stage.started("held").await;
    of_old.send(&drain(0)).await;
    let (new, _of_new) = attached().await;
    soon("both are attached", agent.registered(2)).await;
    // The agent's own call goes to the successor.
    let node = agent.node();
    let pending = spawn(node.call::<String>("Echo/Echo", "x").into_future());
    answer(&mut new.accept().await, "by the successor").await;
    assert_eq!(soon("its call ends", pending).await.as_deref(), Ok("by the successor"));
    assert!(old.is_open());
    stage.open();
    assert_eq!(in_flight.reply().await.code, 0);
    of_old.send(&goodbye(0x42)).await;
    assert_eq!(old.closed().await.0, CloseCode::Goodbye.number());
    until_event("one link is left", agent.events(), || agent.nodes().len() == 1).await;
    assert!(new.is_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_finishes_old_calls_and_makes_new_ones_over_the_next_link() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let connect = Caller::connect(listener.address(), issuer.credentials("caller/ops"));
    let (caller, (old, mut of_old)) = tokio::join!(connect, welcomed(&listener));
    let callee = caller.expect("a caller").node();
    let call = |text: &str| spawn(callee.call::<String>("Echo/Echo", text).into_future());
    let before = call("before");
    let mut taken = old.accept().await;
    taken.expect(kind::HEAD).await;
    // It was sent and not accepted: the same attempt continues on another link.
    let between = call("between");
    let mut late = old.accept().await;
    late.expect(kind::HEAD).await;
    of_old.send(&drain(4)).await;
    is_read(&mut of_old).await;
    late.reset(StreamCode::Draining.number() as u32);
    let after = call("after");
    let (new, _of_new) = welcomed(&listener).await;
    for _ in 0..2 {
        answer(&mut new.accept().await, "by the successor").await;
    }
    for call in [between, after] {
        assert_eq!(soon("a call ends", call).await.as_deref(), Ok("by the successor"));
    }
    of_old.send(&goodbye(0x42)).await;
    is_read(&mut of_old).await;
    assert!(old.is_open() && !before.is_finished(), "it did not wait for the reply");
    answer(&mut taken, "by the old one").await;
    assert_eq!(soon("the old call ends", before).await.as_deref(), Ok("by the old one"));
    assert_eq!(old.closed().await.0, CloseCode::Goodbye.number());
    assert!(new.is_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_repeatedly_gets_two_links_at_most() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .serve(stage.service())
        .start()
        .expect("an agent");
    let mut links = Vec::new();
    for _ in 0..2 {
        let (link, mut control) = welcomed(&listener).await;
        control.expect(kind::REGISTER).await;
        control.send(&[registered(1), drain(0), drain(0)].concat()).await;
        links.push((link, control));
    }
    soon("both are attached", agent.registered(2)).await;
    for (link, control) in &mut links {
        is_read(control).await;
        assert!(link.is_open());
    }
    let third = tokio::time::timeout(Duration::from_millis(300), welcomed(&listener)).await;
    assert!(third.is_err(), "it dialled a third time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_registration_does_not_replace_the_services_of_the_active_link() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    let (stale, mut control) = linked(&issuer, &node, "agent/raw", ONE).await;
    let (active, _control) = raw_agent(&issuer, &node, TWO).await;
    control.send(&register(1, &[("Other", &["Other"])])).await;
    assert_eq!(stale.closed().await.0, CloseCode::Superseded.number());
    let timeout = Duration::from_secs(10);
    let other = node.call_all::<String>("Other/Other", "x", timeout).await.expect("hosts");
    assert!(other.is_empty(), "{other:?}");
    let call = node.call_all::<String>("Echo/Echo", "x", timeout);
    let (called, ()) = tokio::join!(call, async {
        let mut stream = active.accept().await;
        stream.expect(kind::HEAD).await;
        stream.reset(1);
    });
    assert_eq!(called.expect("hosts").len(), 1, "the services of the active link");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_used_twice_is_logged_as_an_error_and_the_returning_agent_backs_off() {
    // Creating a world starts the log recorder.
    let _world = World::new();
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    let mut events = node.events();
    let is_shown = || node.agents().iter().any(|agent| agent.certificate_used_twice);
    let mut incumbent = raw_agent(&issuer, &node, ONE).await;
    // Each instance connects once and then returns: the third return is the last one that takes
    // over.
    for turn in 0..4 {
        let instance = if turn % 2 == 0 { TWO } else { ONE };
        let newest = raw_agent(&issuer, &node, instance).await;
        assert_eq!(incumbent.0.closed().await.0, CloseCode::Superseded.number(), "turn {turn}");
        assert!(!is_shown(), "in turn {turn}");
        incumbent = newest;
    }
    for attempt in 0..2 {
        let (link, mut control) = linked(&issuer, &node, "agent/raw", TWO).await;
        control.send(&register(1, &[("Echo", &["Echo"])])).await;
        let (code, text) = link.closed().await;
        assert_eq!(code, CloseCode::Superseded.number(), "attempt {attempt}: {text}");
        assert!(text.contains("give each its own certificate"), "{text}");
        assert!(incumbent.0.is_open() && is_shown());
    }
    logged(&["certificate of agent raw is in use twice", "127.0.0.1", "certs issue agent"]).await;
    let mut takeovers = 0;
    loop {
        match soon("an event", events.next()).await.expect("the node runs") {
            NodeEvent::CertificateUsedTwice { agent } => {
                assert_eq!((agent.as_str(), takeovers), ("raw", 4));
                break;
            }
            NodeEvent::TakenOver { agent, old, new, .. } => {
                assert!(agent.as_str() == "raw" && old != new);
                takeovers += 1;
            }
            NodeEvent::Attached { .. } => assert_eq!(takeovers, 0),
            other => panic!("{other:?}"),
        }
    }
    // A new instance never has to back off.
    let (new, _control) = raw_agent(&issuer, &node, [3; 16]).await;
    assert_eq!(incumbent.0.closed().await.0, CloseCode::Superseded.number());
    assert!(new.is_open() && is_shown());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fifth_link_of_one_instance_closes_the_oldest_and_takes_the_calls() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    let mut links = Vec::new();
    for _ in 0..4 {
        links.push(raw_agent(&issuer, &node, ONE).await);
    }
    assert!(links.iter().all(|(link, _)| link.is_open()), "four are allowed");
    links.push(raw_agent(&issuer, &node, ONE).await);
    let (oldest, _) = links.remove(0);
    let (code, text) = oldest.closed().await;
    assert_eq!(code, CloseCode::Drained.number(), "{text}");
    let call = call(&node);
    answer(&mut links[3].0.accept().await, "by the fifth").await;
    assert_eq!(soon("the call ends", call).await.as_deref(), Ok("by the fifth"));
    for (link, control) in &mut links {
        is_read(control).await;
        assert!(link.is_open());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_closes_while_it_registers_leaves_no_agent_behind() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    for round in 0..30 {
        let (link, mut control) = linked(&issuer, &node, "agent/raw", ONE).await;
        control.send(&register(1, &[("Echo", &["Echo"])])).await;
        if round % 2 == 1 {
            // The node may be anywhere between reading and confirming it.
            tokio::task::yield_now().await;
        }
        link.connection.close(0x40u32.into(), b"never mind");
    }
    // The last link is a usable one, and no remnant of the others replaces it.
    let (link, _control) = raw_agent(&issuer, &node, ONE).await;
    for _ in 0..20 {
        let call = call(&node);
        answer(&mut link.accept().await, "here").await;
        assert_eq!(soon("the call ends", call).await.as_deref(), Ok("here"));
    }
    link.connection.close(0x40u32.into(), b"done");
    until_event("no agent is attached", node.events(), || {
        node.agents().iter().all(|agent| !agent.attached)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_node_does_not_answer_still_shuts_down() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(listener.address())
        .serve(stage.service())
        .start()
        .expect("an agent");
    let (link, mut control) = welcomed(&listener).await;
    control.expect(kind::REGISTER).await;
    control.send(&registered(1)).await;
    soon("registration", agent.registered(1)).await;
    let mut held = ask(&link, Head::here("Stage/Hold"), "held").await;
    stage.started("held").await;
    let stopping = spawn(agent.shutdown());
    // The peer sends no new calls and no acknowledgement; it does not close the link either.
    control.expect(kind::REGISTER).await;
    control.expect(kind::DRAIN).await;
    let mut late = ask(&link, Head::here("Stage/Note"), "late").await;
    assert_eq!(late.frame().await, Err(StreamEnd::Reset(StreamCode::Draining.number())));
    stage.open();
    assert_eq!(held.reply().await.code, 0);
    control.expect(kind::GOODBYE).await;
    assert_eq!(link.closed().await, (CloseCode::Goodbye.number(), "the agent stops".into()));
    soon("the agent stops", stopping).await;
    assert_eq!(stage.runs("late"), 0);
}

/// An agent with a [`Stage`] that dials a raw node.
fn agent_of(issuer: &Issuer, listener: &RawListener, stage: &Stage) -> Agent {
    let agent = Agent::builder(issuer.credentials("agent/warehouse")).node(listener.address());
    agent.serve(stage.service()).start().expect("an agent")
}

/// A welcomed link on which the agent has sent REGISTER and has a call in progress; REGISTERED was
/// not sent.
async fn unconfirmed(listener: &RawListener, stage: &Stage) -> (RawLink, RawStream, RawStream) {
    let (link, mut control) = welcomed(listener).await;
    control.expect(kind::REGISTER).await;
    let call = ask(&link, Head::here("Stage/Hold"), "routed").await;
    stage.started("routed").await;
    (link, control, call)
}

/// An agent that is registered on one link and renews it.
struct Renewing {
    agent: Agent,
    old: RawLink,
    _of_old: RawStream,
    _listener: RawListener,
    /// The link of [`unconfirmed`].
    new: (RawLink, RawStream, RawStream),
}

async fn renewing(stage: &Stage) -> Renewing {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = agent_of(&issuer, &listener, stage);
    let (old, mut of_old) = welcomed(&listener).await;
    of_old.expect(kind::REGISTER).await;
    of_old.send(&registered(1)).await;
    soon("it registers", agent.registered(1)).await;
    let next = Some(issuer.credentials("agent/warehouse"));
    agent
        .apply(ConfigUpdate { credentials: next, ..ConfigUpdate::default() })
        .await
        .expect("applied");
    let new = unconfirmed(&listener, stage).await;
    Renewing { agent, old, _of_old: of_old, new, _listener: listener }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_routed_before_registered_arrives_is_answered_by_a_stopping_agent() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = agent_of(&issuer, &listener, &stage);
    let (link, mut control, mut call) = unconfirmed(&listener, &stage).await;
    let stopping = spawn(agent.shutdown());
    // The agent refuses new calls at once, not only when the first registration is confirmed.
    control.expect(kind::REGISTER).await;
    control.send(&[registered(1), registered(2)].concat()).await;
    assert_eq!(last_stream(&control.expect(kind::DRAIN).await), 1);
    stage.open();
    assert_eq!(call.reply().await.code, 0);
    control.expect(kind::GOODBYE).await;
    link.connection.close(0x40u32.into(), b"all is here");
    soon("the agent stops", stopping).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_on_the_second_link_of_a_renewal_is_answered_by_a_stopping_agent() {
    let stage = Stage::default();
    let Renewing { agent, old, _of_old, _listener, new: (new, mut of_new, mut call) } =
        renewing(&stage).await;
    let stopping = spawn(agent.shutdown());
    of_new.expect(kind::REGISTER).await;
    old.connection.close(0x40u32.into(), b"gone");
    of_new.send(&[registered(1), registered(2)].concat()).await;
    of_new.expect(kind::DRAIN).await;
    stage.open();
    assert_eq!(call.reply().await.code, 0);
    of_new.expect(kind::GOODBYE).await;
    new.connection.close(0x40u32.into(), b"all is here");
    soon("the agent stops", stopping).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_link_that_has_sent_register_outlives_the_loss_of_the_first() {
    let stage = Stage::default();
    let Renewing { agent, old, _of_old, _listener, new: (new, mut of_new, mut call) } =
        renewing(&stage).await;
    let mut events = agent.events();
    old.connection.close(0x42u32.into(), b"gone");
    is_read(&mut of_new).await;
    of_new.send(&registered(1)).await;
    assert!(matches!(soon("an event", events.next()).await, Some(AgentEvent::Registered { .. })));
    stage.open();
    assert_eq!(call.reply().await.code, 0);
    assert!(new.is_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_before_it_sends_registered_has_its_calls_answered() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let _agent = agent_of(&issuer, &listener, &stage);
    let (link, mut control, mut call) = unconfirmed(&listener, &stage).await;
    control.send(&[drain(0), registered(1)].concat()).await;
    let (_next, _of_next) = welcomed(&listener).await;
    stage.open();
    assert_eq!(call.reply().await.code, 0);
    assert!(link.is_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_sends_no_new_call_to_an_agent_that_sends_goodbye_without_drain() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    let (link, mut control) = raw_agent(&issuer, &node, ONE).await;
    let in_flight = call(&node);
    let mut stream = link.accept().await;
    stream.expect(kind::HEAD).await;
    control.send(&goodbye(0x40)).await;
    is_read(&mut control).await;
    let refused = soon("a new call ends", call(&node)).await;
    let refused = check_status(refused, Code::Unavailable, Outcome::NotExecuted);
    assert!(refused.message().contains("takes no new calls"), "{refused}");
    assert!(link.is_open() && !in_flight.is_finished(), "it did not wait for the reply");
    answer(&mut stream, "late but complete").await;
    let reply = soon("the call in flight ends", in_flight).await;
    assert_eq!(reply.as_deref(), Ok("late but complete"));
    assert_eq!(link.closed().await, (0x40, "raw has finished".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_not_answered_after_a_goodbye_without_drain_may_have_been_executed() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let node = node(&issuer, &stage).await;
    let (link, mut control) = raw_agent(&issuer, &node, ONE).await;
    let in_flight = call(&node);
    let mut stream = link.accept().await;
    stream.expect(kind::HEAD).await;
    control.send(&goodbye(0x42)).await;
    is_read(&mut control).await;
    link.connection.close(0x42u32.into(), b"gone");
    let lost = soon("the call ends", in_flight).await;
    check_status(lost, Code::Unavailable, Outcome::Unknown);
}

/// Sends GOODBYE without DRAIN on the link of a peer that awaits a reply and may call `callee`. A
/// new call takes the next link, which is accepted once the old one has ended.
async fn check_goodbye_of_a_node<N: Future<Output = (RawLink, RawStream)>>(
    callee: &Callee,
    (old, mut of_old): (RawLink, RawStream),
    next: impl FnOnce() -> N,
) {
    let call = |text: &str| callee.call::<String>("Echo/Echo", text);
    let before = spawn(call("before").into_future());
    let mut taken = old.accept().await;
    taken.expect(kind::HEAD).await;
    of_old.send(&goodbye(0x42)).await;
    is_read(&mut of_old).await;
    // Polled here, so that the call chooses its link before the old one can end.
    let after = poll_in_order([call("after")]).await.remove(0);
    let after = spawn(after);
    assert!(old.is_open() && !before.is_finished(), "the reply was not awaited");
    answer(&mut taken, "by the old link").await;
    assert_eq!(soon("the old call ends", before).await.as_deref(), Ok("by the old link"));
    assert_eq!(old.closed().await.0, CloseCode::Goodbye.number());
    let (new, _of_new) = next().await;
    answer(&mut new.accept().await, "by the next link").await;
    assert_eq!(soon("the new call ends", after).await.as_deref(), Ok("by the next link"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sends_no_new_call_to_a_node_that_sends_goodbye_without_drain() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = agent_of(&issuer, &listener, &stage);
    let mut events = agent.events();
    let attached = async || {
        let (link, mut control) = welcomed(&listener).await;
        control.expect(kind::REGISTER).await;
        control.send(&registered(1)).await;
        (link, control)
    };
    let first = attached().await;
    soon("it registers", agent.registered(1)).await;
    check_goodbye_of_a_node(&agent.node(), first, attached).await;
    let mut next = async || soon("an event", events.next()).await.expect("the agent runs");
    assert!(matches!(next().await, AgentEvent::Registered { .. }));
    assert!(matches!(next().await, AgentEvent::Draining { .. }));
    let lost = next().await;
    assert!(
        matches!(&lost, AgentEvent::Lost { reason, .. } if reason.to_string().contains("DRAINED")),
        "{lost:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_closes_the_link_of_a_node_that_sends_goodbye_before_registered() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let _agent = agent_of(&issuer, &listener, &stage);
    let (link, mut control) = welcomed(&listener).await;
    control.expect(kind::REGISTER).await;
    control.send(&goodbye(0x42)).await;
    assert_eq!(link.closed().await, (CloseCode::Goodbye.number(), "raw has finished".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_sends_no_new_call_to_a_node_that_sends_goodbye_without_drain() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let connect = Caller::connect(listener.address(), issuer.credentials("caller/ops"));
    let (caller, first) = tokio::join!(connect, welcomed(&listener));
    let callee = caller.expect("a caller").node();
    check_goodbye_of_a_node(&callee, first, || welcomed(&listener)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_renews_closes_its_old_link_after_the_last_reply_with_a_reason() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let connect = Caller::connect(listener.address(), issuer.credentials("caller/ops"));
    let (caller, (old, _of_old)) = tokio::join!(connect, welcomed(&listener));
    let caller = caller.expect("a caller");
    let before = spawn(caller.node().call::<String>("Echo/Echo", "x").into_future());
    let mut taken = old.accept().await;
    taken.expect(kind::HEAD).await;
    caller.apply(issuer.credentials("caller/ops")).await.expect("applied");
    let (new, mut of_new) = welcomed(&listener).await;
    is_read(&mut of_new).await;
    assert!(old.is_open() && !before.is_finished(), "the reply was not awaited");
    answer(&mut taken, "by the old link").await;
    assert_eq!(soon("the old call ends", before).await.as_deref(), Ok("by the old link"));
    let why = "another link has taken its place";
    assert_eq!(old.closed().await, (CloseCode::Goodbye.number(), why.into()));
    assert!(new.is_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_renews_a_link_whose_registration_was_open_when_its_certificate_changed() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let agent = agent_of(&issuer, &listener, &stage);
    let (old, mut of_old) = welcomed(&listener).await;
    of_old.expect(kind::REGISTER).await;
    let next = Some(issuer.credentials("agent/warehouse"));
    agent
        .apply(ConfigUpdate { credentials: next, ..ConfigUpdate::default() })
        .await
        .expect("applied");
    of_old.send(&registered(1)).await;
    let (_new, mut of_new) = welcomed(&listener).await;
    of_new.expect(kind::REGISTER).await;
    assert!(old.is_open(), "it is closed only once the next link is up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_renews_a_link_whose_handshake_was_open_when_its_certificate_changed() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let connect = Caller::connect(listener.address(), issuer.credentials("caller/ops"));
    let (caller, (first, _of_first)) = tokio::join!(connect, welcomed(&listener));
    let caller = caller.expect("a caller");
    first.connection.close(0x42u32.into(), b"gone");
    let second = listener.accept().await;
    let mut of_second = second.accept().await;
    of_second.expect(kind::HELLO).await;
    caller.apply(issuer.credentials("caller/ops")).await.expect("applied");
    of_second.send(&welcome(1)).await;
    let (_third, _of_third) = welcomed(&listener).await;
    assert!(second.is_open(), "it is closed only once the next link is up");
}
