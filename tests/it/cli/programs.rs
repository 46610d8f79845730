//! Programs without support for dialback, over `[[tcp]]` and `dialback tcp`: Go's net/rpc,
//! PostgreSQL and Redis.
//!
//! `make test` installs them. Where one is missing its test fails and names it: a skipped test
//! looks like one that passed.

use super::process::{DialbackProcess, WorkDir};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const RULES: &str = "[[allow]]\ncaller = \"ops\"\nagent = \"**\"\nmethod = \"tcp:*\"\n";

/// A program of the system; fails the test with the package to install.
#[track_caller]
pub(super) fn program(name: &str, package: &str) -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = debian.map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(versions).map(|dir| dir.join(name));
    found.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("this test runs {name}, which is missing: apt-get install {package}, or `make test`, which does that")
    })
}

/// A process that ends with the test.
struct ChildGuard(Child);

impl ChildGuard {
    #[track_caller]
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("started"))
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a command, expects success and returns its output.
#[track_caller]
pub(super) fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("started");
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success(), "{command:?} ended with {status}: {stdout}{stderr}");
    stdout
}

/// Retries until it succeeds: a program needs a moment to start. These programs print nothing to
/// wait for, so each is polled, at a low rate because every poll is a process.
#[track_caller]
fn retry_until_success(mut command: impl FnMut() -> Command) {
    let began = Instant::now();
    while !command().output().expect("started").status.success() {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?} never worked", command());
        thread::sleep(Duration::from_millis(20));
    }
}

/// A node and an agent with a forward to the upstream, and a local port for it.
struct ProgramSetup {
    work_dir: WorkDir,
    _running: [DialbackProcess; 3],
    port: String,
}

impl ProgramSetup {
    fn forwarding_to(upstream: &str) -> Self {
        let work_dir = WorkDir::new();
        work_dir.write("rules.toml", RULES);
        let (node, at) =
            work_dir.listening(&["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"]);
        let mut agent =
            work_dir.start(&["agent", "--node", &at, "--tcp", &format!("x={upstream}")]);
        agent.wait_for_line("registered as warehouse");
        let args = ["tcp", "warehouse", "x", "--node", &at, "--listen", "127.0.0.1:0"];
        let mut tcp = work_dir.start(&args);
        let line = tcp.wait_for_line("listening on 127.0.0.1:");
        let port = line.split("listening on 127.0.0.1:").nth(1).expect("a port");
        let port = port.split(';').next().expect("a port").to_owned();
        Self { work_dir, _running: [node, agent, tcp], port }
    }
}

/// A port that was free a moment ago, for programs that cannot choose one themselves.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn the_go_programs_of_the_example_reach_each_other_through_the_node() {
    let go = program("go", "golang-go");
    let dir = tempfile::tempdir().expect("a directory");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/go");
    // Without its VCS stamp: for that it would run git in this repository, which may be in use or
    // belong to another user.
    let flags = "-mod=mod -buildvcs=false";
    let built = |name: &str| {
        let path = dir.path().join(name);
        let mut build = Command::new(&go);
        build.args(["build", "-o"]).arg(&path).arg(format!("./{name}")).current_dir(&example);
        build.env("GOCACHE", dir.path().join("cache")).env("GOFLAGS", flags);
        run(build.env("GOTOOLCHAIN", "local").env("GOPROXY", "off"));
        path
    };
    let [server, client] = ["server", "client"].map(built);
    let mut server = Command::new(server);
    server.args(["-listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut server = ChildGuard::start(&mut server);
    let mut line = String::new();
    let stdout = server.0.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let setup =
        ProgramSetup::forwarding_to(line.trim().strip_prefix("listening on ").expect("an address"));
    let output = run(Command::new(client).arg(format!("127.0.0.1:{}", setup.port)));
    assert_eq!(output, "hello:hello\n");
}

#[test]
fn the_files_of_the_go_example_are_valid() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/go");
    let [node, agent] = ["node.toml", "agent.toml"].map(|name| example.join(name));
    let [node, agent] = [node.to_str().expect("UTF-8"), agent.to_str().expect("UTF-8")];
    let work_dir = WorkDir::empty();
    work_dir
        .run(&["config", "check", "--text-only", "--node", node, "--agent", agent])
        .expect(0, &[]);
    work_dir
        .run(&["policy", "test", "ops", "warehouse", "tcp:hello", "--config", node])
        .expect(0, &[]);
    work_dir
        .run(&["policy", "test", "ops", "warehouse", "tcp:other", "--config", node])
        .expect(1, &[]);
}

/// A separate PostgreSQL that listens only on a Unix socket. It refuses to run as root, so root
/// becomes the user that its package created.
struct Postgres {
    dir: tempfile::TempDir,
    _running: ChildGuard,
}

