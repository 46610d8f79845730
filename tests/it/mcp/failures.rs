//! Broken servers, agents and links: what a client is told.

use super::{McpSetup, call, error, events, message, request, send, server};
use crate::{
    forward::upstream::{HttpUpstream, ServerAction},
    http::client::Http,
    world::until,
};
use serde_json::json;
use std::time::Duration;

const BEGUN: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_server_that_is_down_and_an_agent_that_is_absent_are_not_executed() {
    let setup = McpSetup::to(server("http://127.0.0.1:1/mcp")).await;
    let answer = setup.post("dev", &call("get_issue")).await;
    assert_eq!(error(&answer.json()), (-32016, "UNAVAILABLE", "not_executed"));
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/x" });
    let answer = setup.post("dev", &note).await;
    assert_eq!((answer.status, answer.outcome()), (503, "not_executed"));
    let McpSetup { agent, gateway, node: _node, .. } = setup;
    agent.shutdown().await;
    let body = call("get_issue").to_string();
    let answer = send(gateway.local_addr(), "dev", "POST", &[], &body).await;
    assert_eq!(error(&answer.json()), (-32016, "UNAVAILABLE", "not_executed"));
}

#[tokio::test]
async fn a_server_that_breaks_off_is_unknown_and_not_asked_again() {
    for begun in ["", BEGUN] {
        let upstream =
            HttpUpstream::start(|_| ServerAction::AnswersAndCloses(begun.as_bytes().to_vec()))
                .await;
        let setup = McpSetup::to(server(&upstream.url())).await;
        let answer = setup.post("dev", &call("get_issue")).await;
        let text = answer.text();
        let found = events(text).pop().unwrap_or_else(|| serde_json::from_str(text).expect("JSON"));
        assert_eq!(error(&found), (-32016, "UNAVAILABLE", "unknown"));
        assert_eq!(upstream.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_link_that_is_cut_in_a_call_is_an_error_with_its_outcome() {
    for begun in ["", BEGUN] {
        let upstream =
            HttpUpstream::start(|_| ServerAction::Hangs(begun.as_bytes().to_vec())).await;
        let McpSetup { agent, gateway, node: _node, .. } =
            McpSetup::to(server(&upstream.url())).await;
        let calling = async {
            let body = call("get_issue").to_string();
            let answer = send(gateway.local_addr(), "dev", "POST", &[], &body).await;
            let text = answer.text();
            events(text).pop().unwrap_or_else(|| serde_json::from_str(text).expect("JSON"))
        };
        let cut = async {
            until("the call", || upstream.seen().len() == 1).await;
            agent.shutdown_or_abort(std::future::ready(())).await;
        };
        let (answer, ()) = tokio::join!(calling, cut);
        assert_eq!(error(&answer).2, "unknown", "{answer}");
        assert_eq!(answer["id"], 1);
        assert_eq!(upstream.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_request_at_the_server() {
    let upstream = HttpUpstream::start(|_| ServerAction::Hangs(BEGUN.into())).await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let mut http = Http::connect(setup.gateway.local_addr()).await;
    let headers = [("authorization", "Bearer dev"), ("content-type", "application/json")];
    http.request("POST", super::PATH, &headers, call("get_issue").to_string().as_bytes()).await;
    until("the call", || upstream.seen().len() == 1).await;
    drop(http);
    upstream.disconnected(1).await;
}

#[tokio::test]
async fn a_silent_server_is_left_after_its_idle_time() {
    let upstream = HttpUpstream::start(|_| ServerAction::Hangs(Vec::new())).await;
    let forward = server(&upstream.url()).idle_max(Duration::from_millis(50));
    let setup = McpSetup::to(forward).await;
    let list = request(1, "tools/list", json!({}));
    let answer = setup.post("dev", &list).await;
    assert_eq!(error(&answer.json()), (-32006, "DEADLINE_EXCEEDED", "unknown"));
    assert_eq!(message(&upstream.seen()[0]), list);
}
