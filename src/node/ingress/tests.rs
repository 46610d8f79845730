//! The steps of a call with fakes for arrivals and routes, on tokio's paused clock.

use super::steps::{Arrival, Ingress};
use crate::{
    audit::{Audit, MemorySink},
    call::{
        Body, CallMeta, Context, MessageSender, Messages, Permit, Permits, Reply, Request,
        Requester, Target,
    },
    directory::DIRECTORY,
    limits::Limits,
    name::{CallId, PeerName},
    net,
    node::{
        dispatch::fake::{FakeRoutes, dispatch},
        snapshot,
        state::{NodeParts, NodeState},
    },
    observe::{CallRecord, RecordedCaller},
    policy::{AllowRule, NodePolicy, Rate},
    serve::{Service, Services},
    status::{Code, Outcome, Status},
    trace::Tracer,
    wire::CallKind,
};
use bytes::Bytes;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Steps of an arrival, in order.
type Steps = Arc<Mutex<Vec<&'static str>>>;

/// An arrival of a peer.
struct FakeArrival<const IS_AUTHORISED: bool, const PICKS_BEFORE_BODY: bool> {
    steps: Steps,
    state: Arc<NodeState>,
    permits: Option<Permits>,
    bytes_min: usize,
    body: Option<Result<Body, Status>>,
    /// Duration of reading the body.
    takes: Duration,
    /// Limit on each message that the body was read with.
    bytes_max: Arc<Mutex<Option<usize>>>,
}

type PeerArrival = FakeArrival<true, false>;
type ClientArrival = FakeArrival<true, true>;
type ProgramArrival = FakeArrival<false, false>;

impl<const J: bool, const P: bool> Arrival for FakeArrival<J, P> {
    const IS_AUTHORISED: bool = J;
    const PICKS_BEFORE_BODY: bool = P;

    fn note(&self, request: &mut Request) -> Option<Box<CallRecord>> {
        let requester = RecordedCaller::Peer(request.requester.peer().clone());
        let info = request.meta.info(requester, None, None);
        Some(self.state.observer.call(request.meta.start(Instant::now()), info))
    }

    async fn permit(&mut self, request: &Request) -> Result<Option<Permit>, Status> {
        self.step("permit");
        let Some(permits) = &self.permits else { return Ok(None) };
        permits.acquire(request.meta.deadline, SECOND).await.map(Some)
    }

    fn bytes_min(&self) -> usize {
        self.bytes_min
    }

    async fn read_body(
        &mut self,
        request: &mut Request,
        bytes_max: Option<usize>,
    ) -> Result<(), Status> {
        self.step("body");
        *self.bytes_max.lock().expect("the limit") = bytes_max;
        tokio::time::sleep(self.takes).await;
        if let Some(body) = self.body.take() {
            request.body = body?;
        }
        Ok(())
    }

    fn bytes_in(&self, request: &Request) -> Option<u64> {
        let was_read = self.steps.lock().expect("the steps").contains(&"body");
        request.message().ok().filter(|_| was_read).map(|message| message.len() as u64)
    }

    fn ended(&mut self) {
        self.step("ended");
    }
}

impl<const J: bool, const P: bool> FakeArrival<J, P> {
    fn step(&self, step: &'static str) {
        self.steps.lock().expect("the steps").push(step);
    }
}

/// A node without links whose routes are fakes.
struct Fixture {
    state: Arc<NodeState>,
    ingress: Ingress<FakeRoutes>,
    steps: Steps,
    bytes_max: Arc<Mutex<Option<usize>>>,
    /// Lets `Own/Wait` end.
    release: Arc<Notify>,
}

impl Fixture {
    fn new(policy: NodePolicy) -> Self {
        Self::with(policy, &["a", "b"], [], Audit::default())
    }

