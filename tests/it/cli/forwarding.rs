//! A Python service behind an agent, all as processes: the results for callers, also when it is
//! killed or hangs.

use super::process::{CommandOutput, DialbackProcess, WorkDir, until_has};
use rustix::process::Signal;
use std::{
    path::Path,
    process::{Command, Stdio},
};

const HELLO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/hello.py");

/// The service of the example on a port, 0 for a free one, and its address.
fn python(port: &str, greeting: &str) -> (DialbackProcess, String) {
    let mut command = Command::new("python3");
    command.args([HELLO, port, greeting]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut service = DialbackProcess::start(command);
    let url =
        service.wait_for_line("serves ").split_once("serves ").expect("a URL").1.trim().to_owned();
    (service, url)
}

/// A node, and an agent that forwards HelloService there.
fn forwarded(dir: &WorkDir, url: &str) -> (DialbackProcess, DialbackProcess, String) {
    let (node, at) = dir.node();
    let flag = format!("HelloService={url}");
    let mut agent = dir.start(&["agent", "--node", &at, "--forward", &flag]);
    agent.wait_for_line("registered as warehouse");
    (node, agent, at)
}

fn call(dir: &WorkDir, at: &str, method: &str, data: &str, rest: &[&str]) -> CommandOutput {
    let path = format!("HelloService/{method}");
    dir.run(&[&["call", "--node", at, "warehouse", &path, "-d", data], rest].concat())
}

#[test]
fn a_python_service_answers_with_values_errors_and_streams() {
    let dir = WorkDir::new();
    let (_service, url) = python("0", "hello");
    let (_node, _agent, at) = forwarded(&dir, &url);
    call(&dir, &at, "Hello", "\"x\"", &[]).expect_out("\"hello:x\"\n");
    call(&dir, &at, "Hello", "\"nobody\"", &[])
        .expect(69, &["error: NOT_FOUND (app_error): nobody is called nobody\n"]);
    call(&dir, &at, "Nope", "1", &[]).expect(76, &["UNIMPLEMENTED (app_error): there is no such"]);
    call(&dir, &at, "Who", "null", &["-H", "dialback-caller: caller/root"])
        .expect_out("{\"caller\":\"caller/ops\",\"node\":\"edge-1\"}\n");
    let listed = dir.run(&["services", "--node", &at, "warehouse"]);
    assert!(listed.stdout.contains("HelloService/*"), "{listed:#?}");
}

#[test]
fn a_stream_of_a_python_service_arrives_message_by_message_and_then_its_error() {
    let dir = WorkDir::new();
    let (_service, url) = python("0", "hello");
    let (_node, _agent, at) = forwarded(&dir, &url);
    call(&dir, &at, "Count", "{\"n\":3}", &["--stream"])
        .expect_out("{\"i\":1}\n{\"i\":2}\n{\"i\":3}\n");
    let ended = call(&dir, &at, "Count", "{\"n\":1,\"then_fail\":true}", &["--stream"])
        .expect(74, &["error: ABORTED (app_error): that is enough\n"]);
    assert_eq!(ended.stdout, "{\"i\":1}\n");
}

#[test]
fn calls_to_a_stopped_service_are_not_executed_and_succeed_once_it_runs() {
    let dir = WorkDir::new();
    let (service, url) = python("0", "hello");
    let (_node, mut agent, at) = forwarded(&dir, &url);
    call(&dir, &at, "Hello", "\"x\"", &[]).expect_out("\"hello:x\"\n");
    drop(service);
    call(&dir, &at, "Hello", "\"x\"", &[])
        .expect(78, &["error: UNAVAILABLE (not_executed): the upstream of HelloService cannot be"]);
    agent.wait_for_line(&format!("the upstream {url} of HelloService cannot be reached: "));
    let port = url.rsplit_once(':').expect("a port").1;
    let (_service, _) = python(port, "again");
    call(&dir, &at, "Hello", "\"x\"", &[]).expect_out("\"again:x\"\n");
}

#[test]
fn a_call_whose_service_is_killed_is_unknown() {
    let dir = WorkDir::new();
    let (mut service, url) = python("0", "hello");
    let (_node, _agent, at) = forwarded(&dir, &url);
    let sleep = ["call", "--node", &at, "warehouse", "HelloService/Sleep", "-d", "{\"ms\":60000}"];
    let running = dir.start(&sleep);
    service.wait_for_line("called: Sleep by caller/ops");
    service.signal(Signal::KILL);
    running.end().expect(78, &["error: UNAVAILABLE (unknown): "]);
}

#[test]
fn a_stream_whose_service_is_killed_delivers_its_messages_and_then_fails() {
    let dir = WorkDir::new();
    let (mut service, url) = python("0", "hello");
    let (_node, _agent, at) = forwarded(&dir, &url);
    let data = "{\"n\":2,\"interval_ms\":60000}";
    let count = ["call", "--node", &at, "warehouse", "HelloService/Count", "-d", data];
    let mut command = dir.command(&[&count[..], &["--stream"]].concat());
    command.stdout(std::fs::File::create(dir.path("out.txt")).expect("a file"));
    let running = DialbackProcess::start(command);
    until_has(&dir.path("out.txt"), "{\"i\":1}");
    service.wait_for_line("called: Count");
    service.signal(Signal::KILL);
    running.end().expect(78, &["error: UNAVAILABLE (unknown): the upstream closed the connection"]);
    assert_eq!(dir.read("out.txt"), "{\"i\":1}\n");
}

#[test]
fn a_hanging_service_sees_the_deadline_and_ctrl_c_as_a_closed_connection() {
    let dir = WorkDir::new();
    let (mut service, url) = python("0", "hello");
    let (_node, _agent, at) = forwarded(&dir, &url);
    call(&dir, &at, "Sleep", "{\"ms\":60000}", &["--timeout", "2s"])
        .expect(68, &["error: DEADLINE_EXCEEDED (unknown): "]);
    service.wait_for_line("hung up: Sleep");
    let sleep = ["call", "--node", &at, "warehouse", "HelloService/Sleep", "-d", "{\"ms\":60000}"];
    let running = dir.start(&sleep);
    service.wait_for_line("called: Sleep");
    running.signal(Signal::INT);
    running.end().expect(130, &[]);
    service.wait_for_line("hung up: Sleep");
}

/// The agent's config for a service that is forwarded there.
fn file(at: &str, service: &str, url: &str) -> String {
    format!("nodes = [\"{at}\"]\n[[service]]\nname = \"{service}\"\nforward = \"{url}\"\n")
}

#[test]
fn upstreams_and_services_that_change_are_reloaded() {
    let dir = WorkDir::new();
    let ((_one, first), (_other, second)) = (python("0", "one"), python("0", "other"));
    let (_node, at) = dir.node();
    dir.write("agent.toml", file(&at, "HelloService", &first));
    let mut agent = dir.start(&["agent", "--config", "agent.toml"]);
    agent.wait_for_line("registered as warehouse");
    call(&dir, &at, "Hello", "\"x\"", &[]).expect_out("\"one:x\"\n");
    dir.write("agent.toml", file(&at, "HelloService", &second));
    agent.wait_for_line(&format!("forwarding HelloService to {second}"));
    call(&dir, &at, "Hello", "\"x\"", &[]).expect_out("\"other:x\"\n");
    dir.write("agent.toml", file(&at, "HelloService", "127.0.0.1"));
    agent.wait_for_line(
        "reload failed, keeping the previous settings: agent.toml:4: `forward`: upstream",
    );
    let more = format!(
        "{}\n[[tcp]]\nname = \"db\"\nupstream = \"127.0.0.1:1\"\n",
        file(&at, "Other", &first)
    );
    dir.write("agent.toml", &more);
    agent.wait_for_line(&format!("no longer forwarding HelloService to {second}"));
    agent.wait_for_line(&format!("forwarding Other to {first}"));
    agent.wait_for_line("forwarding tcp:db to 127.0.0.1:1");
    agent.wait_for_line("services that were left out answer no more");
    let gone = "no service HelloService is hosted here";
    call(&dir, &at, "Hello", "\"x\"", &[]).expect(76, &[gone]);
    let listed = dir.run(&["services", "--node", &at, "warehouse"]);
    listed.expect_out("Other/*  unary\nOther/*  server_stream\n");
    dir.write("agent.toml", format!("{more}[[tcp]]\nname = \"db\"\nupstream = \"127.0.0.1:2\"\n"));
    agent.wait_for_line(
        "reload failed, keeping the previous settings: agent.toml:10: `name`: duplicate [[tcp]] db",
    );
}

#[test]
fn nodes_that_change_are_dialled_or_left() {
    let dir = WorkDir::new();
    let (mut node, at) = dir.node();
    let (mut other, there) = dir.node();
    let nodes = |nodes: &[&String]| format!("nodes = {nodes:?}\ndemo = true\n");
    dir.write("agent.toml", nodes(&[&at]));
    let mut agent = dir.start(&["agent", "--config", "agent.toml"]);
    node.wait_for_line("agent warehouse attached");
    dir.write("agent.toml", nodes(&[&at, &there]));
    other.wait_for_line("agent warehouse attached");
    dir.write("agent.toml", nodes(&[&there]));
    node.wait_for_line("agent warehouse detached");
    agent.wait_for_line(&format!("dialling {there}"));
    let call = |at: &str| {
        dir.run(&["call", "--node", at, "warehouse", "HelloService/Hello", "-d", "\"x\""])
    };
    call(&there).expect_out("\"hello:x\"\n");
    call(&at).expect(78, &["agent warehouse is not attached"]);
}

#[test]
fn the_cas_of_an_upstream_are_watched_like_any_other_file() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    dir.write("upstream.pem", dir.read("certs/ca.pem"));
    let https = file(&at, "HelloService", "https://127.0.0.1:1");
    dir.write("agent.toml", format!("{https}upstream_ca = \"upstream.pem\"\n"));
    let mut agent = dir.start(&["agent", "--config", "agent.toml"]);
    agent.wait_for_line("registered as warehouse");
    dir.write("upstream.pem", "nothing");
    agent.wait_for_line("settings: upstream of HelloService: the CAs of the upstream: there is no");
    dir.make_ca("other");
    dir.write("upstream.pem", dir.read("other/ca.pem"));
    agent.wait_for_line("forwarding HelloService to https://127.0.0.1:1");
}

