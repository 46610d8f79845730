//! What a client gets of the messages of a server.

use super::{
    McpSetup, call, error, event_stream, events, json_reply, message, request, result, server,
};
use crate::{
    forward::upstream::{HttpUpstream, ServerAction, reply},
    world::{logged, until},
};
use serde_json::{Value, json};

fn progress(step: u32) -> Value {
    let params = json!({ "progressToken": 1, "progress": step });
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
}

fn question() -> Value {
    request(77, "elicitation/create", json!({ "message": "sure?" }))
}

#[tokio::test]
async fn an_event_stream_passes_with_what_the_caller_may_get() {
    let messages = [progress(1), question(), progress(2), result(1, json!({ "content": [] }))];
    let stream = event_stream(&messages);
    let upstream = HttpUpstream::start(move |seen| {
        ServerAction::Answers(match message(seen)["method"].is_string() {
            true => stream.clone(),
            false => reply("202 Accepted", &[], ""),
        })
    })
    .await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let answer = setup.post("ops", &call("get_issue")).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(events(answer.text()), messages);
    let answer = setup.post("dev", &call("get_issue")).await;
    let expected = [progress(1), progress(2), result(1, json!({ "content": [] }))];
    assert_eq!(events(answer.text()), expected);
    // The server waits for an answer to its question, and gets one.
    until("the refusal", || upstream.seen().len() == 3).await;
    let refusal = message(&upstream.seen()[2]);
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!(77), &json!(-32601)));
}

#[tokio::test]
async fn a_list_in_an_event_stream_is_filtered_too() {
    let list = json!({ "tools": [{ "name": "drop_all" }, { "name": "get_issue" }] });
    let stream = event_stream(&[result(1, list)]);
    let upstream = HttpUpstream::answering(stream).await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let answer = setup.post("dev", &request(1, "tools/list", json!({}))).await;
    let expected = result(1, json!({ "tools": [{ "name": "get_issue" }] }));
    assert_eq!(events(answer.text()), [expected]);
}

#[tokio::test]
async fn a_list_that_answers_another_request_is_filtered_too() {
    let list = json!({ "tools": [{ "name": "drop_all" }, { "name": "get_issue" }] });
    let upstream = HttpUpstream::answering(json_reply(&result(1, list))).await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let answer = setup.post("dev", &request(1, "ping", json!({}))).await;
    assert_eq!(answer.json()["result"]["tools"], json!([{ "name": "get_issue" }]));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn notifications_are_accepted_without_a_body() {
    let upstream = HttpUpstream::answering(reply("202 Accepted", &[], "")).await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let answer = setup.post("dev", &note).await;
    assert_eq!((answer.status, answer.text()), (202, ""));
    // An answer to a question of the server needs the rule that lets the question pass.
    let answer = json!({ "jsonrpc": "2.0", "id": 77, "result": {} });
    assert_eq!(setup.post("ops", &answer).await.status, 202);
    let refused = setup.post("dev", &answer).await;
    assert_eq!((refused.status, refused.outcome()), (403, "not_executed"));
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn challenges_and_other_refusals_of_the_server_pass_as_they_are() {
    let challenge = r#"Bearer resource_metadata="https://a.example/x""#;
    let body = r#"{"error":"invalid_token"}"#;
    let head = [("www-authenticate", challenge), ("content-type", "application/json")];
    let upstream = HttpUpstream::answering(reply("401 Unauthorized", &head, body)).await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let answer = setup.post("dev", &call("get_issue")).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some(challenge)));
    assert_eq!(answer.text(), body);
}

#[tokio::test]
async fn a_redirection_is_an_error_and_its_place_is_in_the_log() {
    let head = [("location", "http://10.0.0.7/mcp/")];
    let upstream = HttpUpstream::answering(reply("307 Temporary Redirect", &head, "")).await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let answer = setup.post("dev", &call("get_issue")).await;
    assert_eq!(error(&answer.json()).1, "INTERNAL");
    assert!(!answer.text().contains("10.0.0.7"), "{}", answer.text());
    logged(&["of mcp:jira redirects to http://10.0.0.7/mcp/: write that URL as the upstream"])
        .await;
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_of_unknown_outcome() {
    for bad in [
        json_reply(&json!({ "jsonrpc": "2.0", "id": 8, "result": {} })),
        json_reply(&json!({ "ok": true })),
        json_reply(&question()),
        event_stream(&[]),
        event_stream(&[progress(1)]),
        reply("200 OK", &[("content-type", "text/html")], "<html>"),
        reply("200 OK", &[("content-type", "application/jsonx")], result(1, json!({})).to_string()),
        reply("202 Accepted", &[], ""),
        reply("404 Not Found", &[("content-type", "text/plain")], "nothing here"),
        reply("200 OK", &[("content-type", "application/json"), ("content-encoding", "gzip")], "x"),
    ] {
        let upstream = HttpUpstream::answering(bad.clone()).await;
        let setup = McpSetup::to(server(&upstream.url())).await;
        let answer = setup.post("dev", &call("get_issue")).await;
        let text = answer.text();
        let found = events(text).pop().unwrap_or_else(|| serde_json::from_str(text).expect("JSON"));
        assert_eq!(error(&found).2, "unknown", "{}", String::from_utf8_lossy(&bad));
    }
}
