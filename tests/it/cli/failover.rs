//! Two agents behind one service of the HTTP door, as processes with their ledgers on disk. One is
//! killed under load: the calls that were with it fail, all others do not, and what each asker was
//! told is true.

use super::process::{Place, Running};
use crate::{
    http::client::Http,
    world::{Background, Ledger, Oracle, background, heavy, soon, until},
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

/// Between two requests: 50 in a second.
const PACE: Duration = Duration::from_millis(20);

/// How long a handler works, so that some calls are always in flight on either agent.
const CALL_MS: u64 = 200;

/// A link is known to be lost within five seconds.
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

/// A node with a door, and two agents that answer for one service.
struct Town {
    place: Place,
    node: Running,
    agents: [Running; 2],
    load: Arc<Load>,
}

impl Town {
    fn new() -> Self {
        let place = Place::new();
        let created = place.run(&["token", "create", "ops", "--ttl", "1h", "--file", "tokens"]);
        let token = created.stdout.trim().to_owned();
        place.write("node.toml", format!("{LIMITS}{RULES}"));
        place.write("agent.toml", LIMITS);
        let args = ["node", "--listen", "127.0.0.1:0", "--config", "node.toml"];
        let (mut node, at) = place.listening(&args);
        let line = node.said("the gateway listens on http://");
        let door = line.split("http://").nth(1).expect("an address").trim().parse();
        let agents = ["warehouse-1", "warehouse-2"].map(|name| {
            place.issue("certs", Role::Agent, name);
            let (cert, ledger) = (format!("certs/agent-{name}.pem"), format!("{name}.ledger"));
            let key = format!("certs/agent-{name}.key");
            let credentials = ["--cert", &cert, "--key", &key, "--ca", "certs/ca.pem"];
            let args = ["agent", "--config", "agent.toml", "--node", &at, "--demo", "--ledger"];
            let mut agent = place.start(&[&args[..], &[&ledger], &credentials].concat());
            agent.said(&format!("registered as {name}"));
            agent
        });
        let load = Arc::new(Load::new(door.expect("an address"), token));
        Self { place, node, agents, load }
    }

    fn ledger(&self, name: &str) -> String {
        self.place.read(&format!("{name}.ledger"))
    }
}

/// Requests at a steady pace, each on a connection of its own, and what became of them.
struct Load {
    door: SocketAddr,
    token: String,
    oracle: Oracle,
    asked: AtomicUsize,
    failed: Mutex<BTreeSet<usize>>,
    is_over: AtomicBool,
}

impl Load {
    fn new(door: SocketAddr, token: String) -> Self {
        Self {
            door,
            token: format!("Bearer {token}"),
            oracle: Oracle::default(),
            asked: AtomicUsize::new(0),
            failed: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Asks until it is told to end, and waits until all are answered.
    async fn run(self: Arc<Self>) {
        let mut pace = tokio::time::interval(PACE);
        let mut asking: Vec<Background<()>> = Vec::new();
        while !self.is_over.load(Ordering::SeqCst) {
            pace.tick().await;
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            asking.push(background(self.clone().ask(number)));
        }
        for asked in asking {
            soon("a request is answered", asked).await;
        }
    }

    async fn ask(self: Arc<Self>, number: usize) {
        let id = format!("call-{number}");
        let body = format!("{{\"id\":\"{id}\",\"ms\":{CALL_MS}}}");
        let headers =
            [("content-type", "application/json"), ("authorization", self.token.as_str())];
        self.oracle.asked(&id);
        let path = "/v1/services/Demo/Append";
        let reply = Http::once(self.door, "POST", path, &headers, body.as_bytes()).await;
        let outcome = match (reply.status, reply.outcome()) {
            (200, "ok") => Outcome::Ok,
            (503, "unknown") => Outcome::Unknown,
            (503, "not_executed") => Outcome::NotExecuted,
            _ => panic!("{reply:?}"),
        };
        self.oracle.told(&id, outcome);
        if outcome != Outcome::Ok {
            self.failed.lock().expect("whole").insert(number);
        }
    }
}

/// Kills one of the agents when so many were asked, and ends the load when so many were and the
/// node knows of it.
async fn play(killed_at: usize, ends_at: usize) {
    let _turn = heavy().await;
    let mut town = Town::new();
    let load = town.load.clone();
    let running = background(load.clone().run());
    until("the load is on", || load.asked() >= killed_at).await;
    town.agents[0].signal(Signal::KILL);
    println!("killed after {} requests", load.asked());
    town.node.said("agent/warehouse-1 disconnected");
    let known = load.asked();
    until("it goes on", || load.asked() >= ends_at.max(known + 25)).await;
    load.end();
    soon("all are answered", running).await;

    let of_the_killed = Ledger::from_lines(&town.ledger("warehouse-1"));
    let of_the_other = Ledger::from_lines(&town.ledger("warehouse-2"));
    let failed = load.failed.lock().expect("whole").clone();
    println!("known after {known} of {} requests; failed: {failed:?}", load.asked());
    for number in &failed {
        let id = format!("call-{number}");
        assert_eq!(of_the_other.count(&id).started(), 0, "{id} failed, but not on the killed one");
        assert!(*number <= known, "{id} was asked when the loss was known");
    }
    let (killed_ran, other_ran) = (of_the_killed.ids().count(), of_the_other.ids().count());
    assert!(killed_ran >= killed_at / 4 && other_ran >= killed_at / 4, "both have had their part");
    let mut ledger = of_the_killed;
    ledger.add(of_the_other);
    let verdict = load.oracle.judge(&ledger);
    println!("{verdict}");
    verdict.expect_true();
    let [ok, unknown] = [Outcome::Ok, Outcome::Unknown].map(|outcome| load.oracle.count(outcome));
    assert!(unknown > 0, "nothing was in flight when it was killed");
    assert_eq!(ok + unknown, load.asked(), "what was not executed went to the other agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_calls_on_a_killed_agent_fail_and_the_other_agent_takes_the_rest() {
    play(50, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form; `make test-long` runs it"]
async fn only_calls_on_a_killed_agent_fail_in_twenty_seconds_of_load() {
    play(500, 1_000).await;
}
