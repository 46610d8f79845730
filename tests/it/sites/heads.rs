//! Heads of requests and responses: what passes, what is replaced, what is refused.

use super::{SiteSetup, answering};
use crate::forward::upstream::reply;

fn hello() -> Vec<u8> {
    reply("200 OK", &[("x-of", "upstream"), ("set-cookie", "a=1"), ("set-cookie", "b=2")], "hello")
}

#[tokio::test]
async fn verb_path_query_and_headers_pass_and_the_caller_is_named() {
    let (upstream, setup) = answering(hello()).await;
    let answer = setup
        .raw("PURGE /a/%2F/./b/../c?x=%20&y HTTP/1.1\r\nhost: open.test:81\r\nx-one: 1\r\nX-One: 2\r\n\r\n")
        .await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert_eq!(answer.header("x-of"), Some("upstream"));
    assert!(
        answer.header("dialback-call-id").is_some() && answer.header("dialback-outcome").is_none()
    );
    let seen = upstream.only();
    assert!(seen.head.starts_with("PURGE /a/%2F/c?x=%20&y HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.head.matches("x-one: ").count(), 2);
    assert_eq!(seen.header("host"), Some("open.test:81"));
    assert_eq!(seen.header("dialback-caller"), Some("caller/everybody"));
    assert_eq!(seen.header("dialback-node"), Some("edge-1"));
    assert_eq!(seen.header("via"), Some("1.1 dialback"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-host"), Some("open.test:81"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
}

#[tokio::test]
async fn headers_of_the_connection_and_claims_of_the_client_do_not_pass() {
    let (upstream, setup) = answering(hello()).await;
    let lines = "connection: x-hop\r\nx-hop: 1\r\nkeep-alive: 1\r\nproxy-connection: x\r\nte: gzip\r\nforwarded: for=1.1.1.1\r\nx-forwarded-for: 1.1.1.1\r\nx-real-ip: 1.1.1.1\r\ndialback-caller: caller/root\r\nexpect: 100-continue\r\n";
    setup.raw(format!("GET / HTTP/1.1\r\nhost: open.test\r\n{lines}\r\n")).await;
    let seen = upstream.only();
    for name in ["connection", "x-hop", "keep-alive", "proxy-connection", "te", "expect"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("dialback-caller"), Some("caller/everybody"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
    assert!(seen.header("forwarded").is_some_and(|way| !way.contains("1.1.1.1")));
}

#[tokio::test]
async fn what_only_dialback_says_is_not_taken_from_an_upstream() {
    let lines = [
        ("dialback-outcome", "ok"),
        ("alt-svc", "h3=\":443\""),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ];
    let (_upstream, setup) = answering(reply("503 Busy", &lines, "busy")).await;
    let answer = setup.get("/").await;
    assert_eq!((answer.status, answer.text()), (503, "busy"));
    for name in ["dialback-outcome", "alt-svc", "x-hop"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn requests_that_servers_read_in_different_ways_are_refused() {
    let (upstream, setup) = answering(hello()).await;
    for path in ["/a/%252e%252e/b", "/a/..;/b", "/a%5c..%5cb", "/a/%2e%2e%2fb", "/%00"] {
        let answer = setup.get(path).await;
        assert_eq!((answer.status, answer.outcome()), (400, "not_executed"), "{path}");
    }
    for line in ["dialback_caller: x", "x_forwarded_for: x", "content_length: 5", "expect: x"] {
        let answer =
            setup.raw(format!("GET / HTTP/1.1\r\nhost: open.test\r\n{line}\r\n\r\n")).await;
        assert!(matches!(answer.status, 400 | 417), "{line}: {}", answer.status);
    }
    for head in [
        "POST / HTTP/1.1\r\nhost: open.test\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: open.test\r\nhost: web.test\r\n\r\n",
        "GET http://web.test/ HTTP/1.1\r\nhost: open.test\r\n\r\n",
        "TRACE / HTTP/1.1\r\nhost: open.test\r\n\r\n",
    ] {
        let answer = setup.raw(head).await;
        assert!(matches!(answer.status, 400 | 401 | 501), "{head}: {}", answer.status);
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn other_hosts_reach_the_api_of_the_gateway_and_no_upstream() {
    let (upstream, setup) = answering(hello()).await;
    let answer = setup.raw("GET / HTTP/1.1\r\nhost: other.test\r\n\r\n").await;
    answer.expect_error(404, "not_found", "not_executed");
    let answer = setup.raw("GET /v1/agents HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    answer.expect_error(401, "unauthenticated", "not_executed");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn responses_without_a_body_end_with_their_head() {
    for (status, body) in [("204 No Content", ""), ("304 Not Modified", "")] {
        let upstream = crate::forward::upstream::HttpUpstream::answering(
            format!("HTTP/1.1 {status}\r\nx: 1\r\n\r\n{body}").into_bytes(),
        );
        let upstream = upstream.await;
        let setup = SiteSetup::to(&upstream.url()).await;
        for _ in 0..2 {
            let answer = setup.get("/").await;
            assert_eq!(answer.status.to_string(), status[..3]);
            assert_eq!(answer.header("transfer-encoding"), None);
        }
    }
}
