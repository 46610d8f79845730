//! `dialback status`, and who may read an admin listener.

use super::process::{DialbackProcess, WorkDir};
use rustix::process::Signal;
use std::{os::unix::fs::PermissionsExt, process::Command};

/// A node with this `[admin]`, its address, and what its log says after `status`.
fn node(dir: &WorkDir, admin: &str) -> (DialbackProcess, String, String) {
    let rules = "[[allow]]\ncaller = \"ops\"\nagent = \"**\"\nmethod = \"*/*\"\n";
    dir.write("node.toml", format!("listen = \"127.0.0.1:0\"\n[admin]\n{admin}\n{rules}"));
    let (mut node, at) = dir.listening(&["node", "--config", "node.toml"]);
    let line = node.wait_for_line("status");
    let address = line.rsplit_once(" at ").expect("an address").1.trim().to_owned();
    (node, at, address.trim_end_matches("/metrics").replace("http://", ""))
}

#[test]
fn status_shows_links_and_failures_of_a_node_and_of_an_agent() {
    let dir = WorkDir::new();
    let (node, at, admin) = node(&dir, "listen = \"127.0.0.1:0\"");
    let args = ["agent", "--node", &at, "--demo", "--admin", "127.0.0.1:0"];
    let mut agent = dir.start(&args);
    let line = agent.wait_for_line("status at http://");
    let of_agent = line.rsplit_once("http://").expect("an address").1.replace("/metrics", "");
    agent.wait_for_line("registered as warehouse");
    dir.run(&["call", "--node", &at, "warehouse", "Demo/Nope"]).expect(76, &[]);
    let shown = dir.run(&["status", "--admin", &admin]).expect(0, &[]).stdout;
    for part in ["node edge-1, version", "\nready\n", "agent/warehouse", "UNIMPLEMENTED"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = dir.run(&["status", "--admin", of_agent.trim()]).expect(0, &[]).stdout;
    for part in ["agent warehouse, version", "service HelloService: ready", "node/edge-1"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json = dir.run(&["status", "--admin", &admin, "--json"]).expect(0, &[]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["readiness"]["ready"], true);
    let ready = ["status", "--admin", of_agent.trim(), "--ready"];
    dir.run(&ready).expect(0, &[]);
    node.signal(Signal::TERM);
    drop(node.end());
    let ended = dir.run(&ready);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stdout.contains("NOT READY\n  it is registered on no node"), "{ended:#?}");
}

#[test]
fn status_without_a_listener_says_how_to_have_one() {
    let dir = WorkDir::empty();
    let none = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let none = none.expect("an address").to_string();
    let ended = dir.run(&["status", "--admin", &none]);
    let remedy = format!("start the node or agent with --admin {none}");
    ended.expect(1, &["Connection refused", &remedy]);
    dir.run(&["status", "--admin", "localhost"]).expect(2, &["IP:PORT"]);
}

#[test]
fn a_unix_socket_is_for_owner_and_group_and_goes_with_its_process() {
    let dir = WorkDir::new();
    let path = dir.path("admin.sock");
    // A file that a killed process has left.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let address = format!("unix:{}", path.display());
    let (node, _, shown) = node(&dir, &format!("listen = \"{address}\""));
    assert_eq!(shown, address);
    let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let shown = dir.run(&["status", "--admin", &address]).expect(0, &[]).stdout;
    assert!(shown.starts_with("node edge-1"), "{shown}");
    let second = ["node", "--listen", "127.0.0.1:0", "--admin", &address];
    dir.run(&second).expect(1, &["cannot listen on unix:", "choose another address with --admin"]);
    node.signal(Signal::TERM);
    drop(node.end());
    assert!(!path.exists());
}

#[test]
fn other_machines_need_the_certificate_of_a_named_caller() {
    let dir = WorkDir::new();
    dir.issue("certs", dialback::Role::Caller, "intern");
    let (_node, _, admin) = node(&dir, "listen = \"0.0.0.0:0\"\ncallers = [\"ops\"]");
    let port = admin.rsplit_once(':').expect("a port").1;
    let url = format!("https://127.0.0.1:{port}/metrics");
    let curl = |caller: Option<&str>| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--cacert", "certs/ca.pem", "--max-time", "30"]);
        curl.args(["--write-out", "%{http_code}", "--output", "answer", &url]);
        if let Some(caller) = caller {
            let [cert, key] = ["pem", "key"].map(|end| format!("certs/caller-{caller}.{end}"));
            curl.args(["--cert", &cert, "--key", &key]);
        }
        let ended = curl.current_dir(dir.path(".")).output().expect("curl");
        String::from_utf8(ended.stdout).expect("text")
    };
    assert_eq!(curl(Some("ops")), "200");
    assert!(dir.read("answer").contains("dialback_build_info"));
    assert_eq!(curl(Some("intern")), "403");
    assert!(dir.read("answer").contains("`callers` of [admin]"), "{}", dir.read("answer"));
    assert_eq!(curl(None), "403");
    let open = ["node", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"];
    dir.run(&open).expect(2, &["would be open to other machines", "callers"]);
}

#[test]
fn misspelt_variables_and_one_that_overrides_a_file_are_warned_of() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    dir.write("agent.toml", "nodes = [\"192.0.2.1:4433\"]\n");
    let mut agent = dir.command(&["agent", "--config", "agent.toml"]);
    agent.env("DIALBACK_NODE", &at).env("DIALBACK_LOGLEVEL", "debug");
    let mut agent = DialbackProcess::start(agent);
    agent.wait_for_line(
        "DIALBACK_LOGLEVEL is unknown and not read; did you mean DIALBACK_LOG_LEVEL?",
    );
    agent.wait_for_line("`nodes` of the config file (192.0.2.1:4433) is not used");
    agent.wait_for_line("registered as warehouse");
}

#[test]
fn a_watch_ends_with_its_reader_and_another_server_is_named() {
    let dir = WorkDir::new();
    let (_node, _, admin) = node(&dir, "listen = \"127.0.0.1:0\"");
    let mut watch = dir.command(&["status", "--admin", &admin, "--watch", "--json"]);
    let mut watch = watch.spawn().expect("started");
    let mut first = String::new();
    let out = watch.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut first).expect("a line");
    assert!(first.starts_with('{'), "{first}");
    assert_eq!(watch.wait().expect("its end").code(), Some(141));
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = other.local_addr().expect("an address").to_string();
    let serving = std::thread::spawn(move || {
        let (mut client, _) = other.accept().expect("a client");
        let read = std::io::Read::read(&mut client, &mut [0; 4_096]).expect("a request");
        assert!(read > 0);
        let answer = b"HTTP/1.0 404 Not Found\r\ncontent-length: 5\r\n\r\n<html";
        std::io::Write::write_all(&mut client, answer).expect("written");
    });
    let expected = "it answers HTTP 404 and not as an admin listener does";
    dir.run(&["status", "--admin", &at]).expect(1, &[expected]);
    serving.join().expect("no panic");
}