    fn with(
        policy: NodePolicy,
        routes: &[&'static str],
        ends: impl IntoIterator<Item = Status>,
        audit: Audit,
    ) -> Self {
        let release = Arc::<Notify>::default();
        let services = Services::new(vec![own_service(&release)]).expect("services");
        let parts = NodeParts {
            policy,
            limits: Limits::default(),
            services,
            audit,
            tracer: Tracer::default(),
        };
        let peer = "node/edge".parse().expect("a peer");
        let state = Arc::new(NodeState::new(peer, net::system(), parts));
        let directory = Services::with_reserved(vec![snapshot::directory(&state)]);
        drop(state.directory.set(directory.expect("a directory")));
        let ingress = Ingress { shared: state.clone(), dispatch: dispatch(routes, ends) };
        let (steps, bytes_max) = (Steps::default(), Arc::default());
        Self { state, ingress, steps, bytes_max, release }
    }

    fn arrival<const J: bool, const P: bool>(&self) -> FakeArrival<J, P> {
        FakeArrival {
            steps: self.steps.clone(),
            state: self.state.clone(),
            permits: None,
            bytes_min: 0,
            body: None,
            takes: Duration::ZERO,
            bytes_max: self.bytes_max.clone(),
        }
    }

    async fn answer(&self, request: Request) -> Result<Reply, Status> {
        self.ingress.answer(request, self.arrival::<true, false>()).await.reply
    }

    fn steps(&self) -> Vec<&'static str> {
        self.steps.lock().expect("the steps").clone()
    }

    fn bytes_max(&self) -> Option<usize> {
        *self.bytes_max.lock().expect("the limit")
    }

    fn attempts(&self) -> Vec<&'static str> {
        self.ingress.dispatch.attempts()
    }
}

/// `Echo` answers with its message, `Wait` once it is released, `Left` with its remaining time.
fn own_service(release: &Arc<Notify>) -> Service {
    let release = release.clone();
    Service::new("Own")
        .method("Echo", |text: String, _: Context| async move { Ok(text) })
        .method("Left", |(): (), context: Context| async move { Ok(context.remaining().as_secs()) })
        .method("Wait", move |text: String, _: Context| {
            let release = release.clone();
            async move {
                release.notified().await;
                Ok(text)
            }
        })
}

fn rule(agent: &str, method: &str) -> AllowRule {
    AllowRule::parse("ops", agent, method).expect("a rule")
}

/// Allows all methods of every agent and of the node's own service.
fn open() -> NodePolicy {
    NodePolicy::default().allow(rule("*", "*/*")).allow(rule("node/edge", "Own/*"))
}

fn request(target: Target, method: &str) -> Request {
    let method = method.parse().expect("a method");
    let (id, deadline) = (CallId::from_bytes([7; 16]), Instant::now() + 10 * SECOND);
    Request {
        meta: CallMeta::new(method, CallKind::Unary, target, id, deadline),
        requester: Requester::Verified(ops()),
        body: Body::Message(Bytes::from_static(b"\x64text")),
    }
}

fn ops() -> PeerName {
    "caller/ops".parse().expect("a peer")
}

fn to_agent() -> Request {
    request(Target::Agent("shop".parse().expect("a name")), "Stage/Echo")
}

fn to_any() -> Request {
    request(Target::Service, "Stage/Echo")
}

fn to_node(method: &str) -> Request {
    request(Target::Here, method)
}

