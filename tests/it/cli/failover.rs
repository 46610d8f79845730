//! Two agents behind one service of the HTTP gateway, as processes with their ledgers on disk. One
//! is killed under load: its calls in flight fail, all others do not, and every reported outcome is
//! true.

use super::process::{DialbackProcess, WorkDir};
use crate::{
    http::client::Http,
    world::{Background, Ledger, Oracle, soon, spawn, take_turn, until},
};
use dialback::{Outcome, Role};
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The time between two requests: 50 in a second.
const REQUEST_INTERVAL: Duration = Duration::from_millis(20);

/// The run time of a handler, so that some calls are always in flight on either agent.
const CALL_MS: u64 = 200;

/// A lost link is detected within five seconds.
const LIMITS: &str =
    "[limits]\nheartbeat_every = \"1s\"\nheartbeat_lost = \"4s\"\nidle_max = \"5s\"\n";

const RULES: &str = "
[gateway]
listen = \"127.0.0.1:0\"
tokens = \"tokens\"

[[allow]]
caller = \"ops\"
agent = \"**\"
method = \"*/*\"

[[host]]
agent = \"warehouse-*\"
service = \"Demo\"
";

/// A node with a gateway, and two agents that answer for one service.
struct FailoverSetup {
    dir: WorkDir,
    node: DialbackProcess,
    agents: [DialbackProcess; 2],
    load: Arc<Load>,
}

impl FailoverSetup {
    fn new() -> Self {
        let dir = WorkDir::new();
        let created = dir.run(&["token", "create", "ops", "--ttl", "1h", "--file", "tokens"]);
        let token = created.stdout.trim().to_owned();
        dir.write("node.toml", format!("{LIMITS}{RULES}"));
        dir.write("agent.toml", LIMITS);
        let args = ["node", "--listen", "127.0.0.1:0", "--config", "node.toml"];
        let (mut node, at) = dir.listening(&args);
        let line = node.wait_for_line("the gateway listens on http://");
        let gateway = line.split("http://").nth(1).expect("an address").trim().parse();
        let agents = ["warehouse-1", "warehouse-2"].map(|name| {
            dir.issue("certs", Role::Agent, name);
            let (cert, ledger) = (format!("certs/agent-{name}.pem"), format!("{name}.ledger"));
            let key = format!("certs/agent-{name}.key");
            let credentials = ["--cert", &cert, "--key", &key, "--ca", "certs/ca.pem"];
            let args = ["agent", "--config", "agent.toml", "--node", &at, "--demo", "--ledger"];
            let mut agent = dir.start(&[&args[..], &[&ledger], &credentials].concat());
            agent.wait_for_line(&format!("registered as {name}"));
            agent
        });
        let load = Arc::new(Load::new(gateway.expect("an address"), token));
        Self { dir, node, agents, load }
    }

    fn ledger(&self, name: &str) -> String {
        self.dir.read(&format!("{name}.ledger"))
    }
}

/// Requests at a steady rate, each on its own connection, and their outcomes.
struct Load {
    gateway: SocketAddr,
    token: String,
    oracle: Oracle,
    sent: AtomicUsize,
    failed: Mutex<BTreeSet<usize>>,
    is_over: AtomicBool,
}

impl Load {
    fn new(gateway: SocketAddr, token: String) -> Self {
        Self {
            gateway,
            token: format!("Bearer {token}"),
            oracle: Oracle::default(),
            sent: AtomicUsize::new(0),
            failed: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Sends requests until `end`, and waits until all are answered.
    async fn run(self: Arc<Self>) {
        let mut interval = tokio::time::interval(REQUEST_INTERVAL);
        let mut requests: Vec<Background<()>> = Vec::new();
        while !self.is_over.load(Ordering::SeqCst) {
            interval.tick().await;
            let number = self.sent.fetch_add(1, Ordering::SeqCst);
            requests.push(spawn(self.clone().ask(number)));
        }
        for sent in requests {
            soon("a request is answered", sent).await;
        }
    }

    async fn ask(self: Arc<Self>, number: usize) {
        let id = format!("call-{number}");
        let body = format!("{{\"id\":\"{id}\",\"ms\":{CALL_MS}}}");
        let headers =
            [("content-type", "application/json"), ("authorization", self.token.as_str())];
        self.oracle.record_call(&id);
        let path = "/v1/services/Demo/Append";
        let reply = Http::once(self.gateway, "POST", path, &headers, body.as_bytes()).await;
        let outcome = match (reply.status, reply.outcome()) {
            (200, "ok") => Outcome::Ok,
            (503, "unknown") => Outcome::Unknown,
            (503, "not_executed") => Outcome::NotExecuted,
            _ => panic!("{reply:?}"),
        };
        self.oracle.record_outcome(&id, outcome);
        if outcome != Outcome::Ok {
            self.failed.lock().expect("whole").insert(number);
        }
    }
}

/// Kills one of the agents after `killed_at` requests, and ends the load after `ends_at` once the
/// node has detected the loss.
async fn run_failover(killed_at: usize, ends_at: usize) {
    let _turn = take_turn().await;
    let mut setup = FailoverSetup::new();
    let load = setup.load.clone();
    let running = spawn(load.clone().run());
    until("the load runs", || load.sent() >= killed_at).await;
    setup.agents[0].signal(Signal::KILL);
    println!("killed after {} requests", load.sent());
    setup.node.wait_for_line("agent/warehouse-1 disconnected");
    let known = load.sent();
    until("the load continues", || load.sent() >= ends_at.max(known + 25)).await;
    load.end();
    soon("all are answered", running).await;

    let of_the_killed = Ledger::from_lines(&setup.ledger("warehouse-1"));
    let of_the_other = Ledger::from_lines(&setup.ledger("warehouse-2"));
    let failed = load.failed.lock().expect("whole").clone();
    println!("known after {known} of {} requests; failed: {failed:?}", load.sent());
    for number in &failed {
        let id = format!("call-{number}");
        assert_eq!(of_the_other.count(&id).started(), 0, "{id} failed, but not on the killed one");
        assert!(*number <= known, "{id} was sent after the loss was detected");
    }
    let (killed_ran, other_ran) = (of_the_killed.ids().count(), of_the_other.ids().count());
    assert!(killed_ran >= killed_at / 4 && other_ran >= killed_at / 4, "both have had calls");
    let mut ledger = of_the_killed;
    ledger.add(of_the_other);
    let verdict = load.oracle.verify(&ledger);
    println!("{verdict}");
    verdict.expect_true();
    let [ok, unknown] = [Outcome::Ok, Outcome::Unknown].map(|outcome| load.oracle.count(outcome));
    assert!(unknown > 0, "nothing was in flight when it was killed");
    assert_eq!(ok + unknown, load.sent(), "calls that were not executed moved to the other agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_calls_on_a_killed_agent_fail_and_the_other_agent_takes_the_rest() {
    run_failover(50, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form; `make test-long` runs it"]
async fn only_calls_on_a_killed_agent_fail_in_twenty_seconds_of_load() {
    run_failover(500, 1_000).await;
}
