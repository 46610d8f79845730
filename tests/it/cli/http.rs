//! The HTTP door of the real binary, asked by a real curl.

use super::process::{Place, Running, until_has};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// What curl says of one request.
#[derive(Debug)]
struct Answer {
    status: u16,
    outcome: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    #[track_caller]
    fn expect(&self, status: u16, outcome: &str) -> &Self {
        assert_eq!((self.status, self.outcome.as_str()), (status, outcome), "{}", self.text());
        self
    }

    /// The code of an error in Connect's shape.
    #[track_caller]
    fn code(&self) -> String {
        let error: Value = serde_json::from_slice(&self.body).expect("JSON");
        error["code"].as_str().expect("a code").to_owned()
    }
}

/// A node with a door, and an agent behind it.
pub(super) struct Town {
    pub(super) place: Place,
    node: Running,
    agent: Running,
    at: String,
    client: Client,
}

/// Where curl runs, and what it asks.
#[derive(Clone)]
pub(super) struct Client {
    dir: PathBuf,
    pub(super) door: String,
}

impl std::ops::Deref for Town {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Town {
    /// The door lets in whoever has a token, and on loopback also whoever shows nothing: as `ops`.
    pub(super) fn new(gateway: &str) -> Self {
        let place = Place::new();
        let created = place.run(&["token", "create", "ops", "--ttl", "1h", "--file", "tokens"]);
        assert_eq!(created.code, Some(0), "{created:?}");
        place.write("token", created.stdout.trim());
        let rules = super::process::RULES;
        let config = format!(
            "{rules}\n[gateway]\nlisten = \"127.0.0.1:0\"\ntokens = \"tokens\"\n{gateway}\n"
        );
        place.write("node.toml", config);
        let args = ["node", "--listen", "127.0.0.1:0", "--config", "node.toml"];
        let (mut node, at) = place.listening(&args);
        let line = node.said("the gateway listens on ");
        let door = line.split("listens on ").nth(1).expect("an address").trim().to_owned();
        let agent = place.agent(&at);
        let client = Client { dir: place.path("."), door };
        Self { place, node, agent, at, client }
    }

    fn token(&self) -> String {
        format!("authorization: Bearer {}", self.place.read("token"))
    }
}

impl Client {
    /// One request by curl, to a path of the agent's.
    fn curl(&self, path: &str, args: &[&str]) -> Answer {
        let url = format!("{}/v1/agents/warehouse/{path}", self.door);
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "-m",
            "30",
            "-o",
            "body",
            "-w",
            "%{http_code} %header{dialback-outcome} %header{dialback-call-id}",
        ]);
        command.args(args).arg(url).current_dir(&self.dir);
        let ended = command.output().expect("curl");
        let said = String::from_utf8(ended.stdout).expect("text");
        let words: Vec<&str> = said.split(' ').collect();
        let [status, outcome, call_id] = words[..] else { panic!("curl said {said:?}") };
        assert_eq!(call_id.len(), 32, "{said:?}");
        let body = std::fs::read(self.dir.join("body")).unwrap_or_default();
        Answer { status: status.parse().expect("a status"), outcome: outcome.into(), body }
    }

    fn json(&self, path: &str, body: &str) -> Answer {
        self.curl(path, &["--json", body])
    }
}

