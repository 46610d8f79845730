//! `dialback doctor`: each failure is caused here, and recognised with its remedy.

use super::{
    clock::{HOUR, valid_in},
    process::{CommandOutput, DialbackProcess, RULES, WorkDir},
};
use crate::world::{PathConditions, RawNode, Relay, World, soon, spawn};
use dialback::{Role, certs::LeafProfile};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    thread,
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The result of one check, by its name and a part of its text.
#[track_caller]
fn check<'a>(
    checks: &'a serde_json::Value,
    name: &str,
    part: &str,
) -> &'a serde_json::Map<String, serde_json::Value> {
    let named = checks.as_array().expect("checks").iter().filter_map(|check| check.as_object());
    let text =
        |check: &serde_json::Map<_, _>| check["text"].as_str().unwrap_or_default().to_owned();
    let mut found = named.filter(|check| check["check"] == name && text(check).contains(part));
    found.next().unwrap_or_else(|| panic!("no {name} with {part:?} in {checks:#}"))
}

/// A check has this state, and its text and remedy have these parts.
#[track_caller]
fn expect(ended: &CommandOutput, [name, state, text, remedy]: [&str; 4]) {
    let checks = ended.json();
    let check = check(&checks, name, text);
    let has = check["remedy"].as_str().unwrap_or_default();
    assert!(check["state"] == state && has.contains(remedy), "{check:#?}");
}

fn doctor(dir: &WorkDir, args: &[&str]) -> CommandOutput {
    dir.run(&[&["doctor"], args, &["--json"]].concat())
}

/// Examines an agent that may dial this node by UDP only.
fn by_udp(dir: &WorkDir, node: &str, args: &[&str]) -> CommandOutput {
    doctor(dir, &[&["agent", "--path", "udp", "--node", node], args].concat())
}

/// The same, beside peers that need this runtime.
async fn by_udp_aside(dir: WorkDir, node: SocketAddr) -> CommandOutput {
    let run = tokio::task::spawn_blocking(move || by_udp(&dir, &node.to_string(), &[]));
    soon("the doctor ends", run).await.expect("it ended")
}

/// A node that accepts tunnels without TLS, its address and that of its tunnels.
fn node_with_tunnel(dir: &WorkDir) -> (DialbackProcess, String, SocketAddr) {
    dir.write("node.toml", format!("[tunnel]\nlisten = \"127.0.0.1:0\"\ntls = false\n{RULES}"));
    let (mut node, at) =
        dir.listening(&["node", "--listen", "127.0.0.1:0", "--config", "node.toml"]);
    let line = node.wait_for_line("tunnels are accepted at ");
    let tunnel = line.split("ws://").nth(1).and_then(|url| url.split('/').next());
    (node, at, tunnel.expect("a URL").parse().expect("an address"))
}

#[test]
fn a_path_without_faults_is_ok_and_a_running_agent_keeps_its_link() {
    let dir = WorkDir::new();
    let (_node, at, tunnel) = node_with_tunnel(&dir);
    let _agent = dir.agent(&at);
    let since = || dir.run(&["agents", "--json", "--node", &at]).json()[0]["since_ms"].clone();
    let before = since();
    let url = format!("ws://{tunnel}");
    for command in ["agent", "caller"] {
        let ended = doctor(&dir, &[command, "--node", &at, "--tunnel-url", &url]).expect(0, &[]);
        for [name, text] in [
            ["certificate", " of dialback.local in certs/"],
            ["role", command],
            ["key", "fits"],
            ["revocation list", "certs/crl.pem, until "],
            ["name", "has the addresses 127.0.0.1"],
            ["route", " from 127.0.0.1"],
            ["udp", "node/edge-1 answers (dialback/1"],
            ["rtt", "RTT "],
            ["mtu", "UDP payloads of "],
            ["tunnel", "node/edge-1 answers, RTT "],
            ["node certificate", "node/edge-1, 89 days left"],
            ["clock", "agrees with that of ws://127.0.0.1:"],
        ] {
            expect(&ended, [name, "ok", text, ""]);
        }
    }
    assert_eq!(since(), before, "the agent was linked all the time");
    let ended = doctor(&dir, &["caller", "--node", &at, "--path", "udp"]).expect(0, &[]);
    expect(&ended, ["permits", "ok", "caller ops may call 1 agent", ""]);
    dir.issue("certs", Role::Caller, "intern");
    let intern = ["--path", "udp", "--cert", "certs/caller-intern.pem"];
    let ended = doctor(&dir, &[&["caller", "--node", &at], &intern[..]].concat()).expect(0, &[]);
    expect(&ended, ["permits", "warning", "no agent that caller intern may call", "[[allow]]"]);
    let text = dir.run(&["doctor", "agent", "--node", &at, "--path", "udp"]).expect(0, &[]).stdout;
    assert!(text.contains("\nok      udp: 127.0.0.1:"), "{text}");
    assert!(text.contains("\nskipped tunnel: "), "{text}");
}

