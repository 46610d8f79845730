//! Unmodified gRPC: Python's official client calls its official server through a site, with the
//! programs of `examples/grpc`, and with those of `tests/data/grpc`, which check each feature.

use super::{
    super::{
        process::{DialbackProcess, WorkDir},
        programs::run,
    },
    ProgramSite, python,
};
use rustix::process::Signal;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/grpc").join(name)
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/grpc").join(name)
}

#[test]
fn the_files_of_the_grpc_example_are_valid() {
    let [node, agent] = ["node.toml", "agent.toml"].map(example);
    let [node, agent] = [node.to_str().expect("UTF-8"), agent.to_str().expect("UTF-8")];
    let work_dir = WorkDir::empty();
    work_dir
        .run(&["config", "check", "--text-only", "--node", node, "--agent", agent])
        .expect(0, &[]);
    for (method, code) in [("http:greeter", 0), ("http:other", 1)] {
        work_dir
            .run(&["policy", "test", "ops", "warehouse", method, "--config", node])
            .expect(code, &[]);
    }
}

#[test]
fn the_client_of_the_grpc_example_calls_its_server_through_the_node() {
    let python = python();
    let setup = ProgramSite::with_config("greeter", |_| example("node.toml"));
    setup.generate_stubs(&python, &example("greeter.proto"));
    let mut command = setup.script(&python, &example("server.py"));
    command.arg("127.0.0.1:0");
    let mut server = DialbackProcess::start(command);
    let line = server.wait_for_line("serves ");
    let upstream = format!("greeter={}", line.split("serves ").nth(1).expect("a URL").trim());
    let config = example("agent.toml");
    let config = ["--config", config.to_str().expect("UTF-8"), "--node", &setup.at];
    let mut agent = setup.work_dir.start(&[&["agent", "--http", &upstream][..], &config].concat());
    agent.wait_for_line("registered as warehouse");

    let client = |args: &[&str]| {
        let mut client = setup.script(&python, &example("client.py"));
        client.args(["--target", &setup.gateway]).args(args);
        run(client.env("TOKEN", setup.work_dir.read("token")))
    };
    let calls = ["hello", "count", "sum", "chat", "nobody", "health", "services"];
    let expected = [
        "hello: hello:hello",
        "count: 1 2 3",
        "sum: 5050",
        "chat: hello:ada hello:grace",
        "nobody: NOT_FOUND (no outcome): nobody is called nobody",
        "health: SERVING",
        "services: example.Greeter grpc.health.v1.Health grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(client(&calls).lines().collect::<Vec<_>>(), expected);
    server.wait_for_line("Hello by caller/ops, ");
    // Either clock may report it first: the client's own or the node's.
    let late = client(&["wait"]);
    assert!(late.starts_with("wait: DEADLINE_EXCEEDED ("), "{late}");
    server.wait_for_line("Wait was cancelled");
    assert_eq!(client(&["cancel"]), "cancel: after 1\n");
    server.wait_for_line("Count was cancelled");
    let by_certificate =
        ["--cert", "certs/caller-ops.pem", "--key", "certs/caller-ops.key", "hello"];
    assert_eq!(client(&by_certificate), "hello: hello:hello\n");

    drop(server);
    assert_eq!(
        client(&["hello"]),
        "hello: UNAVAILABLE (not_executed): the upstream of http:greeter cannot be reached (connection refused)\n"
    );
    agent.signal(Signal::TERM);
    agent.end().expect(0, &[]);
    assert_eq!(
        client(&["hello"]),
        "hello: UNAVAILABLE (not_executed): agent warehouse is not attached\n"
    );
}

/// The client and the server of `tests/data/grpc`. The server listens on a Unix socket, so that
/// another one can take its place.
struct Probe {
    setup: ProgramSite,
    python: PathBuf,
}

impl Probe {
    fn new() -> Self {
        let (setup, python) = (ProgramSite::new("probe"), python());
        setup.generate_stubs(&python, &data("probe.proto"));
        Self { setup, python }
    }

    fn socket(&self) -> String {
        self.setup.work_dir.path("socket").to_str().expect("UTF-8").to_owned()
    }

    fn server(&self) -> DialbackProcess {
        let mut server = self.setup.script(&self.python, &data("server.py"));
        server.arg(format!("unix:{}", self.socket()));
        let mut server = DialbackProcess::start(server);
        server.wait_for_line("serving");
        server
    }

    fn agent(&self) -> DialbackProcess {
        self.setup.agent(&format!("h2c+unix:{}", self.socket()))
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut client = self.setup.script(&self.python, &data("probe.py"));
        client.arg(&self.setup.gateway).args(args);
        client
    }

    /// A call with a retry policy that runs until it is broken.
    fn broken(&self, method: &str) -> Child {
        self.client(&["broken", method]).stderr(Stdio::inherit()).spawn().expect("started")
    }
}

/// Each kind of call, before and after the client has read a message.
const METHODS: [&str; 6] = ["Unary", "Down", "Up", "Both", "DownLate", "BothLate"];

/// Its client was told that the call may have run and must not be sent again.
#[track_caller]
fn expect_unknown(method: &str, client: Child) {
    let ended = client.wait_with_output().expect("ended");
    let stdout = String::from_utf8_lossy(&ended.stdout);
    assert_eq!((ended.status.success(), &*stdout), (true, "UNAVAILABLE unknown -1\n"), "{method}");
}

/// Number of calls that have begun at a server until it is stopped.
fn begun(server: DialbackProcess) -> usize {
    server.signal(Signal::TERM);
    server.end().stderr.matches(" begins").count()
}

#[test]
fn grpc_works_as_without_dialback() {
    let probe = Probe::new();
    let (_server, _agent) = (probe.server(), probe.agent());
    assert_eq!(run(&mut probe.client(&["calls"])), "all calls passed\n");
}

#[test]
fn a_grpc_call_whose_server_is_killed_is_not_sent_again() {
    let probe = Probe::new();
    let _agent = probe.agent();
    for method in METHODS {
        let mut server = probe.server();
        let client = probe.broken(method);
        server.wait_for_line(" begins");
        drop(server);
        // A call that is sent again would reach this one.
        let server = probe.server();
        expect_unknown(method, client);
        assert_eq!(begun(server), 0, "{method}");
    }
}

#[test]
fn a_grpc_call_whose_agent_is_killed_is_not_sent_again() {
    let probe = Probe::new();
    let (mut server, mut agent) = (probe.server(), probe.agent());
    for method in METHODS {
        let client = probe.broken(method);
        server.wait_for_line(" begins");
        drop(agent);
        // The node learns of the loss from the new link of this agent.
        agent = probe.agent();
        expect_unknown(method, client);
    }
    assert_eq!(begun(server), METHODS.len());
}

#[test]
fn a_grpc_call_that_did_not_reach_its_server_is_sent_again_by_its_client() {
    let probe = Probe::new();
    let mut agent = probe.agent();
    let client = probe.client(&["retried"]).stderr(Stdio::inherit()).spawn().expect("started");
    agent.wait_for_line("of http:probe cannot be reached");
    let mut server = probe.server();
    let line = server.wait_for_line("Unary retried begins");
    assert!(!line.ends_with("attempts before: 0"), "{line}");
    let ended = client.wait_with_output().expect("ended");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "OK\n");
    assert_eq!(begun(server), 1);
}