#[test]
fn curl_calls_in_json_and_in_cbor_and_each_failure_has_its_status() {
    let town = Town::new("anonymous = \"ops\"");
    assert_eq!(
        town.json("HelloService/Hello", "\"curl\"").expect(200, "ok").text(),
        "\"hello:curl\""
    );
    town.place.write("message", dialback::json::to_cbor(&json!("cbor")).expect("CBOR"));
    let cbor = ["-H", "content-type: application/cbor", "--data-binary", "@message"];
    let answer = town.curl("HelloService/Hello", &cbor);
    let value = dialback::json::from_cbor(&answer.expect(200, "ok").body);
    assert_eq!(value, Ok(json!("hello:cbor")));
    let check = |answer: Answer, status, code: &str, outcome| {
        assert_eq!(answer.expect(status, outcome).code(), code);
    };
    check(town.json("HelloService/Hello", "{"), 400, "invalid_argument", "not_executed");
    check(town.json("HelloService/Hello", "[1]"), 400, "invalid_argument", "not_executed");
    check(town.json("../absent/HelloService/Hello", "\"x\""), 503, "unavailable", "not_executed");
    check(town.json("HelloService/Nothing", "\"x\""), 501, "unimplemented", "not_executed");
    check(town.json("Demo/Panic", "null"), 500, "internal", "unknown");
    let fail = "{\"code\":\"FAILED_PRECONDITION\",\"message\":\"not now\"}";
    check(town.json("Demo/Fail", fail), 400, "failed_precondition", "app_error");
    let late = ["-H", "connect-timeout-ms: 100", "--json", "{\"ms\":60000}"];
    check(town.curl("Demo/Sleep", &late), 504, "deadline_exceeded", "unknown");
    check(town.curl("HelloService/Hello", &[]), 405, "unimplemented", "not_executed");
    check(town.curl("HelloService/Hello", &["-d", "x"]), 415, "invalid_argument", "not_executed");
    let wrong = ["-H", "authorization: Bearer wrong", "--json", "1"];
    check(town.curl("HelloService/Hello", &wrong), 401, "unauthenticated", "not_executed");
}

#[test]
fn curl_reads_events_and_http_2() {
    let town = Town::new("anonymous = \"ops\"");
    let count = ["-N", "-H", "accept: text/event-stream", "--json", "{\"n\":2,\"interval_ms\":1}"];
    let answer = town.curl("Demo/Count", &count);
    let expected = "data: {\"i\":1}\n\ndata: {\"i\":2}\n\nevent: end\ndata: {\"metadata\":{},\"outcome\":\"ok\"}\n\n";
    assert_eq!(answer.text(), expected);
    let h2 = ["--http2-prior-knowledge", "--json", "\"two\""];
    assert_eq!(town.curl("HelloService/Hello", &h2).expect(200, "ok").text(), "\"hello:two\"");
}

#[test]
fn a_call_on_a_killed_agent_is_unknown_and_later_calls_are_not_executed() {
    let town = Town::new("anonymous = \"ops\"");
    let client = town.client.clone();
    let call =
        std::thread::spawn(move || client.json("Demo/Append", "{\"id\":\"killed\",\"ms\":60000}"));
    until_has(&town.place.path("ledger.txt"), "started killed");
    town.agent.signal(Signal::KILL);
    let answer = call.join().expect("an answer");
    assert_eq!(answer.expect(503, "unknown").code(), "unavailable");
    assert_eq!(town.place.read("ledger.txt"), "started killed\n", "it was called again, or ended");
    let after = town.json("HelloService/Hello", "\"x\"");
    assert_eq!(after.expect(503, "not_executed").code(), "unavailable");
}

#[test]
fn a_stopped_node_answers_calls_in_flight() {
    let town = Town::new("anonymous = \"ops\"");
    let client = town.client.clone();
    let call =
        std::thread::spawn(move || client.json("Demo/Append", "{\"id\":\"held\",\"ms\":1000}"));
    until_has(&town.place.path("ledger.txt"), "started held");
    town.node.signal(Signal::TERM);
    let answer = call.join().expect("an answer");
    answer.expect(200, "ok");
    let Town { node, .. } = town;
    node.end().expect(0, &[]);
}

