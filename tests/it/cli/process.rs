//! Runs the binary in a temporary directory and waits for its output, never for time to pass.

use dialback::{
    Name, Role,
    certs::{CertsDir, InitOptions, LeafRequest},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Nothing here takes longer on a working machine.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Rules as in `examples/first/node.toml`.
pub(super) const RULES: &str = "[[allow]]\ncaller = \"ops\"\nagent = \"**\"\nmethod = \"*/*\"\n";

/// A working directory with `certs/` for node edge-1, agent warehouse and caller ops.
pub(super) struct WorkDir(tempfile::TempDir);

/// The result of a command.
#[derive(Debug)]
pub(super) struct CommandOutput {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl WorkDir {
    pub(super) fn empty() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(super) fn new() -> Self {
        let work_dir = Self::empty();
        work_dir.make_ca("certs");
        work_dir.issue("certs", Role::Node, "edge-1");
        work_dir.issue("certs", Role::Agent, "warehouse");
        work_dir.issue("certs", Role::Caller, "ops");
        work_dir
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("written");
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(super) fn certs(&self, dir: &str) -> CertsDir {
        CertsDir::new(self.path(dir))
    }

    pub(super) fn make_ca(&self, dir: &str) {
        self.certs(dir).init(&InitOptions::default(), SystemTime::now()).expect("made");
    }

    pub(super) fn issue(&self, dir: &str, role: Role, name: &str) {
        let name: Name = name.parse().expect("a name");
        let mut request = LeafRequest::new(role, name);
        if role == Role::Node {
            request.sans = vec!["localhost".into(), "127.0.0.1".into(), "::1".into()];
        }
        self.certs(dir).issue(&request, SystemTime::now()).expect("issued");
    }

    /// The binary in this directory, without our variables in its environment.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dialback"));
        let foreign = std::env::vars_os().map(|(name, _)| name);
        for name in foreign.filter(|name| name.to_string_lossy().starts_with("DIALBACK_")) {
            command.env_remove(name);
        }
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> CommandOutput {
        DialbackProcess::start(self.command(args)).end()
    }

    pub(super) fn start(&self, args: &[&str]) -> DialbackProcess {
        DialbackProcess::start(self.command(args))
    }

    /// A node on a free port, with the rules of the first steps.
    pub(super) fn node(&self) -> (DialbackProcess, String) {
        self.write("rules.toml", RULES);
        let listen = ["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"];
        // The usual ends of short links of callers have lines at `debug`.
        self.listening(&[&listen[..], &["--log-level", "debug"]].concat())
    }

    /// A node with these arguments, and its address.
    pub(super) fn listening(&self, args: &[&str]) -> (DialbackProcess, String) {
        let mut node = self.start(args);
        let line = node.wait_for_line("listens on ");
        let address = line.split("listens on ").nth(1).expect("an address").trim().to_owned();
        (node, address)
    }

    /// An agent with the demo and a ledger, registered.
    pub(super) fn agent(&self, node: &str) -> DialbackProcess {
        let mut agent = self.start(&["agent", "--demo", "--ledger", "ledger.txt", "--node", node]);
        agent.wait_for_line("registered as warehouse");
        agent
    }
}

/// A process that is killed when it is dropped.
pub(super) struct DialbackProcess {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    stdout: Option<thread::JoinHandle<String>>,
}

impl DialbackProcess {
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("started");
        let lines = lines_of(child.stderr.take().expect("piped"));
        let stdout = child.stdout.take().map(|mut stdout| {
            thread::spawn(move || {
                let mut text = String::new();
                stdout.read_to_string(&mut text).expect("text");
                text
            })
        });
        Self { child, lines, seen: vec![], stdout }
    }

    /// Waits for a line of the log or error output that has this text.
    #[track_caller]
    pub(super) fn wait_for_line(&mut self, text: &str) -> String {
        let until = Instant::now() + WAIT_MAX;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("{text:?} was not logged, but: {:#?}", self.seen),
            }
        }
    }

    /// Sends a signal repeatedly until a line has this text.
    #[track_caller]
    pub(super) fn signal_until_line(&mut self, signal: rustix::process::Signal, text: &str) {
        let until = Instant::now() + WAIT_MAX;
        while !self.seen.iter().any(|line| line.contains(text)) {
            assert!(Instant::now() < until, "{text:?} was not logged, but: {:#?}", self.seen);
            self.signal(signal);
            if let Ok(line) = self.lines.recv_timeout(Duration::from_millis(10)) {
                self.seen.push(line);
            }
        }
    }

    /// The process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> rustix::process::Pid {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        rustix::process::Pid::from_raw(pid).expect("a pid")
    }

    /// Sends a signal: 2 is SIGINT, 15 SIGTERM.
    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("sent");
    }

    /// Suspends it until SIGCONT; returns once every thread is suspended, which SIGSTOP alone does
    /// not wait for.
    pub(super) fn stop(&self) {
        use rustix::process::{Signal, WaitOptions, waitpid};
        self.signal(Signal::STOP);
        let (_, status) =
            waitpid(Some(self.pid()), WaitOptions::UNTRACED).expect("waited").expect("a status");
        assert!(status.stopped(), "{status:?}");
    }

    /// Waits for its end.
    #[track_caller]
    pub(super) fn end(mut self) -> CommandOutput {
        let until = Instant::now() + WAIT_MAX;
        loop {
            // The lines end when the process does.
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("still runs: {:#?}", self.seen),
            }
        }
        let code = self.child.wait().expect("ended").code();
        let stdout = self.stdout.take().map(|read| read.join().expect("read"));
        let stderr = self.seen.iter().map(|line| format!("{line}\n")).collect();
        CommandOutput { code, stdout: stdout.unwrap_or_default(), stderr }
    }
}

impl Drop for DialbackProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lines_of(stderr: ChildStderr) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}

/// Polls until a file has this text.
#[track_caller]
pub(super) fn until_has(path: &Path, text: &str) {
    let until = Instant::now() + WAIT_MAX;
    while !fs::read_to_string(path).unwrap_or_default().contains(text) {
        assert!(Instant::now() < until, "{} never had {text:?}", path.display());
        thread::park_timeout(Duration::from_millis(5));
    }
}

impl CommandOutput {
    /// It ended with this code, and its error output has each of these texts.
    #[track_caller]
    pub(super) fn expect(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        }
        self
    }

    /// It succeeded and printed exactly this.
    #[track_caller]
    pub(super) fn expect_out(self, stdout: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(0), stdout), "{}", self.stderr);
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect("one JSON value")
    }
}
