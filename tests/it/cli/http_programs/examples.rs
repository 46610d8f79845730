//! The examples, by their own config files.

mod mcp;
mod openai;
mod site;
mod websocket;

use super::super::process::{DialbackProcess, WorkDir};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn example_dir(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example)
}

/// The text of a config file with another value in each line of this key.
#[track_caller]
fn with_value(text: &str, key: &str, value: &str) -> String {
    let start = format!("{key} = ");
    assert!(text.lines().any(|line| line.starts_with(&start)), "no {key} in {text}");
    text.lines()
        .map(|line| match line.starts_with(&start) {
            true => format!("{start}{value}\n"),
            false => format!("{line}\n"),
        })
        .collect()
}

/// The path of the upstream in the file of an agent.
fn upstream_path(agent: &str) -> String {
    let upstream = agent.lines().find_map(|line| line.strip_prefix("upstream = \"http://"));
    let upstream = upstream.and_then(|rest| rest.split('"').next()).expect("an upstream");
    upstream.find('/').map_or_else(String::new, |at| upstream[at..].to_owned())
}

/// A file with this Python and the script of the examples in its commands.
fn with_command(text: &str, python: &Path) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    text.replace("\"python3\"", &format!("\"{}\"", python.display()))
        .replace("\"examples/", &format!("\"{root}/examples/"))
}

/// The server of an example, and a node and an agent with its files, on free ports.
struct ExampleSetup {
    work_dir: WorkDir,
    server: DialbackProcess,
    _node_and_agent: [DialbackProcess; 2],
    /// Port of the gateway.
    port: String,
    /// Token of the caller ops.
    token: String,
    /// Token of the caller dev.
    dev_token: String,
}

impl ExampleSetup {
    #[track_caller]
    fn start(example: &str, python: &Path) -> Self {
        let work_dir = WorkDir::new();
        let (server, upstream) = Self::server(example, python, &work_dir);
        let [token, dev_token] = ["ops", "dev"].map(|caller| {
            let created = work_dir.run(&["token", "create", caller, "--ttl", "1h"]);
            created.expect(0, &[]).stdout.trim().to_owned()
        });
        let file =
            |name: &str| fs::read_to_string(example_dir(example).join(name)).expect("a file");
        work_dir.write("node.toml", with_value(&file("node.toml"), "listen", "\"127.0.0.1:0\""));
        let (mut node, at) = work_dir.listening(&["node", "--config", "node.toml"]);
        let line = node.wait_for_line("the gateway listens on http://127.0.0.1:");
        let port = line.rsplit(':').next().expect("a port").trim().to_owned();
        let agent = with_value(&file("agent.toml"), "nodes", &format!("[\"{at}\"]"));
        let path = upstream_path(&agent);
        let agent = with_value(&agent, "upstream", &format!("\"http://{upstream}{path}\""));
        work_dir.write("agent.toml", with_command(&agent, python));
        let mut agent = work_dir.start(&["agent", "--config", "agent.toml"]);
        agent.wait_for_line("registered as warehouse");
        Self { work_dir, server, _node_and_agent: [node, agent], port, token, dev_token }
    }

    /// Starts the server on a free port. Returns it with its address.
    #[track_caller]
    fn server(example: &str, python: &Path, work_dir: &WorkDir) -> (DialbackProcess, String) {
        let mut command = Command::new(python);
        command.arg(example_dir(example).join("server.py")).arg("0");
        command.current_dir(work_dir.path("."));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut server = DialbackProcess::start(command);
        let line = server.wait_for_line("serves ");
        let address = line.rsplit('/').next().expect("an address").trim().to_owned();
        (server, address)
    }
}

#[test]
fn the_files_of_the_examples_are_valid_and_allow_their_forward_only() {
    for (example, caller, forward, other) in [
        ("mcp", "ops", "mcp:tracker/delete_all", "mcp:tracker/resources"),
        ("mcp", "dev", "mcp:tracker-stdio/create_issue", "mcp:tracker-stdio/delete_all"),
        ("openai", "ops", "http:llm", "http:other"),
        ("site", "everybody", "http:shop", "http:other"),
        ("websocket", "ops", "http:chat", "http:other"),
    ] {
        let [node, agent] = ["node.toml", "agent.toml"].map(|name| example_dir(example).join(name));
        let [node, agent] = [node.to_str().expect("UTF-8"), agent.to_str().expect("UTF-8")];
        let work_dir = WorkDir::empty();
        work_dir
            .run(&["config", "check", "--text-only", "--node", node, "--agent", agent])
            .expect(0, &[]);
        let policy = |method: &str| {
            work_dir.run(&["policy", "test", caller, "warehouse", method, "--config", node])
        };
        policy(forward).expect(0, &[]);
        policy(other).expect(1, &[]);
    }
}
