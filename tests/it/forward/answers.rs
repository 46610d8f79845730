//! Answers of an upstream: replies, its errors, and invalid ones.

use super::upstream::{HttpUpstream, ServerAction, joined, json, process_socket_events, reply};
use crate::world::check_status;
use dialback::{Code, Outcome, Status};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn answered(bytes: Vec<u8>) -> Result<String, Status> {
    let upstream =
        HttpUpstream::start(move |_| ServerAction::AnswersAndCloses(bytes.clone())).await;
    let answered = upstream.callee().call::<String>("HelloService/Hello", "x").await;
    assert_eq!(upstream.seen().len(), 1, "it was called more than once");
    answered
}

#[tokio::test]
async fn headers_of_a_reply_are_metadata_before_and_after_it() {
    let headers = [JSON, ("etag", "7"), ("trailer-cost", "9"), ("server", "s"), ("date", "d")];
    let upstream = HttpUpstream::answering(reply("200 OK", &headers, "1")).await;
    let reply = upstream.callee().call::<u64>("HelloService/Hello", "x").raw().await;
    let reply = reply.expect("a reply");
    assert_eq!(reply.metadata.iter().collect::<Vec<_>>(), [("etag", "7")]);
    assert_eq!(reply.trailing.iter().collect::<Vec<_>>(), [("cost", "9")]);
}

#[tokio::test]
async fn a_connect_error_is_an_application_error_with_code_message_details_and_metadata() {
    let body = r#"{"code":"not_found","message":"no Bob","details":[{"type":"a.B","value":"AQ"}]}"#;
    let failed = answered(reply("404 Not Found", &[JSON, ("x-where", "here")], body)).await;
    let status = check_status(failed, Code::NotFound, Outcome::AppError);
    assert_eq!((status.message(), status.metadata().get("x-where")), ("no Bob", Some("here")));
    let details = dialback::json::from_cbor(status.details()).expect("CBOR");
    assert_eq!(details, serde_json::json!([{"type": "a.B", "value": "AQ"}]));
}

#[tokio::test]
async fn plain_http_errors_have_the_codes_that_connect_assigns() {
    for (line, code) in [
        ("400 Bad Request", Code::Internal),
        ("401 Unauthorized", Code::Unauthenticated),
        ("403 Forbidden", Code::PermissionDenied),
        ("404 Not Found", Code::Unimplemented),
        ("429 Too Many Requests", Code::Unavailable),
        ("500 Internal Server Error", Code::Unknown),
        ("502 Bad Gateway", Code::Unavailable),
        ("503 Service Unavailable", Code::Unavailable),
        ("204 No Content", Code::Unknown),
    ] {
        for body in ["<html>", r#"{"code":"nope"}"#, ""] {
            let failed = answered(reply(line, &[JSON], body)).await;
            let status = check_status(failed, code, Outcome::AppError);
            assert!(status.message().contains(line), "{status}");
        }
    }
}

#[tokio::test]
async fn an_error_body_at_the_limit_is_read_and_over_it_the_status_decides() {
    const LIMIT: usize = 64 * 1024;
    for (bytes, code) in [(LIMIT, Code::Aborted), (LIMIT + 1, Code::Unimplemented)] {
        let start = r#"{"code":"aborted","message":"#;
        let body = format!("{start}{:?}}}", "m".repeat(bytes - start.len() - 3));
        assert_eq!(body.len(), bytes);
        let failed = answered(reply("404 Not Found", &[JSON], body)).await;
        check_status(failed, code, Outcome::AppError);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = HttpUpstream::answering(json("\"got\"")).await;
    let location = target.url();
    let failed = answered(reply("307 Temporary Redirect", &[("location", &location)], "")).await;
    let status = check_status(failed, Code::Unknown, Outcome::AppError);
    assert!(status.message().contains("redirects are not followed"), "{status}");
    assert_eq!(target.seen().len(), 0);
}

#[track_caller]
fn check_broken(failed: Result<String, Status>, code: Code, text: &str) {
    let status = check_status(failed, code, Outcome::Unknown);
    assert!(status.message().contains(text), "no {text:?} in {status}");
}

#[tokio::test]
async fn an_invalid_reply_is_internal_with_the_reason() {
    let html = ("content-type", "text/html");
    for (bytes, text) in [
        (json("{"), "is not JSON"),
        (json(""), "is not JSON"),
        (json("1 2"), "is not JSON"),
        (reply("200 OK", &[html], "<p>"), "\"text/html\" where application/json was expected"),
        (reply("200 OK", &[JSON, ("content-encoding", "gzip")], "1"), "compressed"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n\"x\"".to_vec(), "neither"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n12".to_vec(), "neither"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: x\r\n\r\n12".to_vec(),
            "neither",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), "is not HTTP/1.1"),
    ] {
        check_broken(answered(bytes).await, Code::Internal, text);
    }
    let ok =
        answered(reply("200 OK", &[("content-type", "application/json;charset=utf-8")], "\"y\""));
    assert_eq!(ok.await.as_deref(), Ok("y"));
    // A reply without a content type counts as JSON, as requested.
    assert_eq!(answered(reply("200 OK", &[], "\"y\"")).await.as_deref(), Ok("y"));
}

