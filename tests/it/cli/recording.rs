//! Traces as an operator switches them on.

use super::process::{DialbackProcess, RULES, WorkDir};
use rustix::process::Signal;

/// A node on a free port with these flags, and its address.
fn node_with(dir: &WorkDir, flags: &[&str]) -> (DialbackProcess, String) {
    dir.write("rules.toml", RULES);
    let node = ["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"];
    dir.listening(&[&node[..], flags].concat())
}

#[test]
fn a_wrong_collector_is_refused_and_an_absent_one_is_logged_once_and_delays_nothing() {
    let dir = WorkDir::new();
    for (url, remedy) in [
        ("127.0.0.1:4318", "write http://HOST:4318"),
        ("https://collector:4318", "export to a collector on this machine or network"),
    ] {
        dir.run(&["node", "--otlp", url]).expect(2, &[remedy]);
    }
    dir.write("node.toml", "[trace]\notlp = \"http://127.0.0.1:1\"\nsample = 1.5\nsampel = 1\n");
    let text = ["`sample`: 1.5 is out of range: 0 to 1", "did you mean `sample`?"];
    dir.run(&["config", "check", "--node", "node.toml"]).expect(2, &text);

    let (mut node, at) = node_with(&dir, &["--otlp", "http://127.0.0.1:1"]);
    let mut agent = dir.start(&["agent", "--node", &at, "--demo"]);
    agent.wait_for_line("registered as warehouse");
    let call = ["call", "--node", &at, "warehouse", "HelloService/Hello", "-d", "\"x\""];
    for _ in 0..3 {
        dir.run(&call).expect(0, &[]);
    }
    node.wait_for_line("spans cannot be exported to http://127.0.0.1:1/v1/traces");
    node.signal(Signal::TERM);
    let log = node.end().stderr;
    let count = |text: &str| log.matches(text).count();
    assert_eq!(count("spans of node/edge-1 are exported to http://127.0.0.1:1/v1/traces"), 1);
    assert_eq!(count("spans cannot be exported"), 1, "{log}");

    let (_node, at) = dir.node();
    let _agent = dir.agent(&at);
    let call = ["call", "--node", &at, "warehouse", "HelloService/Hello", "-d", "\"x\""];
    let ended = dir.run(&[&call[..], &["--otlp", "http://127.0.0.1:1"]].concat());
    ended.expect(0, &["spans cannot be exported"]);
    let mut with_variable = dir.command(&call);
    with_variable.env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318");
    let ended = with_variable.output().expect("a call");
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(stderr.contains("OTEL_EXPORTER_OTLP_ENDPOINT is not used"), "{stderr}");
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
}
