//! The root command, and the arguments that several commands share.
//!
//! Every flag except `--force` is also read from the environment, as `DIALBACK_<FLAG>`.

use crate::{
    agent::AgentArgs, agents::AgentsArgs, bench::args::BenchArgs, call::CallArgs,
    certs::args::CertsArgs, completions::CompletionsArgs, config::ConfigCommand,
    doctor::DoctorCommand, enroll::EnrollArgs, exit::Failure, join::JoinCommand,
    log_filter::LogFilter, man_pages::ManArgs, node::NodeArgs, policy::PolicyCommand,
    services::ServicesArgs, status::StatusArgs, tcp::TcpArgs, token::TokenArgs,
};
use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::BoolishValueParser,
};
use dialback::{
    CrlScope,
    config::{TlsFiles, parse_duration},
};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

/// Reverse RPC over QUIC: an agent inside a private network dials out, and is called over that link
#[derive(Debug, Parser)]
#[command(
    name = "dialback",
    version,
    after_help = "\
Every flag except --force can also be set in the environment: --log-level as DIALBACK_LOG_LEVEL.
A flag overrides the environment, the environment overrides a config file.

First contact:
  dialback certs init && dialback certs issue node edge-1 --san localhost
  dialback certs issue agent warehouse && dialback certs issue caller ops
  dialback node --config examples/first/node.toml
  dialback agent --demo
  dialback call warehouse HelloService/Hello -d '\"hello\"'
The Debian package has examples/ in /usr/share/doc/dialback.

Exit codes: 0 success; 1 runtime failure; 2 bad usage, config file or local credentials;
64 + RPC code for a failed call (78 UNAVAILABLE, 80 UNAUTHENTICATED, ...); 130 on Ctrl-C."
)]
pub(crate) struct Cli {
    /// Log format; the log goes to standard error
    #[arg(long, global = true, value_name = "FORM", default_value = "text", help_heading = "Log")]
    pub(crate) log: LogForm,
    /// Minimum log level, error to trace, and others for modules, as info,dialback::link=debug
    /// [default: info for long-running commands, else warn]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Log")]
    pub(crate) log_level: Option<LogFilter>,
    /// Append the TLS keys of links and tunnels to the file that SSLKEYLOGFILE names, for
    /// Wireshark: everyone who has that file can decrypt them
    #[arg(long, global = true, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new(), help_heading = "Log")]
    pub(crate) log_tls_keys: bool,
    /// Write files about the packets of each link (qlog) to this directory: they show when peers
    /// send and how much; in builds with the feature `qlog`
    #[arg(long, global = true, value_name = "DIR", help_heading = "Log")]
    pub(crate) qlog: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    // One object per line. Plain comments: help stays one line per flag.
    Json,
    Text,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, renew, revoke and show certificates
    Certs(CertsArgs),
    /// Run a node: listen for agents and callers
    Node(Box<NodeArgs>),
    /// Run an agent: dial its nodes and host services
    Agent(Box<AgentArgs>),
    /// Obtain a caller certificate from an enroller
    #[command(subcommand)]
    Caller(JoinCommand),
    /// Run an enroller: sign certificates of agents and callers that join or renew
    Enroll(EnrollArgs),
    /// Call a method of an agent
    Call(Box<CallArgs>),
    /// Measure calls of an agent: rate, latencies, failures
    Bench(Box<BenchArgs>),
    /// Forward a local port to a TCP forward of an agent
    Tcp(TcpArgs),
    /// Show what a node or an agent on this machine is doing
    Status(StatusArgs),
    /// Examine what an agent, a caller or a node needs, and name the remedy of each failure
    #[command(subcommand)]
    Doctor(DoctorCommand),
    /// List the agents that this caller may see
    Agents(AgentsArgs),
    /// List the services that this caller may call
    Services(ServicesArgs),
    /// Manage bearer tokens for callers of the HTTP gateway
    Token(TokenArgs),
    /// Check and test policy rules
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Check config files, and print settings with their sources
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print or write man pages
    Man(ManArgs),
}

/// The files of credentials, as flags.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Credentials [default: the only certificate of the role in certs/]")]
pub(crate) struct TlsArgs {
    /// Certificate chain (PEM: leaf, then intermediates)
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key [default: the path of the certificate, ending in .key]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// CA certificates to trust [default: ca.pem in the directory of the certificate, with crl.pem]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// CA certificates to trust for nodes; --ca is then trusted for agents and callers only
    #[arg(long, value_name = "FILE")]
    pub(crate) node_ca: Option<PathBuf>,
    /// Certificate revocation lists; without one no certificate counts as revoked
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Option<PathBuf>,
    /// Certificates to check for revocation: leaf, or chain to include intermediates [default:
    /// leaf]
    #[arg(long, value_name = "SCOPE")]
    pub(crate) crl_scope: Option<CrlScope>,
}

impl From<TlsArgs> for TlsFiles {
    fn from(args: TlsArgs) -> Self {
        let TlsArgs { cert, key, ca, node_ca, crl, crl_scope } = args;
        Self { cert, key, ca, node_ca, crl, crl_scope }
    }
}

/// The definition of the command line, without the environment.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

/// The arguments of a command that has a config file and nothing else.
pub(crate) fn of_config(command: &str, file: &str) -> Result<Command, Failure> {
    let parsed = Cli::try_parse_from(["dialback", command, "--config", file]);
    parsed.map(|cli| cli.command).map_err(|error| Failure::usage(error.to_string()))
}

