//! Streams of replies: in Connect's envelopes, as server-sent events, and with back-pressure of the
//! reader.

use super::{GatewaySetup, Http, HttpReply};
use crate::world::{soon, until};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// One message in its envelope.
fn envelope(message: &str) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0][..], &length, message.as_bytes()].concat()
}

/// The envelopes of an answer: flags and message.
fn opened(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [flags, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        all.push((*flags, rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "{bytes:?}");
    all
}

async fn connect(setup: &GatewaySetup, method: &str, codec: &str, body: &[u8]) -> HttpReply {
    let kind = format!("application/connect+{codec}");
    let headers = [("content-type", kind.as_str()), ("connect-protocol-version", "1")];
    let path = format!("/v1/agents/warehouse/{method}");
    soon("an answer", Http::once(setup.at(), "POST", &path, &headers, body)).await
}

const EVENTS: [(&str, &str); 2] =
    [("accept", "text/event-stream"), ("content-type", "application/json")];

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_carry_every_message_and_the_last_one_the_outcome() {
    let setup = GatewaySetup::anonymous().await;
    let reply = connect(&setup, "Ticks/Count", "json", &envelope("3")).await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/connect+json"))
    );
    assert_eq!(reply.header("dialback-metadata-unit"), Some("tick"));
    reply.expect_common_headers();
    let all = opened(&reply.body);
    let messages: Vec<_> =
        all[..3].iter().map(|(flags, message)| (*flags, message.as_slice())).collect();
    assert_eq!(messages, [(0, &b"0"[..]), (0, b"1"), (0, b"2")]);
    assert_eq!((all.len(), all[3].0), (4, 2));
    let end: Value = serde_json::from_slice(&all[3].1).expect("JSON");
    assert_eq!(
        end,
        json!({"metadata": {"dialback-metadata-last": ["3"], "dialback-outcome": ["ok"]}})
    );
    let reply = connect(&setup, "Ticks/Fail", "json", &envelope("null")).await;
    let all = opened(&reply.body);
    let end: Value = serde_json::from_slice(&all[1].1).expect("JSON");
    assert_eq!((reply.status, all.len(), &*all[0].1), (200, 2, &b"7"[..]));
    assert_eq!(end["error"], json!({"code": "out_of_range", "message": "no more"}));
    assert_eq!(end["metadata"]["dialback-outcome"], json!(["app_error"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn cbor_passes_envelopes_unchanged_and_bad_envelopes_are_refused_in_one() {
    let setup = GatewaySetup::anonymous().await;
    let reply = connect(&setup, "Ticks/Count", "cbor", b"\0\0\0\0\x01\x02").await;
    let all = opened(&reply.body);
    assert_eq!((all.len(), &all[1]), (3, &(0, vec![1])));
    for bad in
        [&b"2"[..], b"\0\0\0\0\x02\x02", b"\0\0\0\0\x01\x02\0\0\0\0\x01\x02", b"\x01\0\0\0\x01\x02"]
    {
        let reply = connect(&setup, "Ticks/Count", "cbor", bad).await;
        let all = opened(&reply.body);
        assert_eq!(
            (reply.status, reply.outcome(), all.len(), all[0].0),
            (200, "not_executed", 1, 2),
            "{bad:?}"
        );
        let end: Value = serde_json::from_slice(&all[0].1).expect("JSON");
        assert_eq!(end["metadata"]["dialback-outcome"], json!(["not_executed"]));
        let code = end["error"]["code"].as_str();
        assert!(matches!(code, Some("invalid_argument" | "unimplemented")), "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_carry_one_message_each_and_the_last_one_the_outcome() {
    let setup = GatewaySetup::anonymous().await;
    let post = async |method: &str, body: &str| {
        let path = format!("/v1/agents/warehouse/{method}");
        soon("an answer", Http::once(setup.at(), "POST", &path, &EVENTS, body.as_bytes())).await
    };
    let reply = post("Ticks/Count", "2").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(reply.header("dialback-metadata-unit"), Some("tick"));
    let expected = "data: 0\n\ndata: 1\n\nevent: end\ndata: {\"metadata\":{\"last\":[\"2\"]},\"outcome\":\"ok\"}\n\n";
    assert_eq!(reply.text(), expected);
    let reply = post("Ticks/Fail", "null").await;
    assert!(reply.text().starts_with("data: 7\n\nevent: error\n"), "{}", reply.text());
    assert!(reply.text().contains("\"outcome\":\"app_error\""), "{}", reply.text());
    // An error before the first message is a plain answer, not a stream.
    post("Ticks/Nothing", "1").await.expect_error(501, "unimplemented", "not_executed");
    post("Ticks/Count", "{").await.expect_error(400, "invalid_argument", "not_executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_first_message_gets_its_head() {
    let setup = GatewaySetup::anonymous().await;
    let mut http = Http::connect(setup.at()).await;
    http.request("POST", "/v1/agents/warehouse/Ticks/Silent", &EVENTS, b"null").await;
    let head = soon("the head arrives before any message", http.head()).await.expect("a head");
    assert_eq!((head.status, head.outcome()), (200, "unknown"));
    assert_eq!(setup.ticks.running(), 1);
    drop(http);
    until("the handler is stopped", || setup.ticks.running() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_throttles_the_handler_and_a_disconnect_stops_it() {
    let setup = GatewaySetup::anonymous().await;
    let mut http = Http::connect(setup.at()).await;
    http.request("POST", "/v1/agents/warehouse/Ticks/Endless", &EVENTS, b"10000").await;
    let head = soon("a head", http.head()).await.expect("a head");
    soon("the first piece", http.piece(&head)).await.expect("a piece");
    // It blocks once the sockets and the windows are full, while other calls continue.
    let mut before = 0;
    loop {
        for _ in 0..50 {
            let path = "/v1/agents/warehouse/Stage/Note";
            assert_eq!(setup.post(path, "\"meanwhile\"").await.status, 200);
        }
        let now = setup.ticks.sent.load(Ordering::SeqCst);
        if now == before {
            break;
        }
        assert!(now < 64 << 20, "{now} bytes were sent unread");
        before = now;
    }
    assert_eq!(setup.ticks.running(), 1);
    drop(http);
    until("the handler is stopped", || setup.ticks.running() == 0).await;
}
