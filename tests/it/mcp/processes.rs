//! Servers that speak on the standard input and output of their process.

use super::{McpSetup, call, error, events, request, result};
use crate::{
    http::client::{Http, HttpReply},
    world::{logged, soon, until},
};
use dialback::{AgentPolicy, AgentUpdate, McpForward, ServiceSet, TcpForward};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};
use tempfile::TempDir;

/// A server: `pid` answers with the number of its process, `hang` never, `die` ends the process,
/// `ask` asks its client first. Every message is written to the file `$1`.
const SERVER: &str = r#"
    echo starts >&2
    while IFS= read -r line; do
        printf '%s\n' "$line" >> "$1"
        id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
        answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
        case $line in
            *'"name":"hang"'*) ;;
            *'"name":"die"'*) echo 'cannot go on' >&2; exit 3 ;;
            *'"name":"fork"'*) sleep 100 & exit 7 ;;
            *'"name":"ask"'*)
                printf '{"jsonrpc":"2.0","method":"notifications/message","params":{}}\n'
                printf '{"jsonrpc":"2.0","id":77,"method":"elicitation/create","params":{}}\n'
                IFS= read -r line
                printf '%s\n' "$line" >> "$1"
                answer '{"content":[]}' ;;
            *'"id":'*) answer '{"pid":'$$'}' ;;
        esac
    done
"#;

/// A server of which each process has the same file of messages.
struct ProcessServer {
    dir: TempDir,
}

impl ProcessServer {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("messages")
    }

    fn forward(&self) -> McpForward {
        let path = self.path();
        let path = path.to_str().expect("UTF-8");
        McpForward::command("jira".parse().expect("a name"), ["sh", "-c", SERVER, "sh", path])
    }

    fn messages(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn has(&self, method: &str) -> bool {
        self.messages().iter().any(|message| message["method"] == method)
    }
}

fn initialize() -> Value {
    request(1, "initialize", json!({}))
}

fn answer(reply: &HttpReply) -> Value {
    events(reply.text()).pop().expect("an answer")
}

impl McpSetup {
    /// Begins a session. Returns its id and the process that answers it.
    async fn begin(&self, caller: &str) -> (String, Value) {
        let reply = self.post(caller, &initialize()).await;
        let id = reply.header("mcp-session-id").expect("a session").to_owned();
        (id, answer(&reply)["result"]["pid"].clone())
    }

    async fn in_session(&self, caller: &str, id: &str, message: &Value) -> HttpReply {
        self.request(caller, "POST", &[("mcp-session-id", id)], &message.to_string()).await
    }
}

#[tokio::test]
async fn each_session_has_a_process_and_its_owner() {
    let server = ProcessServer::new();
    let setup = McpSetup::to(server.forward()).await;
    let (one, its) = setup.begin("ops").await;
    let (two, other) = setup.begin("ops").await;
    assert!(one != two && its != other && its.is_u64());
    for (id, pid) in [(&one, &its), (&two, &other)] {
        let reply = setup.in_session("ops", id, &call("pid")).await;
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        assert_eq!(&answer(&reply)["result"]["pid"], pid);
    }
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(setup.in_session("ops", &one, &note).await.status, 202);
    let stolen = setup.in_session("dev", &one, &call("get_issue")).await;
    assert_eq!((stolen.status, error(&stolen.json()).2), (404, "not_executed"));
    let ended = setup.request("ops", "DELETE", &[("mcp-session-id", &one)], "").await;
    assert_eq!(ended.status, 204);
    assert_eq!(setup.in_session("ops", &one, &call("pid")).await.status, 404);
    assert_eq!(setup.in_session("ops", &two, &call("pid")).await.status, 200);
}

#[tokio::test]
async fn requests_without_a_session_share_a_process_of_their_caller() {
    let server = ProcessServer::new();
    let setup = McpSetup::to(server.forward()).await;
    let pid = async |caller| {
        let reply = setup.post(caller, &call("get_pid")).await;
        assert_eq!(reply.header("mcp-session-id"), None);
        answer(&reply)["result"]["pid"].clone()
    };
    let (one, again, other) = (pid("ops").await, pid("ops").await, pid("dev").await);
    assert!(one == again && one != other);
    let without = setup.request("ops", "GET", &[], "").await;
    assert_eq!(without.status, 405);
}