impl Postgres {
    fn start() -> Self {
        let [initdb, postgres] = ["initdb", "postgres"].map(|name| program(name, "postgresql"));
        // The path of a Unix socket has to be short.
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").expect("a directory");
        if rustix::process::getuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(dir.path()));
        }
        let data = dir.path().join("data");
        run(as_postgres(&initdb).arg("-D").arg(&data).args([
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
        ]));
        let mut server = as_postgres(&postgres);
        server.arg("-D").arg(&data).arg("-k").arg(dir.path());
        server.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        let running = ChildGuard::start(server.stdout(Stdio::null()).stderr(Stdio::null()));
        let psql = program("psql", "postgresql-client");
        retry_until_success(|| {
            let mut ask = Command::new(&psql);
            ask.arg("-h").arg(dir.path()).args(["-U", "postgres", "-c", "select 1"]);
            ask
        });
        Self { dir, _running: running }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join(".s.PGSQL.5432")
    }
}

fn as_postgres(program: &Path) -> Command {
    if !rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL"]);
    command.arg(program).current_dir("/");
    command
}

#[test]
fn psql_works_on_a_postgresql_behind_an_agent() {
    let postgres = Postgres::start();
    let setup = ProgramSetup::forwarding_to(&format!("unix:{}", postgres.socket().display()));
    let program = program("psql", "postgresql-client");
    let psql = || {
        let mut psql = Command::new(&program);
        psql.args([
            "-h",
            "127.0.0.1",
            "-p",
            &setup.port,
            "-U",
            "postgres",
            "-v",
            "ON_ERROR_STOP=1",
            "-XqAt",
        ]);
        psql
    };
    assert_eq!(run(psql().args(["-c", "select 6 * 7"])), "42\n");
    let long = run(psql().args(["-c", "select repeat('x', 5000000)"]));
    assert!(long.len() == 5_000_001 && long.trim_end().bytes().all(|byte| byte == b'x'));
    run(psql().args(["-c", "create table t (n int)"]));
    let mut copy = psql();
    copy.args(["-c", "copy t from stdin"]).stdin(Stdio::piped());
    let mut copy = copy.spawn().expect("started");
    let rows: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    copy.stdin.take().expect("piped").write_all(rows.as_bytes()).expect("written");
    assert!(copy.wait().expect("ended").success());
    assert_eq!(run(psql().args(["-c", "select count(*), sum(n) from t"])), "200000|19999900000\n");
    // A session that the server ends is not a clean end either.
    let ended = psql().args(["-c", "select pg_terminate_backend(pg_backend_pid())"]).output();
    assert!(!ended.expect("started").status.success());
    assert_eq!(run(psql().args(["-c", "select 1"])), "1\n");
}

#[test]
fn redis_works_behind_an_agent_with_many_connections_at_once() {
    let [server, cli, benchmark] = [
        ("redis-server", "redis-server"),
        ("redis-cli", "redis-tools"),
        ("redis-benchmark", "redis-tools"),
    ]
    .map(|(name, package)| program(name, package));
    let port = free_port().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let mut redis = Command::new(server);
    redis.args(["--port", &port, "--bind", "127.0.0.1", "--save", ""]).current_dir(dir.path());
    let _redis = ChildGuard::start(redis.stdout(Stdio::null()));
    let ask = |port: &str, words: &[&str]| {
        let mut ask = Command::new(&cli);
        ask.args(["-h", "127.0.0.1", "-p", port, "-e"]).args(words);
        ask
    };
    retry_until_success(|| ask(&port, &["ping"]));
    let setup = ProgramSetup::forwarding_to(&format!("127.0.0.1:{port}"));
    assert_eq!(run(&mut ask(&setup.port, &["set", "k", "v"])), "OK\n");
    assert_eq!(run(&mut ask(&setup.port, &["get", "k"])), "v\n");
    setup.work_dir.write("long", vec![b'y'; 3 << 20]);
    let mut set = ask(&setup.port, &["-x", "set", "long"]);
    set.stdin(fs::File::open(setup.work_dir.path("long")).expect("opened"));
    assert_eq!(run(&mut set), "OK\n");
    assert_eq!(run(&mut ask(&setup.port, &["strlen", "long"])), "3145728\n");
    let mut many = Command::new(benchmark);
    many.args([
        "-h",
        "127.0.0.1",
        "-p",
        &setup.port,
        "-c",
        "40",
        "-n",
        "4000",
        "-t",
        "set,get",
        "-q",
    ]);
    let output = run(&mut many);
    assert_eq!(output.matches("requests per second").count(), 2, "{output}");
}
