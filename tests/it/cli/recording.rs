//! Traces, TLS keys and qlog as an operator switches them on.

use super::process::{DialbackProcess, RULES, WorkDir};
use rustix::process::Signal;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// A node on a free port with these flags, and its address.
fn node_with(dir: &WorkDir, flags: &[&str]) -> (DialbackProcess, String) {
    dir.write("rules.toml", RULES);
    let node = ["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"];
    dir.listening(&[&node[..], flags].concat())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
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

#[test]
fn tls_keys_are_logged_for_a_flag_alone_and_with_a_warning() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let (keys, call) = (dir.path("keys"), ["agents", "--node", &at]);
    let with_variable = |flags: &[&str]| {
        let mut command = dir.command(&[&call[..], flags].concat());
        command.env("SSLKEYLOGFILE", &keys);
        let ended = command.output().expect("a command");
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    assert_eq!(with_variable(&[]).0, Some(0));
    assert!(!keys.exists(), "the variable is set for other programs too");
    dir.run(&[&call[..], &["--log-tls-keys"]].concat()).expect(2, &["SSLKEYLOGFILE"]);
    let (code, stderr) = with_variable(&["--log-tls-keys"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("everyone who has this file can decrypt"), "{stderr}");
    assert_eq!(mode(&keys), 0o600);
    let text = fs::read_to_string(&keys).expect("a text");
    for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"] {
        assert!(text.lines().any(|line| line.starts_with(label)), "{label}: {text}");
    }
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).expect("set");
    let (code, stderr) = with_variable(&["--log-tls-keys"]);
    assert!(code == Some(2) && stderr.contains("chmod 600"), "{stderr}");
}

#[cfg(not(feature = "qlog"))]
#[test]
fn a_build_without_qlog_names_the_one_with_it() {
    WorkDir::empty().run(&["node", "--qlog", "d"]).expect(2, &["--features cli,qlog"]);
}

#[cfg(feature = "qlog")]
#[test]
fn qlog_files_are_written_for_each_link_and_with_a_warning() {
    let dir = WorkDir::new();
    let qlog = dir.path("records/qlog");
    let directory = qlog.to_str().expect("UTF-8");
    let (node, at) = node_with(&dir, &["--qlog", directory]);
    for _ in 0..2 {
        dir.run(&["agents", "--node", &at]).expect(0, &[]);
    }
    node.signal(Signal::TERM);
    let ended = node.end();
    assert!(ended.stderr.contains("qlog of every link is written to"), "{ended:#?}");
    let files: Vec<_> = fs::read_dir(&qlog).expect("a directory").flatten().collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        assert_eq!(mode(&file.path()), 0o600);
        let text = fs::read_to_string(file.path()).expect("a text");
        let lines: Vec<_> = text.split('\u{1e}').filter(|line| !line.trim().is_empty()).collect();
        let parsed = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert!(lines.len() > 10 && lines.iter().all(parsed), "{text}");
        assert!(text.contains("packet_sent") && text.contains("packet_received"));
    }
    dir.write("file", "");
    let path = dir.path("file");
    let args = ["agents", "--node", &at, "--qlog", path.to_str().expect("UTF-8")];
    dir.run(&args).expect(2, &["cannot write qlog files to"]);
}