#[tokio::test]
async fn a_request_whose_id_is_in_use_gets_another_process_or_is_refused() {
    let server = ProcessServer::new();
    let setup = McpSetup::to(server.forward()).await;
    let at = setup.gateway.local_addr();
    let headers = [("authorization", "Bearer ops"), ("content-type", "application/json")];
    let mut hanging = Http::connect(at).await;
    let body = call("hang").to_string();
    hanging.request("POST", super::PATH, &headers, body.as_bytes()).await;
    until("the call", || server.messages().len() == 1).await;
    let reply = setup.post("ops", &call("pid")).await;
    assert!(answer(&reply)["result"]["pid"].is_u64());
    let (id, _) = setup.begin("ops").await;
    let mut hanging = Http::connect(at).await;
    let named = [&headers[..], &[("mcp-session-id", &id)]].concat();
    hanging.request("POST", super::PATH, &named, body.as_bytes()).await;
    until("the call", || server.messages().len() == 4).await;
    let refused = setup.in_session("ops", &id, &call("pid")).await.json();
    assert_eq!(error(&refused), (-32005, "INVALID_ARGUMENT", "not_executed"));
}

#[tokio::test]
async fn a_process_that_ends_is_an_error_of_unknown_outcome_and_ends_its_session() {
    let server = ProcessServer::new();
    let setup = McpSetup::to(server.forward()).await;
    let (id, _) = setup.begin("ops").await;
    let reply = setup.in_session("ops", &id, &call("die")).await;
    let told = answer(&reply);
    assert_eq!(error(&told), (-32016, "UNAVAILABLE", "unknown"));
    let text = told["error"]["message"].as_str().expect("a text");
    assert!(text.contains("exit status: 3"), "{text}");
    logged(&[
        "mcp:jira has ended while it was used: exit status: 3",
        "its last line on standard error: cannot go on",
    ])
    .await;
    assert_eq!(setup.in_session("ops", &id, &call("pid")).await.status, 404);
}

#[tokio::test]
async fn a_process_that_leaves_others_behind_has_ended_all_the_same() {
    let server = ProcessServer::new();
    let setup = McpSetup::to(server.forward()).await;
    let (id, _) = setup.begin("ops").await;
    let told = answer(&setup.in_session("ops", &id, &call("fork")).await);
    assert_eq!(error(&told).2, "unknown");
    assert!(told["error"]["message"].as_str().is_some_and(|text| text.contains("status: 7")));
}

#[tokio::test]
async fn the_id_of_a_request_that_was_given_up_stays_in_use() {
    let server = ProcessServer::new();
    let setup = McpSetup::to(server.forward()).await;
    let first = answer(&setup.post("ops", &call("pid")).await)["result"]["pid"].clone();
    let mut http = Http::connect(setup.gateway.local_addr()).await;
    let headers = [("authorization", "Bearer ops"), ("content-type", "application/json")];
    http.request("POST", super::PATH, &headers, call("hang").to_string().as_bytes()).await;
    until("the call", || server.messages().len() == 2).await;
    drop(http);
    until("the notification", || server.has("notifications/cancelled")).await;
    // Its answer would be taken for the one to this request.
    let again = answer(&setup.post("ops", &call("pid")).await)["result"]["pid"].clone();
    let other = answer(&setup.post("ops", &request(2, "ping", json!({}))).await);
    assert!(again != first && other["result"]["pid"] == first, "{first} {again} {other}");
}

#[tokio::test]
async fn a_caller_with_too_many_sessions_loses_the_one_unused_for_the_longest_time() {
    let server = ProcessServer::new();
    let setup = McpSetup::to(server.forward()).await;
    let mut ids = Vec::new();
    for _ in 0..17 {
        ids.push(setup.begin("ops").await.0);
    }
    let status = async |id: &str| setup.in_session("ops", id, &call("pid")).await.status;
    assert_eq!((status(&ids[0]).await, status(&ids[1]).await), (404, 200));
    assert_eq!(status(&ids[16]).await, 200);
}