#[track_caller]
fn check<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, outcome: Outcome) {
    let status = answer.expect_err("a failure");
    assert_eq!((status.code(), status.outcome()), (code, outcome), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_its_steps_in_order_and_is_answered() {
    let node = Fixture::new(open());
    let reply = node.answer(to_agent()).await.expect("a reply");
    assert_eq!(reply.message().expect("one message").as_ref(), b"ok");
    assert_eq!((node.steps(), node.attempts()), (vec!["permit", "body", "ended"], vec!["a"]));
}

#[tokio::test(start_paused = true)]
async fn a_draining_node_refuses_before_it_takes_a_permit() {
    let node = Fixture::new(open());
    node.state.calls.begin_drain();
    for request in [to_agent(), to_any(), to_node("Own/Echo")] {
        check(node.answer(request).await, Code::Unavailable, Outcome::NotExecuted);
    }
    assert_eq!(node.steps(), ["ended"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_rule_is_denied_before_its_body_is_read() {
    let node = Fixture::new(NodePolicy::default());
    for request in [to_agent(), to_any(), to_node("Own/Echo")] {
        check(node.answer(request).await, Code::PermissionDenied, Outcome::NotExecuted);
    }
    assert!(!node.steps().contains(&"body") && node.attempts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_does_not_reveal_whether_the_agent_exists() {
    let texts = [&["a"][..], &[]].map(|routes| {
        let node = Fixture::with(NodePolicy::default(), routes, [], Audit::default());
        async move { node.answer(to_agent()).await.expect_err("denied").to_string() }
    });
    let [there, absent] = texts;
    assert_eq!(there.await, absent.await);
}

#[tokio::test(start_paused = true)]
async fn calls_of_the_program_need_no_rule() {
    let node = Fixture::new(NodePolicy::default());
    let answered = node.ingress.answer(to_agent(), node.arrival::<false, false>()).await;
    assert!(answered.reply.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_permit_and_is_refused_without_one() {
    let node = Fixture::new(open());
    let permits = Permits::new(1, 8);
    let held = permits.acquire(Instant::now() + SECOND, SECOND).await.expect("a permit");
    let answer = async || {
        let arrival = PeerArrival { permits: Some(permits.clone()), ..node.arrival() };
        node.ingress.answer(to_agent(), arrival).await.reply
    };
    check(answer().await, Code::ResourceExhausted, Outcome::NotExecuted);
    assert!(!node.steps().contains(&"body"), "{:?}", node.steps());
    drop(held);
    assert!(answer().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_with_the_reply() {
    let node = Fixture::new(open());
    let permits = Permits::new(1, 0);
    for _ in 0..3 {
        let arrival = PeerArrival { permits: Some(permits.clone()), ..node.arrival() };
        assert!(node.ingress.answer(to_agent(), arrival).await.reply.is_ok());
        assert_eq!(permits.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_with_a_dropped_call() {
    let node = Fixture::new(open());
    let permits = Permits::new(1, 0);
    let arrival = PeerArrival { permits: Some(permits.clone()), ..node.arrival() };
    let call = node.ingress.answer(to_node("Own/Wait"), arrival);
    assert!(tokio::time::timeout(SECOND, call).await.is_err(), "it was not released");
    assert_eq!((permits.in_flight(), node.steps()), (0, vec!["permit", "body"]));
}

#[tokio::test(start_paused = true)]
async fn a_quota_refuses_calls_over_it_and_names_the_remedy() {
    let policy = NodePolicy::default()
        .allow(AllowRule { rate: Some(Rate::per_second(1)), ..rule("*", "*/*") });
    let node = Fixture::new(policy);
    assert!(node.answer(to_agent()).await.is_ok());
    check(node.answer(to_agent()).await, Code::ResourceExhausted, Outcome::NotExecuted);
    tokio::time::advance(SECOND).await;
    assert!(node.answer(to_any()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_counted_until_their_end() {
    let policy =
        NodePolicy::default().allow(AllowRule { in_flight: Some(1), ..rule("node/edge", "Own/*") });
    let node = Fixture::new(policy);
    let (first, second) = tokio::join!(node.answer(to_node("Own/Wait")), async {
        let refused = node.answer(to_node("Own/Wait")).await;
        node.release.notify_one();
        refused
    });
    check(second, Code::ResourceExhausted, Outcome::NotExecuted);
    assert!(first.is_ok());
    assert!(node.answer(to_node("Own/Echo")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_ends_the_call_before_it_is_routed() {
    let node = Fixture::new(open());
    let fault = Status::not_executed(Code::InvalidArgument, "not CBOR");
    let arrival = PeerArrival { body: Some(Err(fault.clone())), ..node.arrival() };
    let answer = node.ingress.answer(to_agent(), arrival).await.reply;
    assert_eq!(answer.expect_err("a failure"), fault);
    assert!(node.attempts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_is_refused_before_its_body_is_read_where_no_agent_takes_the_call() {
    let absent = Fixture::with(open(), &[], [], Audit::default());
    let answer = absent.ingress.answer(to_agent(), absent.arrival::<true, true>()).await;
    check(answer.reply, Code::Unavailable, Outcome::NotExecuted);
    assert_eq!(absent.steps(), ["permit", "ended"]);
    // The body of a call over a link is already being sent.
    check(absent.answer(to_agent()).await, Code::Unavailable, Outcome::NotExecuted);
    assert!(absent.steps().contains(&"body"));
}

#[tokio::test(start_paused = true)]
async fn a_full_agent_refuses_a_client_unread_and_a_full_service_does_not() {
    let node = Fixture::new(open());
    node.ingress.dispatch.change(|state| state.full = vec!["a", "b"]);
    let answer = node.ingress.answer(to_agent(), node.arrival::<true, true>()).await;
    check(answer.reply, Code::ResourceExhausted, Outcome::NotExecuted);
    let answer = node.ingress.answer(to_any(), node.arrival::<true, true>()).await;
    assert!(answer.reply.is_ok(), "another agent may have room by then");
}

#[tokio::test(start_paused = true)]
async fn a_message_over_its_rule_is_refused_and_one_at_the_limit_passes() {
    let policy =
        NodePolicy::default().allow(AllowRule { message_bytes_max: Some(5), ..rule("*", "*/*") });
    let node = Fixture::new(policy);
    assert!(node.answer(to_agent()).await.is_ok(), "five bytes");
    let larger = || Request { body: Body::Message(Bytes::from_static(b"\x65texts")), ..to_agent() };
    check(node.answer(larger()).await, Code::ResourceExhausted, Outcome::NotExecuted);
    assert_eq!(node.attempts(), ["a"]);
    // Its size is known beforehand, so it is refused unread.
    let read = node.steps().len();
    let arrival = ClientArrival { bytes_min: 6, ..node.arrival() };
    let answer = node.ingress.answer(larger(), arrival).await.reply;
    check(answer, Code::ResourceExhausted, Outcome::NotExecuted);
    assert_eq!(node.steps()[read..], ["permit", "ended"]);
}

#[tokio::test(start_paused = true)]
async fn a_rule_limits_messages_that_dispatch_does_not_see_while_they_are_read() {
    let bounded = |agent, method| AllowRule { message_bytes_max: Some(9), ..rule(agent, method) };
    let policy =
        NodePolicy::default().allow(bounded("*", "*/*")).allow(bounded("node/edge", "Own/*"));
    let node = Fixture::new(policy);
    assert!(node.answer(to_agent()).await.is_ok());
    assert_eq!(node.bytes_max(), None, "a message in hand is checked by dispatch");
    assert!(node.answer(to_node("Own/Echo")).await.is_ok());
    assert_eq!(node.bytes_max(), Some(9), "the node's own service");
    let mut stream = to_agent();
    stream.meta.kind = CallKind::ClientStream;
    assert!(node.answer(stream).await.is_ok());
    assert_eq!(node.bytes_max(), Some(9), "a stream");
}

#[tokio::test(start_paused = true)]
async fn the_nodes_own_services_are_answered_by_their_handlers() {
    let node = Fixture::new(open());
    let reply = node.answer(to_node("Own/Echo")).await.expect("a reply");
    assert_eq!(reply.message().expect("one message").as_ref(), b"\x64text");
    assert!(node.attempts().is_empty());
    check(node.answer(to_node("Own/None")).await, Code::Unimplemented, Outcome::NotExecuted);
}

#[tokio::test(start_paused = true)]
async fn a_denied_caller_does_not_learn_which_services_the_node_hosts() {
    let node = Fixture::new(NodePolicy::default());
    for method in ["Own/Echo", "Own/None", "None/None"] {
        check(node.answer(to_node(method)).await, Code::PermissionDenied, Outcome::NotExecuted);
    }
}

#[tokio::test(start_paused = true)]
async fn the_directory_is_open_to_every_peer() {
    let node = Fixture::new(NodePolicy::default());
    let method = format!("{}/Agents", DIRECTORY);
    let unit = Request { body: Body::Message(Bytes::from_static(b"\xf6")), ..to_node(&method) };
    assert!(node.answer(unit).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_rule_limits_the_time_of_the_nodes_own_services() {
    let policy = NodePolicy::default()
        .allow(AllowRule { timeout_max: Some(2 * SECOND), ..rule("node/edge", "Own/*") });
    let node = Fixture::new(policy);
    let began = Instant::now();
    check(node.answer(to_node("Own/Wait")).await, Code::DeadlineExceeded, Outcome::Unknown);
    assert_eq!(began.elapsed(), 2 * SECOND);
    let unit = Request { body: Body::Message(Bytes::from_static(b"\xf6")), ..to_node("Own/Left") };
    let left = node.answer(unit).await.expect("a reply");
    assert_eq!(left.message().expect("one message").as_ref(), [2], "the handler sees it");
}

#[tokio::test(start_paused = true)]
async fn a_stream_keeps_its_permit_until_its_end() {
    let node = Fixture::new(open());
    let permits = Permits::new(1, 0);
    let (sender, messages) = Messages::channel(1);
    node.ingress.dispatch.change(|state| state.stream = Some(messages));
    let arrival = PeerArrival { permits: Some(permits.clone()), ..node.arrival() };
    let reply = node.ingress.answer(to_agent(), arrival).await.reply.expect("a stream");
    assert_eq!(permits.in_flight(), 1);
    let mut messages = reply.into_messages().expect("a stream");
    drop::<MessageSender>(sender);
    drop(messages.next().await);
    drop(messages);
    assert_eq!(permits.in_flight(), 0);
}

/// Audit records of the calls that a node took in `run`.
async fn records(
    policy: NodePolicy,
    ends: impl IntoIterator<Item = Status>,
    run: impl AsyncFnOnce(&Fixture),
) -> Vec<String> {
    let sink = MemorySink::default();
    let audit = Audit::to(sink.clone()).expect("a thread").with_calls(true);
    let node = Fixture::with(policy, &["a", "b"], ends, audit.clone());
    run(&node).await;
    drop(node);
    sink.lines(&audit).into_iter().filter(|line| line.contains("\"event\":\"call\"")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_call_is_recorded_once_with_agent_outcome_and_bytes() {
    let lines = records(open(), [], async |node| drop(node.answer(to_any()).await)).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in [
        "\"caller\":\"caller/ops\"",
        "\"agent\":\"agent/a\"",
        "\"code\":\"OK\"",
        "\"outcome\":\"ok\"",
        "\"bytes_in\":5,\"bytes_out\":2",
    ] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_recorded_without_bytes_in() {
    let lines = records(NodePolicy::default(), [], async |node| {
        drop(node.answer(to_agent()).await);
    })
    .await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("\"code\":\"PERMISSION_DENIED\",\"outcome\":\"not_executed\""));
    assert!(lines[0].contains("\"bytes_in\":null,\"bytes_out\":0"), "{}", lines[0]);
}

#[tokio::test(start_paused = true)]
async fn a_retried_call_is_recorded_once_by_the_agent_that_answered() {
    let lost = Status::not_executed(Code::Unavailable, "lost");
    let lines = records(open(), [lost], async |node| drop(node.answer(to_any()).await)).await;
    assert!(lines.len() == 1 && lines[0].contains("\"agent\":\"agent/b\""), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_recorded_as_cancelled_with_unknown_outcome() {
    let lines = records(open(), [], async |node| {
        drop(tokio::time::timeout(SECOND, node.answer(to_node("Own/Wait"))).await);
    })
    .await;
    assert!(
        lines.len() == 1 && lines[0].contains("\"code\":\"CANCELLED\",\"outcome\":\"unknown\""),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_program_call_takes_the_steps_without_a_permit() {
    let node = Fixture::new(NodePolicy::default());
    let arrival: ProgramArrival = node.arrival();
    assert!(node.ingress.answer(to_any(), arrival).await.reply.is_ok());
    assert_eq!(node.steps(), ["permit", "body", "ended"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_takes_from_the_time_of_the_call() {
    let node = Fixture::with(open(), &[], [], Audit::default());
    let mut request = to_agent();
    request.meta.wait = true;
    let began = Instant::now();
    let arrival = PeerArrival { takes: 4 * SECOND, ..node.arrival() };
    let answer = node.ingress.answer(request, arrival).await.reply;
    check(answer, Code::Unavailable, Outcome::NotExecuted);
    assert_eq!(began.elapsed(), 10 * SECOND, "the body and the wait for an agent together");
}

#[tokio::test(start_paused = true)]
async fn a_rule_does_not_extend_the_time_of_the_nodes_own_services() {
    let policy = NodePolicy::default()
        .allow(AllowRule { timeout_max: Some(20 * SECOND), ..rule("node/edge", "Own/*") });
    let node = Fixture::new(policy);
    let began = Instant::now();
    check(node.answer(to_node("Own/Wait")).await, Code::DeadlineExceeded, Outcome::Unknown);
    assert_eq!(began.elapsed(), 10 * SECOND);
}
