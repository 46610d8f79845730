//! The HTTP gateway of the real binary, called by a real curl.

use super::process::{DialbackProcess, WorkDir, until_has};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// The result of one request by curl.
#[derive(Debug)]
struct CurlReply {
    status: u16,
    outcome: String,
    body: Vec<u8>,
}

impl CurlReply {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    #[track_caller]
    fn expect(&self, status: u16, outcome: &str) -> &Self {
        assert_eq!((self.status, self.outcome.as_str()), (status, outcome), "{}", self.text());
        self
    }

    /// The code of an error in Connect's format.
    #[track_caller]
    fn code(&self) -> String {
        let error: Value = serde_json::from_slice(&self.body).expect("JSON");
        error["code"].as_str().expect("a code").to_owned()
    }
}

/// A node with a gateway and an agent.
pub(super) struct CurlSetup {
    pub(super) work_dir: WorkDir,
    node: DialbackProcess,
    agent: DialbackProcess,
    at: String,
    client: Client,
}

/// The directory and the URL for curl.
#[derive(Clone)]
pub(super) struct Client {
    dir: PathBuf,
    pub(super) gateway: String,
}

impl std::ops::Deref for CurlSetup {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl CurlSetup {
    /// The gateway accepts every client with a token, and on loopback also clients without one as
    /// `ops`.
    pub(super) fn new(gateway: &str) -> Self {
        let work_dir = WorkDir::new();
        let created = work_dir.run(&["token", "create", "ops", "--ttl", "1h", "--file", "tokens"]);
        assert_eq!(created.code, Some(0), "{created:?}");
        work_dir.write("token", created.stdout.trim());
        let rules = super::process::RULES;
        let config = format!(
            "{rules}\n[gateway]\nlisten = \"127.0.0.1:0\"\ntokens = \"tokens\"\n{gateway}\n"
        );
        work_dir.write("node.toml", config);
        let args = ["node", "--listen", "127.0.0.1:0", "--config", "node.toml"];
        let (mut node, at) = work_dir.listening(&args);
        let line = node.wait_for_line("the gateway listens on ");
        let gateway = line.split("listens on ").nth(1).expect("an address").trim().to_owned();
        let agent = work_dir.agent(&at);
        let client = Client { dir: work_dir.path("."), gateway };
        Self { work_dir, node, agent, at, client }
    }

    fn token(&self) -> String {
        format!("authorization: Bearer {}", self.work_dir.read("token"))
    }
}

impl Client {
    /// One request by curl to a path of the agent.
    fn curl(&self, path: &str, args: &[&str]) -> CurlReply {
        let url = format!("{}/v1/agents/warehouse/{path}", self.gateway);
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
        let output = String::from_utf8(ended.stdout).expect("text");
        let fields: Vec<&str> = output.split(' ').collect();
        let [status, outcome, call_id] = fields[..] else { panic!("curl said {output:?}") };
        assert_eq!(call_id.len(), 32, "{output:?}");
        let body = std::fs::read(self.dir.join("body")).unwrap_or_default();
        CurlReply { status: status.parse().expect("a status"), outcome: outcome.into(), body }
    }

