//! Requests as an upstream sees them.

use super::upstream::{HttpUpstream, ServerAction, joined, json};
use crate::world::check_status;
use dialback::{Code, ForwardFormat, Outcome};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_call_is_a_post_of_json_to_the_path_of_its_method() {
    let upstream = HttpUpstream::answering(json(r#""hello:x""#)).await;
    let call = upstream.callee().call::<String>("HelloService/Hello", "x");
    let call = call.timeout(Duration::from_secs(20)).traceparent("00-ab-cd-01");
    let call_id = call.call_id().to_string();
    assert_eq!(call.await.as_deref(), Ok("hello:x"));
    let seen = upstream.only();
    assert_eq!(seen.head.lines().next(), Some("POST /HelloService/Hello HTTP/1.1"));
    assert_eq!(seen.text(), r#""x""#);
    for (name, value) in [
        ("host", upstream.address().to_string().as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("connect-protocol-version", "1"),
        ("traceparent", "00-ab-cd-01"),
        ("dialback-caller", "caller/test"),
        ("dialback-call-id", &call_id),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name} in {}", seen.head);
    }
    assert_eq!(seen.header("accept-encoding"), None);
    let left: u64 = seen.header("connect-timeout-ms").expect("a timeout").parse().expect("ms");
    assert!((1..=20_000).contains(&left) && left > 10_000, "{left} of 20,000 ms");
}

#[tokio::test]
async fn values_survive_json_unchanged() {
    let upstream = HttpUpstream::start(|seen| ServerAction::Answers(json(seen.text()))).await;
    let callee = upstream.callee();
    for value in [json!(null), json!([1, {"a": [u64::MAX, i64::MIN, 0.1]}]), json!("é\u{0}\n")] {
        let back = callee.call::<serde_json::Value>("HelloService/Echo", &value).await;
        assert_eq!(back, Ok(value));
    }
}

#[tokio::test]
async fn cbor_is_forwarded_unchanged() {
    let answer = [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/cbor\r\n\r\n"[..],
        &[0x61, b'y'],
    ];
    let upstream = HttpUpstream::answering(answer.concat()).await;
    let forward = upstream.forward().format(ForwardFormat::Cbor);
    let callee = joined(forward.service("HelloService"));
    let bytes = serde_bytes::ByteBuf::from(vec![1, 2]);
    assert_eq!(callee.call::<String>("HelloService/Hello", &bytes).await.as_deref(), Ok("y"));
    let seen = upstream.only();
    assert_eq!(seen.header("content-type"), Some("application/cbor"));
    assert_eq!(seen.body, [0x42, 1, 2]);
}

#[tokio::test]
async fn metadata_becomes_headers_and_cannot_forge_the_agents_own_headers() {
    let upstream = HttpUpstream::answering(json("1")).await;
    let mut call = upstream.callee().call::<u64>("HelloService/Hello", "x");
    for (key, value) in [
        ("X-Tenant", "acme"),
        ("authorization", "Bearer x"),
        ("dialback-caller", "caller/root"),
        ("Dialback_Caller", "caller/root"),
        ("dialback-node", "forged"),
        ("connect-timeout-ms", "1"),
        ("content-length", "7"),
        ("host", "elsewhere"),
        ("transfer-encoding", "chunked"),
        ("x-forwarded-for", "10.0.0.1"),
        ("proxy", "http://elsewhere"),
        ("remote_user", "root"),
        ("x-original-url", "/root"),
        ("x-http-method-override", "DELETE"),
        ("x-middleware-subrequest", "x"),
    ] {
        call = call.metadata(key, value);
    }
    assert_eq!(call.await, Ok(1));
    let seen = upstream.only();
    assert_eq!(seen.header("x-tenant"), Some("acme"));
    assert_eq!(seen.header("authorization"), Some("Bearer x"));
    assert_eq!(seen.header("dialback-caller"), Some("caller/test"));
    assert_eq!(seen.header("content-length"), Some("3"));
    for gone in [
        "dialback_caller",
        "dialback-node",
        "x-forwarded-for",
        "transfer-encoding",
        "proxy",
        "remote_user",
        "x-original-url",
        "x-http-method-override",
        "x-middleware-subrequest",
    ] {
        assert_eq!(seen.header(gone), None, "{gone} in {}", seen.head);
    }
    assert!(!seen.head.contains("root") && !seen.head.contains("elsewhere"), "{}", seen.head);
}

#[tokio::test]
async fn metadata_that_would_break_the_request_is_refused_and_nothing_is_sent() {
    let upstream = HttpUpstream::answering(json("1")).await;
    for (key, value) in [("a", "x\r\nb: c"), ("a b", "x"), ("a", "J\u{f6}rg"), ("\u{fc}", "x")] {
        let call = upstream.callee().call::<u64>("HelloService/Hello", "x");
        let failed = call.metadata(key, value).await;
        check_status(failed, Code::InvalidArgument, Outcome::NotExecuted);
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn an_allowlist_of_metadata_forwards_nothing_else() {
    let upstream = HttpUpstream::answering(json("1")).await;
    let forward = upstream.forward().metadata(["X-Tenant"]);
    let call = joined(forward.service("HelloService")).call::<u64>("HelloService/Hello", "x");
    let call = call.metadata("x-tenant", "acme").metadata("x-name", "J\u{f6}rg");
    assert_eq!(call.metadata("authorization", "Bearer x").await, Ok(1));
    let seen = upstream.only();
    assert_eq!(seen.header("x-tenant"), Some("acme"));
    assert_eq!((seen.header("x-name"), seen.header("authorization")), (None, None));
    assert_eq!(seen.header("dialback-caller"), Some("caller/test"), "the agent's own stay");
}

#[tokio::test]
async fn sequential_calls_share_a_connection_and_concurrent_calls_do_not() {
    let upstream = HttpUpstream::answering(json("1")).await;
    let callee = upstream.callee();
    for _ in 0..5 {
        assert_eq!(callee.call::<u64>("HelloService/Hello", "x").await, Ok(1));
    }
    let connections: Vec<_> = upstream.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0; 5]);
    let calls = || callee.call::<u64>("HelloService/Hello", "x").into_future();
    let (one, other) = tokio::join!(calls(), calls());
    assert_eq!((one, other), (Ok(1), Ok(1)));
    upstream.until("a second connection", |server_log| server_log.connections == 2).await;
}

#[tokio::test]
async fn without_keep_alive_each_call_has_its_own_connection_and_announces_the_close() {
    let upstream = HttpUpstream::answering(json("1")).await;
    let callee = joined(upstream.forward().keep_alive(false).service("HelloService"));
    for _ in 0..3 {
        assert_eq!(callee.call::<u64>("HelloService/Hello", "x").await, Ok(1));
    }
    upstream.disconnected(3).await;
    let seen = upstream.seen();
    assert_eq!(seen.iter().map(|seen| seen.connection).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(seen.iter().all(|seen| seen.header("connection") == Some("close")), "{seen:#?}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_timeout() {
    let upstream = HttpUpstream::answering(json("1")).await;
    assert_eq!(upstream.callee().call::<u64>("HelloService/Hello", "x").await, Ok(1));
    upstream.disconnected(1).await;
}

#[tokio::test]
async fn a_path_in_the_address_precedes_the_path_of_the_method() {
    let upstream = HttpUpstream::answering(json("1")).await;
    let forward = dialback::Forward::to(format!("{}/api/v1/", upstream.url())).expect("a URL");
    let callee = joined(forward.service("acme.v1.Stock"));
    assert_eq!(callee.call::<u64>("acme.v1.Stock/List", "x").await, Ok(1));
    let head = upstream.only().head;
    assert_eq!(head.lines().next(), Some("POST /api/v1/acme.v1.Stock/List HTTP/1.1"));
}

#[tokio::test]
async fn an_allowlist_of_methods_forwards_no_others() {
    let upstream = HttpUpstream::answering(json("1")).await;
    let callee = joined(upstream.forward().methods(["Hello"]).service("HelloService"));
    assert_eq!(callee.call::<u64>("HelloService/Hello", "x").await, Ok(1));
    let other = callee.call::<u64>("HelloService/Other", "x").await;
    check_status(other, Code::Unimplemented, Outcome::NotExecuted);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn calls_with_a_request_stream_are_not_forwarded() {
    let upstream = HttpUpstream::answering(json("1")).await;
    let callee = upstream.callee();
    let (values, sum) = callee.client_stream::<u64, u64>("HelloService/Sum").await.expect("begun");
    drop(values.finish().await);
    let status = check_status(sum.await, Code::Unimplemented, Outcome::NotExecuted);
    assert!(status.message().contains("unary or server_stream"), "{status}");
    let (lines, mut replies) =
        callee.bidirectional::<u64, u64>("HelloService/Chat").await.expect("begun");
    let failed = replies.next().await.expect("a failure");
    check_status(failed, Code::Unimplemented, Outcome::NotExecuted);
    drop(lines);
    assert_eq!(upstream.seen().len(), 0);
}
