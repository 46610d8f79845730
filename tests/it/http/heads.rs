//! Heads that RFC 9112 and RFC 9113 reject, next to similar heads that are valid.

use super::{GatewaySetup, Http, h2};
use crate::world::soon;

const NOTE: &str = "/v1/agents/warehouse/Stage/Note";

/// Sends an HTTP/1 request with this first line and these lines. Returns the status, and whether
/// the connection was closed after it.
async fn status(setup: &GatewaySetup, first: &str, lines: &str) -> u16 {
    let mut http = Http::connect(setup.at()).await;
    let rest = "content-type: application/json\r\n";
    let length = if lines.contains("ncoding") { "" } else { "content-length: 3\r\n" };
    let body = if lines.contains("ncoding") { "3\r\n\"x\"\r\n0\r\n\r\n" } else { "\"x\"" };
    let length = if lines.contains("ontent-length") { "" } else { length };
    http.send(format!("{first}\r\n{lines}{rest}{length}\r\n{body}")).await;
    let reply = soon("an answer", http.reply()).await.expect("an answer");
    if reply.status == 400 {
        soon("the connection is closed", http.closed()).await;
    }
    reply.status
}

/// Each row of the table: the first line, the lines, whether it is accepted.
async fn check(table: &[(&str, &str, bool)]) {
    let setup = GatewaySetup::anonymous().await;
    for (first, lines, is_good) in table {
        let (first, before) = (first.replace("NOTE", NOTE), setup.stage.all_runs());
        let status = status(&setup, &first, lines).await;
        let expected = if *is_good { (200, 1) } else { (400, 0) };
        assert_eq!((status, setup.stage.all_runs() - before), expected, "{first} {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_requests_name_their_host_once() {
    let post = "POST NOTE HTTP/1.1";
    check(&[
        (post, "host: localhost\r\n", true),
        (post, "Host: LOCALHOST:8080\r\n", true),
        (post, "host:\t[::1] \r\n", true),
        (post, "", false),
        (post, "host: localhost\r\nhost: localhost\r\n", false),
        (post, "host: localhost\r\nHOST: evil.example\r\n", false),
        (post, "host: evil.example\r\nhost: localhost\r\n", false),
        (post, "host:\r\n", false),
        (post, "host: localhost\r\nhost:\r\n", false),
        (post, "host: user@localhost\r\n", false),
        (post, "host: evil.example:80@localhost\r\n", false),
        (post, "host: localhost:99999\r\n", false),
        (post, "host: localhost:80x\r\n", false),
        (post, "host: localhost, localhost\r\n", false),
        (post, "host: localhost/x\r\n", false),
        (post, "host: [::1\r\n", false),
        (post, "host : localhost\r\n", false),
        (post, " host: localhost\r\n", false),
        (post, "x: y\r\n host: localhost\r\n", false),
        (post, "host: localhost\r\n folded\r\n", false),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_overrides_the_host_header() {
    check(&[
        ("POST http://localhostNOTE HTTP/1.1", "host: localhost\r\n", true),
        ("POST HTTP://localhost:8080NOTE HTTP/1.1", "host: evil.example\r\n", true),
        ("POST https://localhostNOTE HTTP/1.1", "host:\r\n", true),
        ("POST http://localhostNOTE HTTP/1.1", "", false),
        ("POST http://localhostNOTE HTTP/1.1", "host: a\r\nhost: a\r\n", false),
        ("POST http://user@localhostNOTE HTTP/1.1", "host: localhost\r\n", false),
        ("POST http://localhost:xNOTE HTTP/1.1", "host: localhost\r\n", false),
        ("POST ftp://localhostNOTE HTTP/1.1", "host: localhost\r\n", false),
        ("POST http:NOTE HTTP/1.1", "host: localhost\r\n", false),
    ])
    .await;
    // The host name decides whether the anonymous caller applies.
    let setup = GatewaySetup::anonymous().await;
    let first = format!("POST http://evil.example{NOTE} HTTP/1.1");
    assert_eq!(status(&setup, &first, "host: localhost\r\n").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_a_fragment_or_of_unknown_form_is_refused() {
    check(&[
        ("POST NOTE HTTP/1.1", "host: localhost\r\n", true),
        ("POST NOTE#x HTTP/1.1", "host: localhost\r\n", false),
        ("POST NOTE# HTTP/1.1", "host: localhost\r\n", false),
        ("POST http://localhostNOTE#x HTTP/1.1", "host: localhost\r\n", false),
        ("POST /v1?#x HTTP/1.1", "host: localhost\r\n", false),
        ("POST * HTTP/1.1", "host: localhost\r\n", false),
        ("POST localhost:80 HTTP/1.1", "host: localhost\r\n", false),
        ("POST localhostNOTE HTTP/1.1", "host: localhost\r\n", false),
    ])
    .await;
    let setup = GatewaySetup::anonymous().await;
    // These are valid requests for something that the gateway does not have.
    for first in ["OPTIONS * HTTP/1.1", "CONNECT localhost:80 HTTP/1.1"] {
        assert_eq!(status(&setup, first, "host:\r\n").await, 404, "{first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_needs_no_host_and_has_no_chunked_encoding() {
    let setup =
        GatewaySetup::with(|node| node, |gateway| gateway.tokens(super::verify_token)).await;
    let good = format!("authorization: Bearer {}\r\n", super::TOKEN);
    let first = format!("POST {NOTE} HTTP/1.0");
    for (lines, expected) in [
        ("", 200),
        ("host: a\r\n", 200),
        ("host: a\r\nhost: a\r\n", 400),
        ("host: u@a\r\n", 400),
        ("transfer-encoding: chunked\r\n", 400),
    ] {
        let status = status(&setup, &first, &(good.clone() + lines)).await;
        assert_eq!(status, expected, "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_is_the_only_transfer_coding() {
    let post = "POST NOTE HTTP/1.1";
    check(&[
        (post, "host: localhost\r\ntransfer-encoding: chunked\r\n", true),
        (post, "host: localhost\r\nTransfer-Encoding: \tCHUNKED\r\n", true),
        (post, "host: localhost\r\ntransfer-encoding: x, chunked\r\n", false),
        (post, "host: localhost\r\ntransfer-encoding: gzip, chunked\r\n", false),
        (post, "host: localhost\r\ntransfer-encoding: chunked, chunked\r\n", false),
        (post, "host: localhost\r\ntransfer-encoding: chunked, x\r\n", false),
        (post, "host: localhost\r\ntransfer-encoding: ,chunked\r\n", false),
        (post, "host: localhost\r\ntransfer-encoding: chunked;q=1\r\n", false),
        (post, "host: localhost\r\ntransfer-encoding: identity\r\n", false),
        (post, "host: localhost\r\ntransfer-encoding:\r\n", false),
        (post, "host: localhost\r\ntransfer-encoding: x\r\ntransfer-encoding: chunked\r\n", false),
        (post, "host: localhost\r\ncontent-length: 3\r\n", true),
        (post, "host: localhost\r\ncontent-length: 3\r\ncontent-length: 3\r\n", false),
        (post, "host: localhost\r\ncontent-length: 3,3\r\n", false),
        (post, "host: localhost\r\ncontent-length: 03x\r\n", false),
    ])
    .await;
}

const METHOD: (&str, &str) = (":method", "POST");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "localhost");
const PATH: (&str, &str) = (":path", NOTE);
const TYPE: (&str, &str) = ("content-type", "application/json");
/// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;

/// The answer to an HTTP/2 request with these fields on its own connection, and whether the
/// connection accepts another.
async fn answered(setup: &GatewaySetup, fields: &[(&str, &str)]) -> h2::Answered {
    let mut http = Http::connect(setup.at()).await;
    http.send(h2::preface()).await;
    let head: Vec<u8> = fields.iter().flat_map(|(name, value)| h2::pair(name, value)).collect();
    http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &head)).await;
    http.send(h2::frame(h2::DATA, h2::END_STREAM, 1, b"\"x\"")).await;
    let answered = soon("an answer", h2::answered(&mut http, 1)).await;
    http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, 3, &h2::head(NOTE))).await;
    http.send(h2::frame(h2::DATA, h2::END_STREAM, 3, b"\"next\"")).await;
    let next = soon("an answer", h2::answered(&mut http, 3)).await;
    assert_eq!(next, h2::Answered::Status(200), "after {fields:?}");
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_requests_name_one_host() {
    let setup = GatewaySetup::anonymous().await;
    let with = |authority: Option<&'static str>, more: &[(&'static str, &'static str)]| {
        let authority = authority.map(|authority| (":authority", authority));
        [METHOD, SCHEME, PATH].into_iter().chain(authority).chain(more.iter().copied()).collect()
    };
    let fields: Vec<(Vec<_>, u16)> = vec![
        (with(Some("localhost"), &[TYPE]), 200),
        (with(Some("localhost:80"), &[TYPE, ("host", "LOCALHOST")]), 200),
        (with(None, &[TYPE, ("host", "localhost")]), 200),
        (with(Some("localhost"), &[TYPE, ("content-length", "3")]), 200),
        (with(None, &[TYPE]), 400),
        (with(None, &[TYPE, ("host", "")]), 400),
        (with(None, &[TYPE, ("host", "user@localhost")]), 400),
        (with(None, &[TYPE, ("host", "localhost"), ("host", "localhost")]), 400),
        (with(Some("user@localhost"), &[TYPE]), 400),
        (with(Some("user:secret@localhost"), &[TYPE, ("host", "localhost")]), 400),
        (with(Some("localhost"), &[TYPE, ("host", "evil.example")]), 400),
        (with(Some("localhost"), &[TYPE, ("host", "localhost:8080")]), 400),
        (with(Some("localhost"), &[TYPE, ("host", "")]), 400),
        (with(Some("localhost"), &[TYPE, ("host", "localhost"), ("host", "localhost")]), 400),
        (with(Some("localhost"), &[TYPE, ("content-length", "3"), ("content-length", "3")]), 400),
    ];
    for (fields, expected) in fields {
        let answered = answered(&setup, &fields).await;
        assert_eq!(answered, h2::Answered::Status(expected), "{fields:?}");
    }
    assert_eq!(setup.stage.runs("x"), 4);
}

/// Heads that the library rejects itself must stay rejected.
#[tokio::test(flavor = "multi_thread")]
async fn http_2_heads_that_are_malformed_are_reset() {
    let setup = GatewaySetup::anonymous().await;
    for fields in [
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, ("connection", "close")][..],
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, ("keep-alive", "timeout=5")],
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, ("proxy-connection", "close")],
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, ("transfer-encoding", "chunked")],
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, ("upgrade", "x")],
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, ("te", "gzip")],
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, ("content-length", "3, 3")],
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, ("content-length", "+3")],
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, ("content-length", "4")],
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, ("content-length", "3"), ("content-length", "4")],
        &[METHOD, METHOD, SCHEME, AUTHORITY, PATH, TYPE],
        &[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH, TYPE],
        &[METHOD, SCHEME, AUTHORITY, PATH, PATH, TYPE],
        &[METHOD, SCHEME, AUTHORITY, TYPE, PATH],
        &[METHOD, SCHEME, AUTHORITY, TYPE],
        &[METHOD, AUTHORITY, PATH, TYPE],
        &[SCHEME, AUTHORITY, PATH, TYPE],
        &[METHOD, SCHEME, (":authority", "a b"), PATH, TYPE],
        &[METHOD, SCHEME, AUTHORITY, (":path", ""), TYPE],
        &[METHOD, SCHEME, AUTHORITY, PATH, TYPE, (":status", "200")],
    ] {
        let answered = answered(&setup, fields).await;
        assert_eq!(answered, h2::Answered::Reset(PROTOCOL_ERROR), "{fields:?}");
    }
    assert_eq!(setup.stage.runs("x"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_field_names_with_capital_letters_end_the_connection() {
    let setup = GatewaySetup::anonymous().await;
    for name in ["Content-Type", "x y", "x:y", ":unknown"] {
        let mut http = Http::connect(setup.at()).await;
        http.send(h2::preface()).await;
        let head = [h2::head(NOTE), h2::pair(name, "x")].concat();
        http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &head)).await;
        http.send(h2::frame(h2::DATA, h2::END_STREAM, 1, b"\"x\"")).await;
        let answered = soon("an answer", h2::answered(&mut http, 1)).await;
        let is_refused = matches!(answered, h2::Answered::Reset(_) | h2::Answered::Closed);
        assert!(is_refused, "{name}: {answered:?}");
    }
    assert_eq!(setup.stage.runs("x"), 0);
}