    fn json(&self, path: &str, body: &str) -> CurlReply {
        self.curl(path, &["--json", body])
    }
}

#[test]
fn curl_calls_in_json_and_in_cbor_and_each_failure_has_its_status() {
    let setup = CurlSetup::new("anonymous = \"ops\"");
    assert_eq!(
        setup.json("HelloService/Hello", "\"curl\"").expect(200, "ok").text(),
        "\"hello:curl\""
    );
    setup.work_dir.write("message", dialback::json::to_cbor(&json!("cbor")).expect("CBOR"));
    let cbor = ["-H", "content-type: application/cbor", "--data-binary", "@message"];
    let answer = setup.curl("HelloService/Hello", &cbor);
    let value = dialback::json::from_cbor(&answer.expect(200, "ok").body);
    assert_eq!(value, Ok(json!("hello:cbor")));
    let check = |answer: CurlReply, status, code: &str, outcome| {
        assert_eq!(answer.expect(status, outcome).code(), code);
    };
    check(setup.json("HelloService/Hello", "{"), 400, "invalid_argument", "not_executed");
    check(setup.json("HelloService/Hello", "[1]"), 400, "invalid_argument", "not_executed");
    check(setup.json("../absent/HelloService/Hello", "\"x\""), 503, "unavailable", "not_executed");
    check(setup.json("HelloService/Nothing", "\"x\""), 501, "unimplemented", "not_executed");
    check(setup.json("Demo/Panic", "null"), 500, "internal", "unknown");
    let fail = "{\"code\":\"FAILED_PRECONDITION\",\"message\":\"not now\"}";
    check(setup.json("Demo/Fail", fail), 400, "failed_precondition", "app_error");
    let late = ["-H", "connect-timeout-ms: 100", "--json", "{\"ms\":60000}"];
    check(setup.curl("Demo/Sleep", &late), 504, "deadline_exceeded", "unknown");
    check(setup.curl("HelloService/Hello", &[]), 405, "unimplemented", "not_executed");
    check(setup.curl("HelloService/Hello", &["-d", "x"]), 415, "invalid_argument", "not_executed");
    let wrong = ["-H", "authorization: Bearer wrong", "--json", "1"];
    check(setup.curl("HelloService/Hello", &wrong), 401, "unauthenticated", "not_executed");
}

#[test]
fn curl_reads_events_and_http_2() {
    let setup = CurlSetup::new("anonymous = \"ops\"");
    let count = ["-N", "-H", "accept: text/event-stream", "--json", "{\"n\":2,\"interval_ms\":1}"];
    let answer = setup.curl("Demo/Count", &count);
    let expected = "data: {\"i\":1}\n\ndata: {\"i\":2}\n\nevent: end\ndata: {\"metadata\":{},\"outcome\":\"ok\"}\n\n";
    assert_eq!(answer.text(), expected);
    let h2 = ["--http2-prior-knowledge", "--json", "\"two\""];
    assert_eq!(setup.curl("HelloService/Hello", &h2).expect(200, "ok").text(), "\"hello:two\"");
}

#[test]
fn a_call_on_a_killed_agent_is_unknown_and_later_calls_are_not_executed() {
    let setup = CurlSetup::new("anonymous = \"ops\"");
    let client = setup.client.clone();
    let call =
        std::thread::spawn(move || client.json("Demo/Append", "{\"id\":\"killed\",\"ms\":60000}"));
    until_has(&setup.work_dir.path("ledger.txt"), "started killed");
    setup.agent.signal(Signal::KILL);
    let answer = call.join().expect("an answer");
    assert_eq!(answer.expect(503, "unknown").code(), "unavailable");
    assert_eq!(
        setup.work_dir.read("ledger.txt"),
        "started killed\n",
        "it was called again, or ended"
    );
    let after = setup.json("HelloService/Hello", "\"x\"");
    assert_eq!(after.expect(503, "not_executed").code(), "unavailable");
}

#[test]
fn a_stopped_node_answers_calls_in_flight() {
    let setup = CurlSetup::new("anonymous = \"ops\"");
    let client = setup.client.clone();
    let call =
        std::thread::spawn(move || client.json("Demo/Append", "{\"id\":\"held\",\"ms\":1000}"));
    until_has(&setup.work_dir.path("ledger.txt"), "started held");
    setup.node.signal(Signal::TERM);
    let answer = call.join().expect("an answer");
    answer.expect(200, "ok");
    let CurlSetup { node, .. } = setup;
    node.end().expect(0, &[]);
}

#[test]
fn tokens_are_reloaded_while_the_node_runs_and_a_broken_file_changes_nothing() {
    let mut setup = CurlSetup::new("");
    let hello = |setup: &CurlSetup| {
        let token = setup.token();
        setup.curl("HelloService/Hello", &["-H", &token, "--json", "\"x\""]).status
    };
    assert_eq!(hello(&setup), 200);
    assert_eq!(setup.json("HelloService/Hello", "\"x\"").status, 401);
    let whole = setup.work_dir.read("tokens");
    setup.work_dir.write("tokens", "what is this");
    setup.node.wait_for_line("reload failed, keeping the previous settings");
    assert_eq!(hello(&setup), 200);
    setup.work_dir.write("tokens", "# nobody\n");
    let until = |setup: &CurlSetup, status| {
        let began = Instant::now();
        while hello(setup) != status {
            assert!(began.elapsed() < Duration::from_secs(20), "it never reached {status}");
        }
    };
    until(&setup, 401);
    setup.work_dir.write("tokens", whole);
    until(&setup, 200);
    let call = ["call", "--node", &setup.at, "warehouse", "HelloService/Hello", "-d", "\"x\""];
    setup.work_dir.run(&call).expect_out("\"hello:x\"\n");
}

#[test]
fn curl_presents_a_certificate_and_trusts_the_nodes() {
    let setup = CurlSetup::new("tls = true");
    let ops = [
        "--cacert",
        "certs/ca.pem",
        "--cert",
        "certs/caller-ops.pem",
        "--key",
        "certs/caller-ops.key",
    ];
    let answer = setup.curl("HelloService/Hello", &[&ops[..], &["--json", "\"tls\""]].concat());
    assert_eq!(answer.expect(200, "ok").text(), "\"hello:tls\"");
    let unauthenticated =
        setup.curl("HelloService/Hello", &["--cacert", "certs/ca.pem", "--json", "\"x\""]);
    assert_eq!(unauthenticated.expect(401, "not_executed").code(), "unauthenticated");
}

#[test]
fn an_invalid_gateway_is_reported_before_the_node_runs() {
    let work_dir = WorkDir::new();
    let node = |more: &[&str]| work_dir.run(&[&["node", "--listen", "127.0.0.1:0"], more].concat());
    node(&["--gateway", "127.0.0.1:0"]).expect(2, &["no client could call through the gateway"]);
    node(&["--tokens", "tokens"]).expect(2, &["--gateway"]);
    node(&["--gateway", "127.0.0.1:0", "--tokens", "absent"]).expect(2, &["absent"]);
    work_dir.write("node.toml", "[gateway]\nlisten = \"0.0.0.0:8080\"\nanonymous = \"ops\"\n");
    let both = ["node.toml:2: `listen`: plain HTTP", "node.toml:3: `anonymous`"];
    node(&["--config", "node.toml"]).expect(2, &both);
    work_dir.run(&["config", "check", "--node", "node.toml"]).expect(2, &both);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("an address").to_string();
    work_dir.write("anonymous.toml", "[gateway]\nanonymous = \"ops\"\n");
    node(&["--config", "anonymous.toml", "--gateway", &at])
        .expect(1, &["another process listens there"]);
}

#[test]
fn no_token_is_in_any_log_at_trace_level_nor_in_the_audit_log() {
    let work_dir = WorkDir::new();
    let token = work_dir.run(&["token", "create", "ops", "--ttl", "1h", "--file", "tokens"]).stdout;
    let token = token.trim().to_owned();
    let audit = ["--audit", "audit.log", "--audit-calls"];
    let node =
        ["--log-level", "trace", "node", "--listen", "127.0.0.1:0", "--gateway", "127.0.0.1:0"];
    let args = [&node[..], &["--tokens", "tokens"], &audit].concat();
    let mut node = work_dir.start(&args);
    let line = node.wait_for_line("the gateway listens on ");
    let gateway = line.split("listens on ").nth(1).expect("an address").trim().to_owned();
    let client = Client { dir: work_dir.path("."), gateway };
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
    let shown = format!("{}{}{}", ended.stdout, ended.stderr, work_dir.read("audit.log"));
    assert!(shown.contains("http_refused"), "{shown}");
    for secret in [&token, &wrong] {
        // A digest or a part of it would be useful to an attacker, too.
        assert!(!shown.contains(&secret[5..20]), "a token was printed");
    }
}