/// Parses command line and environment. Exits the process on an error: 0 after help, else 2.
pub(crate) fn parse() -> Cli {
    let read = with_environment(definition())
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    read.unwrap_or_else(|error| error.exit())
}

/// Gives every flag its environment variable, hidden in help. `config check` is excluded: its flags
/// name files to check, and `DIALBACK_NODE` is the address of a node.
fn with_environment(command: clap::Command) -> clap::Command {
    if command.get_name() == "config" {
        return command.mut_subcommand("print", with_environment);
    }
    command
        .mut_args(|arg| match variable(&arg) {
            Some(name) => arg.env(name).hide_env(true),
            None => arg,
        })
        .mut_subcommands(with_environment)
}

/// The variables of all flags, and those that the program reads besides.
pub(crate) fn variables() -> BTreeSet<String> {
    fn add(command: &clap::Command, names: &mut BTreeSet<String>) {
        names.extend(command.get_arguments().filter_map(variable));
        command.get_subcommands().for_each(|inner| add(inner, names));
    }
    let mut names = BTreeSet::new();
    add(&definition(), &mut names);
    names
}

/// None for `--force`: a variable left behind must not replace a CA.
fn variable(arg: &clap::Arg) -> Option<String> {
    let flag = arg.get_long().filter(|flag| !["help", "version", "force"].contains(flag))?;
    Some(variable_of(flag))
}

/// The variable of a flag.
pub(crate) fn variable_of(flag: &str) -> String {
    format!("DIALBACK_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text).map_err(|why| why.to_string())?;
    if timeout.is_zero() {
        return Err("the timeout must be above zero; write 500ms, 5s or 2m".into());
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("dialback").chain(line.iter().copied()))
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        with_environment(Cli::command()).debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable_and_help_has_none() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
                let expected = variable(arg);
                let found = arg.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(found, expected, "{arg}");
            }
            let others = command.get_subcommands().filter(|inner| inner.get_name() != "check");
            others.for_each(check);
        }
        check(&with_environment(Cli::command()));
        let log_level = Cli::command()
            .get_arguments()
            .find(|arg| arg.get_long() == Some("log-level"))
            .and_then(variable);
        assert_eq!(log_level.as_deref(), Some("DIALBACK_LOG_LEVEL"));
        assert_eq!(variable(&clap::Arg::new("force").long("force")), None);
    }

    #[test]
    fn files_to_look_at_are_not_taken_from_the_environment() {
        let command = with_environment(Cli::command());
        let config = command.find_subcommand("config").expect("a command");
        let check = config.find_subcommand("check").expect("a command");
        assert!(check.get_arguments().all(|arg| arg.get_env().is_none()));
    }

    #[test]
    fn a_timeout_is_a_duration_that_is_not_zero() {
        assert_eq!(parse_timeout("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["0", "0s", "0ms", "", "5", "-1s", "soon"] {
            assert!(parse_timeout(bad).is_err(), "{bad:?} was taken for a timeout");
        }
    }

    #[test]
    fn invalid_names_and_unknown_values_are_rejected_by_the_parser() {
        assert!(read(&["call", "warehouse", "HelloService/Hello"]).is_ok());
        assert!(read(&["call", "warehouse", "HelloService.Hello", "-d", "-1"]).is_ok());
        assert!(read(&["agent", "join", "--enroll", "ca", "--token", "t"]).is_ok());
        assert!(read(&["agent", "--tcp", "db=127.0.0.1:1", "--tcp", "b=unix:/run/b"]).is_ok());
        assert!(read(&["tcp", "warehouse", "db", "--listen", "127.0.0.1:0"]).is_ok());
        assert!(read(&["tcp", "warehouse", "db", "--listen", "unix:/run/db.sock"]).is_ok());
        assert!(read(&["enroll", "token", "agent", "x", "--ca-dir", "d"]).is_ok());
        assert!(read(&["token", "create", "x", "--ttl", "1h", "--file", "f"]).is_ok());
        for bad in [
            &["call"][..],
            &["call", "a", "A/b", "c"],
            &["call", "A/b", "--any", "--all"],
            &["call", "warehouse", "A/b", "--timeout", "0"],
            &["call", "warehouse", "A/b", "--node", "::1"],
            &["node", "--listen", "localhost:1"],
            &["certs", "issue", "boss", "x"],
            &["policy", "test", "ops", "warehouse", "A/b"],
            &["enroll", "token", "boss", "x"],
            &["enroll", "token", "agent", "x", "--ttl", "soon"],
            &["agent", "join", "--token", "t"],
            &["agent", "join", "--enroll", "ca:0", "--token", "t"],
            &["agent", "--demo", "join", "--enroll", "ca", "--token", "t"],
            &["caller"],
            &["token"],
            &["token", "create"],
            &["token", "create", "caller/x"],
            &["token", "create", "x", "--ttl", "30"],
            &["token", "revoke"],
            &["tcp"],
            &["tcp", "warehouse", "db"],
            &["tcp", "warehouse", "db", "--listen", "5432"],
            &["tcp", "warehouse", "db", "--listen", "unix:"],
            &["tcp", "warehouse", "db", "--listen", "127.0.0.1:0", "--connections-max", "0"],
            &["agent", "--tcp", "127.0.0.1:5432"],
            &["agent", "--tcp", "db=127.0.0.1"],
            &[],
        ] {
            assert!(read(bad).is_err(), "{bad:?} was taken");
        }
    }
}
