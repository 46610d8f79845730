//! Sessions of HTTP servers.

use super::{McpSetup, call, policy, result, server};
use crate::{
    forward::upstream::{HttpUpstream, ServerAction, reply},
    http::client::{Http, HttpReply},
    world::{attached, soon},
};
use dialback::{AgentPolicy, AgentUpdate, ServiceSet, Site, policy::HostRule};
use serde_json::json;
use std::time::Duration;

/// A server that begins a session at the first request of each, and knows these two.
async fn with_sessions(id: &'static str) -> HttpUpstream {
    HttpUpstream::start(move |seen| {
        let head = [("content-type", "application/json"), ("mcp-session-id", id)];
        let answer = result(1, json!({ "session": id })).to_string();
        ServerAction::Answers(match seen.header("mcp-session-id") {
            None => reply("200 OK", &head, &answer),
            Some(named) if named == id => reply("200 OK", &head[..1], &answer),
            Some(_) => reply("404 Not Found", &[], "no session"),
        })
    })
    .await
}

#[tokio::test]
async fn a_session_is_its_callers_alone() {
    let upstream = with_sessions("s-1").await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    let begun = setup.post("ops", &call("get_issue")).await;
    assert_eq!(begun.header("mcp-session-id"), Some("s-1"));
    let body = call("get_issue").to_string();
    let named = [("mcp-session-id", "s-1")];
    let answer = setup.request("ops", "POST", &named, &body).await;
    assert_eq!(answer.json()["result"]["session"], "s-1");
    for verb in ["POST", "GET", "DELETE"] {
        let body = if verb == "POST" { &body[..] } else { "" };
        let answer = setup.request("dev", verb, &named, body).await;
        assert_eq!((answer.status, answer.outcome()), (404, "not_executed"), "{verb}");
    }
    assert_eq!(upstream.seen().len(), 2);
    let answer = setup.request("ops", "DELETE", &named, "").await;
    assert_eq!(answer.status, 200);
    for twice in [[named[0], ("mcp-session-id", "s-2")], [named[0], ("mcp_session_id", "s-2")]] {
        assert_eq!(setup.request("ops", "POST", &twice, &body).await.status, 400, "{twice:?}");
    }
}

#[tokio::test]
async fn a_session_stays_its_callers_when_the_settings_of_its_server_change() {
    let upstream = with_sessions("s-1").await;
    let setup = McpSetup::to(server(&upstream.url())).await;
    setup.post("ops", &call("get_issue")).await;
    let changed = server(&upstream.url()).idle_max(Duration::from_secs(60));
    let services = Some(ServiceSet::new().mcp(changed));
    let update = AgentUpdate { services, ..AgentUpdate::default() };
    setup.agent.apply(update).await.expect("an update");
    let body = call("get_issue").to_string();
    let named = [("mcp-session-id", "s-1")];
    assert_eq!(setup.request("dev", "POST", &named, &body).await.status, 404);
    assert_eq!(setup.request("ops", "POST", &named, &body).await.status, 200);
}

fn at_site(caller: &str, session: Option<&str>) -> String {
    let body = call("get_issue").to_string();
    let session = session.map(|id| format!("mcp-session-id: {id}\r\n")).unwrap_or_default();
    let length = body.len();
    format!(
        "POST /mcp HTTP/1.1\r\nhost: jira.test\r\nauthorization: Bearer {caller}\r\n\
         content-type: application/json\r\n{session}content-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn on_a_site_of_any_agent_a_session_stays_on_its_agent() {
    let (one, two) = (with_sessions("s-1").await, with_sessions("s-2").await);
    let host = |agent| HostRule::parse(agent, "mcp:jira").expect("a rule");
    let name = |text: &str| text.parse().expect("a name");
    let site = Site::of_any_agent("jira.test".parse().expect("a host"), name("jira")).mcp();
    let setup = McpSetup::with(
        server(&one.url()),
        policy().host(host("warehouse")).host(host("kiosk")),
        AgentPolicy::default(),
        |gateway| gateway.site(site),
    )
    .await;
    let other = setup.world.agent("kiosk", setup.node.local_addr());
    let _other = attached(other.mcp(server(&two.url()))).await;
    let send = async |text: String| -> HttpReply {
        let mut http = Http::connect(setup.gateway.local_addr()).await;
        http.send(text).await;
        soon("a response", http.reply()).await.expect("a response")
    };
    for _ in 0..4 {
        let begun = send(at_site("ops", None)).await;
        let id = begun.header("mcp-session-id").expect("a session").to_owned();
        let session = begun.json()["result"]["session"].clone();
        let agent = if session == "s-1" { "warehouse" } else { "kiosk" };
        assert_eq!(id, format!("{agent}/{}", session.as_str().expect("an id")));
        for _ in 0..3 {
            let answer = send(at_site("ops", Some(&id))).await;
            assert_eq!(answer.json()["result"]["session"], session);
        }
    }
    let backroom = setup.world.agent("backroom", setup.node.local_addr());
    let _backroom = attached(backroom.mcp(server(&one.url()))).await;
    for nowhere in ["s-1", "backroom/s-1", "absent/s-1"] {
        let answer = send(at_site("ops", Some(nowhere))).await;
        assert_eq!((answer.status, answer.outcome()), (404, "not_executed"), "{nowhere}");
    }
}
