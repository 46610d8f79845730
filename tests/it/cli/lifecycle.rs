//! Long-running nodes and agents: their logs, how they stop, and which peers they reject.

use super::process::{DialbackProcess, WorkDir, until_has};
use dialback::Role;
use rustix::process::Signal;
use std::time::Instant;

#[test]
fn a_node_logs_its_address_its_identity_and_its_number_of_rules() {
    let work_dir = WorkDir::new();
    let (mut node, _) = work_dir.node();
    node.signal(Signal::TERM);
    node.wait_for_line("stopped");
    let log = node.end().expect(0, &["1 rule: 1 allow, 0 deny, 0 host"]).stderr;
    assert!(log.contains("INFO certificate node/edge-1 of dialback.local, expires "), "{log}");
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn a_node_without_rules_logs_that_callers_can_call_nothing() {
    let work_dir = WorkDir::new();
    let (node, at) = work_dir.listening(&["node", "--listen", "127.0.0.1:0"]);
    let denied = work_dir.run(&["call", "--node", &at, "warehouse", "Demo/Echo"]);
    denied.expect(71, &["PERMISSION_DENIED (not_executed)"]);
    node.signal(Signal::INT);
    node.end().expect(0, &["WARN no [[allow]] rule: every remote call is denied"]);
}

#[test]
fn a_port_in_use_ends_with_1_and_names_the_flag() {
    let work_dir = WorkDir::new();
    let (_node, at) = work_dir.node();
    work_dir
        .run(&["node", "--listen", &at])
        .expect(1, &["error: cannot listen on UDP", "--listen"]);
}

#[test]
fn calls_in_flight_finish_before_a_node_and_an_agent_stop() {
    let work_dir = WorkDir::new();
    let (node, at) = work_dir.node();
    let agent = work_dir.agent(&at);
    let data = r#"{"id":"last","ms":700}"#;
    let call = work_dir.start(&["call", "--node", &at, "warehouse", "Demo/Append", "-d", data]);
    until_has(&work_dir.path("ledger.txt"), "started last");
    node.signal(Signal::TERM);
    agent.signal(Signal::TERM);
    call.end().expect_out("null\n");
    node.end().expect(0, &[]);
    agent.end().expect(0, &[]);
    assert_eq!(work_dir.read("ledger.txt"), "started last\ndone last\n");
}

#[test]
fn a_second_signal_aborts_calls_in_flight() {
    let work_dir = WorkDir::new();
    let (mut node, at) = work_dir.node();
    let _agent = work_dir.agent(&at);
    let data = r#"{"id":"long","ms":60000}"#;
    let _call = work_dir.start(&["call", "--node", &at, "warehouse", "Demo/Append", "-d", data]);
    until_has(&work_dir.path("ledger.txt"), "started long");
    node.signal(Signal::INT);
    node.wait_for_line("SIGINT received: shutting down");
    let started_at = Instant::now();
    // A repeated signal at once counts as the same, as from a terminal and a supervisor; later it
    // counts as a second one.
    node.signal_until_line(Signal::TERM, "error: SIGTERM received while shutting down");
    assert!(started_at.elapsed().as_millis() >= 200, "{:?}", started_at.elapsed());
    node.end().expect(1, &[]);
    assert!(started_at.elapsed().as_secs() < 10, "{:?}", started_at.elapsed());
}

#[test]
fn peers_of_different_cas_reject_each_other_and_an_agent_keeps_running() {
    let work_dir = WorkDir::new();
    let (_node, at) = work_dir.node();
    work_dir.make_ca("other");
    work_dir.issue("other", Role::Caller, "ops");
    work_dir.issue("other", Role::Agent, "warehouse");
    let call = |cert: &str, ca: &str| {
        work_dir.run(&["call", "--node", &at, "--cert", cert, "--ca", ca, "warehouse", "Demo/Echo"])
    };
    let (good, foreign) = ("certs/caller-ops.pem", "other/caller-ops.pem");
    call(good, "certs/ca.pem").expect(78, &["agent warehouse is not attached"]);
    call(good, "other/ca.pem").expect(80, &["UNAUTHENTICATED (not_executed)", "our ca.pem"]);
    call(foreign, "certs/ca.pem")
        .expect(80, &["UNAUTHENTICATED (not_executed)", "the peer's ca.pem"]);
    let foreign = ["--cert", "other/agent-warehouse.pem", "--ca", "certs/ca.pem"];
    let mut agent = work_dir.start(&[&["agent", "--node", &at], &foreign[..]].concat());
    agent.wait_for_line("WARN refused: ");
    let started_at = Instant::now();
    agent.signal(Signal::TERM);
    agent.end().expect(0, &["stopped"]);
    assert!(started_at.elapsed().as_secs() < 3, "{:?}", started_at.elapsed());
}

#[test]
fn a_host_name_that_is_not_in_the_certificate_is_rejected() {
    let work_dir = WorkDir::new();
    work_dir.write("rules.toml", "[[host]]\nagent = \"**\"\nservice = \"**\"\n");
    let (_node, at) =
        work_dir.listening(&["node", "--listen", "127.0.0.2:0", "--policy", "rules.toml"]);
    work_dir
        .run(&["call", "--node", &at, "warehouse", "Demo/Echo"])
        .expect(80, &["error: UNAUTHENTICATED (not_executed): ", "127.0.0.2", "--san"]);
}

#[test]
fn log_lines_have_time_level_and_message_in_text_and_json() {
    let work_dir = WorkDir::new();
    let (mut text, _) = work_dir.listening(&["node", "--listen", "127.0.0.1:0"]);
    text.signal(Signal::TERM);
    let line = text.wait_for_line("stopped");
    let (time, rest) = line.split_once(' ').expect("a time");
    assert_eq!((time.len(), time.ends_with('Z'), rest), (24, true, "INFO stopped"));

    let mut json = work_dir.start(&["node", "--listen", "127.0.0.1:0", "--log", "json"]);
    json.wait_for_line("listens on");
    json.signal(Signal::TERM);
    for line in json.end().expect(0, &[]).stderr.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(
            ["timestamp", "level", "message"].iter().all(|key| line[key].is_string()),
            "{line}"
        );
    }

    let (_node, at) = work_dir.node();
    let quiet = work_dir.run(&["node", "--listen", &at, "--log-level", "error"]).expect(1, &[]);
    assert_eq!(quiet.stderr.lines().count(), 1, "only the fault itself: {quiet:#?}");
}

