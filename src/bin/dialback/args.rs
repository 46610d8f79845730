//! What is typed. What it means is decided by each command: here only the grammar of single values
//! is checked.
//!
//! Every flag but `--force` is read from the environment too, as `DIALBACK_<FLAG>`: one rule,
//! applied to all of them in one place.

use crate::{
    certs::args::CertsArgs,
    forwards::{ForwardFlag, parse_forward},
};
use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::BoolishValueParser,
};
use dialback::{
    CrlScope, MethodPath, Name, NodeAddress, PeerName, Role, TcpForward,
    config::{AuditFile, TlsFiles, parse_duration, parse_listen, parse_memory_max},
    enroll::Enroller,
};
use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// Reverse RPC over QUIC: the agent inside a private network dials out, and is called over its own
/// link.
#[derive(Debug, Parser)]
#[command(
    name = "dialback",
    version,
    after_help = "\
Every flag but --force can be set in the environment too: --log-level as DIALBACK_LOG_LEVEL.
A flag goes before the environment, the environment before a config file.

First contact:
  dialback certs init && dialback certs issue node edge-1 --san localhost
  dialback certs issue agent warehouse && dialback certs issue caller ops
  dialback node --config examples/first/node.toml
  dialback agent --demo
  dialback call warehouse HelloService/Hello -d '\"hello\"'

Exit codes: 0; 1 failed while running; 2 what was typed, a config file or local credentials;
64 + RPC code for a call that failed (78 UNAVAILABLE, 80 UNAUTHENTICATED, ...); 130 on Ctrl-C."
)]
pub(crate) struct Cli {
    /// The form of log lines, which go to standard error
    #[arg(long, global = true, value_name = "FORM", default_value = "text", help_heading = "Log")]
    pub(crate) log: LogForm,
    /// The least level that is logged [default: info for node and agent, else warn]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Log")]
    pub(crate) log_level: Option<LogLevel>,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    // One object a line. Plain comments: help stays one line a flag.
    Json,
    Text,
}

/// The least level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes certificates and shows them
    Certs(CertsArgs),
    /// Runs a node: listens for agents and callers
    Node(NodeArgs),
    /// Runs an agent: dials its nodes and hosts services
    Agent(AgentArgs),
    /// Gets a caller's certificate from an enroller
    Caller(CallerArgs),
    /// Runs an enroller: signs agents and callers that join or renew
    Enroll(EnrollArgs),
    /// Calls a method of an agent
    Call(CallArgs),
    /// Opens a local port that ends at a forward of an agent
    Tcp(TcpArgs),
    /// Lists the agents that this caller may see
    Agents(AgentsArgs),
    /// Lists the services that this caller may call
    Services(ServicesArgs),
    /// Makes bearer tokens for callers that come over HTTP
    Token(TokenArgs),
    /// Checks and tries rules
    Policy(PolicyArgs),
    /// Checks config files
    Config(ConfigArgs),
}

/// The files of credentials, as flags.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "Credentials [default: from certs/, the only certificate of the role]"
)]
pub(crate) struct TlsArgs {
    /// Our certificate (PEM: the leaf, then intermediates)
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key [default: beside the certificate, ending in .key]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The CAs to believe [default: ca.pem beside the certificate, and crl.pem there with it]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The CAs to believe about nodes; --ca is then believed about agents and callers only
    #[arg(long, value_name = "FILE")]
    pub(crate) node_ca: Option<PathBuf>,
    /// The revocation lists to mind; none: no certificate is taken for revoked
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Option<PathBuf>,
    /// Whether intermediates are looked up in the lists too: leaf or chain [default: leaf]
    #[arg(long, value_name = "SCOPE")]
    pub(crate) crl_scope: Option<CrlScope>,
}

impl From<TlsArgs> for TlsFiles {
    fn from(args: TlsArgs) -> Self {
        let TlsArgs { cert, key, ca, node_ca, crl, crl_scope } = args;
        Self { cert, key, ca, node_ca, crl, crl_scope }
    }
}