#[tokio::test]
async fn a_command_that_does_not_start_is_not_executed() {
    let command = ["/nowhere/at-all"];
    let setup = McpSetup::to(McpForward::command("jira".parse().expect("a name"), command)).await;
    let refused = setup.post("ops", &initialize()).await.json();
    assert_eq!(error(&refused), (-32016, "UNAVAILABLE", "not_executed"));
    let text = refused["error"]["message"].as_str().expect("a text");
    assert!(!text.contains("nowhere"), "{text}");
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_request() {
    let server = ProcessServer::new();
    let setup = McpSetup::to(server.forward()).await;
    let (id, _) = setup.begin("ops").await;
    let mut http = Http::connect(setup.gateway.local_addr()).await;
    let headers = [
        ("authorization", "Bearer ops"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("mcp-session-id", &id[..]),
    ];
    http.request("POST", super::PATH, &headers, call("hang").to_string().as_bytes()).await;
    until("the call", || server.messages().len() == 2).await;
    drop(http);
    until("the notification", || server.has("notifications/cancelled")).await;
    let cancelled = server.messages().pop().expect("a message");
    assert_eq!(cancelled["params"]["requestId"], 1);
}

#[tokio::test]
async fn questions_of_the_process_pass_by_a_rule_and_are_refused_without() {
    let tool = call("ask");
    for caller in ["ops", "asker"] {
        let server = ProcessServer::new();
        let policy = super::policy().allow(super::allow("asker", "mcp:jira/ask"));
        let agent_rules = AgentPolicy::default();
        let setup = McpSetup::with(server.forward(), policy, agent_rules, |it| it).await;
        let (id, _) = setup.begin(caller).await;
        let asking = setup.in_session(caller, &id, &tool);
        let answering = async {
            if caller == "ops" {
                until("the call", || server.messages().len() == 2).await;
                let yes = json!({ "jsonrpc": "2.0", "id": 77, "result": { "action": "accept" } });
                assert_eq!(setup.in_session("ops", &id, &yes).await.status, 202);
            }
        };
        let (reply, ()) = tokio::join!(asking, answering);
        let messages = events(reply.text());
        assert_eq!(messages.last(), Some(&result(1, json!({ "content": [] }))));
        let has_question = messages.iter().any(|message| message["id"] == 77);
        assert_eq!(has_question, caller == "ops");
        let answered = server.messages().pop().expect("an answer");
        assert_eq!(answered["result"].is_object(), caller == "ops", "{answered}");
        assert_eq!(answered["id"], 77);
    }
}

#[tokio::test]
async fn one_client_listens_to_a_session_and_messages_wait_for_it() {
    let server = ProcessServer::new();
    let setup = McpSetup::to(server.forward()).await;
    let (id, _) = setup.begin("ops").await;
    let named = [("authorization", "Bearer ops"), ("mcp-session-id", &id[..])];
    let mut listening = Http::connect(setup.gateway.local_addr()).await;
    listening.request("GET", super::PATH, &named, b"").await;
    let head = soon("a head", listening.head()).await.expect("a head");
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let second = setup.request("ops", "GET", &[("mcp-session-id", &id)], "").await;
    assert_eq!(second.status, 409);
    // It would never end by itself.
    let McpSetup { agent, .. } = setup;
    agent.shutdown().await;
    assert_eq!(soon("the end", listening.piece(&head)).await, None);
}

#[tokio::test]
async fn processes_end_with_their_agent() {
    let server = ProcessServer::new();
    let setup = McpSetup::to(server.forward()).await;
    let (_, pid) = setup.begin("ops").await;
    let process = PathBuf::from(format!("/proc/{pid}"));
    assert!(process.exists());
    let McpSetup { agent, .. } = setup;
    agent.shutdown().await;
    until("the end", || !process.exists()).await;
}

#[tokio::test]
async fn sessions_outlive_other_changes_of_what_the_agent_hosts_and_end_with_their_server() {
    let [server, other] = [ProcessServer::new(), ProcessServer::new()];
    let forward = server.forward();
    let setup = McpSetup::to(forward.clone()).await;
    let host = async |services: ServiceSet| {
        let update = AgentUpdate { services: Some(services), ..AgentUpdate::default() };
        setup.agent.apply(update).await.expect("an update");
    };
    let (id, pid) = setup.begin("ops").await;
    let database: TcpForward = "db=127.0.0.1:1".parse().expect("a forward");
    host(ServiceSet::new().mcp(forward).tcp(database.clone())).await;
    let reply = setup.in_session("ops", &id, &call("pid")).await;
    assert_eq!(answer(&reply)["result"]["pid"], pid);
    host(ServiceSet::new().mcp(other.forward()).tcp(database)).await;
    assert_eq!(setup.in_session("ops", &id, &call("pid")).await.status, 404);
    let process = PathBuf::from(format!("/proc/{pid}"));
    until("the end", || !process.exists()).await;
}
