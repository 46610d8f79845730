//! Calls by service while agents attach and detach: 1,000 agents register and close without a
//! pause, over 100 services, under 1,000 calls a second of `any`. Prints the latency of calls.
//!
//! `cargo bench --bench churn -- [AGENTS] [CALLS_PER_SECOND] [SECONDS] [EXTRA_HOSTS]`. The node is
//! a separate process; agents and caller run in this one. With EXTRA_HOSTS, this many agents that
//! the caller may not call host each service too: a node without an index checks them all.

#![expect(clippy::disallowed_methods, reason = "a bench starts its own tasks and reads the clock")]

use dialback::{
    Agent, Caller, Code, Context, CredentialPem, Credentials, Node, NodePolicy, PeerName, Role,
    Service,
    certs::{Ca, LeafProfile},
    policy::{AllowRule, HostRule},
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

const SERVICES: usize = 100;

fn leaf(ca: &Ca, peer: &str) -> (String, String) {
    let peer: PeerName = peer.parse().expect("a peer name");
    let hosts: &[&str] = if peer.role == Role::Node { &["127.0.0.1"] } else { &[] };
    let leaf = ca
        .leaf(&LeafProfile::new(ca.trust_domain(), &peer, hosts, SystemTime::now()))
        .expect("a leaf");
    (leaf.cert, leaf.key.to_string())
}

fn credentials(cert: &str, key: &str, ca: &str) -> Credentials {
    let pem = CredentialPem {
        cert: cert.as_bytes(),
        key: key.as_bytes(),
        ca: ca.as_bytes(),
        ..CredentialPem::default()
    };
    Credentials::from_pem(&pem).expect("credentials")
}

fn credentials_of(ca: &Ca, peer: &str) -> Credentials {
    let (cert, key) = leaf(ca, peer);
    credentials(&cert, &key, ca.pem())
}

/// Certificate, key and CA from standard input, each up to a line `--`.
fn read_credentials() -> Credentials {
    let mut parts = vec![String::new()];
    for line in std::io::stdin().lock().lines() {
        match line.expect("a line").as_str() {
            "--" if parts.len() == 3 => break,
            "--" => parts.push(String::new()),
            line => parts.last_mut().expect("never empty").extend([line, "\n"]),
        }
    }
    credentials(&parts[0], &parts[1], &parts[2])
}

/// The node's process: prints its address, and runs until its input ends.
async fn node() {
    let policy = NodePolicy::default()
        .allow(AllowRule::parse("bench", "open.*", "*/*").expect("a rule"))
        .host(HostRule::parse("**", "**").expect("a rule"));
    let limits = dialback::Limits {
        handshakes_per_address: 100_000,
        handshakes_burst: 100_000,
        ..dialback::Limits::default()
    };
    let node = Node::builder(read_credentials()).listen("127.0.0.1:0").policy(policy);
    let node = node.limits(limits).start().await.expect("a node");
    println!("{}", node.local_addr());
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    read.await.expect("no panic").expect("input ends");
    drop(node);
}

fn start_node(ca: &Ca) -> (Child, String) {
    let (cert, key) = leaf(ca, "node/edge");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .arg("node")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let stdin = child.stdin.as_mut().expect("its input");
    write!(stdin, "{cert}\n--\n{key}\n--\n{}\n--\n", ca.pem()).expect("credentials");
    let mut address = String::new();
    let stdout = child.stdout.as_mut().expect("its output");
    BufReader::new(stdout).read_line(&mut address).expect("an address");
    (child, address.trim().to_owned())
}

fn service(number: usize) -> Service {
    Service::new(format!("S{number}"))
        .method("Echo", |text: String, _: Context| std::future::ready(Ok(text)))
}

async fn attach(credentials: Credentials, address: &str, services: Vec<Service>) -> Agent {
    let mut agent = Agent::builder(credentials).node(address);
    for service in services {
        agent = agent.serve(service);
    }
    let agent = agent.start().expect("an agent");
    agent.registered(1).await;
    agent
}

/// One agent that registers two services, stays for a moment and closes, repeatedly.
async fn attach_and_detach(
    credentials: Credentials,
    address: String,
    n: usize,
    turns: Arc<AtomicU64>,
) {
    tokio::time::sleep(stay(n) / 2).await;
    loop {
        let services = vec![service(n % SERVICES), service((n + 1) % SERVICES)];
        let agent = attach(credentials.clone(), &address, services).await;
        tokio::time::sleep(stay(n)).await;
        agent.shutdown().await;
        turns.fetch_add(1, Ordering::Relaxed);
    }
}

/// The time that an agent stays: with 1,000 of them about 65 attach and detach a second, and the
/// cores are not saturated by handshakes.
const fn stay(n: usize) -> Duration {
    Duration::from_millis(10_000 + n as u64 * 10 % 10_000)
}

fn percentile(sorted: &[Duration], percent: f64) -> f64 {
    let at = ((sorted.len() as f64 * percent / 100.0) as usize).min(sorted.len() - 1);
    sorted[at].as_secs_f64() * 1e3
}

async fn measure([agents, rate, seconds, extra]: [usize; 4]) {
    let ca = Ca::generate("bench.local", SystemTime::now()).expect("a CA");
    let (mut child, address) = start_node(&ca);
    // One that stays, so that each call can be answered.
    let all = (0..SERVICES).map(service).collect();
    let stays = attach(credentials_of(&ca, "agent/open.stays"), &address, all).await;
    let mut others = Vec::new();
    for n in 0..extra {
        let credentials = credentials_of(&ca, &format!("agent/shut.x{n}"));
        others.push(attach(credentials, &address, (0..SERVICES).map(service).collect()).await);
    }
    let turns = Arc::new(AtomicU64::new(0));
    for n in 0..agents {
        let credentials = credentials_of(&ca, &format!("agent/open.a{n}"));
        tokio::spawn(attach_and_detach(credentials, address.clone(), n, turns.clone()));
    }
    let caller = Caller::connect(&address, credentials_of(&ca, "caller/bench")).await;
    let caller = caller.expect("a caller");
    tokio::time::sleep(Duration::from_secs(12)).await;
    let (began, turns_before) = (Instant::now(), turns.load(Ordering::Relaxed));
    let mut calls = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate as u32);
    for n in 0..rate * seconds {
        ticks.tick().await;
        let any = caller.any();
        calls.push(tokio::spawn(async move {
            let began = Instant::now();
            let method = format!("S{}/Echo", n % SERVICES);
            let answer = any.call::<String>(method.as_str(), "x").await;
            (began.elapsed(), answer.err().map(|status| status.code()))
        }));
    }
    let (mut times, mut failed) = (Vec::new(), Vec::<Code>::new());
    for call in calls {
        let (time, code) = call.await.expect("no panic");
        times.push(time);
        failed.extend(code);
    }
    let elapsed = began.elapsed().as_secs_f64();
    times.sort();
    let [p50, p99, p999] = [50.0, 99.0, 99.9].map(|percent| percentile(&times, percent));
    println!(
        "{agents} agents, {:.0} came and left a second; {extra} hosts closed to the caller; {:.0} calls/s: p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, {} failed",
        (turns.load(Ordering::Relaxed) - turns_before) as f64 / elapsed,
        times.len() as f64 / elapsed,
        failed.len(),
    );
    drop((stays, others, caller));
    child.kill().expect("it ends");
    child.wait().expect("it has ended");
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if std::env::args().any(|argument| argument == "node") {
        return runtime.block_on(async { tokio::spawn(node()).await.expect("no panic") });
    }
    let mut numbers = [1_000, 1_000, 20, 0];
    let given = std::env::args().filter_map(|argument| argument.parse().ok());
    numbers.iter_mut().zip(given).for_each(|(number, given)| *number = given);
    runtime.block_on(async move { tokio::spawn(measure(numbers)).await.expect("no panic") });
}