#[test]
fn an_invalid_forward_is_refused_at_start_with_the_fault() {
    let dir = WorkDir::new();
    let refused = |rest: &[&str], text: &str| {
        dir.run(&[&["agent", "--node", "localhost:1"], rest].concat()).expect(2, &[text]);
    };
    refused(&["--forward", "HelloService"], "expected SERVICE=URL");
    refused(&["--forward", "Hello=ftp://x"], "is not written http://HOST:PORT");
    refused(&["--forward", "Hello=https://x"], "requires a CA");
    let demo = ["--demo", "--forward", "HelloService=http://127.0.0.1:9000"];
    refused(&demo, "the service HelloService is hosted twice");
    let twice = "Hello=http://127.0.0.1:1,Hello=http://127.0.0.1:2";
    refused(&["--forward", twice], "the service Hello is hosted twice");
    let text = format!("{}upstream_ca = \"gone.pem\"\n", file("localhost", "Hello", "https://x"));
    dir.write("agent.toml", text);
    refused(&["--config", "agent.toml"], "upstream of Hello: cannot read CA certificates gone.pem");
    dir.write("gone.pem", "nothing");
    refused(&["--config", "agent.toml"], "there is no certificate in the file");
    refused(&["--config", "agent.toml"], "(upstream_ca gone.pem)");
    let text = format!("{}upstream_ca = \"/dev/zero\"\n", file("localhost", "Hello", "https://x"));
    dir.write("agent.toml", text);
    refused(
        &["--config", "agent.toml"],
        "cannot read CA certificates /dev/zero: it is no regular file",
    );
}

#[test]
fn the_file_of_the_example_is_valid() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python/agent.toml");
    let example = example.to_str().expect("a text");
    WorkDir::empty().run(&["config", "check", "--text-only", example]).expect(0, &[]);
}