/// The audit log, as flags.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Audit log")]
pub(crate) struct AuditArgs {
    /// Write links and refusals to this file as JSON lines; - is standard output. SIGHUP opens it
    /// again
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
    /// Write every call there too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", hide_possible_values = true, value_parser = BoolishValueParser::new())]
    pub(crate) audit_calls: Option<bool>,
}

impl From<AuditArgs> for AuditFile {
    fn from(args: AuditArgs) -> Self {
        let AuditArgs { audit, audit_calls } = args;
        Self { file: audit, calls: audit_calls }
    }
}

/// `dialback node`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: dialback node --config examples/first/node.toml
Without rules (--config or --policy) remote callers can call nothing.
SIGINT or SIGTERM: takes nothing new, lets calls in flight finish (25 s at most), exits 0.
A second signal does not wait: calls in flight are cut off, and the exit code is 1.")]
pub(crate) struct NodeArgs {
    /// The node's config file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen, UDP [default: [::]:4433, which is IPv6 and IPv4]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// A file of rules, which replace those of the config file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Where to keep what outlasts a restart, so that peers notice one at once; made if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Where the HTTP door listens, TCP; without it, or [gateway] in the config file, there is none
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) gateway: Option<SocketAddr>,
    /// The bearer tokens of the HTTP door; see `dialback token`
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// Memory for the messages of all callers, as 256MiB [default: half of what the process may
    /// use]
    #[arg(long, value_name = "BYTES", value_parser = parse_memory_max)]
    pub(crate) memory_max: Option<usize>,
    /// The audit log.
    #[command(flatten)]
    pub(crate) audit: AuditArgs,
    /// Certificates.
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// `dialback agent`.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  dialback agent --node edge-1.example.com:4433 --demo
  dialback agent --forward HelloService=http://127.0.0.1:9000
It dials until it gets through, and again whenever a link is lost. No port is opened.
SIGINT or SIGTERM: takes nothing new, lets calls in flight finish (25 s at most), exits 0.
A second signal does not wait: calls in flight are cut off, and the exit code is 1.
With --enroll it renews its certificate by itself; `dialback agent join` gets the first one.",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct AgentArgs {
    /// The agent's config file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A node to dial; may come several times [default: localhost:4433]
    #[arg(long = "node", value_name = "HOST:PORT", value_delimiter = ',')]
    pub(crate) node: Vec<NodeAddress>,
    /// Lead tcp:NAME to HOST:PORT or unix:/PATH; may come several times, and replaces [[tcp]] of
    /// that name
    #[arg(long, value_name = "NAME=ADDR", value_delimiter = ',')]
    pub(crate) tcp: Vec<TcpForward>,
    /// Host the demo services: HelloService and Demo
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", hide_possible_values = true, value_parser = BoolishValueParser::new())]
    pub(crate) demo: Option<bool>,
    /// The file to which Demo/Append writes; needs the demo
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// Forward a service to a local HTTP server, as HelloService=http://127.0.0.1:9000; may come
    /// several times
    #[arg(long, value_name = "SERVICE=URL", value_delimiter = ',', value_parser = parse_forward)]
    pub(crate) forward: Vec<ForwardFlag>,
    /// The enroller that renews the certificate at two thirds of its life [default: none; port
    /// 4434]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_enroller)]
    pub(crate) enroll: Option<NodeAddress>,
    /// Memory for the messages of all callers, as 256MiB [default: half of what the process may
    /// use]
    #[arg(long, value_name = "BYTES", value_parser = parse_memory_max)]
    pub(crate) memory_max: Option<usize>,
    /// The audit log.
    #[command(flatten)]
    pub(crate) audit: AuditArgs,
    /// Certificates.
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// What to do instead of running.
    #[command(subcommand)]
    pub(crate) command: Option<JoinCommand>,
}

