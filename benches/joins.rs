//! The time until this many agents are attached, when they start at once from one address.
//!
//! `cargo bench --features cli --bench joins -- 5000`; with a path after the number, the node is
//! that binary (an older one, to compare). The node is a separate process; the agents run in this
//! one, each with its own certificate and its own socket.

#![expect(clippy::disallowed_methods, reason = "a bench waits for its own tasks")]

use dialback::{
    Agent, CredentialPem, Credentials, PeerName, Role,
    certs::{Ca, CertsDir, InitOptions, LeafProfile, LeafRequest},
};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Instant, SystemTime},
};

fn start_node(binary: &str, dir: &std::path::Path) -> (Child, String) {
    let certs = dir.join("certs");
    let mut request = LeafRequest::new(Role::Node, "edge".parse().expect("a name"));
    request.sans = vec!["127.0.0.1".into()];
    CertsDir::new(&certs).issue(&request, SystemTime::now()).expect("issued");
    let mut child = Command::new(binary)
        .args(["node", "--listen", "127.0.0.1:0"])
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
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let count = args.next().and_then(|count| count.parse().ok()).unwrap_or(1_000);
    let binary = args.next().unwrap_or_else(|| env!("CARGO_BIN_EXE_dialback").to_owned());
    let dir = tempfile::tempdir().expect("a directory");
    let certs = CertsDir::new(dir.path().join("certs"));
    certs.init(&InitOptions::default(), SystemTime::now()).expect("made");
    let ca = certs.ca().expect("a CA");
    let (mut node, address) = start_node(&binary, dir.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(join_all(&ca, &address, count));
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

async fn join_all(ca: &Ca, address: &str, count: usize) {
    let all: Vec<_> = (0..count).map(|number| credentials(ca, number)).collect();
    let began = Instant::now();
    let joining = all.into_iter().map(|credentials| {
        let address = address.to_owned();
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
        "{count} agents of one address: half after {:.1?}, 99 % after {:.1?}, all after {last:.1?}, {:.0} a second",
        took[count / 2],
        took[count * 99 / 100],
        count as f64 / last.as_secs_f64()
    );
}
