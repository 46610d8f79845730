//! The processes of each way to call.

use crate::{
    load::{Load, Round},
    nats, pki,
};
use anyhow::{Context, ensure};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

/// A process. It is killed when this is dropped.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Side of a long path on which a process runs. Without a path they are the same.
#[derive(Clone, Copy)]
pub enum Side {
    /// All that listen, and the load of a caller.
    Near,
    /// The other end of the path.
    Far,
}

impl Side {
    /// The command that runs a program in the network namespace of this side, if it is set.
    fn command(self, program: &Path) -> Command {
        let variable = match self {
            Self::Near => "PEERS_NEAR",
            Self::Far => "PEERS_FAR",
        };
        let Some(namespace) = std::env::var_os(variable) else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec"]).arg(namespace).arg(program);
        command.env("PEERS_LISTEN", pki::NEAR);
        command
    }
}

impl Process {
    fn start(side: Side, program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(side.command(program), program, arguments)
    }

    fn start_with(
        mut command: Command,
        program: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("{} {arguments:?}", program.display()))?;
        let stdin = child.stdin.take().context("standard input")?;
        let stdout = BufReader::new(child.stdout.take().context("standard output")?);
        Ok(Self { child, stdin, stdout })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "a process ended early; see above");
        Ok(line.trim_end().to_owned())
    }

    fn ready(mut self) -> anyhow::Result<Self> {
        let line = self.line()?;
        ensure!(line == "ready", "expected `ready`, not {line:?}");
        Ok(self)
    }

    /// The addresses that it listens on.
    fn addresses(&mut self) -> anyhow::Result<Vec<String>> {
        let line = self.line()?;
        let addresses =
            line.strip_prefix("at ").with_context(|| format!("an address: {line:?}"))?;
        Ok(addresses.split(' ').map(str::to_owned).collect())
    }

    /// User and system time so far, in microseconds: fields 14 and 15 of `/proc/PID/stat`, in ticks
    /// of 10 ms.
    fn cpu_us(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = after_name.split_whitespace().skip(11).take(2);
        ticks.filter_map(|text| text.parse::<f64>().ok()).sum::<f64>() * 10_000.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Numbers of the processes of [`start_agents`].
pub const NODE: usize = 0;
pub const IN_TURN: usize = 1;
pub const BY_SERVICE: usize = 2;

const AGENTS_PER_PROCESS: usize = 2_500;

/// A way to call, with all its processes. The last one has the load.
pub struct Way {
    pub name: &'static str,
    /// True if it is measured with a load of this size.
    pub takes: fn(Load) -> bool,
    processes: Vec<Process>,
}

impl Way {
    fn new(name: &'static str, processes: Vec<Process>) -> Self {
        Self { name, takes: |_| true, processes }
    }

    /// Keeps calls in flight for a while.
    pub fn round(&mut self, load: Load) -> anyhow::Result<Round> {
        self.round_of(self.processes.len() - 1, load)
    }

    /// The same by the process of this number, in the order of their start.
    pub fn round_of(&mut self, process: usize, load: Load) -> anyhow::Result<Round> {
        let before = self.cpu_us();
        let process = &mut self.processes[process];
        writeln!(process.stdin, "{}", serde_json::to_string(&load)?)?;
        let line = process.line().with_context(|| self.name)?;
        let mut round: Round = serde_json::from_str(&line)?;
        round.cpu_us = (self.cpu_us() - before) / round.calls.max(1.0);
        Ok(round)
    }

    /// CPU time of all processes so far, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.processes.iter().map(Process::cpu_us).sum()
    }

    /// CPU time of the process of this number.
    pub fn cpu_us_of(&self, process: usize) -> f64 {
        self.processes[process].cpu_us()
    }
}

/// Starts the ways over links of dialback, in the current directory.
pub fn start_links() -> anyhow::Result<[Way; 2]> {
    let me = std::env::current_exe()?;
    Ok([
        raw(&me, "dialback direct", ["direct", "agent"])?,
        through(&me, "dialback through a node", |[node, _gateway]| ["caller".into(), node])?,
    ])
}

/// Starts a node with this many agents, and two callers for the load: the process of number
/// [`IN_TURN`] calls the agents by their names, and that of [`BY_SERVICE`] names only the service.
pub fn start_agents(count: usize) -> anyhow::Result<Way> {
    let me = std::env::current_exe()?;
    let start = |arguments: &[&str]| Process::start(Side::Near, &me, arguments);
    let mut node = start(&["node"])?;
    let at = node.addresses()?.swap_remove(0);
    let agents: Result<Vec<_>, _> = (0..count)
        .step_by(AGENTS_PER_PROCESS)
        .map(|first| {
            let end = count.min(first + AGENTS_PER_PROCESS);
            start(&["agents", &at, &first.to_string(), &end.to_string()])
        })
        .collect();
    let agents: Result<Vec<_>, _> = agents?.into_iter().map(Process::ready).collect();
    let in_turn = start(&["caller-in-turn", &at, &count.to_string()])?.ready()?;
    let by_service = start(&["caller-any", &at])?.ready()?;
    let mut processes = vec![node, in_turn, by_service];
    processes.extend(agents?);
    Ok(Way::new("agents", processes))
}

