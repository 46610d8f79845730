//! Traces: the spans of a call in all processes are one tree, and exporting them costs calls
//! nothing.

mod collector;

use crate::{
    admin,
    forward::upstream::{HttpUpstream, Seen, ServerAction, json, reply},
    http::client::{Http, HttpReply},
    world::{Stage, World, attached, soon, spawn, until},
};
use collector::{Exported, TraceCollector, hex, trees};
use dialback::{
    Agent, Caller, Code, Forward, Gateway, HttpForward, McpForward, Node, NodePolicy, Service,
    TcpForward, Traces,
};
use std::time::{Duration, Instant};
use tokio::{io::AsyncReadExt, net::TcpListener};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// A node with a gateway, and the agent `warehouse` with forwards of every kind to one upstream.
struct TracedSetup {
    world: World,
    node: Node,
    agent: Agent,
    gateway: Gateway,
    stage: Stage,
    upstream: HttpUpstream,
}

fn answer(seen: &Seen) -> ServerAction {
    if seen.head.contains("/broken") {
        return ServerAction::Answers(reply("503 Service Unavailable", &[], ""));
    }
    if seen.head.contains("/Late") {
        return ServerAction::Hangs(Vec::new());
    }
    let text = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
    ServerAction::Answers(json(text))
}

impl TracedSetup {
    async fn to(collector: &TraceCollector) -> Self {
        Self::with(Some(collector.traces()), Some(collector.traces())).await
    }

    async fn with(of_node: Option<Traces>, of_agent: Option<Traces>) -> Self {
        let (world, stage) = (World::new(), Stage::default());
        let upstream = HttpUpstream::start(answer).await;
        let mcp_url = format!("{}/mcp", upstream.url()).parse().expect("a URL");
        let [web, jira] = ["web", "jira"].map(|name| name.parse().expect("a name"));
        let node = of_node.into_iter().fold(world.node(), dialback::NodeBuilder::traces);
        let policy = ["*/*", "http:*", "tcp:*", "mcp:*/*"].iter().fold(
            NodePolicy::default(),
            |policy, method| {
                policy.allow(dialback::AllowRule::parse("ops", "**", method).expect("a rule"))
            },
        );
        let node = node.policy(policy).start().await.expect("a node");
        let url = upstream.url().parse().expect("a URL");
        let agent = world
            .agent("warehouse", node.local_addr())
            .serve(stage.service())
            .serve(seen_context())
            .serve(Forward::to(upstream.url()).expect("a forward").service("Forwarded"))
            .http(HttpForward::new(web, url, None).expect("a forward"))
            .mcp(McpForward::http(jira, mcp_url, None).expect("a forward"))
            .tcp(format!("db={}", upstream.address()).parse::<TcpForward>().expect("one"));
        let agent = of_agent.into_iter().fold(agent, dialback::AgentBuilder::traces);
        let agent = attached(agent).await;
        let gateway = Gateway::builder(&node).listen("127.0.0.1:0");
        let gateway = gateway.anonymous("ops".parse().expect("a name"));
        let gateway = gateway.start().await.expect("a gateway");
        Self { world, node, agent, gateway, stage, upstream }
    }

    async fn post(&self, path: &str, traceparent: Option<&str>, body: &str) -> HttpReply {
        let mut headers = vec![("content-type", "application/json")];
        if path.starts_with("mcp/") {
            headers.push(("accept", "application/json, text/event-stream"));
        }
        headers.extend(traceparent.map(|text| ("traceparent", text)));
        headers.extend(traceparent.map(|_| ("tracestate", "vendor=1")));
        let path = format!("/v1/agents/warehouse/{path}");
        let sent = Http::once(self.gateway.local_addr(), "POST", &path, &headers, body.as_bytes());
        soon("an answer arrives", sent).await
    }

    async fn caller(&self, traces: Option<Traces>) -> Caller {
        let caller = self.world.caller("ops", self.node.local_addr());
        let caller = traces.into_iter().fold(caller, dialback::CallerBuilder::traces);
        caller.connect().await.expect("a caller")
    }
}

/// A service that returns the position in the trace that its handler sees.
fn seen_context() -> Service {
    Service::new("Position").method("Get", |(): (), ctx: dialback::Context| async move {
        Ok(ctx.traceparent().unwrap_or("none").to_owned())
    })
}

const TOOL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get","arguments":{}}}"#;

