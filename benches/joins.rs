//! The time until this many agents are attached, when they start at once, and the CPU time of each
//! side for a join.
//!
//! `cargo bench --features cli --bench joins -- 5000`; with a path after the number, the node is
//! that binary (an older one, to compare). The node is a separate process; the agents run in this
//! one, each with its own certificate and its own socket.
//!
//! `--addresses 16` before the number: they come from so many addresses, up to 64, each of a network
//! of its own. The bench then runs itself in a network namespace, in which a packet to any address
//! of 10.64.0.0/10 arrives at the node and has this address as its source too. Linux only.

#![expect(clippy::disallowed_methods, reason = "a bench waits for its own tasks")]

use dialback::{
    Agent, CredentialPem, Credentials, PeerName, Role,
    certs::{Ca, CertsDir, InitOptions, LeafProfile, LeafRequest},
};
use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::{Instant, SystemTime},
};

/// Set in the network namespace.
const IN_NAMESPACE: &str = "DIALBACK_BENCH_IN_NAMESPACE";

/// A route without a source of its own: a packet gets its destination as its source.
const NAMESPACE: &str =
    "ip link set lo mtu 1500 up && ip route add local 10.64.0.0/10 dev lo && exec \"$@\"";

struct Options {
    count: usize,
    addresses: Option<u8>,
    binary: String,
}

impl Options {
    fn parse() -> Self {
        let (mut addresses, mut others) = (None, Vec::new());
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--addresses" => {
                    let count = args.next().and_then(|count| count.parse().ok());
                    addresses = Some(count.filter(|n| (1..=64).contains(n)).expect("1 to 64"));
                }
                // Passed by Cargo.
                "--bench" => {}
                _ => others.push(arg),
            }
        }
        let mut others = others.into_iter();
        let count = others.next().map_or(1_000, |count| count.parse().expect("a number"));
        let binary = others.next().unwrap_or_else(|| env!("CARGO_BIN_EXE_dialback").to_owned());
        Self { count, addresses, binary }
    }

    /// Addresses of the node, as the agents dial them.
    fn hosts(&self) -> Vec<String> {
        match self.addresses {
            Some(count) => (0..count).map(|n| format!("10.{}.0.1", 64 + n)).collect(),
            None => vec!["127.0.0.1".into()],
        }
    }
}

fn start_node(binary: &str, dir: &std::path::Path, hosts: &[String]) -> (Child, String) {
    let certs = dir.join("certs");
    let mut request = LeafRequest::new(Role::Node, "edge".parse().expect("a name"));
    request.sans = hosts.to_vec();
    CertsDir::new(&certs).issue(&request, SystemTime::now()).expect("issued");
    let mut child = Command::new(binary)
        .args(["node", "--listen", if hosts.len() > 1 { "0.0.0.0:0" } else { "127.0.0.1:0" }])
        .current_dir(dir)
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stderr.take().expect("its log")).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split("listens on ").nth(1).map(|at| at.trim().to_owned()));
    std::thread::spawn(move || {
        let matching = lines.map_while(Result::ok).filter(|line| line.contains("ignored "));
        matching.for_each(|line| println!("{line}"));
    });
    (child, address.expect("an address"))
}

fn main() {
    let options = Options::parse();
    if options.addresses.is_some() && std::env::var_os(IN_NAMESPACE).is_none() {
        let error = Command::new("unshare")
            .args(["--map-root-user", "--net", "sh", "-c", NAMESPACE, "sh"])
            .args(std::env::args())
            .env(IN_NAMESPACE, "")
            .exec();
        panic!("unshare: {error}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let certs = CertsDir::new(dir.path().join("certs"));
    certs.init(&InitOptions::default(), SystemTime::now()).expect("made");
    let ca = certs.ca().expect("a CA");
    let hosts = options.hosts();
    let (mut node, address) = start_node(&options.binary, dir.path(), &hosts);
    let port = address.rsplit(':').next().expect("a port");
    let addresses: Vec<_> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(join_all(&ca, &addresses, options.count, node.id()));
    node.kill().and_then(|()| node.wait()).expect("it ends");
}

fn credentials(ca: &Ca, number: usize) -> Credentials {
    let peer: PeerName = format!("agent/a{number}").parse().expect("a peer name");
    let profile = LeafProfile::new(ca.trust_domain(), &peer, &[], SystemTime::now());
    let leaf = ca.leaf(&profile).expect("a leaf");
    let pem = CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: ca.pem().as_bytes(),
        ..CredentialPem::default()
    };
    Credentials::from_pem(&pem).expect("credentials")
}

/// User and system time of a process so far, in milliseconds: fields 14 and 15 of `/proc/PID/stat`,
/// in ticks of 10 ms.
fn cpu_ms(pid: u32) -> [f64; 2] {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    [(); 2].map(|()| fields.next().and_then(|ticks| ticks.parse().ok()).unwrap_or(0.0) * 10.0)
}

async fn join_all(ca: &Ca, addresses: &[String], count: usize, node: u32) {
    let all: Vec<_> = (0..count).map(|number| credentials(ca, number)).collect();
    let sides = [("node", node), ("agent", std::process::id())];
    let before = sides.map(|(_, pid)| cpu_ms(pid));
    let began = Instant::now();
    let joining = all.into_iter().zip(addresses.iter().cycle()).map(|(credentials, address)| {
        let address = address.clone();
        tokio::spawn(async move {
            let agent = Agent::builder(credentials).node(address).start().expect("an agent");
            agent.registered(1).await;
            (agent, began.elapsed())
        })
    });
    // Kept until all are attached.
    let (mut agents, mut took) = (Vec::new(), Vec::new());
    for joining in joining.collect::<Vec<_>>() {
        let (agent, after) = joining.await.expect("no panic");
        agents.push(agent);
        took.push(after);
    }
    took.sort();
    let last = took[count - 1];
    println!(
        "{count} agents of {} addresses: half after {:.1?}, 99 % after {:.1?}, all after {last:.1?}, {:.0} a second",
        addresses.len(),
        took[count / 2],
        took[count * 99 / 100],
        count as f64 / last.as_secs_f64()
    );
    for ((side, pid), before) in sides.into_iter().zip(before) {
        let after = cpu_ms(pid);
        let [user, system] = [0, 1].map(|of| (after[of] - before[of]) / count as f64);
        println!("CPU of the {side} for a join: user {user:.2} ms, system {system:.2} ms");
    }
}