/// Starts all ways that this machine has the programs for, in the current directory.
pub fn start_all() -> anyhow::Result<Vec<Way>> {
    let me = std::env::current_exe()?;
    let [direct, through_a_node] = start_links()?;
    let mut ways = vec![
        raw(&me, "raw quinn", ["raw", "raw-answer"])?,
        raw(&me, "raw quinn, batched", ["raw-batched", "raw-batched-answer"])?,
        direct,
        through_a_node,
        Way {
            // A connection for each call in flight; a gateway takes 256 from one address.
            takes: |load| load.in_flight <= 64 && load.bytes <= 64 * 1024,
            ..through(&me, "dialback gateway, JSON", |[_node, gateway]| ["http".into(), gateway])?
        },
        dialled("tonic", (&me, "grpc-answer"), (&me, "grpc"))?,
    ];
    for name in
        ["cubic", "bbr"].into_iter().filter(|_| std::env::var_os("PEERS_CONGESTIONS").is_some())
    {
        ways.push(with_congestion(&me, name)?);
    }
    match program("GO_PEER") {
        Some(go) => ways.push(dialled("Go net/rpc", (&go, "answer"), (&go, "call"))?),
        None => eprintln!("without Go net/rpc: GO_PEER names no program"),
    }
    match program("NATS_SERVER") {
        Some(server) => ways.push(nats(&me, &server)?),
        None => eprintln!("without NATS: NATS_SERVER names no program"),
    }
    Ok(ways)
}

fn program(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file())
}

/// The load listens, and the other side dials it and answers.
fn raw(me: &Path, name: &'static str, [load, answer]: [&str; 2]) -> anyhow::Result<Way> {
    let mut load = Process::start(Side::Near, me, &[load])?;
    let at = load.addresses()?;
    let answer = Process::start(Side::Far, me, &[answer, &at[0]])?.ready()?;
    Ok(Way::new(name, vec![answer, load.ready()?]))
}

/// Direct calls with a congestion control that is not the default.
fn with_congestion(me: &Path, congestion: &'static str) -> anyhow::Result<Way> {
    let start = |side: Side, arguments: &[&str]| {
        let mut command = side.command(me);
        command.env("PEERS_CONGESTION", congestion);
        Process::start_with(command, me, arguments)
    };
    let mut load = start(Side::Near, &["direct"])?;
    let at = load.addresses()?;
    let agent = start(Side::Far, &["agent", &at[0]])?.ready()?;
    let name = if congestion == "bbr" { "dialback direct, bbr" } else { "dialback direct, cubic" };
    Ok(Way::new(name, vec![agent, load.ready()?]))
}

/// The answering side listens, and the load dials it.
fn dialled(name: &'static str, answer: (&Path, &str), load: (&Path, &str)) -> anyhow::Result<Way> {
    let mut answer = Process::start(Side::Near, answer.0, &[answer.1])?;
    let at = answer.addresses()?;
    let load = Process::start(Side::Far, load.0, &[load.1, &at[0]])?.ready()?;
    Ok(Way::new(name, vec![answer, load]))
}

/// A node in the middle.
fn through(
    me: &Path,
    name: &'static str,
    load: impl FnOnce([String; 2]) -> [String; 2],
) -> anyhow::Result<Way> {
    let mut node = Process::start(Side::Near, me, &["node"])?;
    let addresses: [String; 2] = node.addresses()?.try_into().ok().context("two addresses")?;
    let agent = Process::start(Side::Far, me, &["agent", &addresses[0]])?.ready()?;
    let [command, to] = load(addresses);
    let load = Process::start(Side::Near, me, &[&command, &to])?.ready()?;
    Ok(Way::new(name, vec![node, agent, load]))
}

fn nats(me: &Path, server: &Path) -> anyhow::Result<Way> {
    // The server takes no port 0; another process could take this one in between.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let host = if std::env::var_os("PEERS_NEAR").is_some() { pki::NEAR } else { "127.0.0.1" };
    nats::write_config(host, port)?;
    let server = Process::start(Side::Near, server, &["-c", "nats.conf", "-l", "nats.log"])?;
    let at = format!("{host}:{port}");
    for _ in 0..100 {
        if fs::read_to_string("nats.log").is_ok_and(|log| log.contains("Server is ready")) {
            let answer = Process::start(Side::Far, me, &["nats-answer", &at])?.ready()?;
            let load = Process::start(Side::Near, me, &["nats", &at])?.ready()?;
            return Ok(Way::new("NATS", vec![server, answer, load]));
        }
        thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("nats-server does not listen: {}", fs::read_to_string("nats.log")?)
}
