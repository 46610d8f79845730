//! `dialback tcp` and `--tcp`: a local port that ends at an agent's upstream, over three processes,
//! also when one of them dies.

use super::process::{DialbackProcess, WorkDir};
use dialback::{Role, certs::LeafRequest};
use rustix::process::Signal;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    time::{Duration, SystemTime},
};

/// Nothing here takes longer on a working machine.
const WAIT_MAX: Duration = Duration::from_secs(15);

const RULES: &str = "[[allow]]\ncaller = \"ops\"\nagent = \"**\"\nmethod = \"tcp:*\"\n";

/// A node, an agent that forwards `db`, and its upstream.
struct TcpSetup {
    dir: WorkDir,
    node: DialbackProcess,
    at: String,
    agent: DialbackProcess,
    upstream: TcpListener,
}

impl TcpSetup {
    fn open() -> Self {
        Self::with("")
    }

    /// With these lines in the config of node and agent.
    fn with(lines: &str) -> Self {
        let dir = WorkDir::new();
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
        dir.write("node.toml", format!("listen = \"127.0.0.1:0\"\n{lines}\n{RULES}"));
        let (node, at) = dir.listening(&["node", "--config", "node.toml"]);
        let to = upstream.local_addr().expect("an address");
        let forward = format!("[[tcp]]\nname = \"db\"\nupstream = \"{to}\"\n");
        dir.write("agent.toml", format!("nodes = [\"{at}\"]\n{lines}\n{forward}"));
        let mut agent = dir.start(&["agent", "--config", "agent.toml"]);
        agent.wait_for_line(&format!("forwarding tcp:db to {to}"));
        agent.wait_for_line("registered as warehouse");
        Self { dir, node, at, agent, upstream }
    }

    /// `dialback tcp` with these further arguments, and its address.
    fn tcp(&self, agent: &str, name: &str, rest: &[&str]) -> (DialbackProcess, String) {
        let args = ["tcp", agent, name, "--node", &self.at, "--listen", "127.0.0.1:0"];
        let mut tcp = self.dir.start(&[&args, rest].concat());
        let line = tcp.wait_for_line("listening on ");
        let at = line.split("listening on ").nth(1).and_then(|rest| rest.split(';').next());
        (tcp, at.expect("an address").to_owned())
    }

    /// Both ends of a connection over a local port, verified to be connected.
    fn connect(&self, at: &str) -> (TcpStream, TcpStream) {
        let mut near = dial(at);
        near.write_all(b"?").expect("written");
        let (mut far, _) = self.upstream.accept().expect("a connection");
        far.set_read_timeout(Some(WAIT_MAX)).expect("set");
        let mut byte = [0];
        far.read_exact(&mut byte).expect("the first byte");
        (near, far)
    }
}

fn dial(at: &str) -> TcpStream {
    let stream = TcpStream::connect(at).expect("connected");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("set");
    stream
}