#[test]
fn a_node_keeps_its_keys_in_the_state_directory_of_flag_environment_or_file() {
    let work_dir = WorkDir::new();
    let start = |args: &[&str], variable: Option<&str>| {
        let mut command = work_dir.command(&[&["node", "--listen", "127.0.0.1:0"], args].concat());
        command.envs(variable.map(|dir| ("DIALBACK_STATE", dir)));
        let mut node = DialbackProcess::start(command);
        node.wait_for_line("listens on");
        node.signal(Signal::TERM);
        node.end().expect(0, &[]);
    };
    work_dir.write("node.toml", "state = \"of-file\"\n");
    start(&["--config", "node.toml"], None);
    start(&["--config", "node.toml"], Some("of-variable"));
    start(&["--config", "node.toml", "--state", "of-flag"], Some("unused"));
    for (dir, is_there) in
        [("of-file", true), ("of-variable", true), ("of-flag", true), ("unused", false)]
    {
        assert_eq!(work_dir.path(dir).join("reset.keys").is_file(), is_there, "{dir}");
    }
    work_dir.write("of-file/reset.keys", "nonsense");
    work_dir
        .run(&["node", "--state", "of-file"])
        .expect(2, &["error: ", "reset.keys", "remove it"]);
    work_dir.write("plain", "");
    work_dir
        .run(&["node", "--state", "plain"])
        .expect(1, &["error: the state directory: ", "plain"]);
}

