//! The cost of an idle agent at its node: resident memory of a node's process before and after this
//! many agents have attached, and its CPU time while they are idle.
//!
//! `cargo bench --features cli --bench idle -- 1000`. The node is a separate process; the agents
//! run in this one, each with its own certificate and its own socket. Linux only: the figures are
//! from `/proc/PID/status` and `/proc/PID/stat`.

#![expect(clippy::disallowed_methods, reason = "a bench waits for its own tasks")]

use dialback::{
    Agent, CredentialPem, Credentials, Node, NodePolicy, PeerName, Role,
    certs::{Ca, LeafProfile},
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

/// Time in which CPU time is measured: four heartbeats of each agent.
const IDLE: Duration = Duration::from_secs(20);

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
    let node = Node::builder(read_credentials())
        .listen("127.0.0.1:0")
        .policy(NodePolicy::allow_all())
        .start()
        .await
        .expect("a node");
    println!("{}", node.local_addr());
    tokio::task::spawn_blocking(stdin_end).await.expect("no panic").expect("input ends");
    drop(node);
}

fn stdin_end() -> std::io::Result<usize> {
    std::io::stdin().read(&mut [0])
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
    BufReader::new(child.stdout.as_mut().expect("its output"))
        .read_line(&mut address)
        .expect("an address");
    (child, address.trim().to_owned())
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Returns the CPU time of a process, user's and system's: fields 14 and 15, in ticks of 10 ms.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a stat");
    let after_name = stat.rsplit(')').next().expect("never empty");
    let fields = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

async fn attach(ca: &Ca, address: &str, number: usize) -> Agent {
    let (cert, key) = leaf(ca, &format!("agent/a{number}"));
    let agent =
        Agent::builder(credentials(&cert, &key, ca.pem())).node(address).start().expect("an agent");
    agent.registered(1).await;
    agent
}

async fn measure(count: usize) {
    let ca = Ca::generate("bench.local", SystemTime::now()).expect("a CA");
    let (mut child, address) = start_node(&ca);
    // The first agents pay for shared memory.
    let mut agents = Vec::new();
    for number in 0..10 {
        agents.push(attach(&ca, &address, number).await);
    }
    let before = resident_kib(child.id());
    for number in 10..count + 10 {
        agents.push(attach(&ca, &address, number).await);
    }
    let attached = resident_kib(child.id());
    tokio::time::sleep(Duration::from_secs(12)).await;
    let idle = resident_kib(child.id());
    println!(
        "{count} agents: node {before} KiB before, {attached} KiB with all attached, {idle} KiB after two heartbeats: {:.1} KiB each",
        (idle - before) as f64 / count as f64
    );
    let cpu_before = cpu_time(child.id());
    tokio::time::sleep(IDLE).await;
    let cpu = (cpu_time(child.id()) - cpu_before).as_secs_f64() / IDLE.as_secs_f64();
    println!(
        "{:.2} % of a core in {IDLE:?}, {:.2} % for 10,000 agents",
        cpu * 100.0,
        cpu * 1e6 / (count + 10) as f64
    );
    child.kill().expect("it ends");
    child.wait().expect("it has ended");
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if std::env::args().any(|argument| argument == "node") {
        return runtime.block_on(async { tokio::spawn(node()).await.expect("no panic") });
    }
    let count = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000);
    runtime.block_on(async move { tokio::spawn(measure(count)).await.expect("no panic") });
}
