//! Which messages reach a server, and which tools a caller sees.

use super::{McpSetup, PATH, allow, call, error, message, policy, request, server, tracker};
use crate::{http::client::Http, world::soon};
use dialback::{AgentPolicy, NodePolicy, policy::AgentRule};
use serde_json::json;

#[tokio::test]
async fn a_tool_is_called_by_who_may_call_it_and_named_by_its_call() {
    let upstream = tracker().await;
    let setup = McpSetup::to(server(&format!("{}/mcp", upstream.url()))).await;
    let answer = setup.post("dev", &call("get_issue")).await;
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!({ "content": [] })));
    let seen = upstream.only();
    assert!(seen.head.starts_with("POST /mcp HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.header("dialback-caller"), Some("caller/dev"));
    assert_eq!(message(&seen), call("get_issue"));
    let answer = setup.post("dev", &call("drop_all")).await;
    assert_eq!((answer.status, answer.outcome()), (200, "not_executed"));
    assert_eq!(error(&answer.json()), (-32009, "PERMISSION_DENIED", "not_executed"));
    assert_eq!(upstream.seen().len(), 1);
    let answer = setup.post("ops", &call("drop_all")).await;
    assert!(answer.json()["result"].is_object());
}

#[tokio::test]
async fn a_list_has_only_the_tools_that_the_caller_may_call() {
    let upstream = tracker().await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let list = request(1, "tools/list", json!({}));
    let tools = async |caller| {
        let answer = setup.post(caller, &list).await.json();
        let tools = answer["result"]["tools"].as_array().expect("tools").clone();
        tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
    };
    let (ops, dev): (Vec<String>, Vec<String>) = (tools("ops").await, tools("dev").await);
    assert_eq!((ops, dev), (vec!["get_issue".into(), "drop_all".into()], vec!["get_issue".into()]));
    let answer = setup.post("nobody", &list).await;
    assert_eq!(error(&answer.json()).1, "PERMISSION_DENIED");
}

#[tokio::test]
async fn rules_of_the_agent_decide_too() {
    let upstream = tracker().await;
    let rule = AgentRule::parse("**", "**", "mcp:jira/drop_*").expect("a rule");
    let rules = AgentPolicy::default().allow(rule);
    let setup = McpSetup::with(server(&upstream.url()), policy(), rules, |gateway| gateway).await;
    let answer = setup.post("ops", &call("get_issue")).await.json();
    assert_eq!(error(&answer).1, "PERMISSION_DENIED");
    let answer = setup.post("ops", &request(1, "tools/list", json!({}))).await.json();
    assert_eq!(answer["result"]["tools"], json!([{ "name": "drop_all" }]));
    let answer = setup.post("dev", &request(1, "tools/list", json!({}))).await.json();
    assert_eq!(answer["result"]["tools"], json!([]));
}

#[tokio::test]
async fn resources_and_prompts_need_rules_of_their_own() {
    let upstream = tracker().await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    for method in ["resources/list", "resources/read", "prompts/get"] {
        let answer = setup.post("dev", &request(1, method, json!({}))).await.json();
        assert_eq!(error(&answer).1, "PERMISSION_DENIED", "{method}");
        let answer = setup.post("ops", &request(1, method, json!({}))).await.json();
        assert!(answer["result"].is_object(), "{method}");
    }
    let answer = setup.post("ops", &request(1, "tasks/get", json!({}))).await;
    assert_eq!((answer.status, error(&answer.json()).0), (200, -32601));
}

#[tokio::test]
async fn headers_agree_with_the_message_or_it_is_refused() {
    let upstream = tracker().await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let body = call("get_issue").to_string();
    for (name, value, is_taken) in [
        ("mcp-method", "tools/call", true),
        ("mcp-name", "get_issue", true),
        ("mcp-method", "tools/list", false),
        ("mcp-name", "drop_all", false),
    ] {
        let answer = setup.request("ops", "POST", &[(name, value)], &body).await;
        match is_taken {
            true => assert!(answer.json()["result"].is_object(), "{name}: {value}"),
            false => assert_eq!((answer.status, error(&answer.json()).0), (400, -32020), "{name}"),
        }
    }
    let twice = [("mcp-name", "get_issue"), ("mcp-name", "drop_all")];
    let answer = setup.request("ops", "POST", &twice, &body).await;
    assert_eq!((answer.status, error(&answer.json()).0), (400, -32020));
}

#[tokio::test]
async fn bodies_that_are_no_message_and_other_verbs_never_reach_the_server() {
    let upstream = tracker().await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_issue","name":"drop_all"}}"#;
    for (body, status, code) in
        [("{", 400, -32700), ("7", 400, -32600), ("", 400, -32700), (twice, 200, -32602)]
    {
        let answer = setup.request("dev", "POST", &[], body).await;
        assert_eq!((answer.status, error(&answer.json()).0), (status, code), "{body}");
    }
    let answer = setup.request("ops", "PUT", &[], "{}").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST, DELETE")));
    let token = ("authorization", "Bearer ops");
    let (at, body) = (setup.gateway.local_addr(), call("get_issue").to_string());
    let json = ("content-type", "application/json");
    for form in [
        &[("content-type", "text/plain")][..],
        &[("content-type", "application/json; charset=utf-7")],
        &[json, json],
        &[json, ("content-encoding", "br")],
        &[],
    ] {
        let headers = [&[token][..], form].concat();
        let posted = Http::once(at, "POST", PATH, &headers, body.as_bytes());
        assert_eq!(soon("a response", posted).await.status, 415, "{form:?}");
    }
    let headers = [token, json];
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(setup.request("ops", "POST", &foreign, &body).await.status, 403);
    let answer =
        soon("a response", Http::once(at, "POST", PATH, &headers[1..], body.as_bytes())).await;
    assert_eq!(answer.status, 401);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn limits_of_a_tool_are_those_of_its_calls_alone() {
    let upstream = tracker().await;
    let mut limited = allow("dev", "mcp:jira/get_*");
    limited.rate = Some("1/h".parse().expect("a rate"));
    limited.message_bytes_max = Some(200);
    let policy = NodePolicy::default().allow(limited);
    let rules = AgentPolicy::default();
    let setup = McpSetup::with(server(&upstream.url()), policy, rules, |gateway| gateway).await;
    for _ in 0..3 {
        let answer = setup.post("dev", &request(1, "tools/list", json!({}))).await.json();
        assert!(answer["result"].is_object(), "{answer}");
    }
    let large = json!({ "name": "get_issue", "arguments": { "id": "x".repeat(200) } });
    let answer = setup.post("dev", &request(1, "tools/call", large)).await.json();
    assert_eq!(error(&answer), (-32010, "RESOURCE_EXHAUSTED", "not_executed"));
    assert_eq!(upstream.seen().len(), 3);
}