/// `dialback caller`.
#[derive(Debug, Args)]
pub(crate) struct CallerArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: JoinCommand,
}

/// `dialback agent ...` and `dialback caller ...`: certificates over the wire.
#[derive(Debug, Subcommand)]
pub(crate) enum JoinCommand {
    /// Gets a first certificate by a join token; the key is made here and stays here
    #[command(after_help = "\
Example, with the line that `dialback enroll token agent warehouse` printed where the CA is:
  DIALBACK_TOKEN=djt1:... dialback agent join --enroll ca.example.com:4434
It writes ROLE-NAME.pem, ROLE-NAME.key, ca.pem and crl.pem. A token is good once.
Exit codes: 2 what can be seen to be wrong here, the token is then not used;
78 no answer; 80 refused.")]
    Join(JoinArgs),
    /// Renews a certificate once, if it is past two thirds of its life
    #[command(after_help = "\
Example, for a timer: dialback caller renew --enroll ca.example.com:4434
An agent that runs with --enroll needs none.")]
    Renew(RenewArgs),
}

/// `dialback agent join`, `dialback caller join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The enroller; port 4434 unless it is named
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_enroller)]
    pub(crate) enroll: NodeAddress,
    /// The join token; better in DIALBACK_TOKEN, where other users of this machine do not see it
    #[arg(long, value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: String,
    /// The name that the token is expected to be for; for another one nothing is asked
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<Name>,
    /// Where to put certificate, key and CA
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// Replace a certificate that is there and good
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) force: bool,
}

/// `dialback agent renew`, `dialback caller renew`.
#[derive(Debug, Args)]
pub(crate) struct RenewArgs {
    /// The enroller; port 4434 unless it is named
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_enroller)]
    pub(crate) enroll: NodeAddress,
    /// Certificates.
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// `dialback enroll`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, where the CA is:
  dialback enroll --listen '[::]:4434' --ca-dir certs
  dialback enroll token agent warehouse --ttl 1h --ca-dir certs
It signs agents and callers, never a node and never a CA. Open its one UDP port to the
machines that join. Keep nodes under a CA of their own where a break-in here must not
make one.")]
pub(crate) struct EnrollArgs {
    /// Where to listen, UDP [default: [::]:4434, which is IPv6 and IPv4]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// The directory of the CA, as `dialback certs init` makes it
    #[arg(long, global = true, value_name = "DIR", default_value = "certs")]
    pub(crate) ca_dir: PathBuf,
    /// How long its certificates hold
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = parse_duration_text)]
    pub(crate) leaf_ttl: Duration,
    /// What to do instead of listening.
    #[command(subcommand)]
    pub(crate) command: Option<EnrollCommand>,
}

/// `dialback enroll ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum EnrollCommand {
    /// Prints a join token: one line, which lets one machine join once as this party
    #[command(after_help = "Example: dialback enroll token agent warehouse --ttl 1h")]
    Token {
        /// agent or caller
        role: Role,
        /// The party's name
        name: Name,
        /// How long the token is good, at most 30d
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration_text)]
        ttl: Duration,
    },
}

