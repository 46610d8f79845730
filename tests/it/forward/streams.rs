//! Streams of replies from an upstream: their messages, their ends, and back-pressure.

use super::upstream::{
    HttpUpstream, ServerAction, chunk, envelope, joined, process_socket_events, stream_head,
};
use crate::world::{check_status, soon, until};
use dialback::{Code, ForwardFormat, Inbound, Outcome, Status};
use serde_json::{Value, json};

const JSON: &str = "application/connect+json";

/// A whole stream in chunks: one per envelope, and the end.
fn stream(messages: &[&str], end: &str) -> Vec<u8> {
    let mut bytes = stream_head(JSON);
    messages.iter().for_each(|message| bytes.extend(chunk(&envelope(0, message.as_bytes()))));
    bytes.extend(chunk(&envelope(2, end.as_bytes())));
    bytes.extend(b"0\r\n\r\n");
    bytes
}

async fn opened(upstream: &HttpUpstream) -> Inbound<Value> {
    let call = upstream.callee().server_stream("HelloService/Count", &json!({"n": 2}));
    call.await.expect("a stream")
}

async fn taken(replies: &mut Inbound<Value>) -> (Vec<Value>, Option<Status>) {
    let mut messages = Vec::new();
    while let Some(next) = soon("the next message", replies.next()).await {
        match next {
            Ok(message) => messages.push(message),
            Err(status) => return (messages, Some(status)),
        }
    }
    (messages, None)
}

