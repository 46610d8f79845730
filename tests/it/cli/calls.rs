//! Calls through three processes: their output and exit codes.

use super::process::{DialbackProcess, RULES, WorkDir, until_has};
use dialback::{Agent, Context, Credentials, Outbound, Service, Status};
use rustix::process::Signal;
use serde_json::json;
use std::{net::UdpSocket, process::Stdio, time::Instant};

/// A node, an agent with the demo, and the address of the node.
fn world() -> (WorkDir, DialbackProcess, DialbackProcess, String) {
    let dir = WorkDir::new();
    let (node, at) = dir.node();
    let agent = dir.agent(&at);
    (dir, node, agent, at)
}

fn call(dir: &WorkDir, at: &str, rest: &[&str]) -> super::process::CommandOutput {
    dir.run(&[&["call", "--node", at, "warehouse"], rest].concat())
}

#[test]
fn a_call_prints_its_reply_as_a_line_of_json_and_closes_its_link() {
    let (dir, mut node, _agent, at) = world();
    call(&dir, &at, &["HelloService/Hello", "-d", "\"hello\""]).expect_out("\"hello:hello\"\n");
    node.wait_for_line("disconnected: the peer closed the link with GOODBYE");
    call(&dir, &at, &["HelloService.Hello", "-d", "\"x\"", "--json"])
        .expect_out("{\"ok\":true,\"outcome\":\"ok\",\"replies\":[\"hello:x\"]}\n");
}

#[test]
fn values_are_echoed_as_they_were_sent() {
    let (dir, _node, _agent, at) = world();
    let echo = |data: &str| call(&dir, &at, &["Demo/Echo", "-d", data]);
    for exact in ["18446744073709551615", "-9223372036854775808", "\"é\"", "[1,{\"a\":null}]"] {
        echo(exact).expect_out(&format!("{exact}\n"));
    }
    call(&dir, &at, &["Demo/Echo", "-H", "a: b"]).expect_out("null\n");
    let three_mib = format!("\"{}\"\n", "a".repeat(3 << 20));
    dir.write("big.json", &three_mib);
    echo("@big.json").expect_out(&three_mib);
    let mut piped = dir.command(&["call", "--node", &at, "warehouse", "Demo/Echo", "-d", "@-"]);
    piped.stdin(std::fs::File::open(dir.path("big.json")).expect("opened"));
    DialbackProcess::start(piped).end().expect_out(&three_mib);
}