/// Path of a POST, its body, method of the call, and name of the span of the forward.
const FORWARDS: [(&str, &str, &str, &str); 3] = [
    ("Forwarded/Get", "{}", "Forwarded/Get", "POST"),
    ("http/web/x/y?secret=1", "{}", "http:web", "POST"),
    ("mcp/jira", TOOL, "mcp:jira/get", "POST"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_request_its_call_and_what_an_agent_forwards_are_one_tree() {
    for (path, body, method, forward) in FORWARDS {
        for parent in [None, Some(SAMPLED)] {
            let collector = TraceCollector::start().await;
            let setup = TracedSetup::to(&collector).await;
            let reply = setup.post(path, parent, body).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            collector.until(5).await;
            let spans = collector.spans();
            println!("POST {path}, traceparent {parent:?}\n{}", trees(&spans));
            let expected = format!(
                "dialback-node server {method} OK\n  dialback-node client {method} OK\n    \
                 dialback-agent server {method} OK\n      dialback-agent internal handler OK\n        \
                 dialback-agent client {forward} OK\n"
            );
            assert_eq!(trees(&spans), expected);
            let root = spans.iter().find(|one| one.line().contains("node server")).expect("it");
            let above = if parent.is_some() { "00f067aa0ba902b7" } else { "" };
            assert_eq!(hex(&root.span.parent_span_id), above);
            assert_eq!(root.trace_id() == TRACE, parent.is_some());
            let of_forward = spans.iter().find(|one| one.span.name == forward).expect("it");
            let seen = setup.upstream.only();
            assert_eq!(seen.header("traceparent"), Some(&of_forward.traceparent()[..]));
            check_attributes(&spans, method);
            assert!(!spans.iter().any(|one| format!("{one:?}").contains("secret")), "a query");
        }
    }
}

#[track_caller]
fn check_attributes(spans: &[Exported], method: &str) {
    let calls: Vec<_> = spans.iter().filter(|one| one.span.name == method).collect();
    let call_id = calls[0].attribute("dialback.call_id").expect("a call id");
    for one in calls {
        let expected = [
            ("rpc.system.name", "dialback"),
            ("rpc.method", method),
            ("dialback.call_id", &call_id),
            ("dialback.agent", "warehouse"),
            ("dialback.outcome", "ok"),
        ];
        for (key, value) in expected {
            assert_eq!(one.attribute(key).as_deref(), Some(value), "{key} of {one:?}");
        }
        let caller = (one.span.kind == 2).then(|| "caller/ops".to_owned());
        assert_eq!(one.attribute("dialback.caller"), caller);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_continues_with_its_state_at_an_upstream_and_a_new_one_has_none() {
    let collector = TraceCollector::start().await;
    let setup = TracedSetup::to(&collector).await;
    for (parent, state) in [(SAMPLED, Some("vendor=1")), ("00-nonsense", None)] {
        assert_eq!(setup.post("http/web/x", Some(parent), "{}").await.status, 200);
        let seen = setup.upstream.seen().pop().expect("a request");
        assert_eq!(seen.header("tracestate"), state);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_caller_begin_at_the_caller_and_streams_end_with_their_last_message() {
    let collector = TraceCollector::start().await;
    let setup = TracedSetup::to(&collector).await;
    let caller = setup.caller(Some(collector.traces())).await;
    let callee = caller.agent("warehouse").expect("a name");
    let position: String = callee.call("Position/Get", &()).await.expect("an answer");
    collector.until(5).await;
    let spans = collector.spans();
    let expected = "dialback-caller client Position/Get OK\n  dialback-node server Position/Get OK\n    \
        dialback-node client Position/Get OK\n      dialback-agent server Position/Get OK\n        \
        dialback-agent internal handler OK\n";
    assert_eq!(trees(&spans), expected);
    let handler = spans.iter().find(|one| one.span.name == "handler").expect("a handler");
    assert_eq!(position, handler.traceparent(), "what the handler sees");

    let mut stream = callee.tcp("db").await.expect("a connection");
    soon("it is up", until("one", || setup.upstream.url().len() > 1)).await;
    assert_eq!(collector.spans().len(), 5, "the connection is still up");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").await.expect("it");
    tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("it");
    let mut answer = Vec::new();
    soon("the end", stream.read_to_end(&mut answer)).await.expect("an answer");
    drop(stream);
    collector.until(11).await;
    let spans = collector.spans().split_off(5);
    println!("{}", trees(&spans));
    let names: Vec<_> = trees(&spans).lines().map(|line| line.trim().to_owned()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    assert_eq!(names[0], "dialback-caller client tcp:db OK");
    assert_eq!(names[5], "dialback-agent client connect OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_of_a_node_begins_traces_too() {
    let collector = TraceCollector::start().await;
    let setup = TracedSetup::to(&collector).await;
    let agent = setup.node.agent("warehouse").handle().expect("a name");
    let callee: &dialback::Callee = agent.as_ref();
    let _position: String =
        callee.call("Position/Get", &()).traceparent(SAMPLED).await.expect("an answer");
    collector.until(4).await;
    let spans = collector.spans();
    assert!(
        trees(&spans).starts_with("dialback-node internal Position/Get OK\n  dialback-node client")
    );
    assert!(spans.iter().all(|one| one.trace_id() == TRACE));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_errors_with_their_code_and_reason() {
    let collector = TraceCollector::start().await;
    let setup = TracedSetup::to(&collector).await;
    for (path, body, lines, code, reason) in [
        ("Stage/Fail", "\"no such thing\"", 4, "NOT_FOUND", "no such thing"),
        ("Stage/None", "{}", 3, "UNIMPLEMENTED", "the service Stage has no method None"),
    ] {
        let collected = collector.spans().len();
        assert_ne!(setup.post(path, None, body).await.status, 200);
        collector.until(collected + lines).await;
        let spans = collector.spans().split_off(collected);
        println!("{}", trees(&spans));
        for one in &spans {
            assert!(one.is_error(), "{one:?}");
            assert_eq!(one.attribute("error.type").as_deref(), Some(code));
            assert_eq!(one.span.status.as_ref().expect("a status").message, reason);
        }
    }
    // The call is fine, and the response of the upstream is a failure.
    let collected = collector.spans().len();
    assert_eq!(setup.post("http/web/broken", None, "{}").await.status, 503);
    collector.until(collected + 5).await;
    let spans = collector.spans().split_off(collected);
    let failed: Vec<_> = spans.iter().filter(|one| one.is_error()).collect();
    println!("{}", trees(&spans));
    let names: Vec<_> = failed.iter().map(|one| one.line()).collect();
    assert_eq!(failed.len(), 2, "{names:?}");
    for one in failed {
        assert_eq!(one.attribute("http.response.status_code").as_deref(), Some("503"));
        assert_eq!(one.attribute("error.type").as_deref(), Some("503"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_ends_all_its_spans() {
    let collector = TraceCollector::start().await;
    let setup = TracedSetup::to(&collector).await;
    let caller = setup.caller(Some(collector.traces())).await;
    let callee = caller.agent("warehouse").expect("a name");
    let call = callee.call::<String>("Stage/Hold", "a");
    let running = spawn(call.into_future());
    soon("the handler runs", setup.stage.started("a")).await;
    running.cancel().await;
    collector.until(5).await;
    println!("{}", trees(&collector.spans()));
    let codes: Vec<_> =
        collector.spans().iter().map(|one| one.attribute("rpc.response.status_code")).collect();
    assert_eq!(codes, vec![Some("CANCELLED".to_owned()); 5]);
    let late = callee.call::<String>("Forwarded/Late", &()).timeout(Duration::from_millis(300));
    assert_eq!(late.await.expect_err("too late").code(), Code::DeadlineExceeded);
    collector.until(11).await;
    let spans = collector.spans().split_off(5);
    println!("{}", trees(&spans));
    assert!(spans.iter().all(|one| {
        one.attribute("rpc.response.status_code").as_deref() == Some("DEADLINE_EXCEEDED")
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_link_ends_the_spans_of_its_calls() {
    let collector = TraceCollector::start().await;
    let setup = TracedSetup::to(&collector).await;
    let caller = setup.caller(Some(collector.traces())).await;
    let callee = caller.agent("warehouse").expect("a name");
    let running = spawn(callee.call::<String>("Stage/Hold", "a").into_future());
    soon("the handler runs", setup.stage.started("a")).await;
    drop(setup.agent);
    assert!(soon("the call ends", running).await.is_err());
    collector.until(5).await;
    println!("{}", trees(&collector.spans()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_exported_of_calls_that_are_not_sampled() {
    let collector = TraceCollector::start().await;
    let setup = TracedSetup::to(&collector).await;
    assert_eq!(setup.post("Forwarded/Get", Some(UNSAMPLED), "{}").await.status, 200);
    assert_eq!(setup.upstream.only().header("traceparent"), Some(UNSAMPLED));
    assert_eq!(setup.post("Forwarded/Get", Some(SAMPLED), "{}").await.status, 200);
    collector.until(5).await;
    assert_eq!(collector.spans().len(), 5, "those of the second");

    // A node that samples none decides for the agent, which would sample all.
    let none = Some(collector.traces().sample(0.0));
    let setup = TracedSetup::with(none, Some(collector.traces())).await;
    assert_eq!(setup.post("Forwarded/Get", None, "{}").await.status, 200);
    let seen = setup.upstream.only();
    assert!(seen.header("traceparent").is_some_and(|text| text.ends_with("-00")), "{seen:?}");
    setup.agent.shutdown().await;
    setup.node.shutdown().await;
    assert_eq!(collector.spans().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_traces_a_context_is_passed_on_as_it_is() {
    let setup = TracedSetup::with(None, None).await;
    for (path, body, ..) in FORWARDS {
        assert_eq!(setup.post(path, Some(SAMPLED), body).await.status, 200);
        let seen = setup.upstream.seen().pop().expect("a request");
        assert_eq!(seen.header("traceparent"), Some(SAMPLED));
        assert_eq!(setup.post(path, None, body).await.status, 200);
        let seen = setup.upstream.seen().pop().expect("a request");
        assert_eq!(seen.header("traceparent"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_only_so_many_calls_sampled() {
    const PER_SECOND: u32 = 5;
    let collector = TraceCollector::start().await;
    let traces = collector.traces().sample(0.0).peer_sampled_max(PER_SECOND);
    let setup = TracedSetup::with(Some(traces), None).await;
    let caller = setup.caller(None).await;
    let callee = caller.agent("warehouse").expect("a name");
    let began = Instant::now();
    for _ in 0..200 {
        let call = callee.call::<String>("Position/Get", &()).traceparent(SAMPLED);
        call.await.expect("an answer");
    }
    let may_be = PER_SECOND as f64 * (1.0 + began.elapsed().as_secs_f64());
    setup.node.shutdown().await;
    let sampled = collector.spans().len() / 2;
    assert!(sampled >= PER_SECOND as usize && sampled as f64 <= may_be, "{sampled} of {may_be}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_delays_nothing_and_its_spans_are_counted() {
    const CALLS: usize = 2_500;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let traces = Traces::otlp(format!("http://{}", silent.local_addr().expect("bound")));
    let setup = TracedSetup::with(Some(traces.expect("an address")), None).await;
    let caller = setup.caller(None).await;
    let callee = caller.agent("warehouse").expect("a name");
    for _ in 0..CALLS {
        callee.call::<String>("Position/Get", &()).await.expect("an answer");
    }
    let at = admin::of_node(&setup.node).await;
    let lost = admin::value(at, "dialback_spans_lost_total").await;
    assert!(lost > 0.0, "the queue holds fewer than were made");
    assert_eq!(admin::value(at, "dialback_spans_exported_total").await, 0.0);
    let began = Instant::now();
    drop(caller);
    setup.node.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_busy_gets_the_spans_again_and_one_that_refuses_them_does_not() {
    for (status, times) in [("503 Service Unavailable", 2), ("400 Bad Request", 1)] {
        let refusal = reply(status, &[], "");
        let busy = HttpUpstream::start(move |seen| {
            let is_first = seen.connection == 0;
            ServerAction::Answers(if is_first { refusal.clone() } else { reply("200 OK", &[], "") })
        });
        let busy = busy.await;
        let traces = Traces::otlp(busy.url()).expect("an address");
        let setup = TracedSetup::with(Some(traces), None).await;
        assert_eq!(setup.post("Forwarded/Get", None, "{}").await.status, 200);
        let requests = busy.until("the spans are sent", move |log| log.seen.len() >= times);
        requests.await;
        setup.node.shutdown().await;
        assert_eq!(busy.seen().len(), times, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_exported_before_a_node_or_an_agent_has_shut_down() {
    let collector = TraceCollector::start().await;
    assert!(collector.url().starts_with("http://"));
    let setup = TracedSetup::to(&collector).await;
    assert_eq!(setup.post("Position/Get", None, "null").await.status, 200);
    drop(setup.gateway);
    setup.agent.shutdown().await;
    setup.node.shutdown().await;
    assert_eq!(collector.spans().len(), 4, "{}", trees(&collector.spans()));
}
