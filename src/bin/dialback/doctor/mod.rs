//! `dialback doctor`: examines what an agent, a caller or a node needs. It reads what the examined
//! command reads, and changes nothing.

mod check;
mod dialled;
mod dialling;
mod files;
mod machine;
mod node;

use crate::{
    agent::AgentFlags, caller::ReachArgs, credentials, exit::Failure, node::NodeFlags, paths,
    signals::block_on,
};
use check::Report;
use clap::{ArgAction, Args, Subcommand, builder::BoolishValueParser};
use dialback::{Role, config::TlsFiles};
use dialling::Dialling;
use tokio::runtime::Builder;

/// `dialback doctor ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum DoctorCommand {
    /// Examine files, name, route, UDP, tunnel and clock of an agent
    #[command(after_help = "\
Example: dialback doctor agent --config agent.toml
Takes the flags and the config file of `dialback agent`. The agent may run meanwhile: nothing
registers. Takes up to ten seconds for each node.
Exit codes: 0 no failure, warnings allowed; 1 a failure; 2 bad usage or config file.")]
    Agent(Box<DoctorAgentArgs>),
    /// Examine files, name, route, UDP, tunnel and clock of a caller
    #[command(after_help = "\
Example: dialback doctor caller --node edge-1.example.com:4433
Takes the flags of `dialback call` that name node, paths and credentials.
Exit codes: 0 no failure, warnings allowed; 1 a failure; 2 bad usage.")]
    Caller(Box<DoctorCallerArgs>),
    /// Examine files, addresses, rules and limits of a node
    #[command(after_help = "\
Example: dialback doctor node --config node.toml
Takes the flags and the config file of `dialback node`. The node may run meanwhile.
Exit codes: 0 no failure, warnings allowed; 1 a failure; 2 bad usage or config file.")]
    Node(Box<DoctorNodeArgs>),
}

/// The form of the results.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ReportArgs {
    /// Print one JSON array of {check, state, text, remedy}
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
}

/// `dialback doctor agent`.
#[derive(Debug, Args)]
pub(crate) struct DoctorAgentArgs {
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    #[command(flatten)]
    pub(crate) flags: AgentFlags,
}

/// `dialback doctor caller`.
#[derive(Debug, Args)]
pub(crate) struct DoctorCallerArgs {
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// `dialback doctor node`.
#[derive(Debug, Args)]
pub(crate) struct DoctorNodeArgs {
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    #[command(flatten)]
    pub(crate) flags: NodeFlags,
}

pub(crate) fn run(command: DoctorCommand) -> Result<(), Failure> {
    match command {
        DoctorCommand::Agent(args) => agent(*args),
        DoctorCommand::Caller(args) => caller(*args),
        DoctorCommand::Node(args) => {
            let DoctorNodeArgs { report, flags } = *args;
            let file = flags.file()?;
            finish(report, async |report| node::examine(report, &flags, file).await)
        }
    }
}

fn agent(args: DoctorAgentArgs) -> Result<(), Failure> {
    let DoctorAgentArgs { report, flags } = args;
    let file = flags.file()?;
    let dialling = Dialling {
        nodes: flags.nodes(file.nodes)?,
        paths: paths::settings(&flags.paths(file.paths)?),
        role: Role::Agent,
        files: credentials::locate(Role::Agent, flags.tls.into(), file.tls),
    };
    finish(report, async |report| dialling.examine(report).await)
}

fn caller(args: DoctorCallerArgs) -> Result<(), Failure> {
    let DoctorCallerArgs { report, reach } = args;
    let dialling = Dialling {
        nodes: vec![reach.node],
        paths: paths::settings(&reach.paths.read()?),
        role: Role::Caller,
        files: credentials::locate(Role::Caller, reach.tls.into(), TlsFiles::default()),
    };
    finish(report, async |report| dialling.examine(report).await)
}

fn finish(
    args: ReportArgs,
    examine: impl AsyncFnOnce(&mut Report) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut report = Report::new(args.json);
    block_on(Builder::new_current_thread(), examine(&mut report))?;
    report.end()
}