#[test]
fn a_node_whose_stderr_is_not_read_keeps_running_and_stops_on_sigterm() {
    use std::io::{BufRead, BufReader};
    let work_dir = WorkDir::new();
    work_dir.write("rules.toml", super::process::RULES);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let args =
        ["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml", "--log-level", "trace"];
    let mut command = work_dir.command(&args);
    command.stdout(std::process::Stdio::null()).stderr(writer);
    let mut node = Unread(command.spawn().expect("started"));
    drop(command);
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    while !line.contains("listens on ") {
        line.clear();
        reader.read_line(&mut line).expect("a line");
    }
    let at = line.split("listens on ").nth(1).expect("an address").trim().to_owned();
    // From here on nothing reads the pipe.
    let _agent = work_dir.agent(&at);
    let call = || {
        let hello = ["warehouse", "HelloService/Hello", "-d", "\"x\"", "--timeout", "10s"];
        work_dir.run(&[&["call", "--node", &at], &hello[..]].concat()).expect_out("\"hello:x\"\n");
    };
    let until = Instant::now() + std::time::Duration::from_secs(15);
    while rustix::io::ioctl_fionread(reader.get_ref()).expect("a pipe") < 60_000 {
        assert!(Instant::now() < until, "the log never filled its pipe");
        call();
    }
    (0..3).for_each(|_| call());
    let pid = rustix::process::Pid::from_child(&node.0);
    rustix::process::kill_process(pid, Signal::TERM).expect("sent");
    let started_at = Instant::now();
    let code = loop {
        if let Some(status) = node.0.try_wait().expect("waited") {
            break status.code();
        }
        assert!(started_at.elapsed().as_secs() < 10, "it runs on after SIGTERM");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    };
    assert_eq!(code, Some(0));
}

/// A process whose standard error is not read.
struct Unread(std::process::Child);

impl Drop for Unread {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The first line of the log with this text, as JSON.
fn json_line(process: &mut DialbackProcess, text: &str) -> serde_json::Value {
    serde_json::from_str(&process.wait_for_line(text)).expect("a JSON line")
}

#[test]
fn dials_forwards_listeners_and_reloads_have_fields() {
    let work_dir = WorkDir::new();
    // Nothing listens on the port of a socket of TCP alone.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let forward = "[[tcp]]\nname = \"db\"\nupstream = \"127.0.0.1:1\"\n[[mcp]]\nname = \"git\"\ncommand = [\"python3\", \"--token=SECRET\"]\n";
    work_dir.write("agent.toml", format!("path = \"udp\"\nnodes = [\"{address}\"]\n{forward}"));
    let start = |form: &str| work_dir.start(&["agent", "--config", "agent.toml", "--log", form]);
    let mut agent = start("json");
    let line = json_line(&mut agent, "expires 2");
    assert_eq!(line["peer"], "agent/warehouse");
    for (method, address) in [("mcp:git", "processes of python3"), ("tcp:db", "127.0.0.1:1")] {
        let line = json_line(&mut agent, &format!("forwarding {method}"));
        assert_eq!((&line["method"], &line["address"]), (&method.into(), &address.into()));
    }
    let line = json_line(&mut agent, "not linked: node");
    let (reason, message) = (line["reason"].as_str(), line["message"].as_str());
    assert_eq!(line["address"], *address);
    assert!(message.expect("a text").contains(reason.expect("a reason")), "{line}");
    assert!(line["retry_s"].is_number(), "{line}");
    work_dir.write("agent.toml", "nodes = 1\n");
    let line = json_line(&mut agent, "reload failed");
    assert!(line["reason"].as_str().expect("a reason").starts_with("agent.toml:1: "), "{line}");
    agent.signal(Signal::TERM);
    assert!(!agent.end().expect(0, &[]).stderr.contains("SECRET"));

    // The text has each of them once.
    work_dir.write("agent.toml", format!("path = \"udp\"\nnodes = [\"{address}\"]\n{forward}"));
    let mut agent = start("text");
    let line = agent.wait_for_line("not linked: node");
    for field in ["reason=", "address=", "retry_s="] {
        assert!(!line.contains(field), "{line}");
    }
    let mut node = work_dir.start(&["node", "--listen", "127.0.0.1:0", "--log", "json"]);
    let line = json_line(&mut node, "listens on");
    let address = line["address"].as_str().expect("an address");
    assert!(line["node"] == "edge-1" && address.starts_with("127.0.0.1:"), "{line}");
}
