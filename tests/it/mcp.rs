//! MCP servers behind an agent: rules over tools, sessions, and what clients see of failures.

mod answers;
mod batches;
mod cuts;
mod failures;
mod processes;
mod rules;
mod sessions;
mod sites;

use crate::{
    forward::upstream::{HttpUpstream, Seen, ServerAction, reply},
    http::client::{Http, HttpReply},
    world::{World, attached, soon},
};
use dialback::{
    Agent, AgentPolicy, Gateway, GatewayBuilder, McpForward, Node, NodePolicy, PeerName,
    policy::AllowRule,
};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Calls of `mcp:jira` by the callers `ops`, who may use all of it, and `dev`, who may only read.
struct McpSetup {
    world: World,
    node: Node,
    agent: Agent,
    gateway: Gateway,
}

const PATH: &str = "/v1/agents/warehouse/mcp/jira";

fn allow(caller: &str, method: &str) -> AllowRule {
    AllowRule::parse(caller, "**", method).expect("a rule")
}

fn policy() -> NodePolicy {
    ["mcp:jira/*", "mcp:jira/resources", "mcp:jira/prompts", "mcp:jira/client"]
        .iter()
        .fold(NodePolicy::default(), |policy, method| policy.allow(allow("ops", method)))
        .allow(allow("dev", "mcp:jira/get_*"))
}

/// The token of a caller is its name.
fn caller_of(token: &str) -> Result<PeerName, String> {
    format!("caller/{token}").parse().map_err(|_| "the token is not known here".into())
}

fn server(url: &str) -> McpForward {
    let [name, url] = ["jira", url];
    McpForward::http(name.parse().expect("a name"), url.parse().expect("a URL"), None)
        .expect("a forward")
}

impl McpSetup {
    async fn to(forward: McpForward) -> Self {
        Self::with(forward, policy(), AgentPolicy::default(), |gateway| gateway).await
    }

    async fn with(
        forward: McpForward,
        policy: NodePolicy,
        agent_policy: AgentPolicy,
        gateway: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
    ) -> Self {
        let world = World::new();
        let node = world.node().policy(policy).start().await.expect("a node");
        let agent = world.agent("warehouse", node.local_addr()).mcp(forward).policy(agent_policy);
        let agent = attached(agent).await;
        let builder = Gateway::builder(&node).listen("127.0.0.1:0");
        let builder = builder.tokens(|token, _| caller_of(token));
        let gateway = gateway(builder).start().await.expect("a gateway");
        Self { world, node, agent, gateway }
    }

    /// A request of a caller.
    async fn request(
        &self,
        caller: &str,
        verb: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> HttpReply {
        send(self.gateway.local_addr(), caller, verb, headers, body).await
    }

    async fn post(&self, caller: &str, message: &Value) -> HttpReply {
        self.request(caller, "POST", &[], &message.to_string()).await
    }
}

/// A request of a caller to a gateway at this address.
async fn send(
    at: SocketAddr,
    caller: &str,
    verb: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> HttpReply {
    let token = format!("Bearer {caller}");
    let own = [
        ("authorization", &token[..]),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let headers = [&own, headers].concat();
    soon("a response", async { Http::once(at, verb, PATH, &headers, body.as_bytes()).await }).await
}

fn request(id: u32, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn call(tool: &str) -> Value {
    request(1, "tools/call", json!({ "name": tool, "arguments": {} }))
}

fn result(id: u32, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn json_reply(value: &Value) -> Vec<u8> {
    reply("200 OK", &[("content-type", "application/json")], value.to_string())
}

/// The messages of an event stream.
fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| !data.is_empty())
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect()
}

/// An event stream with these messages.
fn event_stream(messages: &[Value]) -> Vec<u8> {
    let text: String = messages.iter().map(|message| format!("data: {message}\n\n")).collect();
    reply("200 OK", &[("content-type", "text/event-stream")], text)
}

fn message(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap_or_default()
}

/// The error of an answer: code of JSON-RPC, status code and outcome.
#[track_caller]
fn error(answer: &Value) -> (i64, &str, &str) {
    let error = &answer["error"];
    let text = |name: &str| error["data"][name].as_str().unwrap_or("(none)");
    assert!(text("call_id").len() == 32, "{answer}");
    (error["code"].as_i64().unwrap_or_default(), text("code"), text("outcome"))
}

/// A server with the tools `get_issue` and `drop_all`, whose calls succeed.
async fn tracker() -> HttpUpstream {
    HttpUpstream::start(|seen| {
        let message = message(seen);
        let id = u32::try_from(message["id"].as_u64().unwrap_or_default()).expect("an id");
        ServerAction::Answers(json_reply(&match message["method"].as_str() {
            Some("tools/list") => {
                result(id, json!({ "tools": [{ "name": "get_issue" }, { "name": "drop_all" }] }))
            }
            _ => result(id, json!({ "content": [] })),
        }))
    })
    .await
}