/// Reads to the end.
fn read_all(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// The connection was reset and did not end cleanly.
#[track_caller]
fn expect_reset(stream: &mut impl Read) {
    let error = read_all(stream).expect_err("it ended cleanly");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

#[test]
fn a_local_port_reaches_the_upstream_with_half_closes_and_stops_on_sigterm() {
    let setup = TcpSetup::open();
    let (mut tcp, at) = setup.tcp("warehouse", "db", &[]);
    let (mut near, mut far) = setup.connect(&at);
    let (mut other_near, mut other_far) = setup.connect(&at);
    near.write_all(b"question").and_then(|()| near.shutdown(Shutdown::Write)).expect("written");
    assert_eq!(read_all(&mut far).expect("a clean end"), b"question");
    other_far
        .write_all(b"other")
        .and_then(|()| other_far.shutdown(Shutdown::Write))
        .expect("written");
    assert_eq!(read_all(&mut other_near).expect("a clean end"), b"other");
    far.write_all(b"answer").expect("written");
    drop(far);
    assert_eq!(read_all(&mut near).expect("a clean end"), b"answer");
    tcp.signal(Signal::TERM);
    tcp.wait_for_line("SIGTERM received: shutting down");
    // Open connections may continue to their end; new ones are refused.
    assert!(TcpStream::connect(&at).is_err(), "it still listens");
    other_near
        .write_all(b"more")
        .and_then(|()| other_near.shutdown(Shutdown::Write))
        .expect("written");
    assert_eq!(read_all(&mut other_far).expect("a clean end"), b"more");
    tcp.end().expect_out(&format!("listening on {at}\n"));
}

#[test]
fn a_second_signal_does_not_wait_and_resets_both_ends() {
    let setup = TcpSetup::open();
    let (mut tcp, at) = setup.tcp("warehouse", "db", &[]);
    let (mut near, mut far) = setup.connect(&at);
    tcp.signal(Signal::TERM);
    tcp.wait_for_line("SIGTERM received: shutting down");
    tcp.signal_until_line(Signal::INT, "SIGINT received while shutting down");
    tcp.end().expect(1, &[]);
    // GOODBYE notifies the node, which does not have to wait for a missing heartbeat (12 s).
    far.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    expect_reset(&mut near);
    expect_reset(&mut far);
}

#[test]
fn a_connection_that_cannot_be_made_is_reset_and_logged_in_one_line() {
    let setup = TcpSetup::open();
    let check = |agent: &str, name: &str, text: &str| {
        let (mut tcp, at) = setup.tcp(agent, name, &[]);
        expect_reset(&mut dial(&at));
        tcp.wait_for_line(text);
    };
    check("nobody", "db", "failed: UNAVAILABLE (not_executed): agent nobody is not attached");
    check("warehouse", "nope", "UNIMPLEMENTED (not_executed): no forward tcp:nope is hosted here");
    let (mut tcp, at) = setup.tcp("warehouse", "db", &[]);
    let (near, far) = setup.connect(&at);
    drop((near, far));
    let TcpSetup { dir, node: _node, at: node, mut agent, upstream } = setup;
    drop(upstream);
    expect_reset(&mut dial(&at));
    tcp.wait_for_line(
        "UNAVAILABLE (not_executed): the upstream of tcp:db cannot be reached: connection refused",
    );
    agent.wait_for_line("tcp:db: the upstream 127.0.0.1:");
    // A caller without a rule, next to ops above.
    dir.issue("certs", Role::Caller, "guest");
    let cert = ["--cert", "certs/caller-guest.pem"];
    let args = ["tcp", "warehouse", "db", "--node", &node, "--listen", "127.0.0.1:0"];
    let mut denied = dir.start(&[&args[..], &cert].concat());
    let line = denied.wait_for_line("listening on ");
    let at = line.split("listening on ").nth(1).and_then(|rest| rest.split(';').next());
    expect_reset(&mut dial(at.expect("an address")));
    denied.wait_for_line("PERMISSION_DENIED (not_executed): caller/guest may not call tcp:db");
}

#[test]
fn connections_over_the_limit_are_reset_and_a_freed_permit_is_reused() {
    let setup = TcpSetup::open();
    let (mut tcp, at) = setup.tcp("warehouse", "db", &["--connections-max", "1"]);
    let (mut near, far) = setup.connect(&at);
    expect_reset(&mut dial(&at));
    tcp.wait_for_line("limit of 1 connections reached (--connections-max)");
    near.shutdown(Shutdown::Write).expect("a half-close");
    drop(far);
    assert_eq!(read_all(&mut near).expect("a clean end"), b"");
    // The permit is returned shortly after the end was seen.
    let freed = (0..200).any(|_| {
        let mut near = dial(&at);
        near.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
        matches!(near.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    });
    assert!(freed, "a new connection was accepted");
}

#[test]
fn a_killed_dialback_tcp_resets_its_connections() {
    let setup = TcpSetup::open();
    let (tcp, at) = setup.tcp("warehouse", "db", &[]);
    let (mut near, _far) = setup.connect(&at);
    tcp.signal(Signal::KILL);
    expect_reset(&mut near);
}

#[test]
fn a_killed_agent_resets_its_upstream_at_once_and_the_local_end_once_the_node_detects_it() {
    let limits = "[limits]\nheartbeat_every = \"1s\"\nheartbeat_lost = \"2s\"\n";
    let mut setup = TcpSetup::with(limits);
    let (mut tcp, at) = setup.tcp("warehouse", "db", &[]);
    let (mut near, mut far) = setup.connect(&at);
    setup.agent.signal(Signal::KILL);
    expect_reset(&mut far);
    setup.node.wait_for_line("agent/warehouse disconnected: ");
    near.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
    expect_reset(&mut near);
    tcp.wait_for_line("aborted: UNAVAILABLE (unknown): ");
}

#[test]
fn a_killed_node_resets_the_upstream_once_the_agent_detects_it() {
    let limits = "[limits]\nheartbeat_every = \"1s\"\nheartbeat_lost = \"2s\"\n";
    let setup = TcpSetup::with(limits);
    let (_tcp, at) = setup.tcp("warehouse", "db", &[]);
    let (_near, mut far) = setup.connect(&at);
    setup.node.signal(Signal::KILL);
    expect_reset(&mut far);
}

#[test]
fn a_renewed_certificate_is_reloaded_and_breaks_no_connection() {
    let mut setup = TcpSetup::open();
    let (mut tcp, at) = setup.tcp("warehouse", "db", &[]);
    setup.node.wait_for_line("caller ops linked from");
    let (mut near, mut far) = setup.connect(&at);
    let mut request = LeafRequest::new(Role::Caller, "ops".parse().expect("a name"));
    request.force = true;
    setup.dir.certs("certs").issue(&request, SystemTime::now()).expect("issued");
    tcp.wait_for_line("certificate caller/ops of");
    setup.node.wait_for_line("caller ops linked from");
    far.write_all(b"still").and_then(|()| far.shutdown(Shutdown::Write)).expect("written");
    assert_eq!(read_all(&mut near).expect("a clean end"), b"still");
    drop(setup.connect(&at));
}

#[test]
fn a_unix_socket_works_and_its_file_is_removed_at_the_end() {
    let setup = TcpSetup::open();
    let path = setup.dir.path("local.sock");
    let listen = format!("unix:{}", path.display());
    let args = ["tcp", "warehouse", "db", "--node", &setup.at, "--listen", &listen];
    let mut tcp = setup.dir.start(&args);
    tcp.wait_for_line("listening on unix:");
    let mut near = UnixStream::connect(&path).expect("connected");
    near.write_all(b"question").and_then(|()| near.shutdown(Shutdown::Write)).expect("written");
    let (mut far, _) = setup.upstream.accept().expect("a connection");
    assert_eq!(read_all(&mut far).expect("a clean end"), b"question");
    far.write_all(b"answer").expect("written");
    drop(far);
    assert_eq!(read_all(&mut near).expect("a clean end"), b"answer");
    setup.dir.run(&args).expect(1, &["cannot listen on unix:", "remove the file"]);
    tcp.signal(Signal::TERM);
    tcp.end().expect(0, &[]);
    assert!(!path.exists(), "the socket's file was not removed");
}

#[test]
fn start_failures_are_reported_and_end_with_the_usual_codes() {
    let setup = TcpSetup::open();
    let taken = setup.upstream.local_addr().expect("an address").to_string();
    let run = |node: &str, listen: &str| {
        setup.dir.run(&["tcp", "warehouse", "db", "--node", node, "--listen", listen])
    };
    run(&setup.at, &taken).expect(1, &[&format!("cannot listen on {taken}: ")]);
    run("127.0.0.1:1", "127.0.0.1:0").expect(78, &["error: UNAVAILABLE (not_executed): "]);
    run(&setup.at, "5432").expect(2, &["is not an IP address and a port"]);
    let call = ["call", "warehouse", "tcp:db", "--node", &setup.at];
    setup.dir.run(&call).expect(2, &["tcp:db is a TCP forward, not a method", "dialback tcp"]);
    let twice = ["agent", "--tcp", "db=127.0.0.1:1", "--tcp", "db=127.0.0.1:2"];
    setup.dir.run(&twice).expect(2, &["--tcp names db twice"]);
}

#[test]
fn a_forward_is_listed_and_rules_are_tried_for_it() {
    let setup = TcpSetup::open();
    let listed = setup.dir.run(&["services", "warehouse", "--node", &setup.at]);
    listed.expect_out("tcp:db  tcp\n");
    let test = |method: &str| {
        setup.dir.run(&["policy", "test", "ops", "warehouse", method, "--config", "node.toml"])
    };
    test("tcp:db").expect(0, &[]);
    let denied = test("Demo/Echo").expect(1, &[]);
    assert_eq!(denied.stdout, "denied: no [[allow]] rule covers it\n");
    setup
        .dir
        .write("methods.toml", "[[allow]]\ncaller = \"ops\"\nagent = \"**\"\nmethod = \"*/*\"\n");
    let args = ["policy", "test", "ops", "warehouse", "tcp:db", "--policy", "methods.toml"];
    setup.dir.run(&args).expect(1, &[]);
}

#[test]
fn a_flag_replaces_a_forward_of_the_file_and_a_changed_file_is_reloaded() {
    let mut setup = TcpSetup::open();
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = other.local_addr().expect("an address");
    let mut second =
        setup.dir.start(&["agent", "--config", "agent.toml", "--tcp", &format!("db={to}")]);
    second.wait_for_line(&format!("forwarding tcp:db to {to}"));
    drop(second);
    let text = setup.dir.read("agent.toml").replace("\"db\"", "\"base\"");
    setup.dir.write("agent.toml", text);
    setup.agent.wait_for_line("no longer forwarding tcp:db");
    setup.agent.wait_for_line("forwarding tcp:base");
}
