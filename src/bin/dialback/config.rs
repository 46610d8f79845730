//! `dialback config check`: a file judged before anything runs with it.

use crate::{
    exit::Failure,
    output::{escape, print},
    policy::count_rules,
};
use clap::{Args, Subcommand};
use dialback::config::{AgentConfig, Faults, NodeConfig};
use std::path::{Path, PathBuf};

/// `dialback config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// `dialback config ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Reads a config file and says what is wrong with it, all at once
    #[command(after_help = "Example: dialback config check --node examples/first/node.toml")]
    Check {
        /// A node's or an agent's file: the one whose keys it has
        #[arg(required_unless_present_any = ["node", "agent"])]
        file: Option<PathBuf>,
        /// A node's file
        #[arg(long, value_name = "FILE")]
        node: Option<PathBuf>,
        /// An agent's file
        #[arg(long, value_name = "FILE")]
        agent: Option<PathBuf>,
    },
}

/// Runs the command. Every file that was named is judged, and all faults are told together.
pub(crate) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let ConfigCommand::Check { file, node, agent } = args.command;
    let judged = [
        node.map(|path| check_node(&path)),
        agent.map(|path| check_agent(&path)),
        file.map(|path| check_either(&path)),
    ];
    let mut faults = Vec::new();
    for one in judged.into_iter().flatten() {
        match one {
            Ok(line) => print(&escape(&line))?,
            Err(found) => faults.extend(found.iter().map(ToString::to_string)),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::Local(faults)) }
}

fn check_node(path: &Path) -> Result<String, Faults> {
    let config = NodeConfig::read(path)?;
    Ok(format!("{}: a node's file, {}", path.display(), count_rules(&config.policy)))
}

fn check_agent(path: &Path) -> Result<String, Faults> {
    let config = AgentConfig::read(path)?;
    let nodes = if config.nodes.len() == 1 { "node" } else { "nodes" };
    Ok(format!("{}: an agent's file, {} {nodes}", path.display(), config.nodes.len()))
}

/// A file that is good as either; else the faults of the kind of which it has fewer keys that
/// belong in the other's file, and then fewer faults.
fn check_either(path: &Path) -> Result<String, Faults> {
    check_node(path).or_else(|as_node| {
        check_agent(path).map_err(|as_agent| {
            if strangeness(&as_agent) < strangeness(&as_node) { as_agent } else { as_node }
        })
    })
}

fn strangeness(faults: &Faults) -> (usize, usize) {
    let is_misplaced = |fault: &String| fault.contains("belongs in a");
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    (texts.iter().filter(|fault| is_misplaced(fault)).count(), texts.len())
}