#[test]
fn a_failed_call_ends_with_64_and_its_code_and_one_line() {
    let (dir, mut node, _agent, at) = world();
    let fails = |rest: &[&str], code, line: &str| {
        let ended = call(&dir, &at, rest).expect(code, &[line]);
        assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 1), "{ended:#?}");
    };
    fails(&["HelloService/Hello", "-d", "1"], 67, "error: INVALID_ARGUMENT (not_executed): ");
    fails(&["HelloService/Nope"], 76, "error: UNIMPLEMENTED (not_executed): ");
    fails(&["Nope/Hello"], 76, "error: UNIMPLEMENTED (not_executed): ");
    fails(&["Demo/Panic"], 77, "error: INTERNAL (unknown): ");
    fails(
        &["Demo/Fail", "-d", r#"{"code":"ABORTED","message":"m"}"#],
        74,
        "ABORTED (app_error): m",
    );
    let sleep = ["Demo/Sleep", "-d", r#"{"ms":60000}"#, "--timeout", "2s"];
    fails(&sleep, 68, "error: DEADLINE_EXCEEDED (unknown): ");
    dir.write("big.json", format!("\"{}\"", "a".repeat(5 << 20)));
    fails(&["Demo/Echo", "-d", "@big.json"], 72, "error: RESOURCE_EXHAUSTED (not_executed): ");
    node.wait_for_line("disconnected: the peer closed the link with GOODBYE");
    dir.run(&["call", "--node", &at, "nobody", "HelloService/Hello", "-d", "\"x\""])
        .expect(78, &["error: UNAVAILABLE (not_executed): agent nobody is not attached\n"]);
}

#[test]
fn with_json_a_failure_is_one_object_on_standard_output() {
    let (dir, _node, _agent, at) = world();
    let ended = dir.run(&["call", "nobody", "A/b", "--json", "--node", &at]).expect(78, &[]);
    let mut shown = ended.json();
    let call_id = shown["call_id"].take();
    assert_eq!(call_id.as_str().map(str::len), Some(32), "{ended:#?}");
    let expected = json!({
        "ok": false, "code": "UNAVAILABLE", "outcome": "not_executed",
        "message": "agent nobody is not attached", "call_id": null
    });
    assert_eq!((shown, ended.stderr.as_str()), (expected, ""));
}

#[test]
fn a_unary_method_with_other_than_one_message_is_refused_locally() {
    let (dir, _node, _agent, at) = world();
    for data in ["1 2", "", " \n"] {
        let ended = call(&dir, &at, &["Demo/Echo", "-d", data]);
        ended.expect(
            67,
            &["error: INVALID_ARGUMENT (not_executed): Demo/Echo takes exactly one message"],
        );
    }
}

#[test]
fn text_of_a_peer_cannot_control_the_terminal() {
    let (dir, _node, mut agent, at) = world();
    let data = r#"{"code":"NOT_FOUND","message":"\u001b[2J\u009b1m\nerror: x"}"#;
    let ended = call(&dir, &at, &["Demo/Fail", "-d", data])
        .expect(69, &["error: NOT_FOUND (app_error): \\u{1b}[2J\\u{9b}1m\\nerror: x\n"]);
    assert_eq!(ended.stderr.lines().count(), 1);
    call(&dir, &at, &["Demo/Echo", "-d", r#""\u001b\u009b""#]).expect_out("\"\\u001b\\u009b\"\n");
    call(&dir, &at, &["Demo/Panic"]).expect(77, &[]);
    assert!(agent.wait_for_line("Demo/Panic was called").contains(" ERROR panic at "));
    let line = agent.wait_for_line("the handler of Demo/Panic panicked and ended call ");
    assert!(line.contains("Demo/Panic was called"), "{line}");
}

#[test]
fn a_deadline_stops_the_handler() {
    let (dir, _node, agent, at) = world();
    let append = ["Demo/Append", "-d", r#"{"id":"late","ms":60000}"#, "--timeout", "2s"];
    call(&dir, &at, &append).expect(68, &["DEADLINE_EXCEEDED (unknown)"]);
    expect_stopped(&dir, agent, "started late\n");
}

#[test]
fn ctrl_c_stops_the_handler_and_closes_the_link() {
    let (dir, mut node, agent, at) = world();
    let data = r#"{"id":"c","ms":60000}"#;
    let running = dir.start(&["call", "--node", &at, "warehouse", "Demo/Append", "-d", data]);
    until_has(&dir.path("ledger.txt"), "started c");
    let pressed = Instant::now();
    running.signal(Signal::INT);
    let ended = running.end().expect(130, &[]);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
    assert!(pressed.elapsed().as_secs() < 3, "{:?}", pressed.elapsed());
    node.wait_for_line("disconnected: the peer closed the link with GOODBYE");
    expect_stopped(&dir, agent, "started c\n");
}

/// An agent stops at once only if no handler runs any more.
#[track_caller]
fn expect_stopped(dir: &WorkDir, agent: DialbackProcess, ledger: &str) {
    let started_at = Instant::now();
    agent.signal(Signal::TERM);
    agent.end().expect(0, &[]);
    assert!(
        started_at.elapsed().as_secs() < 10,
        "the handler ran on for {:?}",
        started_at.elapsed()
    );
    assert_eq!(dir.read("ledger.txt"), ledger);
}

#[test]
fn a_closed_standard_output_is_not_a_failure() {
    let (dir, _node, _agent, at) = world();
    dir.write("big.json", format!("\"{}\"", "a".repeat(1 << 20)));
    let mut command =
        dir.command(&["call", "--node", &at, "warehouse", "Demo/Echo", "-d", "@big.json"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command.stdout(Stdio::from(writer));
    let ended = DialbackProcess::start(command).end().expect(0, &[]);
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_node_that_does_not_answer_ends_with_78_and_the_hint() {
    let dir = WorkDir::new();
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let at = silent.local_addr().expect("an address").to_string();
    let rest = ["--node", &at, "--timeout", "200ms", "warehouse", "Demo/Echo"];
    let started_at = Instant::now();
    let expected = ["error: UNAVAILABLE (not_executed): ", "UDP"];
    dir.run(&[&["call"], &rest[..]].concat()).expect(78, &expected);
    assert!(started_at.elapsed().as_secs() < 4, "{:?}", started_at.elapsed());
    let ended = dir.run(&[&["call", "--json"], &rest[..]].concat()).expect(78, &[]);
    assert_eq!((&ended.json()["code"], ended.stderr.as_str()), (&json!("UNAVAILABLE"), ""));
}

/// A UDP port of loopback that refuses packets from any other address while the socket is open.
fn refusing_port() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect("127.0.0.1:9").expect("a peer");
    let at = socket.local_addr().expect("an address").to_string();
    (socket, at)
}

/// Ends with 78 before the idle timeout of 5 s, with one log line of ours that has this text.
#[track_caller]
fn ends_at_once(dir: &WorkDir, args: &[&str], text: &str) {
    let started_at = Instant::now();
    let ended = dir.run(args).expect(78, &[text]);
    assert!(started_at.elapsed().as_secs() < 4, "{:?}: {ended:#?}", started_at.elapsed());
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
}

#[test]
fn every_command_reports_a_refused_connection_at_once() {
    let (dir, (_socket, at)) = (WorkDir::new(), refusing_port());
    let text = format!("the node at {at} is not there: nothing listens on that UDP port");
    for args in [
        &["call", "--node", &at, "warehouse", "Demo/Echo"][..],
        &["agents", "--node", &at],
        &["tcp", "--node", &at, "warehouse", "db", "--listen", "127.0.0.1:0"],
    ] {
        ends_at_once(&dir, args, &text);
    }
    let mut agent = dir.start(&["agent", "--node", &at, "--demo"]);
    agent.wait_for_line(&format!("not linked: node {at}: {text} (connection refused)"));
    dir.make_ca("ca");
    let token = ["enroll", "token", "agent", "warehouse", "--ttl", "1h", "--ca-dir", "ca"];
    let token = dir.run(&token).expect(0, &[]).stdout;
    let join = ["agent", "join", "--enroll", &at, "--token", token.trim(), "--dir", "other"];
    ends_at_once(&dir, &join, "nothing listens on that UDP port (connection refused); is `dial");
}

#[cfg(target_os = "linux")]
#[test]
fn an_unreachable_address_is_reported_at_once_without_a_log_line_of_quinn() {
    let dir = WorkDir::new();
    let args = ["call", "--node", "255.255.255.255:4433", "warehouse", "Demo/Echo"];
    ends_at_once(&dir, &args, "cannot send to 255.255.255.255:4433: Permission denied");
    let args = ["--log-level", "debug", "call", "--node", "255.255.255.255:4433", "a", "Demo/Echo"];
    dir.run(&args).expect(78, &["sendmsg error"]);
}

#[test]
fn a_caller_without_a_rule_is_denied_and_sees_nothing() {
    let (dir, _node, _agent, at) = world();
    dir.issue("certs", dialback::Role::Caller, "intern");
    let as_intern = |args: &[&str]| {
        dir.run(&[args, &["--node", &at, "--cert", "certs/caller-intern.pem"]].concat())
    };
    as_intern(&["call", "warehouse", "HelloService/Hello", "-d", "\"x\""])
        .expect(71, &["error: PERMISSION_DENIED (not_executed): "]);
    as_intern(&["agents", "--json"]).expect_out("[]\n");
    as_intern(&["services", "--json"]).expect_out("[]\n");
    as_intern(&["services"]).expect_out("no services that this caller may call\n");
    as_intern(&["services", "warehouse"]).expect(71, &["error: PERMISSION_DENIED"]);
}

#[test]
fn lists_show_agents_and_their_services() {
    let (dir, _node, _agent, at) = world();
    let ended = dir.run(&["agents", "--node", &at]).expect(0, &[]);
    assert!(
        ended.stdout.lines().nth(1).is_some_and(|line| line.starts_with("warehouse  attached"))
    );
    let ended = dir.run(&["agents", "--json", "--node", &at]).expect(0, &[]);
    assert_eq!(
        (&ended.json()[0]["name"], &ended.json()[0]["attached"]),
        (&json!("warehouse"), &json!(true))
    );
    let ended = dir.run(&["services", "warehouse", "--node", &at]).expect(0, &[]);
    assert!(ended.stdout.contains("HelloService/Hello  unary          Gives "), "{ended:#?}");
    let ended = dir.run(&["services", "warehouse", "--json", "--node", &at]).expect(0, &[]);
    let one = ended.json()[1].clone();
    assert_eq!(one["name"], json!("HelloService"));
    let hello = &one["methods"][0];
    assert_eq!((&hello["name"], &hello["kind"]), (&json!("Hello"), &json!("unary")));
    assert_eq!((&hello["request_schema"]["type"], hello.get("agents")), (&json!("string"), None));
    // Without an agent: the methods of all agents, and their hosts.
    let ended = dir.run(&["services", "--node", &at]).expect(0, &[]);
    assert!(
        ended.stdout.contains("Demo/Count          server_stream  warehouse  Streams "),
        "{ended:#?}"
    );
    let ended = dir.run(&["services", "--json", "--node", &at]).expect(0, &[]);
    let hello = &ended.json()[1]["methods"][0];
    assert_eq!((&hello["name"], &hello["agents"]), (&json!("Hello"), &json!(["warehouse"])));
}

/// A stream of replies that lasts longer than any test waits.
const ENDLESS: [&str; 3] = ["Demo/Count", "-d", r#"{"n":100000000,"interval_ms":0}"#];

#[test]
fn a_stream_ends_and_its_handler_is_cancelled_when_stdout_closes() {
    let (dir, mut node, agent, at) = world();
    let mut command = dir.command(&[&["call", "--node", &at, "warehouse"], &ENDLESS[..]].concat());
    let (reader, writer) = std::io::pipe().expect("a pipe");
    command.stdout(Stdio::from(writer));
    let running = DialbackProcess::start(command);
    let mut first = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(reader), &mut first).expect("a line");
    assert_eq!(first, "{\"i\":1}\n");
    let ended = running.end().expect(141, &[]);
    assert_eq!(ended.stderr, "");
    node.wait_for_line("disconnected: the peer closed the link with GOODBYE");
    expect_stopped(&dir, agent, "");
}

#[test]
fn a_full_pipe_delays_neither_signals_nor_the_deadline() {
    let (dir, _node, _agent, at) = world();
    let start = |more: &[&str]| {
        let args = [&["call", "--node", &at, "warehouse"], &ENDLESS[..], more].concat();
        let mut command = dir.command(&args);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        command.stdout(Stdio::from(writer));
        let running = DialbackProcess::start(command);
        until_full(&reader);
        (running, reader)
    };
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (running, _unread) = start(&[]);
        running.signal(signal);
        running.end().expect(code, &[]);
    }
    let (running, _unread) = start(&["--timeout", "2s"]);
    running.end().expect(68, &["error: DEADLINE_EXCEEDED (unknown): "]);
}

/// Waits until a pipe is full. Its capacity depends on the sizes of the writes, each of which may
/// leave the rest of a page empty.
fn until_full(reader: &std::io::PipeReader) {
    let held = || rustix::io::ioctl_fionread(reader).expect("a pipe");
    let until = Instant::now() + std::time::Duration::from_secs(15);
    let (mut last, mut looks_alike) = (0, 0);
    while looks_alike < 100 {
        assert!(Instant::now() < until, "the pipe never filled up");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
        let now = held();
        looks_alike = if now == last && now > 4_096 { looks_alike + 1 } else { 0 };
        last = now;
    }
}

#[test]
fn a_missing_message_is_reported() {
    let (dir, _node, _agent, at) = world();
    for method in ["HelloService/Hello", "Demo/Sleep", "Demo/Count"] {
        call(&dir, &at, &[method])
            .expect(67, &["no message was given, so null was sent", "-d JSON"]);
    }
    let ended = call(&dir, &at, &["HelloService/Hello", "-d", "null"]).expect(67, &[]);
    assert!(!ended.stderr.contains("-d JSON"), "{ended:#?}");
    call(&dir, &at, &["Demo/Echo"]).expect_out("null\n");
}

#[test]
fn a_failed_wait_names_the_agent() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let wait = ["HelloService/Hello", "--wait", "--timeout", "1s"];
    dir.run(&[&["call", "--node", &at, "nobody"], &wait[..]].concat()).expect(
        78,
        &["UNAVAILABLE (not_executed): agent nobody is not attached: no agent attached within --timeout (--wait"],
    );
    dir.run(&[&["call", "--node", &at, "--any"], &wait[..]].concat())
        .expect(78, &["no attached agent may host HelloService: no agent attached within"]);
    let late = dir.command(
        &[&["call", "--node", &at, "warehouse", "Demo/Count", "-d", "{\"n\":2}"], &["--wait"][..]]
            .concat(),
    );
    let late = DialbackProcess::start(late);
    let _agent = dir.agent(&at);
    late.end().expect_out("{\"i\":1}\n{\"i\":2}\n");
}

/// A service with metadata before, after and in place of its messages.
fn metadata_service() -> Service {
    fn add(ctx: &Context) {
        ctx.add_reply_metadata("k", "v\u{1b}");
        ctx.add_reply_metadata("k", "w");
        ctx.add_trailing_metadata("t", "1");
    }
    async fn details(text: String, ctx: Context) -> Result<String, Status> {
        add(&ctx);
        Ok(text)
    }
    async fn refused(_: String, _: Context) -> Result<String, Status> {
        let metadata = [("k".to_owned(), "v".to_owned())].into_iter().collect();
        Err(Status::not_found("nobody").with_details(vec![0xfb, 0xff]).with_metadata(metadata))
    }
    Service::new("Talk").method("Told", details).method("Refused", refused).server_stream(
        "Stream",
        |text: String, mut out: Outbound<String>, ctx: Context| async move {
            add(&ctx);
            out.send(&text).await
        },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn details_metadata_and_trailers_are_printed() {
    let dir = WorkDir::new();
    dir.write("rules.toml", format!("{RULES}[[host]]\nagent = \"*\"\nservice = \"Talk\"\n"));
    let (_node, at) = dir.listening(&["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"]);
    let credentials = Credentials::from_dir(dir.path("certs"), "agent-warehouse");
    let agent = Agent::builder(credentials.expect("credentials"))
        .node(at.as_str())
        .serve(metadata_service())
        .start()
        .expect("an agent");
    agent.registered(1).await;
    tokio::task::spawn_blocking(move || {
        let call = |method: &str, more: &[&str]| {
            call(&dir, &at, &[&[method, "-d", "\"x\""], more].concat())
        };
        for method in ["Talk/Told", "Talk/Stream"] {
            let ended = call(method, &[]);
            assert_eq!(ended.stdout, "\"x\"\n", "{ended:#?}");
            let details = "metadata k: v\\u{1b}\nmetadata k: w\ntrailer t: 1\n";
            assert_eq!((ended.code, &*ended.stderr), (Some(0), details));
            let shown = call(method, &["--json"]).json();
            let expected = json!({
                "ok": true, "outcome": "ok", "replies": ["x"],
                "metadata": {"k": ["v\u{1b}", "w"]}, "trailers": {"t": ["1"]}
            });
            assert_eq!(shown, expected);
        }
        let line = "error: NOT_FOUND (app_error): nobody (details -_8, metadata k: v)\n";
        let ended = call("Talk/Refused", &[]);
        assert_eq!((ended.code, &*ended.stderr), (Some(69), line));
        let shown = call("Talk/Refused", &["--json"]).json();
        assert_eq!((&shown["details"], &shown["metadata"]), (&json!("-_8"), &json!({"k": ["v"]})));
        let all = ["call", "--node", &at, "--all", "Talk/Refused", "-d", "\"x\""];
        let shown = dir.run(&all).json();
        assert_eq!((&shown["details"], &shown["metadata"]), (&json!("-_8"), &json!({"k": ["v"]})));
    })
    .await
    .expect("no assertion failed");
    agent.shutdown().await;
}
