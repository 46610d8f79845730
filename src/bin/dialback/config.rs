//! `dialback config check`: checks config files before anything runs with them.

use crate::{
    exit::Failure,
    output::{count, escape, print},
    policy::count_rules,
};
use clap::Subcommand;
use dialback::config::{AgentConfig, LineFaults, NodeConfig};
use std::path::{Path, PathBuf};

/// `dialback config ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check config files and report all errors at once
    #[command(after_help = "Example: dialback config check --node examples/first/node.toml")]
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
    },
}

/// Runs the command. Checks every named file and reports all errors together.
pub(crate) fn run(command: ConfigCommand) -> Result<(), Failure> {
    let ConfigCommand::Check { file, node, agent } = command;
    let checked = [
        node.map(|path| check_node(&path)),
        agent.map(|path| check_agent(&path)),
        file.map(|path| check_either(&path)),
    ];
    let mut faults = Vec::new();
    for one in checked.into_iter().flatten() {
        match one {
            Ok(line) => print(&escape(&line))?,
            Err(found) => faults.extend(found.iter().map(ToString::to_string)),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::Local(faults)) }
}

fn check_node(path: &Path) -> Result<String, LineFaults> {
    let config = NodeConfig::read(path)?;
    Ok(format!("{}: a node's file, {}", path.display(), count_rules(&config.policy)))
}

fn check_agent(path: &Path) -> Result<String, LineFaults> {
    let config = AgentConfig::read(path)?;
    let AgentConfig { nodes, tcp, forwards, http, mcp, .. } = &config;
    let hosted = tcp.len() + forwards.len() + http.len() + mcp.len();
    let (nodes, hosted) = (count(nodes.len(), "node"), count(hosted, "forward"));
    Ok(format!("{}: an agent's file, {nodes}, {hosted}", path.display()))
}

/// Accepts either kind; else the errors of the kind with fewer misplaced keys, then errors.
fn check_either(path: &Path) -> Result<String, LineFaults> {
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