#[test]
fn dropped_udp_is_a_failure_and_a_warning_where_the_tunnel_leads_to_the_node() {
    let dir = WorkDir::new();
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = silent.local_addr().expect("bound").to_string();
    let fault = ["does not answer", "does a firewall block UDP on the way"];
    let ended = by_udp(&dir, &at, &[]).expect(1, &[]);
    expect(&ended, ["udp", "failure", fault[0], fault[1]]);
    let (_node, _, tunnel) = node_with_tunnel(&dir);
    let url = format!("ws://{tunnel}");
    let ended = doctor(&dir, &["agent", "--node", &at, "--tunnel-url", &url]).expect(0, &[]);
    expect(&ended, ["udp", "warning", fault[0], fault[1]]);
    expect(&ended, ["tunnel", "ok", "node/edge-1 answers", ""]);
}

#[test]
fn a_closed_port_is_refused() {
    let dir = WorkDir::new();
    // Refuses all but its peer.
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect("127.0.0.1:9").expect("a peer");
    let at = socket.local_addr().expect("bound").to_string();
    let ended = by_udp(&dir, &at, &[]).expect(1, &[]);
    expect(&ended, ["udp", "failure", "(connection refused)", "is it the right port"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_address_without_a_route_is_a_failure_without_a_dial() {
    let dir = WorkDir::new();
    let ended = by_udp(&dir, "255.255.255.255:4433", &[]).expect(1, &[]);
    expect(&ended, ["route", "failure", "Permission denied", "a firewall on this machine"]);
    expect(&ended, ["udp", "skipped", "no route", ""]);
    // A network namespace of its own has no route at all; not every machine permits one.
    let isolated = ["--user", "--map-root-user", "--net"];
    let mut unshare = std::process::Command::new("unshare");
    if !unshare.args(isolated).arg("true").output().is_ok_and(|ended| ended.status.success()) {
        return;
    }
    let doctor = ["agent", "--path", "udp", "--node", "192.0.2.1:4433", "--json"];
    let mut command = std::process::Command::new("unshare");
    command.args(isolated).args([env!("CARGO_BIN_EXE_dialback"), "doctor"]).args(doctor);
    let ended = command.current_dir(dir.path("")).output().expect("it runs");
    let checks = serde_json::from_slice(&ended.stdout).expect("JSON");
    let route = check(&checks, "route", "Network is unreachable");
    assert!(route["state"] == "failure" && ended.status.code() == Some(1), "{route:?}");
    assert!(route["remedy"].as_str().is_some_and(|text| text.contains("a route there?")));
}

#[test]
fn an_unknown_name_is_a_failure() {
    let dir = WorkDir::new();
    let ended = by_udp(&dir, "edge.invalid:4433", &[]).expect(1, &[]);
    let name = ["name", "failure", "the name edge.invalid does not resolve", "check the name"];
    expect(&ended, name);
    expect(&ended, ["udp", "skipped", "no address", ""]);
}

#[test]
fn a_wrong_ca_is_named_on_the_side_that_has_it() {
    let (dir, other) = (WorkDir::new(), WorkDir::new());
    let (_node, at) = dir.node();
    let ended = by_udp(&other, &at, &[]).expect(1, &[]);
    expect(&ended, ["udp", "failure", "rejected the peer's certificate: unknown CA", "our ca.pem"]);
    let ca = fs::copy(dir.path("certs/ca.pem"), other.path("certs/ca.pem"));
    ca.expect("copied");
    let ended = by_udp(&other, &at, &["--crl", "none"]).expect(1, &[]);
    let rejected = "the peer rejected our certificate: unknown CA";
    expect(&ended, ["udp", "failure", rejected, "the peer's ca.pem"]);
    expect(&ended, ["revocation list", "warning", "no revocation list", "dialback certs crl"]);
}

/// Replaces a certificate by one that has expired.
fn expire(dir: &WorkDir, peer: &str) -> dialback::certs::LeafPem {
    let (ca, now) = (dir.certs("certs").ca().expect("a CA"), SystemTime::now());
    let profile =
        LeafProfile::new(ca.trust_domain(), &peer.parse().expect("a peer"), &["127.0.0.1"], now);
    let (not_before, not_after) = (now - 9 * DAY, now - DAY);
    ca.leaf(&LeafProfile { not_before, not_after, ..profile }).expect("signed")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_a_failure_on_either_side() {
    let (dir, world) = (WorkDir::new(), World::new());
    let raw = RawNode::presenting(&world.credentials("node/any"), &expire(&dir, "node/edge-1"));
    let leaf = expire(&dir, "agent/warehouse");
    let here = WorkDir::empty();
    fs::create_dir(here.path("certs")).expect("made");
    for file in ["ca.pem", "crl.pem"] {
        fs::copy(dir.path(&format!("certs/{file}")), here.path(&format!("certs/{file}")))
            .expect("copied");
    }
    here.write("certs/agent-warehouse.pem", &leaf.cert);
    here.write("certs/agent-warehouse.key", leaf.key.as_bytes());
    fs::set_permissions(here.path("certs/agent-warehouse.key"), fs::Permissions::from_mode(0o600))
        .expect("changed");
    let ended = by_udp_aside(here, raw.address()).await.expect(1, &[]);
    let remedy = "issue it again with `dialback certs issue agent warehouse`, or check the clock";
    expect(&ended, ["certificate", "failure", "has expired", remedy]);
    expect(&ended, ["udp", "skipped", "no usable certificate", ""]);
    let ended = by_udp_aside(dir, raw.address()).await.expect(1, &[]);
    expect(&ended, ["udp", "failure", "certificate expired", "issue the peer's certificate again"]);
}

#[test]
fn a_revoked_certificate_is_named_by_the_own_list_and_by_the_node() {
    let dir = WorkDir::new();
    dir.run(&["certs", "revoke", "agent", "warehouse"]).expect(0, &[]);
    let (_node, at) = dir.node();
    let ended = by_udp(&dir, &at, &[]).expect(1, &[]);
    let own = "is revoked by the revocation list here";
    expect(&ended, ["certificate", "failure", own, "dialback certs issue"]);
    let ended = by_udp(&dir, &at, &["--crl", "none"]).expect(1, &[]);
    let rejected = "the peer rejected our certificate: certificate revoked";
    expect(&ended, ["udp", "failure", rejected, "ask the operator of the CA"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_role_is_a_failure_on_either_side() {
    let (dir, world) = (WorkDir::new(), World::new());
    let own = by_udp(&dir, "127.0.0.1:1", &["--cert", "certs/caller-ops.pem"]).expect(1, &[]);
    expect(&own, ["role", "failure", "role agent is required", ""]);
    let ca = dir.certs("certs").ca().expect("a CA");
    let peer = "agent/other".parse().expect("a peer name");
    let leaf = ca.leaf(&LeafProfile::new(ca.trust_domain(), &peer, &[], SystemTime::now()));
    let raw = RawNode::presenting(&world.credentials("node/any"), &leaf.expect("signed"));
    let ended = by_udp_aside(dir, raw.address()).await.expect(1, &[]);
    expect(&ended, ["udp", "failure", "wrong role", "the address that was dialled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_a_failure() {
    let (dir, world) = (WorkDir::new(), World::new());
    let config = world.credentials("node/any").accepting_config(b"h3").expect("a config");
    let raw = RawNode::start(config);
    let ended = by_udp_aside(dir, raw.address()).await.expect(1, &[]);
    let fault = ["no common protocol version", "check that dialback listens on the port"];
    expect(&ended, ["udp", "failure", fault[0], fault[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_by_a_day_shows_in_certificates() {
    let (dir, world) = (WorkDir::new(), World::new());
    let ca = dir.certs("certs").ca().expect("a CA");
    let (node, now) = ("node/edge-1".parse().expect("a peer name"), SystemTime::now());
    let profile = LeafProfile::new(ca.trust_domain(), &node, &["127.0.0.1"], now);
    let early = LeafProfile { not_before: now + DAY, not_after: now + 9 * DAY, ..profile };
    let early = ca.leaf(&early).expect("signed");
    let raw = RawNode::presenting(&world.credentials("node/any"), &early);
    let clock = ["clock", "failure", "this machine's clock says ", "by NTP"];
    let ended = by_udp_aside(dir, raw.address()).await.expect(1, &[]);
    expect(&ended, ["udp", "failure", "not valid yet", "the clock here may be behind"]);
    expect(&ended, clock);
    let dir = WorkDir::new();
    valid_in(&dir, "agent/warehouse", 24 * HOUR);
    let ended = by_udp_aside(dir, raw.address()).await.expect(1, &[]);
    expect(&ended, ["certificate", "failure", "is not valid yet", "the clock may be behind"]);
    expect(&ended, clock);
}

/// Carries one connection, and replaces the value of `date` in the head of the answer.
async fn at_another_date(mut near: tokio::net::TcpStream, to: SocketAddr, date: &str) {
    let mut far = tokio::net::TcpStream::connect(to).await.expect("connected");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        near.read_exact(&mut byte).await.expect("a request");
        head.push(byte[0]);
    }
    far.write_all(&head).await.expect("written");
    head.clear();
    while !head.ends_with(b"\r\n\r\n") {
        far.read_exact(&mut byte).await.expect("an answer");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let is_date = |line: &&str| line.to_ascii_lowercase().starts_with("date:");
    assert!(head.lines().any(|line| is_date(&line)), "{head}");
    let lines = head.trim_end().lines().filter(|line| !is_date(line));
    let head: String = lines.map(|line| format!("{line}\r\n")).collect();
    near.write_all(format!("{head}date: {date}\r\n\r\n").as_bytes()).await.expect("written");
    drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_by_a_day_shows_in_the_answer_of_the_tunnel() {
    let dir = WorkDir::new();
    let (_node, at, tunnel) = node_with_tunnel(&dir);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("bound"));
    let _proxy = spawn(async move {
        let (near, _) = listener.accept().await.expect("a connection");
        at_another_date(near, tunnel, "Wed, 21 Oct 2015 07:28:00 GMT").await;
    });
    let run = tokio::task::spawn_blocking(move || {
        doctor(&dir, &["agent", "--path", "tunnel", "--node", &at, "--tunnel-url", &url])
    });
    let ended = soon("the doctor ends", run).await.expect("it ended").expect(1, &[]);
    expect(&ended, ["tunnel", "ok", "node/edge-1 answers", ""]);
    expect(&ended, ["udp", "skipped", "path is \"tunnel\"", ""]);
    expect(&ended, ["clock", "failure", " s ahead of that of ws://127.0.0.1:", "by NTP"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_for_large_packets_is_a_warning_and_one_for_all_of_quic_a_failure() {
    for (bytes_max, state) in [(1_210, "warning"), (1_300, "warning"), (1_199, "failure")] {
        let dir = WorkDir::new();
        let (_node, at) = dir.node();
        let conditions = PathConditions { bytes_max: Some(bytes_max), ..PathConditions::default() };
        let relay = Relay::with_conditions(at.parse().expect("an address"), conditions).await;
        let ended = by_udp_aside(dir, relay.address()).await;
        match state {
            "failure" => {
                let ended = ended.expect(1, &[]);
                let fault = ["does not answer", "or packets of 1200 bytes?"];
                expect(&ended, ["udp", "failure", fault[0], fault[1]]);
            }
            _ => {
                let ended = ended.expect(0, &[]);
                let text = "larger ones are lost, where the interface carries ";
                expect(&ended, ["mtu", "warning", text, "raise the MTU on the way"]);
            }
        }
    }
}

#[test]
fn small_buffers_are_a_warning_where_the_system_gives_less() {
    let dir = WorkDir::new();
    let ended = doctor(&dir, &["node", "--listen", "127.0.0.1:0"]).expect(0, &[]);
    let checks = ended.json();
    let buffers = check(&checks, "socket buffers", "KiB to receive");
    let limit = fs::read_to_string("/proc/sys/net/core/rmem_max").ok();
    let limit = limit.and_then(|text| text.trim().parse::<usize>().ok());
    if limit.is_some_and(|limit| limit < dialback::limits::UDP_RECEIVE_BUFFER_BYTES) {
        assert_eq!(buffers["state"], "warning", "{buffers:?}");
        let remedy = buffers["remedy"].as_str().expect("a remedy");
        assert!(remedy.contains("sysctl -w net.core.rmem_max="), "{remedy}");
    }
}

/// A proxy that gives one answer to all requests.
fn proxy(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    break;
                }
                head.push(byte[0]);
            }
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    format!("http://{at}")
}

#[test]
fn a_proxy_that_asks_for_a_password_or_refuses_is_named() {
    let dir = WorkDir::new();
    let with = |answer, user: &[&str]| {
        let proxy = proxy(answer);
        let args = ["agent", "--path", "tunnel", "--node", "127.0.0.1:1", "--proxy", &proxy];
        doctor(&dir, &[&args, user].concat()).expect(1, &[])
    };
    let ended = with("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", &[]);
    let asks = "wants a user and a password (407)";
    expect(&ended, ["proxy", "failure", asks, "set proxy = \"http://USER@HOST:PORT\""]);
    expect(&ended, ["tunnel", "skipped", "the proxy does not let it through", ""]);
    let ended = with("HTTP/1.1 403 Forbidden\r\n\r\n", &[]);
    expect(
        &ended,
        [
            "proxy",
            "failure",
            "refused to connect to 127.0.0.1:443: HTTP/1.1 403",
            "ask its administrator",
        ],
    );
    dir.write("password", "secret");
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(dir.path("password"), mode).expect("changed");
    let args = ["--proxy", "http://jo@127.0.0.1:1", "--proxy-password-file", "password"];
    let ended = doctor(&dir, &[&["agent", "--node", "127.0.0.1:1"], &args[..]].concat());
    expect(&ended, ["proxy", "failure", "password has mode 0644", "chmod 600 password"]);
}

#[test]
fn a_tunnel_that_is_closed_is_a_warning_while_udp_works() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let args = ["caller", "--node", &at, "--tunnel-url", "ws://127.0.0.1:1"];
    let ended = doctor(&dir, &args).expect(0, &[]);
    expect(&ended, ["tunnel", "warning", "Connection refused", "are tunnels accepted there"]);
    let ended = doctor(&dir, &[&args[..], &["--path", "tunnel"]].concat()).expect(1, &[]);
    expect(&ended, ["tunnel", "failure", "Connection refused", "are tunnels accepted there"]);
}

#[test]
fn key_files_that_others_can_read_are_a_failure() {
    let dir = WorkDir::new();
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(dir.path("certs/agent-warehouse.key"), mode).expect("changed");
    let ended = by_udp(&dir, "127.0.0.1:1", &[]).expect(1, &[]);
    expect(&ended, ["key", "failure", "has mode 0644", "chmod 600"]);
}

#[test]
fn a_node_is_examined_before_it_runs_and_while_it_runs() {
    let dir = WorkDir::new();
    dir.write("rules.toml", RULES);
    let ended = doctor(&dir, &["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"]);
    let ended = ended.expect(0, &[]);
    for [name, text] in [
        ["role", "node/edge-1 is of role node"],
        ["host names", "may be dialled as localhost, 127.0.0.1, ::1"],
        ["listen", "is free"],
        ["policy", "1 rule"],
        ["open files", "are needed"],
    ] {
        expect(&ended, [name, "ok", text, ""]);
    }
    let (_node, at) = dir.node();
    let ended = doctor(&dir, &["node", "--listen", &at]).expect(0, &[]);
    expect(&ended, ["listen", "warning", "a node seems to run here", "--listen"]);
    expect(&ended, ["policy", "warning", "every remote call is denied", "add [[allow]]"]);
}

#[test]
fn faults_of_a_node_are_named_together() {
    let dir = WorkDir::new();
    dir.write("state", "");
    dir.write("rules.toml", "[[allow]]\ncaller = \"ops\"\n");
    fs::remove_file(dir.path("certs/crl.pem")).expect("removed");
    let flags = ["--listen", "192.0.2.1:4433", "--policy", "rules.toml", "--state", "state"];
    let more = ["--admin", "192.0.2.1:1", "--gateway", "127.0.0.1:0", "--tokens", "gone"];
    let ended = doctor(&dir, &[&["node"], &flags[..], &more].concat()).expect(1, &[]);
    expect(&ended, ["revocation list", "failure", "crl.pem does not exist", ""]);
    expect(&ended, ["listen", "failure", "cannot listen on UDP", "no interface of this machine"]);
    expect(&ended, ["policy", "failure", "rules.toml", ""]);
    expect(&ended, ["state", "failure", "not a directory", "--state"]);
    expect(&ended, ["admin", "failure", "open to other machines", "listen on loopback"]);
    expect(&ended, ["gateway", "failure", "gone", ""]);
}

#[test]
fn the_admin_listener_of_a_running_node_is_asked() {
    let dir = WorkDir::new();
    let mut node = dir.start(&["node", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let line = node.wait_for_line("metrics at ");
    let at = line.rsplit("http://").next().and_then(|url| url.strip_suffix("/metrics"));
    let at = at.expect("an address").to_string();
    let ended = doctor(&dir, &["node", "--listen", "127.0.0.1:0", "--admin", &at]).expect(0, &[]);
    expect(&ended, ["admin", "ok", "is ready", ""]);
}

#[test]
fn bad_usage_and_bad_config_files_end_with_2() {
    let dir = WorkDir::new();
    dir.write("bad.toml", "nonsense = 1\n");
    for command in ["agent", "node"] {
        doctor(&dir, &[command, "--config", "bad.toml"]).expect(2, &["error: bad.toml:1"]);
    }
    doctor(&dir, &["caller", "--node", "::1"]).expect(2, &["error: "]);
    dir.run(&["doctor"]).expect(2, &["Usage"]);
    let empty = WorkDir::empty();
    let ended =
        doctor(&empty, &["caller", "--node", "127.0.0.1:1", "--path", "udp"]).expect(1, &[]);
    expect(&ended, ["certificate", "failure", "certs does not exist", "dialback certs init"]);
}