/// How a caller reaches its node.
#[derive(Debug, Args)]
pub(crate) struct ReachArgs {
    /// The node
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:4433")]
    pub(crate) node: NodeAddress,
    /// Certificates.
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// `dialback call`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dialback call warehouse HelloService/Hello -d '\"hello\"'
  dialback call warehouse Demo/Echo -d @message.json --timeout 5s --json
  dialback call warehouse Demo/Count -d '{\"n\":5,\"interval_ms\":200}'
  seq 1 9 | jq -c '{value:.}' | dialback call warehouse Demo/Sum -d @-
  dialback call --any HelloService/Hello -d '\"hello\"'
The input is a sequence of JSON values, each one a message; without -d it is one null. Of a
method that takes a stream each message is sent as soon as it is read. Each reply is printed
as one line of JSON, as it comes. A failure is one line on standard error,
  error: UNAVAILABLE (not_executed): agent warehouse is not attached
with --json one object on standard output.
not_executed: it did not run and will not; unknown: it may have; app_error: it ran and said no.
Exit code of a failed call: 64 + RPC code, as 67 INVALID_ARGUMENT, 68 DEADLINE_EXCEEDED,
71 PERMISSION_DENIED, 72 RESOURCE_EXHAUSTED, 76 UNIMPLEMENTED, 77 INTERNAL, 78 UNAVAILABLE,
80 UNAUTHENTICATED. A node that does not answer: 78, after 5 s or the timeout; at once if nothing listens there.")]
pub(crate) struct CallArgs {
    /// The agent's name, unless --any or --all is given, and what to call, as HelloService/Hello
    #[arg(value_name = "AGENT SERVICE/METHOD", required = true, num_args = 1..=2)]
    pub(crate) what: Vec<String>,
    /// Call any agent that may answer for the service, as a [[host]] rule of the node says
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new(), conflicts_with = "all")]
    pub(crate) any: bool,
    /// Call every such agent, and print an outcome for each
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) all: bool,
    /// Wait, within the timeout, for an agent to attach
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) wait: bool,
    /// Ask for a stream of replies, where the method may be called either way: one that is
    /// forwarded
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new(), conflicts_with = "all")]
    pub(crate) stream: bool,
    /// Higher goes first on the links, from -128 to 127; a node takes at most 0 [default: 0,
    /// streams -16]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) priority: Option<i8>,
    /// The messages: JSON, @FILE, or @- for standard input
    #[arg(short, long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
    /// A pair of metadata, as 'key: value'; may come several times
    #[arg(short = 'H', long = "header", value_name = "KEY: VALUE", value_parser = parse_header)]
    pub(crate) header: Vec<(String, String)>,
    /// How long connecting and calling may take together, as 500ms, 5s, 2m [default: 30s, streams
    /// 24h]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,
    /// Print one JSON object, for a failure too
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
    /// The node and the certificates.
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// `dialback tcp`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, with [[tcp]] name = \"db\" at the agent:
  dialback tcp warehouse db --listen 127.0.0.1:5432
  psql -h 127.0.0.1 stock
