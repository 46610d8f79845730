//! An agent or a node process that is suspended while calls arrive: calls that have expired when it
//! resumes do not start.

use super::process::{DialbackProcess, WorkDir};
use crate::world::{Direction, Relay, check_status, soon, spawn, until};
use dialback::{AgentInfo, Caller, Code, Credentials, Outcome};
use rustix::process::Signal;
use serde::Serialize;
use std::{
    future::IntoFuture,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

#[derive(Serialize)]
struct Append {
    id: String,
    ms: u64,
}

fn append(id: impl ToString) -> Append {
    Append { id: id.to_string(), ms: 0 }
}

/// Suspends an agent, makes this many calls to it, and resumes it after `pause`. With a dead path
/// to the node it has the requests but misses their resets.
async fn check_calls_to_a_suspended_agent(
    calls: usize,
    timeout: Duration,
    pause: Duration,
    is_path_dead: bool,
) {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let node: SocketAddr = at.parse().expect("an address");
    let path = Relay::to(node).await;
    let mut agent = dir.agent(&path.address().to_string());
    let credentials = Credentials::from_dir(dir.path("certs"), "caller-ops").expect("loaded");
    let caller = Caller::connect(&at, credentials).await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let call = |id: String, timeout| {
        callee.call::<()>("Demo/Append", &append(id)).timeout(timeout).into_future()
    };
    assert_eq!(call("before".into(), timeout).await, Ok(()));
    agent.stop();
    let stopped = Instant::now();
    let sent: Vec<_> = (0..calls).map(|n| spawn(call(format!("stale-{n}"), timeout))).collect();
    // The node has sent the requests to the agent, which does not answer.
    let is = async |what: &str, holds: &dyn Fn(&AgentInfo) -> bool| {
        soon(what, async { while !holds(&caller.agents().await.expect("a list")[0]) {} }).await;
    };
    is("all calls are in flight", &|agent| agent.calls_in_flight == calls as u64).await;
    if is_path_dead {
        path.block().await;
    }
    for call in sent {
        let failed = soon("a call ends", call).await;
        check_status(failed, Code::DeadlineExceeded, Outcome::Unknown);
    }
    let in_time = stopped.elapsed();
    assert!(in_time < timeout + Duration::from_secs(5), "the callers waited for {in_time:?}");
    until("the suspend is over", || stopped.elapsed() >= pause).await;
    agent.signal(Signal::CONT);
    agent.wait_for_line("process was suspended for");
    path.restore().await;
    // After a long suspend the node has closed the link, and the agent reconnects.
    is("the agent is attached", &|agent| agent.attached).await;
    let after = soon("a later call", call("after".into(), Duration::from_secs(40))).await;
    assert_eq!(after, Ok(()));
    assert_eq!(dir.read("ledger.txt"), "started before\ndone before\nstarted after\ndone after\n");
    end(agent);
}

fn end(agent: DialbackProcess) {
    agent.signal(Signal::TERM);
    agent.end().expect(0, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_expires_while_its_agent_is_suspended_is_not_started() {
    let timeout = Duration::from_secs(2);
    check_calls_to_a_suspended_agent(20, timeout, Duration::from_secs(3), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_call_is_not_started_even_if_the_agent_misses_its_reset() {
    let timeout = Duration::from_secs(2);
    check_calls_to_a_suspended_agent(20, timeout, Duration::from_secs(3), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_shorter_than_a_past_suspend_are_soon_accepted_again() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let mut agent = dir.agent(&at);
    let credentials = Credentials::from_dir(dir.path("certs"), "caller-ops").expect("loaded");
    let caller = Caller::connect(&at, credentials).await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    agent.stop();
    let stopped = Instant::now();
    until("the suspend is over", || stopped.elapsed() >= Duration::from_secs(3)).await;
    agent.signal(Signal::CONT);
    agent.wait_for_line("process was suspended for");
    // None of them has the three seconds that a call may have been unread.
    let taken = async {
        for n in 0.. {
            let call = callee.call::<()>("Demo/Append", &append(n));
            match call.timeout(Duration::from_secs(1)).await {
                Ok(()) => return,
                late => {
                    check_status(late, Code::DeadlineExceeded, Outcome::NotExecuted);
                }
            }
        }
    };
    soon("a short call is accepted", taken).await;
    end(agent);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make test-long"]
async fn a_hundred_calls_that_expire_in_a_suspend_of_twenty_seconds_are_not_started() {
    let timeout = Duration::from_secs(5);
    check_calls_to_a_suspended_agent(100, timeout, Duration::from_secs(20), false).await;
    check_calls_to_a_suspended_agent(100, timeout, Duration::from_secs(20), true).await;
}

/// A node with a gateway for every client on this machine, and an agent.
struct SuspendSetup {
    dir: WorkDir,
    node: DialbackProcess,
    at: String,
    gateway: String,
    _agent: DialbackProcess,
}

impl SuspendSetup {
    fn new() -> Self {
        let dir = WorkDir::new();
        let gateway = "[gateway]\nlisten = \"127.0.0.1:0\"\nanonymous = \"ops\"\n";
        dir.write("node.toml", format!("{}\n{gateway}", super::process::RULES));
        let args = ["node", "--listen", "127.0.0.1:0", "--config", "node.toml"];
        let (mut node, at) = dir.listening(&args);
        let line = node.wait_for_line("the gateway listens on ");
        let gateway = line.split("http://").nth(1).expect("an address").trim().to_owned();
        let agent = dir.agent(&at);
        Self { dir, node, at, gateway, _agent: agent }
    }

    /// An idle connection to the gateway over which one call has succeeded.
    fn idle_connection(&self, id: &str) -> TcpStream {
        let mut client = TcpStream::connect(&self.gateway).expect("connected");
        client.set_read_timeout(Some(Duration::from_secs(15))).expect("set");
        ask(&mut client, id, 10_000, &[]);
        assert!(answer(&mut client).starts_with("HTTP/1.1 200 "), "{id}");
        client
    }
}

/// Sends a complete call of `Demo/Append` over HTTP, with padding in its body.
fn ask(client: &mut TcpStream, id: &str, timeout_ms: u64, padding: &[u8]) {
    let body = [b"{\"id\":\"", id.as_bytes(), b"\",\"ms\":0}", padding].concat();
    let head = format!(
        "POST /v1/agents/warehouse/Demo/Append HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnect-timeout-ms: {timeout_ms}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(&[head.as_bytes(), &body].concat()).expect("sent");
}

/// The head of an answer.
fn answer(client: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.expect("a length").parse().expect("a number")];
    client.read_exact(&mut body).expect("a body");
    head
}

/// Suspends a node for three seconds and runs `meanwhile` in that time.
async fn while_suspended<T>(node: &DialbackProcess, meanwhile: impl FnOnce() -> T) -> T {
    node.stop();
    let stopped = Instant::now();
    let done = meanwhile();
    until("the suspend is over", || stopped.elapsed() >= Duration::from_secs(3)).await;
    node.signal(Signal::CONT);
    done
}

/// The ids of started calls in order, except those of `known` and `again`.
fn started(dir: &WorkDir) -> Vec<String> {
    let ledger = dir.read("ledger.txt");
    let ids = ledger.lines().filter_map(|line| line.strip_prefix("started "));
    ids.filter(|id| !id.starts_with("known") && *id != "again").map(Into::into).collect()
}

/// Waits until a short call over a new connection is answered after the suspend.
async fn wait_until_short_calls_are_accepted(setup: &SuspendSetup) {
    let mut is_taken = || {
        let mut client = TcpStream::connect(&setup.gateway).expect("connected");
        ask(&mut client, "again", 1_000, &[]);
        answer(&mut client).starts_with("HTTP/1.1 200 ")
    };
    until("a short call is accepted", &mut is_taken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_calls_that_expire_while_the_node_is_suspended_are_not_started() {
    let setup = SuspendSetup::new();
    let mut idle_connection: Vec<_> =
        (0..10).map(|n| setup.idle_connection(&format!("known-{n}"))).collect();
    let gateway = setup.gateway.clone();
    let mut waiting = while_suspended(&setup.node, || {
        let mut waiting: Vec<_> = (0..20)
            .map(|n| {
                let mut client = TcpStream::connect(&gateway).expect("connected");
                client.set_read_timeout(Some(Duration::from_secs(15))).expect("set");
                // Some are longer than one read.
                ask(&mut client, &format!("new-{n}"), 300, &vec![b' '; n * 10_000]);
                client
            })
            .collect();
        for (n, client) in idle_connection.iter_mut().enumerate() {
            ask(client, &format!("idle-{n}"), 300, &[]);
        }
        waiting.append(&mut idle_connection);
        waiting
    })
    .await;
    for client in &mut waiting {
        let head = answer(client);
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
        assert!(head.contains("dialback-outcome: not_executed"), "{head}");
    }
    wait_until_short_calls_are_accepted(&setup).await;
    assert_eq!(started(&setup.dir), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_http_clients_that_disconnect_while_the_node_is_suspended_are_not_started() {
    let setup = SuspendSetup::new();
    let idle_connection: Vec<_> =
        (0..10).map(|n| setup.idle_connection(&format!("known-{n}"))).collect();
    let gateway = setup.gateway.clone();
    let mut stays = while_suspended(&setup.node, || {
        for (n, mut client) in idle_connection.into_iter().enumerate() {
            ask(&mut client, &format!("idle-{n}"), 30_000, &[]);
        }
        for n in 0..110 {
            let mut client = TcpStream::connect(&gateway).expect("connected");
            ask(&mut client, &format!("new-{n}"), 30_000, &vec![b' '; n * 100]);
        }
        let mut stays = TcpStream::connect(&gateway).expect("connected");
        stays.set_read_timeout(Some(Duration::from_secs(15))).expect("set");
        ask(&mut stays, "stays", 30_000, &[]);
        stays
    })
    .await;
    // A client that is still connected and has time left is served; the others do not count as
    // misbehaviour (`resets_max` is 100).
    let head = answer(&mut stays);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    wait_until_short_calls_are_accepted(&setup).await;
    assert_eq!(started(&setup.dir), ["stays"]);
}

/// Makes this many calls to a suspended node over a link that is dead before the node receives
/// their resets.
async fn check_calls_to_a_suspended_node(calls: usize) {
    let setup = SuspendSetup::new();
    let at: SocketAddr = setup.at.parse().expect("an address");
    let path = Relay::to(at).await;
    let credentials = || Credentials::from_dir(setup.dir.path("certs"), "caller-ops");
    let caller = Caller::connect(path.address().to_string(), credentials().expect("loaded"));
    let caller = caller.await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let call = |id: String| {
        let call = callee.call::<()>("Demo/Append", &append(id));
        call.timeout(Duration::from_secs(1)).into_future()
    };
    assert_eq!(call("known".into()).await, Ok(()));
    setup.node.stop();
    let stopped = Instant::now();
    let before = path.stats().delivered(Direction::Up);
    let sent: Vec<_> = (0..calls).map(|n| spawn(call(format!("stale-{n}")))).collect();
    // A request has more than 60 bytes, and none of them waits for an answer of the node.
    let are_sent = || {
        let bytes = path.stats().delivered(Direction::Up) - before;
        bytes > 60 * calls as u64 && stopped.elapsed() > Duration::from_millis(300)
    };
    until("the requests are with the node", are_sent).await;
    path.block().await;
    for call in sent {
        let failed = soon("a call ends", call).await;
        check_status(failed, Code::DeadlineExceeded, Outcome::Unknown);
    }
    until("the suspend is over", || stopped.elapsed() >= Duration::from_secs(3)).await;
    setup.node.signal(Signal::CONT);
    path.restore().await;
    let again = soon("a later call", async { while call("again".into()).await.is_err() {} });
    again.await;
    assert_eq!(started(&setup.dir), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn link_calls_that_expire_while_the_node_is_suspended_are_not_started() {
    check_calls_to_a_suspended_node(40).await;
}
