//! `dialback config`: checks config files before anything runs with them, and prints settings.

use crate::{
    agent,
    args::{self, Command},
    config_print::{self, PrintCommand},
    exit::Failure,
    node,
    output::{count, escape, print},
    policy::count_rules,
};
use clap::Subcommand;
use dialback::config::{AgentConfig, LineFaults, NodeConfig};
use std::path::{Path, PathBuf};

/// `dialback config ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check config files with all that they name, and report all errors at once
    #[command(after_help = "\
Example: dialback config check --node node.toml
Reads the files as `dialback node` and `dialback agent` do, and then certificates, keys, revocation
lists, tokens and CAs that they name: what passes can start, unless its address is in use.")]
    Check {
        /// Config file of a node or an agent, detected by its keys
        #[arg(required_unless_present_any = ["node", "agent"])]
        file: Option<PathBuf>,
        /// Config file of a node
        #[arg(long, value_name = "FILE")]
        node: Option<PathBuf>,
        /// Config file of an agent
        #[arg(long, value_name = "FILE")]
        agent: Option<PathBuf>,
        /// Check only what is written in the files, not the files that they name
        #[arg(long)]
        text_only: bool,
    },
    /// Print the settings that a node or an agent would run with, and the source of each value
    #[command(
        subcommand,
        after_help = "\
The output is a config file of the same effect. Behind each value stands its source: a line of a
file, a flag, a variable of the environment, or the default. Files that are named are not read,
except those of rules (--policy). Secrets are masked, and a file with masked secrets is refused.
Exit codes: 0 printed; 2 bad usage or config file, or credentials that are not found."
    )]
    Print(PrintCommand),
}

pub(crate) fn run(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file, node, agent, text_only } => {
            check([file, node, agent], text_only)
        }
        ConfigCommand::Print(command) => config_print::run(command),
    }
}

/// Checks every named file and reports all errors together.
fn check([file, node, agent]: [Option<PathBuf>; 3], text_only: bool) -> Result<(), Failure> {
    let checked = [
        node.map(|path| (check_node(&path), path)),
        agent.map(|path| (check_agent(&path), path)),
        file.map(|path| (check_either(&path), path)),
    ];
    let mut faults = Vec::new();
    for (one, path) in checked.into_iter().flatten() {
        match one {
            Ok(CheckedFile { line, command }) => {
                print(&escape(&line))?;
                if !text_only {
                    faults.extend(could_start(command, &path)?);
                }
            }
            Err(found) => faults.extend(found.iter().map(ToString::to_string)),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::Local(faults)) }
}

/// A file without faults of its own, and the command that it is for.
struct CheckedFile {
    line: String,
    command: &'static str,
}

/// Reads all that the file names, as its command does. Returns the faults, and prints if there are
/// none.
fn could_start(command: &'static str, path: &Path) -> Result<Vec<String>, Failure> {
    let config = path.to_string_lossy();
    let read = match args::of_config(command, &config)? {
        Command::Node(args) => node::check(&args.flags),
        Command::Agent(args) => agent::check(&args.flags),
        _ => Ok(()),
    };
    match read {
        Ok(()) => {
            print(&escape(&format!("`dialback {command} --config {config}` can start")))?;
            Ok(Vec::new())
        }
        Err(failure) => {
            let lines = failure.lines();
            Ok(lines.iter().map(|line| format!("{config}: {line}")).collect())
        }
    }
}

fn check_node(path: &Path) -> Result<CheckedFile, LineFaults> {
    let config = NodeConfig::read(path)?;
    let line = format!("{}: a node's file, {}", path.display(), count_rules(&config.policy));
    Ok(CheckedFile { line, command: "node" })
}

fn check_agent(path: &Path) -> Result<CheckedFile, LineFaults> {
    let config = AgentConfig::read(path)?;
    let AgentConfig { nodes, tcp, forwards, http, mcp, .. } = &config;
    let hosted = tcp.len() + forwards.len() + http.len() + mcp.len();
    let (nodes, hosted) = (count(nodes.len(), "node"), count(hosted, "forward"));
    let line = format!("{}: an agent's file, {nodes}, {hosted}", path.display());
    Ok(CheckedFile { line, command: "agent" })
}

/// Accepts either kind; else the errors of the kind with fewer misplaced keys, then errors.
fn check_either(path: &Path) -> Result<CheckedFile, LineFaults> {
    check_node(path).or_else(|as_node| {
        check_agent(path).map_err(|as_agent| {
            if misplacement(&as_agent) < misplacement(&as_node) { as_agent } else { as_node }
        })
    })
}

fn misplacement(faults: &LineFaults) -> (usize, usize) {
    let is_misplaced = |fault: &String| fault.contains("belongs in a");
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    (texts.iter().filter(|fault| is_misplaced(fault)).count(), texts.len())
}