It prints `listening on IP:PORT` when it is ready; with port 0 the system chooses one. Each
connection is a call tcp:db over one link, which comes back by itself. One that fails is
closed with a reset, and a line of the log says why. Whoever reaches the port reaches the
forward in the name of this caller: listen on loopback.
SIGINT or SIGTERM: takes no more, lets connections end (25 s at most), exits 0. A second
signal does not wait, and the exit code is 1. No link at the start: 78 or 80, as `call`.")]
pub(crate) struct TcpArgs {
    /// The agent's name
    pub(crate) agent: Name,
    /// The forward's name: db, or tcp:db as rules write it
    #[arg(value_parser = parse_tcp_name)]
    pub(crate) name: Name,
    /// Where to listen: IP:PORT, or unix:/PATH
    #[arg(long, value_name = "ADDR", value_parser = parse_listen_or_path)]
    pub(crate) listen: Listen,
    /// How many connections at once; the node's caller_calls_in_flight_max bounds them too
    #[arg(long, value_name = "N", default_value = "128", value_parser = parse_connections)]
    pub(crate) connections_max: usize,
    /// How long one connection may live at most [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,
    /// The node and the certificates.
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// Where connections are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `dialback agents`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: dialback agents --json
Asks the node as a caller. Its rules decide which agents this caller may see.")]
pub(crate) struct AgentsArgs {
    /// Print one JSON array; a failure is one object
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
    /// The node and the certificates.
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// `dialback services`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dialback services warehouse
  dialback services --json
Asks the node as a caller. Its rules decide which services and methods this caller may see.
SERVICE/* is a service whose methods the agent does not know.")]
pub(crate) struct ServicesArgs {
    /// The agent's name [default: all agents that are attached]
    pub(crate) agent: Option<Name>,
    /// Print one JSON array; a failure is one object
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
    /// The node and the certificates.
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// `dialback token`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dialback token create billing --ttl 30d --file certs/tokens
  dialback token list --json
  dialback token revoke billing
The file holds hashes, and no token. A node whose [gateway] names it takes a change up by itself,
within a second. The bearer of a token is the caller of that name in [[allow]] and [[deny]].")]
pub(crate) struct TokenArgs {
    /// The file of tokens; it is made if it is missing
    #[arg(long, global = true, value_name = "FILE", default_value = "certs/tokens")]
    pub(crate) file: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// `dialback token ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Prints a new token: one line, and the only copy. Another one of the same name stays good
    #[command(after_help = "\
Example: dialback token create billing --ttl 30d
  curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8080/v1/agents")]
    Create {
        /// The caller that it makes of its bearer
        name: Name,
        /// How long the token is good, at most 366d
        #[arg(long, value_name = "DURATION", default_value = BEARER_TTL, value_parser = parse_duration_text)]
        ttl: Duration,
    },
    /// Lists tokens: whose, and until when
    List {
        /// Print one JSON array
        #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
        json: bool,
    },
    /// Takes out every token of a caller, or one of them
    #[command(after_help = "\
Example: dialback token revoke billing --id 3f2a91c07b5d
`dialback token list` shows ids; of a token that was found, `printf %s TOKEN | sha256sum`
begins with its id.")]
    Revoke {
        /// The caller
        name: Name,
        /// The one token of this id
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
}

/// As the library has it, written for help.
const BEARER_TTL: &str = "30d";

/// `dialback policy`.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

/// `dialback policy ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Reads a file of rules and says what is wrong with it, all at once
    #[command(after_help = "Example: dialback policy check rules.toml")]
    Check {
        /// A file with [[allow]], [[deny]] and [[host]] and nothing else
        file: PathBuf,
    },
    /// Says whether rules would let a call through, and which rule decides
    #[command(after_help = "\
Examples:
  dialback policy test ops warehouse HelloService/Hello --config examples/first/node.toml
  dialback policy test agent/kiosk node/edge-1 Stock/List --policy rules.toml
Exit code: 0 allowed, 1 denied, 2 a fault in what was typed or in the file.")]
    Test {
        /// Who asks, as in rules: ops is a caller, agent/NAME and node/NAME say their role
        #[arg(value_parser = parse_requester)]
        caller: PeerName,
        /// On what: an agent's name, or node/NAME for what the node hosts
        #[arg(value_parser = parse_target)]
        agent: PeerName,
        /// The method, as HelloService/Hello
        method: MethodPath,
        /// The node's config file
        #[arg(long, value_name = "FILE", required_unless_present = "policy")]
        config: Option<PathBuf>,
        /// A file of rules, which replace those of the config file
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
}

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

/// Reads the command line and the environment. Ends the process where they cannot be read: 0 after
/// help, else 2.
pub(crate) fn parse() -> Cli {
    let read = with_environment(Cli::command())
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    read.unwrap_or_else(|error| error.exit())
}

/// Gives every flag its variable, hidden in help: the first page of help states the rule.
///
/// Not so for `config`: its flags name files to look at, and `DIALBACK_NODE` is where a node is
/// dialled.
fn with_environment(command: clap::Command) -> clap::Command {
    if command.get_name() == "config" {
        return command;
    }
    command
        .mut_args(|arg| match variable(&arg) {
            Some(name) => arg.env(name).hide_env(true),
            None => arg,
        })
        .mut_subcommands(with_environment)
}

/// None for `--force`: a variable left behind must not replace a CA.
fn variable(arg: &clap::Arg) -> Option<String> {
    let flag = arg.get_long().filter(|flag| !["help", "version", "force"].contains(flag))?;
    Some(format!("DIALBACK_{}", flag.to_ascii_uppercase().replace('-', "_")))
}

fn parse_duration_text(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|why| why.to_string())
}

fn parse_enroller(text: &str) -> Result<NodeAddress, String> {
    NodeAddress::parse_with_port(text, Enroller::PORT_DEFAULT).map_err(|why| why.to_string())
}

/// Reads the name of a TCP forward, also as rules and listings write it.
fn parse_tcp_name(text: &str) -> Result<Name, String> {
    let name = text.strip_prefix("tcp:").unwrap_or(text);
    name.parse().map_err(|fault: dialback::NameError| fault.to_string())
}

fn parse_listen_or_path(text: &str) -> Result<Listen, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("has no path; write unix:/run/db.sock".into()),
        Some(path) => Ok(Listen::Unix(path.into())),
        None => parse_listen(text).map(Listen::Tcp).map_err(|why| why.to_string()),
    }
}

fn parse_connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=10_000) => Ok(count),
        _ => Err("is no number from 1 to 10000".into()),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text).map_err(|why| why.to_string())?;
    if timeout.is_zero() {
        return Err("a call needs time; write 500ms, 5s or 2m".into());
    }
    Ok(timeout)
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("is not written 'key: value'".into()),
    }
}

/// `ops` is a caller, as in rules.
fn parse_requester(text: &str) -> Result<PeerName, String> {
    parse_party(text, Role::Caller)
}

/// `warehouse` is an agent, as in rules; a node may be named, a caller cannot be called.
fn parse_target(text: &str) -> Result<PeerName, String> {
    match parse_party(text, Role::Agent)? {
        party if party.role == Role::Caller => {
            Err("a caller hosts nothing; write an agent's name, or node/NAME".into())
        }
        party => Ok(party),
    }
}

fn parse_party(text: &str, role: Role) -> Result<PeerName, String> {
    if text.contains('/') {
        return text.parse().map_err(|why: dialback::NameError| why.to_string());
    }
    let name = text.parse().map_err(|why: dialback::NameError| why.to_string())?;
    Ok(PeerName::new(role, name))
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
            let others = command.get_subcommands().filter(|inner| inner.get_name() != "config");
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
    fn the_time_of_a_bearer_token_is_that_of_the_library() {
        assert_eq!(parse_duration_text(BEARER_TTL), Ok(dialback::limits::BEARER_TTL_DEFAULT));
    }

    #[test]
    fn a_header_is_a_key_and_a_value() {
        assert_eq!(parse_header("key: a: b "), Ok(("key".into(), "a: b".into())));
        assert_eq!(parse_header("key:"), Ok(("key".into(), String::new())));
        for bad in ["", "key", ": value"] {
            assert!(parse_header(bad).is_err(), "{bad:?} was taken for a header");
        }
    }

    #[test]
    fn parties_are_read_as_rules_write_them() {
        let requester = |text| parse_requester(text).map(|party| party.to_string());
        assert_eq!(requester("ops"), Ok("caller/ops".into()));
        assert_eq!(requester("agent/kiosk"), Ok("agent/kiosk".into()));
        let target = |text| parse_target(text).map(|party| party.to_string());
        assert_eq!(target("warehouse"), Ok("agent/warehouse".into()));
        assert_eq!(target("node/edge-1"), Ok("node/edge-1".into()));
        for bad in ["caller/ops", "boss/x", "A", ""] {
            assert!(target(bad).is_err(), "{bad:?} was taken for a target");
        }
    }

    #[test]
    fn bad_names_and_unknown_words_are_refused_where_they_are_typed() {
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

    #[test]
    fn a_forward_is_named_with_and_without_its_kind() {
        for text in ["db", "tcp:db"] {
            assert_eq!(parse_tcp_name(text).map(|name| name.to_string()), Ok("db".into()));
        }
        for bad in ["tcp:", "http:db", "tcp:tcp:db"] {
            assert!(parse_tcp_name(bad).is_err(), "{bad} was taken");
        }
    }
}