#[tokio::test]
async fn a_head_within_its_limits_passes_and_one_past_them_does_not() {
    let long = |bytes: usize| reply("200 OK", &[("x-long", &"a".repeat(bytes))], "\"y\"");
    // There is also a content-length.
    let many = |count: usize| reply("200 OK", &vec![("x-many", "a"); count - 1], "\"y\"");
    for good in [long(60_000), many(100)] {
        assert_eq!(answered(good).await.as_deref(), Ok("y"));
    }
    for bad in [long(65_536), many(101)] {
        check_broken(answered(bad).await, Code::Internal, "limits of 64 KiB and 100 headers");
    }
}

#[tokio::test]
async fn a_reply_at_the_limit_passes_and_over_it_fails_in_every_framing() {
    let chunked = |body: &str| {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked";
        format!("{head}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
    };
    for whole in [json, chunked as fn(&str) -> Vec<u8>] {
        for (bytes, fits) in [(1_000, true), (1_001, false)] {
            let text = "a".repeat(bytes - 2);
            let upstream = HttpUpstream::answering(whole(&format!("{text:?}"))).await;
            let forward = upstream.forward().message_bytes_max(1_000);
            let callee = joined(forward.service("HelloService"));
            let answered = callee.call::<String>("HelloService/Hello", "x").await;
            match fits {
                true => assert_eq!(answered, Ok(text)),
                false => check_broken(answered, Code::Internal, "1000 bytes (message_bytes_max)"),
            }
        }
    }
}

#[tokio::test]
async fn an_unsolicited_response_is_not_taken_as_the_reply_of_the_next_call() {
    let twice = |seen: &super::upstream::Seen| match seen.text() {
        "1" => ServerAction::Answers([json("1"), json("666")].concat()),
        _ => ServerAction::Answers(json("2")),
    };
    for is_noticed in [false, true] {
        let upstream = HttpUpstream::start(twice).await;
        let callee = upstream.callee();
        assert_eq!(callee.call::<u64>("HelloService/Hello", &1).await, Ok(1));
        if is_noticed {
            process_socket_events().await;
        }
        assert_eq!(callee.call::<u64>("HelloService/Hello", &2).await, Ok(2));
        assert_eq!(upstream.seen().last().map(|seen| seen.connection), Some(1));
    }
}

#[tokio::test]
async fn http_1_0_servers_work_if_they_send_a_content_length() {
    let old = json("\"y\"").iter().skip("HTTP/1.1".len()).copied().collect::<Vec<_>>();
    let old = [&b"HTTP/1.0"[..], &old].concat();
    let upstream = HttpUpstream::start(move |_| ServerAction::AnswersAndCloses(old.clone())).await;
    let callee = upstream.callee();
    for _ in 0..2 {
        let answered = callee.call::<String>("HelloService/Hello", "x").await;
        assert_eq!(answered.as_deref(), Ok("y"));
    }
}

#[tokio::test]
async fn a_truncated_reply_is_never_a_success() {
    let whole = json("12345678");
    check_broken(
        answered(whole[..whole.len() - 3].to_vec()).await,
        Code::Unavailable,
        "closed the connection",
    );
    let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n123\r\n".to_vec();
    check_broken(answered(chunks).await, Code::Unavailable, "closed the connection");
    let error = reply("404 Not Found", &[JSON], r#"{"code":"aborted","message":"m"}"#);
    let failed = answered(error[..error.len() - 3].to_vec()).await;
    // The status alone shows that it was refused.
    check_status(failed, Code::Unimplemented, Outcome::AppError);
}
