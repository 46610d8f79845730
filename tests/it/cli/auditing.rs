//! The audit log as operators use it: by flag, environment and file, on standard output, reopened
//! on SIGHUP. Also rules with quotas, as `dialback policy` shows them.

use super::process::{DialbackProcess, WorkDir, until_has};
use rustix::process::Signal;
use std::fs;

fn events(text: &str) -> Vec<String> {
    let lines = text.lines().map(serde_json::from_str::<serde_json::Value>);
    lines.map(|line| line.expect("JSON")["event"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn node_and_agent_audit_links_refusals_and_calls_and_reopen_the_file_on_sighup() {
    let dir = WorkDir::new();
    dir.issue("certs", dialback::Role::Caller, "intern");
    let rules = "[[allow]]\ncaller = \"ops\"\nagent = \"**\"\nmethod = \"*/*\"\n";
    dir.write("node.toml", format!("[audit]\nfile = \"node.log\"\ncalls = true\n\n{rules}"));
    let listen = ["node", "--listen", "127.0.0.1:0", "--config", "node.toml"];
    let (node, at) = dir.listening(&listen);
    let mut agent = dir.start(&["agent", "--demo", "--node", &at, "--audit", "agent.log"]);
    agent.wait_for_line("registered as warehouse");
    let call = |cert: &str| {
        let cert = format!("certs/caller-{cert}.pem");
        dir.run(&[
            "call",
            "--node",
            &at,
            "--cert",
            &cert,
            "warehouse",
            "HelloService/Hello",
            "-d",
            "\"x\"",
        ])
    };
    call("ops").expect_out("\"hello:x\"\n");
    call("intern").expect(71, &["PERMISSION_DENIED (not_executed)"]);
    until_has(&dir.path("node.log"), "\"event\":\"call_refused\"");
    until_has(&dir.path("node.log"), "\"event\":\"call\"");
    fs::rename(dir.path("node.log"), dir.path("node.log.1")).expect("renamed");
    node.signal(Signal::HUP);
    // The new file exists before anything is written to it.
    until_has_file(&dir, "node.log");
    call("ops").expect_out("\"hello:x\"\n");
    agent.signal(Signal::TERM);
    agent.end().expect(0, &[]);
    node.signal(Signal::TERM);
    node.end().expect(0, &[]);
    let [old, new, of_agent] = ["node.log.1", "node.log", "agent.log"].map(|name| dir.read(name));
    for event in ["link_up", "call", "call_refused", "link_down"] {
        assert!(events(&old).iter().any(|have| have == event), "no {event} in {old}");
    }
    for event in ["link_up", "call", "link_down"] {
        assert!(events(&new).iter().any(|have| have == event), "no {event} in {new}");
    }
    assert!(!new.contains("caller/intern"), "earlier events went to the old file: {new}");
    assert_eq!(
        events(&of_agent),
        ["link_up", "link_down"],
        "calls are not audited by default: {of_agent}"
    );
    assert!(of_agent.contains("\"by\":\"agent/warehouse\""), "{of_agent}");
}

fn until_has_file(dir: &WorkDir, name: &str) {
    // Every existing file contains the empty text; a missing file also reads as empty, so its
    // existence is checked.
    let began = std::time::Instant::now();
    while !dir.path(name).exists() {
        assert!(began.elapsed().as_secs() < 15, "{name} was never reopened");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

#[test]
fn the_audit_log_is_named_by_flag_environment_or_file_in_this_order_and_a_dash_is_stdout() {
    let dir = WorkDir::new();
    dir.write("node.toml", "[audit]\nfile = \"of-file\"\n");
    let start = |args: &[&str], variable: Option<&str>| {
        let mut command = dir.command(&[&["node", "--listen", "127.0.0.1:0"], args].concat());
        command.envs(variable.map(|file| ("DIALBACK_AUDIT", file)));
        let mut node = DialbackProcess::start(command);
        let line = node.wait_for_line("listens on ");
        (node, line.split("listens on ").nth(1).expect("an address").trim().to_owned())
    };
    let stop = |node: DialbackProcess| {
        node.signal(Signal::TERM);
        node.end().expect(0, &[])
    };
    stop(start(&["--config", "node.toml"], None).0);
    stop(start(&["--config", "node.toml"], Some("of-variable")).0);
    stop(start(&["--config", "node.toml", "--audit", "of-flag"], Some("unused")).0);
    for (file, is_there) in
        [("of-file", true), ("of-variable", true), ("of-flag", true), ("unused", false)]
    {
        assert_eq!(dir.path(file).is_file(), is_there, "{file}");
    }
    let (node, at) = start(&["--audit", "-", "--audit-calls"], None);
    dir.run(&["call", "--node", &at, "warehouse", "Demo/Echo"]).expect(71, &[]);
    let stdout = stop(node).stdout;
    for event in ["link_up", "call_refused", "call", "link_down"] {
        assert!(events(&stdout).iter().any(|have| have == event), "no {event} in {stdout}");
    }
}

#[test]
fn an_audit_log_that_cannot_be_opened_or_has_no_name_ends_the_start_with_2() {
    let dir = WorkDir::new();
    fs::create_dir(dir.path("dir")).expect("made");
    for role in ["node", "agent"] {
        for file in ["dir", "gone/audit.log"] {
            let place_of_it = format!("cannot open the audit log {file}: ");
            dir.run(&[role, "--audit", file]).expect(2, &["error: ", &place_of_it]);
        }
        dir.run(&[role, "--audit-calls"]).expect(2, &["error: ", "--audit FILE"]);
    }
    dir.write("node.toml", "[audit]\nfile = \"dir\"\n");
    dir.run(&["node", "--config", "node.toml"]).expect(2, &["audit log dir: "]);
}

#[test]
fn policy_check_and_test_show_the_limits_of_rules() {
    let dir = WorkDir::new();
    let matchers = "agent = \"**\"\nmethod = \"*/*\"\n";
    let bounded =
        format!("[[allow]]\ncaller = \"ops\"\n{matchers}rate = \"6000/m\"\nin_flight = 4\n");
    let plain = format!("[[allow]]\ncaller = \"billing\"\n{matchers}");
    dir.write("rules.toml", format!("{bounded}\n{plain}"));
    let test =
        |caller| dir.run(&["policy", "test", caller, "warehouse", "A/b", "--policy", "rules.toml"]);
    test("ops")
        .expect_out("allowed by the [[allow]] rule at rules.toml:1: rate 6000/m, in_flight 4\n");
    test("billing").expect_out("allowed by the [[allow]] rule at rules.toml:8\n");
    dir.run(&["policy", "check", "rules.toml"]).expect_out(
        "rules.toml: 2 rules: 2 allow, 0 deny, 0 host\n\
         rules.toml:1: ops on ** */*: rate 6000/m, in_flight 4\n",
    );
    dir.write("rules.toml", bounded.replace("6000/m", "6000/d"));
    dir.run(&["policy", "check", "rules.toml"]).expect(2, &["rules.toml:5: `rate`: ", "s, m or h"]);
}

#[test]
fn a_caller_over_its_rate_ends_with_72_and_the_limit() {
    let dir = WorkDir::new();
    let rule = "[[allow]]\ncaller = \"ops\"\nagent = \"**\"\nmethod = \"*/*\"\nrate = \"1/h\"\n";
    dir.write("rules.toml", rule);
    let (mut node, at) =
        dir.listening(&["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"]);
    let call = || dir.run(&["call", "--node", &at, "warehouse", "Demo/Echo"]);
    call().expect(78, &["agent warehouse is not attached"]);
    call().expect(72, &["RESOURCE_EXHAUSTED (not_executed)", "limit of 1/h calls (rate)"]);
    node.wait_for_line("WARN refused call by caller/ops: Demo/Echo on agent/warehouse: the rule's limit of 1/h calls (rate) is used up");
}

#[test]
fn an_audit_log_that_is_a_fifo_is_refused() {
    let dir = WorkDir::new();
    let made = std::process::Command::new("mkfifo").arg(dir.path("audit")).status();
    assert!(made.expect("mkfifo").success());
    dir.run(&["node", "--listen", "127.0.0.1:0", "--audit", "audit"])
        .expect(2, &["error: cannot open the audit log audit: it is a named pipe (FIFO)"]);
}
