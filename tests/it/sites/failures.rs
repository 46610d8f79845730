//! Failures, their outcomes, and what is repeated.

use super::{SiteSetup, TOKEN, answering, forward, policy, rule};
use crate::{
    forward::upstream::{HttpUpstream, ServerAction, reply},
    http::client::Http,
    world::{attached, soon},
};
use dialback::NodePolicy;
use std::time::Duration;

#[tokio::test]
async fn an_upstream_that_is_down_and_an_agent_that_is_absent_are_not_executed() {
    let setup = SiteSetup::to("http://127.0.0.1:1").await;
    let answer = setup.get("/").await;
    assert_eq!((answer.status, answer.outcome()), (503, "not_executed"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
    let answer = setup
        .raw(format!("GET /v1/agents/absent/http/web/ HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\r\n"))
        .await;
    assert_eq!((answer.status, answer.outcome()), (503, "not_executed"));
}

#[tokio::test]
async fn a_request_that_the_upstream_has_read_is_unknown_and_not_repeated() {
    let upstream = HttpUpstream::start(|_| ServerAction::AnswersAndCloses(Vec::new())).await;
    let setup = SiteSetup::to(&upstream.url()).await;
    for request in [
        "POST / HTTP/1.1\r\nhost: open.test\r\ncontent-length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nhost: open.test\r\n\r\n",
    ] {
        let before = upstream.seen().len();
        let answer = setup.raw(request).await;
        assert_eq!((answer.status, answer.outcome()), (502, "unknown"), "{request}");
        assert_eq!(upstream.seen().len(), before + 1, "{request}");
    }
}

#[tokio::test]
async fn a_rule_lets_a_get_be_repeated_at_another_agent_and_never_a_post() {
    let broken = HttpUpstream::start(|_| ServerAction::AnswersAndCloses(Vec::new())).await;
    let good = HttpUpstream::answering(reply("200 OK", &[], "hello")).await;
    let mut idempotent = rule("ops", "http:web");
    idempotent.idempotent = true;
    let policy = NodePolicy { host: policy().host, ..NodePolicy::default() }.allow(idempotent);
    let setup = SiteSetup::with(forward(&broken.url()), policy, |gateway| gateway).await;
    let other = setup.world.agent("kiosk", setup.node.local_addr());
    let _other = attached(other.http(forward(&good.url()))).await;
    let token = format!("authorization: Bearer {TOKEN}");
    // The less loaded of the two is asked first: one or the other.
    for _ in 0..6 {
        let answer =
            setup.raw(format!("GET / HTTP/1.1\r\nhost: any.test\r\n{token}\r\n\r\n")).await;
        assert_eq!((answer.status, answer.text()), (200, "hello"));
    }
    let mut refused = 0;
    for _ in 0..6 {
        let post =
            format!("POST / HTTP/1.1\r\nhost: any.test\r\n{token}\r\ncontent-length: 0\r\n\r\n");
        let answer = setup.raw(post).await;
        if answer.status != 200 {
            assert_eq!((answer.status, answer.outcome()), (502, "unknown"));
            refused += 1;
        }
    }
    let posts = broken.seen().iter().filter(|seen| seen.head.starts_with("POST")).count();
    assert_eq!(posts, refused, "each was sent once");
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_look_whole() {
    let cut = |head: &str| format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").into_bytes();
    for (head, sent) in
        [("content-length: 10", &b"12345"[..]), ("transfer-encoding: chunked", b"5\r\n12345\r\n")]
    {
        let bytes = [cut(head), sent.to_vec()].concat();
        let upstream =
            HttpUpstream::start(move |_| ServerAction::AnswersAndCloses(bytes.clone())).await;
        let setup = SiteSetup::to(&upstream.url()).await;
        let mut http = Http::connect(setup.at()).await;
        http.send("GET / HTTP/1.1\r\nhost: open.test\r\n\r\n").await;
        let mut all = Vec::new();
        let mut buffer = [0; 1];
        while soon("bytes or the end", http.read(&mut buffer)).await {
            all.extend_from_slice(&buffer);
        }
        let text = String::from_utf8_lossy(&all);
        assert!(text.contains("12345") && !text.ends_with("0\r\n\r\n"), "{text}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_the_request_at_the_upstream() {
    let upstream = HttpUpstream::start(|_| ServerAction::Hangs(Vec::new())).await;
    let setup = SiteSetup::to(&upstream.url()).await;
    let mut http = Http::connect(setup.at()).await;
    http.send("GET / HTTP/1.1\r\nhost: open.test\r\n\r\n").await;
    upstream.until("the request", |log| log.seen.len() == 1).await;
    drop(http);
    upstream.disconnected(1).await;
}

#[tokio::test]
async fn an_upstream_that_says_nothing_ends_the_request_after_the_idle_time() {
    let upstream = HttpUpstream::start(|_| ServerAction::Hangs(Vec::new())).await;
    let forward = forward(&upstream.url()).idle_max(Duration::from_millis(200));
    let setup = SiteSetup::with(forward, policy(), |gateway| gateway).await;
    let answer = setup.get("/").await;
    assert_eq!((answer.status, answer.outcome()), (504, "unknown"));
    upstream.disconnected(1).await;
}

#[tokio::test]
async fn connections_to_the_upstream_are_used_again() {
    let (upstream, setup) = answering(reply("200 OK", &[], "hello")).await;
    for path in ["/", "/a", "/b"] {
        assert_eq!(setup.get(path).await.text(), "hello");
    }
    let head = setup.raw("HEAD / HTTP/1.1\r\nhost: open.test\r\nconnection: close\r\n\r\n");
    drop(tokio::time::timeout(Duration::from_millis(1), head).await);
    let connections: Vec<_> = upstream.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections[..3], [0, 0, 0]);
}