#[tokio::test]
async fn a_stream_is_requested_in_an_envelope_and_arrives_in_order() {
    let end = r#"{"metadata":{"cost":["9"]}}"#;
    let upstream = HttpUpstream::answering(stream(&[r#"{"i":1}"#, r#"{"i":2}"#], end)).await;
    let mut replies = opened(&upstream).await;
    assert_eq!(taken(&mut replies).await, (vec![json!({"i": 1}), json!({"i": 2})], None));
    assert_eq!(replies.trailing().get("cost"), Some("9"));
    let seen = upstream.only();
    assert_eq!(seen.header("content-type"), Some(JSON));
    assert_eq!(seen.body, envelope(0, br#"{"n":2}"#));
    assert_eq!(seen.header("connect-protocol-version"), Some("1"));
}

#[tokio::test]
async fn the_connection_of_an_ended_stream_is_reused() {
    let upstream = HttpUpstream::answering(stream(&["1"], "{}")).await;
    let callee = upstream.callee();
    for _ in 0..3 {
        let call = callee.server_stream("HelloService/Count", &());
        assert_eq!(taken(&mut call.await.expect("a stream")).await, (vec![json!(1)], None));
        process_socket_events().await;
    }
    assert!(upstream.seen().iter().all(|seen| seen.connection == 0), "{:#?}", upstream.seen());
}

#[tokio::test]
async fn large_messages_travel_both_ways_in_order_with_their_lengths() {
    let large = |n: u64| format!("[{}]", vec![format!("{{\"n\":{n}}}"); 20_000].join(","));
    let replies = [&*large(1), "2", &large(3)];
    let upstream = HttpUpstream::answering(stream(&replies, "{}")).await;
    let sent: Value = serde_json::from_str(&large(4)).expect("JSON");
    let callee = upstream.callee();
    let call = callee.server_stream("HelloService/Count", &sent);
    let values = replies.map(|reply| serde_json::from_str(reply).expect("JSON"));
    assert_eq!(taken(&mut call.await.expect("a stream")).await, (values.to_vec(), None));
    let seen = upstream.only();
    assert_eq!(seen.body, envelope(0, large(4).as_bytes()));
    assert_eq!(seen.header("content-length"), Some(&*seen.body.len().to_string()));
    // A large invalid message ends the stream at once.
    let bad = format!("{}]", large(5));
    let upstream = HttpUpstream::answering(stream(&["1", &bad, "2"], "{}")).await;
    let (messages, ended) = taken(&mut opened(&upstream).await).await;
    let ended = ended.expect("a failure");
    assert_eq!((messages, ended.outcome()), (vec![json!(1)], Outcome::Unknown));
    assert!(ended.message().contains("is not JSON"), "{ended}");
}

#[tokio::test]
async fn cbor_streams_are_forwarded() {
    let mut bytes = stream_head("application/connect+cbor");
    bytes.extend(chunk(&[envelope(0, &[0x61, b'y']), envelope(2, b"{}")].concat()));
    let upstream = HttpUpstream::answering(bytes).await;
    let callee = joined(upstream.forward().format(ForwardFormat::Cbor).service("HelloService"));
    let mut replies =
        callee.server_stream::<_, Value>("HelloService/Count", &1).await.expect("a stream");
    assert_eq!(taken(&mut replies).await, (vec![json!("y")], None));
    assert_eq!(upstream.only().body, envelope(0, &[1]));
}

#[tokio::test]
async fn an_error_at_the_end_of_a_stream_is_an_application_error_after_the_messages() {
    let end = r#"{"error":{"code":"aborted","message":"enough"},"metadata":{"k":["v"]}}"#;
    let upstream = HttpUpstream::answering(stream(&["1"], end)).await;
    let (messages, failed) = taken(&mut opened(&upstream).await).await;
    assert_eq!(messages, [json!(1)]);
    let failed = failed.expect("a failure");
    let status = check_status(Err::<(), _>(failed), Code::Aborted, Outcome::AppError);
    assert_eq!((status.message(), status.metadata().get("k")), ("enough", Some("v")));
}

#[tokio::test]
async fn an_error_before_the_stream_is_an_application_error() {
    let upstream =
        HttpUpstream::answering(super::upstream::reply("503 Service Unavailable", &[], "")).await;
    let call = upstream.callee().server_stream::<_, Value>("HelloService/Count", &1);
    check_status(call.await, Code::Unavailable, Outcome::AppError);
}

#[tokio::test]
async fn a_truncated_stream_is_never_a_success() {
    let mut truncated = stream_head(JSON);
    truncated.extend(chunk(&envelope(0, b"1")));
    let half = [&truncated[..], &chunk(&envelope(0, b"12345")[..7])].concat();
    let ended = [&truncated[..], b"0\r\n\r\n"].concat();
    for bytes in [truncated, half, ended] {
        let upstream =
            HttpUpstream::start(move |_| ServerAction::AnswersAndCloses(bytes.clone())).await;
        let (messages, failed) = taken(&mut opened(&upstream).await).await;
        assert_eq!(messages, [json!(1)]);
        let failed = Err::<(), _>(failed.expect("a failure"));
        check_status(failed, Code::Unavailable, Outcome::Unknown);
        assert_eq!(upstream.seen().len(), 1, "it was sent again");
    }
}

#[tokio::test]
async fn an_invalid_connect_stream_is_internal() {
    let with = |message: Vec<u8>| [stream_head(JSON), chunk(&message)].concat();
    for (bytes, why) in [
        (super::upstream::json("1"), "application/connect+json was expected"),
        (with(envelope(1, b"x")), "compressed"),
        (with(envelope(0, b"{")), "is not JSON"),
        (with(envelope(2, b"{")), "is not JSON"),
        (with(envelope(64, b"{")), "flags"),
        (with(vec![0, 0xff, 0, 0, 0]), "message_bytes_max"),
    ] {
        let upstream = HttpUpstream::answering(bytes).await;
        let call = upstream.callee().server_stream::<_, Value>("HelloService/Count", &1);
        let failed = match call.await {
            Ok(mut replies) => taken(&mut replies).await.1.expect("a failure"),
            Err(status) => status,
        };
        let status = check_status(Err::<(), _>(failed), Code::Internal, Outcome::Unknown);
        assert!(status.message().contains(why), "no {why:?} in {status}");
        upstream.disconnected(1).await;
    }
}

#[tokio::test]
async fn dropping_a_stream_closes_the_upstream_connection() {
    let begun = || [stream_head(JSON), chunk(&envelope(0, b"1"))].concat();
    let upstream = HttpUpstream::start(move |_| ServerAction::Hangs(begun())).await;
    let mut replies = opened(&upstream).await;
    assert_eq!(replies.next().await, Some(Ok(json!(1))));
    drop(replies);
    upstream.disconnected(1).await;
}

#[tokio::test]
async fn a_reader_that_reads_nothing_throttles_the_upstream() {
    const MESSAGE: usize = 64 * 1024;
    let message = format!("\"{}\"", "a".repeat(MESSAGE));
    let bytes = chunk(&envelope(0, message.as_bytes()));
    let upstream =
        HttpUpstream::start(move |_| ServerAction::Pours(stream_head(JSON), bytes.clone())).await;
    let mut replies = opened(&upstream).await;
    assert!(replies.next().await.expect("a message").is_ok());
    // The capacity of the sockets is written soon; then nothing more.
    let mut before = 0;
    let mut still = 0;
    until("it blocks", || {
        let now = upstream.written();
        still = if now == before { still + 1 } else { 0 };
        before = now;
        still == 100
    })
    .await;
    assert!(before < 32 << 20, "{before} bytes were written unread");
    drop(replies);
    upstream.disconnected(1).await;
}
