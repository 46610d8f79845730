//! Unary calls in JSON and in CBOR.

use super::{GatewaySetup, Http, HttpReply};
use crate::{
    audit::AuditLog,
    world::{RunEnd, soon, spawn},
};
use dialback::{Limits, NodePolicy, json, policy::AllowRule};
use serde_json::json;
use std::{net::SocketAddr, time::Duration};

const HELLO: &str = "/v1/agents/warehouse/Stage/Note";

#[tokio::test(flavor = "multi_thread")]
async fn a_json_body_is_answered_with_the_bare_reply() {
    let setup = GatewaySetup::anonymous().await;
    let reply = setup.post(HELLO, "\"é \\u0041\"").await;
    assert_eq!((reply.status, reply.text(), reply.outcome()), (200, "\"é A\"", "ok"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply.expect_common_headers();
    assert_eq!(setup.stage.runs("é A"), 1);
    // Any agent that hosts it may answer.
    let reply = setup.post("/v1/services/Stage/Note", "\"any\"").await;
    assert_eq!((reply.status, reply.text()), (200, "\"any\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cbor_body_is_answered_in_cbor_and_bytes_come_as_base64url_in_json() {
    let setup = GatewaySetup::anonymous().await;
    let cbor = json::to_cbor(&json!("as cbor")).expect("CBOR");
    let headers = [("content-type", "application/cbor")];
    let reply = Http::once(setup.at(), "POST", HELLO, &headers, &cbor).await;
    assert_eq!((reply.status, &*reply.body), (200, &*cbor));
    assert_eq!(reply.header("content-type"), Some("application/cbor"));
    // ["b", h'fbff']
    let pair = [0x82, 0x61, b'b', 0x42, 0xfb, 0xff];
    let copy = "/v1/agents/warehouse/Stage/Copy";
    let reply = Http::once(setup.at(), "POST", copy, &headers, &pair).await;
    assert_eq!((reply.status, &*reply.body), (200, &[0x42, 0xfb, 0xff][..]));
    setup.stage.open();
    let reply = setup.post("/v1/agents/warehouse/Stage/Huge", "[\"huge\", 2]").await;
    assert_eq!((reply.status, reply.text()), (200, "\"Bwc\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_reply_is_written_in_pieces_and_has_its_length() {
    let setup = GatewaySetup::anonymous().await;
    setup.stage.open();
    // Bytes of 7, three of which become four characters of base64url.
    let bytes = 3 * 100_000;
    let path = "/v1/agents/warehouse/Stage/Huge";
    let reply = setup.post(path, &format!("[\"huge\", {bytes}]")).await;
    assert_eq!(reply.status, 200);
    assert!(reply.text() == format!("\"{}\"", "BwcH".repeat(bytes / 3)), "another text");
    let length = reply.body.len().to_string();
    assert_eq!(reply.header("content-length"), Some(&*length));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_status_its_code_and_a_true_outcome() {
    let setup = GatewaySetup::anonymous().await;
    let post = async |path: &str, body: &str| setup.post(path, body).await;
    let at = |rest: &str| format!("/v1/agents/{rest}");
    let text = post(HELLO, "{\"a\":").await.expect_error(400, "invalid_argument", "not_executed");
    assert!(text.contains("is not one JSON value"), "{text}");
    post(HELLO, "{}").await.expect_error(400, "invalid_argument", "not_executed");
    let absent = post(&at("nobody/Stage/Note"), "1").await;
    absent.expect_error(503, "unavailable", "not_executed");
    let unknown = post(&at("warehouse/Stage/Nothing"), "1").await;
    unknown.expect_error(501, "unimplemented", "not_executed");
    let own = post(&at("warehouse/Stage/Fail"), "\"gone\"").await;
    assert_eq!(own.expect_error(404, "not_found", "app_error"), "gone");
    let broken = post(&at("warehouse/Stage/Panic"), "\"panics\"").await;
    broken.expect_error(500, "internal", "unknown");
    let slow = [("connect-timeout-ms", "50")];
    let late = setup.post_with(&at("warehouse/Stage/Hold"), &slow, "\"late\"").await;
    late.expect_error(504, "deadline_exceeded", "unknown");
    assert_eq!(setup.stage.ended("late").await, RunEnd::Dropped);
    let zero = setup.post_with(HELLO, &[("connect-timeout-ms", "0")], "\"zero\"").await;
    zero.expect_error(400, "invalid_argument", "not_executed");
    let streaming = post(&at("warehouse/Ticks/Count"), "1").await;
    streaming.expect_error(501, "unimplemented", "not_executed");
    assert_eq!(
        (setup.stage.runs("zero"), setup.stage.runs("panics"), setup.stage.runs("gone")),
        (0, 1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_http_itself_have_the_same_shape() {
    let setup = GatewaySetup::anonymous().await;
    let json = ("content-type", "application/json");
    let once = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        soon("an answer", Http::once(setup.at(), method, path, headers, b"\"x\"")).await
    };
    once("POST", "/v1/nothing", &[json]).await.expect_error(404, "not_found", "not_executed");
    let dots = once("POST", "/v1/agents/..%2f..%2fx/Stage/Note", &[json]).await;
    dots.expect_error(400, "invalid_argument", "not_executed");
    let query = once("POST", &format!("{HELLO}?as=root"), &[json]).await;
    query.expect_error(400, "invalid_argument", "not_executed");
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let wrong = once(method, HELLO, &[json]).await;
        assert_eq!(wrong.header("allow"), Some("POST"));
        wrong.expect_error(405, "unimplemented", "not_executed");
    }
    for kind in ["text/plain", "application/grpc", "application/json; charset=utf-16"] {
        let wrong = once("POST", HELLO, &[("content-type", kind)]).await;
        assert!(
            wrong.header("accept-post").is_some_and(|kinds| kinds.contains("application/cbor"))
        );
        wrong.expect_error(415, "invalid_argument", "not_executed");
    }
    let version = once("POST", HELLO, &[json, ("connect-protocol-version", "2")]).await;
    version.expect_error(400, "invalid_argument", "not_executed");
    let packed = once("POST", HELLO, &[json, ("content-encoding", "gzip")]).await;
    packed.expect_error(501, "unimplemented", "not_executed");
    let long = once("POST", &format!("/{}", "x".repeat(5_000)), &[json]).await;
    long.expect_error(414, "invalid_argument", "not_executed");
    assert_eq!(setup.stage.all_runs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_at_the_limit_passes_and_one_over_it_is_refused_before_it_is_sent() {
    let limits = Limits { message_bytes_max: 2_000, ..Limits::default() };
    let setup = GatewaySetup::with(
        |node| node.limits(limits),
        |gateway| gateway.anonymous("ops".parse().expect("a name")),
    )
    .await;
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    // The two quotes become three bytes in CBOR, where the limit applies too.
    assert_eq!(setup.post(HELLO, &text(1_999)).await.status, 200);
    let encoded = setup.post(HELLO, &text(2_000)).await;
    encoded.expect_error(429, "resource_exhausted", "not_executed");
    let over = setup.post(HELLO, &text(2_001)).await;
    let text = over.expect_error(429, "resource_exhausted", "not_executed");
    assert!(text.contains("message_bytes_max"), "{text}");
    let mut http = Http::connect(setup.at()).await;
    let head = format!(
        "POST {HELLO} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 999999999\r\n\r\n"
    );
    http.send(head).await;
    let claimed = soon("an answer to the claim alone", http.reply()).await.expect("an answer");
    claimed.expect_error(429, "resource_exhausted", "not_executed");
    assert_eq!(setup.stage.all_runs(), 1);
}

/// The head of a call with a body of this size, of which nothing is sent.
async fn claim(at: SocketAddr, path: &str, content_type: &str, bytes: usize) -> HttpReply {
    let mut http = Http::connect(at).await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {bytes}\r\n\r\n"
    );
    http.send(head).await;
    soon("an answer to the head alone", http.reply()).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_an_agent_is_refused_before_its_body_is_sent() {
    let setup = GatewaySetup::anonymous().await;
    let large = 4 * 1024 * 1024;
    for path in ["/v1/agents/nobody/Stage/Note", "/v1/services/Nothing/Note"] {
        for _ in 0..100 {
            let absent = claim(setup.at(), path, "application/json", large).await;
            absent.expect_error(503, "unavailable", "not_executed");
        }
    }
    // An accepted one waits for its body.
    let mut http = Http::connect(setup.at()).await;
    http.send(format!("POST {HELLO} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 3\r\n\r\n")).await;
    http.send("\"x\"").await;
    assert_eq!(soon("an answer", http.reply()).await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_of_its_rule_is_refused_before_it_is_sent() {
    let mut rule = AllowRule::parse("ops", "**", "*/*").expect("a rule");
    rule.message_bytes_max = Some(1_000);
    let setup = GatewaySetup::with(
        |node| node.policy(NodePolicy::default().allow(rule)),
        |gateway| gateway.anonymous("ops".parse().expect("a name")),
    )
    .await;
    let over = claim(setup.at(), HELLO, "application/cbor", 1_001).await;
    let text = over.expect_error(429, "resource_exhausted", "not_executed");
    assert!(text.contains("message_max"), "{text}");
    let text = format!("\"{}\"", "x".repeat(997 - 2));
    assert_eq!(setup.post(HELLO, &text).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_trace_reach_the_handler_and_no_header_becomes_an_identity() {
    let setup = GatewaySetup::anonymous().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("traceparent", trace),
        ("tracestate", "vendor=1"),
        ("dialback-metadata-tenant", "acme"),
        ("x-dialback-caller", "caller/root"),
        ("dialback-caller", "caller/root"),
        ("cookie", "a=b"),
    ];
    let reply = setup.post_with(HELLO, &headers, "\"meta\"").await;
    assert_eq!(reply.status, 200);
    let ctx = setup.stage.started("meta").await;
    assert_eq!(ctx.traceparent(), Some(trace));
    let pairs: Vec<_> = ctx.metadata().iter().collect();
    assert_eq!(pairs, [("tracestate", "vendor=1"), ("tenant", "acme")]);
    assert_eq!(ctx.caller().to_string(), "caller/ops");
    assert_eq!(reply.header("dialback-call-id"), Some(ctx.call_id().to_string().as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_has_the_call_id_of_the_answer() {
    let audit_log = AuditLog::default();
    let audit = audit_log.audit().with_calls(true);
    let setup = GatewaySetup::with(
        |node| node.audit(audit),
        |gateway| gateway.anonymous("clerk".parse().expect("a name")),
    )
    .await;
    let good = setup.post(HELLO, "\"one\"").await;
    let id = good.header("dialback-call-id").expect("an id").to_owned();
    let line = audit_log.wait_for("call", &[("call_id", &id), ("outcome", "ok")]).await;
    assert_eq!(
        (line["caller"].as_str(), line["agent"].as_str()),
        (Some("caller/clerk"), Some("agent/warehouse"))
    );
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(4), Some(4)));
    let refused = setup.post("/v1/agents/other/Stage/Note", "\"x\"").await;
    refused.expect_error(403, "permission_denied", "not_executed");
    let id = refused.header("dialback-call-id").expect("an id").to_owned();
    audit_log
        .wait_for("call_refused", &[("caller", "caller/clerk"), ("agent", "agent/other")])
        .await;
    audit_log.wait_for("call", &[("call_id", &id), ("code", "PERMISSION_DENIED")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_reveal_which_agents_exist() {
    let setup = GatewaySetup::with(
        |node| node,
        |gateway| gateway.anonymous("stranger".parse().expect("a name")),
    )
    .await;
    let texts = ["warehouse", "nowhere"].map(|agent| {
        let (setup, path) = (&setup, format!("/v1/agents/{agent}/Stage/Note"));
        async move {
            let refused = setup.post(&path, "\"x\"").await;
            refused.expect_error(403, "permission_denied", "not_executed").replace(agent, "AGENT")
        }
    });
    let [there, nowhere] = texts;
    assert_eq!(there.await, nowhere.await);
    assert_eq!(setup.stage.all_runs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_cancels_its_call_and_returns_its_permit() {
    let limits = Limits {
        caller_calls_in_flight_max: 1,
        queue_wait_max: Duration::from_millis(50),
        ..Limits::default()
    };
    let setup = GatewaySetup::with(
        |node| node.limits(limits),
        |gateway| gateway.anonymous("ops".parse().expect("a name")),
    )
    .await;
    let mut http = Http::connect(setup.at()).await;
    http.request(
        "POST",
        "/v1/agents/warehouse/Stage/Hold",
        &[("content-type", "application/json")],
        b"\"held\"",
    )
    .await;
    let ctx = setup.stage.started("held").await;
    let full = setup.post(HELLO, "\"one more\"").await;
    full.expect_error(429, "resource_exhausted", "not_executed");
    let waits = spawn(async move { ctx.cancelled().await });
    drop(http);
    soon("the handler is notified", waits).await;
    assert_eq!(setup.stage.ended("held").await, RunEnd::Dropped);
    soon("the permit is free", async {
        while setup.post(HELLO, "\"after\"").await.status != 200 {}
    })
    .await;
    assert_eq!((setup.stage.runs("held"), setup.stage.runs("one more")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_each_caller_only_what_it_may_call() {
    let everybody = |token: &str, _: std::time::SystemTime| {
        format!("caller/{token}").parse().map_err(|_| "no name".to_owned())
    };
    let setup = GatewaySetup::with(|node| node, |gateway| gateway.tokens(everybody)).await;
    let page = async |path: &str, identity: &str| {
        let token = format!("Bearer {identity}");
        let reply = Http::once(setup.at(), "GET", path, &[("authorization", &token)], b"").await;
        assert_eq!((reply.status, reply.outcome()), (200, "ok"), "{reply:?}");
        reply.expect_common_headers();
        reply.json()
    };
    assert_eq!(page("/v1/agents", "ops").await["agents"][0]["name"], "warehouse");
    assert_eq!(page("/v1/agents", "stranger").await["agents"], json!([]));
    let names = |page: serde_json::Value| {
        let services = page["services"].as_array().expect("services").clone();
        services.iter().map(|service| service["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(page("/v1/services", "ops").await), ["Stage", "Ticks"]);
    assert_eq!(names(page("/v1/services", "clerk").await), ["Stage"]);
    let paths = page("/v1/openapi.json", "clerk").await["paths"].clone();
    assert!(paths["/v1/agents/{agent}/Stage/Note"].is_object(), "{paths}");
    assert!(paths.get("/v1/agents/{agent}/Ticks/Count").is_none(), "{paths}");
    let nobody = Http::once(setup.at(), "GET", "/v1/agents", &[], b"").await;
    nobody.expect_error(401, "unauthenticated", "not_executed");
    let posted = setup.post("/v1/agents", "1").await;
    assert_eq!(posted.header("allow"), Some("GET"));
    posted.expect_error(405, "unimplemented", "not_executed");
}