#[test]
fn tokens_are_reloaded_while_the_node_runs_and_a_broken_file_changes_nothing() {
    let mut town = Town::new("");
    let hello = |town: &Town| {
        let token = town.token();
        town.curl("HelloService/Hello", &["-H", &token, "--json", "\"x\""]).status
    };
    assert_eq!(hello(&town), 200);
    assert_eq!(town.json("HelloService/Hello", "\"x\"").status, 401);
    let whole = town.place.read("tokens");
    town.place.write("tokens", "what is this");
    town.node.said("reload failed, keeping the previous settings");
    assert_eq!(hello(&town), 200);
    town.place.write("tokens", "# nobody\n");
    let until = |town: &Town, status| {
        let began = Instant::now();
        while hello(town) != status {
            assert!(began.elapsed() < Duration::from_secs(20), "it did not come to {status}");
        }
    };
    until(&town, 401);
    town.place.write("tokens", whole);
    until(&town, 200);
    let call = ["call", "--node", &town.at, "warehouse", "HelloService/Hello", "-d", "\"x\""];
    town.place.run(&call).expect_out("\"hello:x\"\n");
}

#[test]
fn curl_presents_a_certificate_and_trusts_the_nodes() {
    let town = Town::new("tls = true");
    let ops = [
        "--cacert",
        "certs/ca.pem",
        "--cert",
        "certs/caller-ops.pem",
        "--key",
        "certs/caller-ops.key",
    ];
    let answer = town.curl("HelloService/Hello", &[&ops[..], &["--json", "\"tls\""]].concat());
    assert_eq!(answer.expect(200, "ok").text(), "\"hello:tls\"");
    let stranger =
        town.curl("HelloService/Hello", &["--cacert", "certs/ca.pem", "--json", "\"x\""]);
    assert_eq!(stranger.expect(401, "not_executed").code(), "unauthenticated");
}

#[test]
fn an_invalid_gateway_is_reported_before_the_node_runs() {
    let place = Place::new();
    let node = |more: &[&str]| place.run(&[&["node", "--listen", "127.0.0.1:0"], more].concat());
    node(&["--gateway", "127.0.0.1:0"]).expect(2, &["nobody could call through the gateway"]);
    node(&["--tokens", "tokens"]).expect(2, &["--gateway"]);
    node(&["--gateway", "127.0.0.1:0", "--tokens", "absent"]).expect(2, &["absent"]);
    place.write("node.toml", "[gateway]\nlisten = \"0.0.0.0:8080\"\nanonymous = \"ops\"\n");
    let both = ["node.toml:2: `listen`: plain HTTP", "node.toml:3: `anonymous`"];
    node(&["--config", "node.toml"]).expect(2, &both);
    place.run(&["config", "check", "--node", "node.toml"]).expect(2, &both);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("an address").to_string();
    place.write("anonymous.toml", "[gateway]\nanonymous = \"ops\"\n");
    node(&["--config", "anonymous.toml", "--gateway", &at])
        .expect(1, &["another process listens there"]);
}

#[test]
fn no_token_is_in_any_log_at_trace_level_nor_in_the_audit_log() {
    let place = Place::new();
    let token = place.run(&["token", "create", "ops", "--ttl", "1h", "--file", "tokens"]).stdout;
    let token = token.trim().to_owned();
    let audit = ["--audit", "audit.log", "--audit-calls"];
    let node =
        ["--log-level", "trace", "node", "--listen", "127.0.0.1:0", "--gateway", "127.0.0.1:0"];
    let args = [&node[..], &["--tokens", "tokens"], &audit].concat();
    let mut node = place.start(&args);
    let line = node.said("the gateway listens on ");
    let door = line.split("listens on ").nth(1).expect("an address").trim().to_owned();
    let client = Client { dir: place.path("."), door };
    let last = if token.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &token[..token.len() - 1]);
    for (token, status) in [(&token, 403), (&wrong, 401)] {
        let header = format!("authorization: Bearer {token}");
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let args = [version, "-H", &header, "--json", "\"x\""];
            assert_eq!(client.curl("HelloService/Hello", &args).status, status);
        }
    }
    node.signal(Signal::TERM);
    let ended = node.end().expect(0, &["TRACE"]);
    let shown = format!("{}{}{}", ended.stdout, ended.stderr, place.read("audit.log"));
    assert!(shown.contains("http_refused"), "{shown}");
    for secret in [&token, &wrong] {
        // A digest or a part would do somebody good, too.
        assert!(!shown.contains(&secret[5..20]), "a token was shown");
    }
}
