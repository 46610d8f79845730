//! Batches, which revision 2025-03-26 had.

use super::{McpSetup, call, error, message, request, server, tracker};
use serde_json::{Value, json};

#[tokio::test]
async fn the_messages_of_a_batch_are_decided_one_by_one() {
    let upstream = tracker().await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/x" });
    let denied = request(2, "tools/call", json!({ "name": "drop_all" }));
    let list = request(3, "tools/list", json!({}));
    let batch = json!([call("get_issue"), note, denied, list]);
    let answer = setup.post("dev", &batch).await;
    let answers = answer.json();
    let ids: Vec<&Value> =
        answers.as_array().expect("a batch").iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!(2), &json!(3)]);
    assert_eq!(error(&answers[1]), (-32009, "PERMISSION_DENIED", "not_executed"));
    assert_eq!(answers[2]["result"]["tools"], json!([{ "name": "get_issue" }]));
    // The server gets them one by one.
    let methods: Vec<Value> =
        upstream.seen().iter().map(|seen| message(seen)["method"].clone()).collect();
    assert_eq!(methods, ["tools/call", "notifications/x", "tools/list"]);
}

#[tokio::test]
async fn a_batch_with_a_fault_is_refused_as_a_whole() {
    let upstream = tracker().await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let batch = json!([call("get_issue"), { "jsonrpc": "2.0" }]);
    let answer = setup.post("ops", &batch).await;
    assert_eq!((answer.status, error(&answer.json()).0), (400, -32600));
    assert!(upstream.seen().is_empty());
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/x" });
    assert_eq!(setup.post("ops", &json!([note])).await.status, 202);
}
