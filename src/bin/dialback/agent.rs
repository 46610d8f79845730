//! `dialback agent`: reads its settings, dials its nodes, runs until a signal, applies changes.

use crate::{
    admin,
    args::TlsArgs,
    audit::{self, AuditArgs},
    credentials::{self, Locator},
    exit::Failure,
    forwards::{Forwards, parse_forward},
    http_forwards::{self, parse_http},
    join::{self, JoinCommand, parse_enroller},
    mcp_forwards::{self, parse_mcp},
    paths::{self, PathArgs},
    reload::{self, Start},
    trace::{TraceArgs, TraceSettings},
};
use clap::{Args, builder::BoolishValueParser};
use dialback::{
    Admin, AdminAddress, Agent, AgentPolicy, ConfigUpdate, Credentials, Limits, Name, NodeAddress,
    Role, Service, TcpForward, TunnelUrl,
    config::{
        AdminConfig, AgentConfig, AuditFile, ForwardConfig, HttpForwardConfig, McpForwardConfig,
        PathsFile, parse_memory_max,
    },
    demo::{self, Ledger},
    enroll::Renewal,
};
use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

/// `dialback agent`.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  dialback agent --node edge-1.example.com:4433 --demo
  dialback agent --forward HelloService=http://127.0.0.1:9000
It retries until it is connected, and reconnects when a link is lost. It opens no port.
SIGINT or SIGTERM: accepts no new calls, lets calls in flight finish (25 s at most), exits 0.
A second signal aborts the calls in flight and exits 1.
With --enroll it renews its certificate itself; `dialback agent join` obtains the first one.",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    pub(crate) flags: AgentFlags,
    #[command(subcommand)]
    pub(crate) command: Option<JoinCommand>,
}

/// Flags of `dialback agent`, which `dialback doctor agent` reads too.
#[derive(Debug, Args)]
pub(crate) struct AgentFlags {
    /// Config file of the agent
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Node to dial; may be repeated [default: localhost:4433]
    #[arg(long = "node", value_name = "HOST:PORT", value_delimiter = ',')]
    pub(crate) node: Vec<NodeAddress>,
    /// Forward tcp:NAME to HOST:PORT or unix:/PATH; may be repeated, and replaces [[tcp]] of that
    /// name
    #[arg(long, value_name = "NAME=ADDR", value_delimiter = ',')]
    pub(crate) tcp: Vec<TcpForward>,
    /// Forward http:NAME to a local HTTP server, as grafana=http://127.0.0.1:3000; h2c:// for
    /// HTTP/2 without TLS, as of gRPC; may be repeated, and replaces [[http]] of that name
    #[arg(long, value_name = "NAME=URL", value_delimiter = ',', value_parser = parse_http)]
    pub(crate) http: Vec<HttpForwardConfig>,
    /// Forward the tools of an MCP server as mcp:NAME/TOOL: its URL, as
    /// jira=http://127.0.0.1:8000/mcp, or a command, as git=stdio:python server.py; may be
    /// repeated, and replaces [[mcp]] of that name
    #[arg(long, value_name = "NAME=URL|NAME=stdio:COMMAND", value_parser = parse_mcp)]
    pub(crate) mcp: Vec<McpForwardConfig>,
    /// Admin listener, for status and metrics: IP:PORT on loopback, as 127.0.0.1:9433, or
    /// unix:/PATH; without it, or [admin] in the config file, there is none
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<AdminAddress>,
    /// Host the demo services: HelloService and Demo
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", hide_possible_values = true, value_parser = BoolishValueParser::new())]
    pub(crate) demo: Option<bool>,
    /// File that Demo/Append appends to; requires --demo
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// Forward a service to a local HTTP server, as HelloService=http://127.0.0.1:9000; may be
    /// repeated
    #[arg(long, value_name = "SERVICE=URL", value_delimiter = ',', value_parser = parse_forward)]
    pub(crate) forward: Vec<ForwardConfig>,
    /// Enroller that renews the certificate at two thirds of its lifetime [default: none; port
    /// 4434]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_enroller)]
    pub(crate) enroll: Option<NodeAddress>,
    /// URL of the enroller's tunnel [default: wss://HOST/dialback/tunnel, at the enroller's host]
    #[arg(long, value_name = "URL")]
    pub(crate) enroll_tunnel_url: Option<TunnelUrl>,
    /// Memory for messages of all callers, as 256MiB [default: half of the memory limit of the
    /// process]
    #[arg(long, value_name = "BYTES", value_parser = parse_memory_max)]
    pub(crate) memory_max: Option<usize>,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    #[command(flatten)]
    pub(crate) audit: AuditArgs,
    #[command(flatten)]
    pub(crate) paths: PathArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

struct Settings {
    credentials: Credentials,
    nodes: Vec<NodeAddress>,
    /// Those of the file, if flag or environment name others.
    overridden: Vec<NodeAddress>,
    policy: AgentPolicy,
    limits: Limits,
    hosted: Hosted,
    forwards: Forwards,
    paths: PathsFile,
    audit: AuditFile,
    admin: Option<AdminConfig>,
    traces: TraceSettings,
    renewal: Option<Renewal>,
    files: Vec<PathBuf>,
}

/// Forwards and demo services that the agent hosts.
#[derive(PartialEq, Eq)]
struct Hosted {
    tcp: Vec<TcpForward>,
    http: Vec<HttpForwardConfig>,
    mcp: Vec<McpForwardConfig>,
    demo: bool,
    ledger: Option<PathBuf>,
}

pub(crate) fn run(mut args: AgentArgs) -> Result<(), Failure> {
    if let Some(command) = args.command.take() {
        return join::run(Role::Agent, command);
    }
    let locator = Locator::new(Role::Agent);
    let read = move || Settings::read(&args.flags, &locator);
    reload::run(read, |settings| settings.files.clone(), serve)
}

/// Reads all that an agent needs, as at its start.
pub(crate) fn check(args: &AgentFlags) -> Result<(), Failure> {
    let settings = Settings::read(args, &Locator::new(Role::Agent))?;
    http_forwards::make(&settings.hosted.http)?;
    mcp_forwards::make(&settings.hosted.mcp)?;
    paths::settings(&settings.paths).map(drop)
}

impl AgentFlags {
    /// The config file, if there is one.
    pub(crate) fn file(&self) -> Result<AgentConfig, Failure> {
        Ok(self.config.as_deref().map(AgentConfig::read).transpose()?.unwrap_or_default())
    }

    /// The nodes to dial.
    pub(crate) fn nodes(&self, of_file: Vec<NodeAddress>) -> Result<Vec<NodeAddress>, Failure> {
        let nodes = if self.node.is_empty() { of_file } else { self.node.clone() };
        Ok(if nodes.is_empty() { vec!["localhost".parse()?] } else { nodes })
    }

    /// The paths to the nodes and to the enroller.
    pub(crate) fn paths(&self, of_file: PathsFile) -> Result<PathsFile, Failure> {
        let mut paths = self.paths.read()?.or(of_file);
        paths.enroll_tunnel_url = self.enroll_tunnel_url.clone().or(paths.enroll_tunnel_url);
        Ok(paths)
    }
}

impl Settings {
    fn read(args: &AgentFlags, locator: &Locator) -> Result<Self, Failure> {
        let mut file = args.file()?;
        let of_file = file.nodes;
        let is_overridden = !(args.node.is_empty() || of_file.is_empty() || args.node == of_file);
        let overridden = if is_overridden { of_file.clone() } else { Vec::new() };
        let nodes = args.nodes(of_file)?;
        let demo = args.demo.unwrap_or(file.demo);
        let ledger = args.ledger.clone().or(file.ledger);
        let located = locator.locate(args.tls.clone().into(), file.tls)?;
        let mut files = credentials::paths(&located);
        files.extend(args.config.clone());
        file.limits.memory_max = args.memory_max.or(file.limits.memory_max);
        let message_bytes_max = file.limits.message_bytes_max;
        let forwards = Forwards::read(&args.forward, file.forwards, message_bytes_max)?;
        files.extend(forwards.files());
        let enroller = args.enroll.clone().or(file.enroll);
        let paths = args.paths(file.paths)?;
        let renewal = enroller.map(|enroller| Renewal::new(enroller, located.clone()));
        let credentials = match &renewal {
            Some(renewal) => join::present(renewal, Role::Agent)?,
            None => credentials::load_from(Role::Agent, &located)?,
        };
        Ok(Self {
            hosted: Hosted {
                tcp: tcp_forwards(&args.tcp, file.tcp)?,
                http: http_forwards::all(&args.http, file.http)?,
                mcp: mcp_forwards::all(&args.mcp, file.mcp)?,
                demo,
                ledger,
            },
            forwards,
            credentials,
            renewal,
            nodes,
            overridden,
            policy: file.policy,
            limits: file.limits,
            paths,
            audit: AuditFile::from(args.audit.clone()).or(file.audit),
            admin: admin::settings(args.admin.clone(), file.admin),
            traces: args.trace.settings(file.trace),
            files,
        })
    }
}

/// TCP forwards of the flags, and those of the config file that have other names.
fn tcp_forwards(
    typed: &[TcpForward],
    of_file: Vec<TcpForward>,
) -> Result<Vec<TcpForward>, Failure> {
    for (at, forward) in typed.iter().enumerate() {
        if typed[..at].iter().any(|other| other.name() == forward.name()) {
            return Err(Failure::usage(format!("--tcp names {} twice", forward.name())));
        }
    }
    let is_typed = |name: &Name| typed.iter().any(|forward| forward.name() == name);
    let others = of_file.into_iter().filter(|forward| !is_typed(forward.name()));
    Ok(typed.iter().cloned().chain(others).collect())
}

fn services(has_demo: bool, ledger: Option<&Path>) -> Result<Vec<Service>, Failure> {
    if let (false, Some(_)) = (has_demo, ledger) {
        let text = "the ledger is only used by Demo/Append; add --demo, or `demo = true`";
        return Err(Failure::usage(text));
    }
    let ledger = ledger.map(|path| {
        Ledger::open(path).map_err(|error| {
            Failure::usage(format!("cannot open the ledger {}: {error}", path.display()))
        })
    });
    Ok(if has_demo { demo::services(ledger.transpose()?) } else { Vec::new() })
}

async fn serve(start: Start<Settings>) -> Result<(), Failure> {
    let Start { settings, mut signals, reloads } = start;
    let Settings { credentials, nodes, policy, limits, hosted, forwards, renewal, .. } = settings;
    let overridden = settings.overridden;
    let (audited, way, admin) = (settings.audit, settings.paths, settings.admin);
    let traces = settings.traces;
    let mut services = services(hosted.demo, hosted.ledger.as_deref())?;
    let (forwarded, forwards) = forwards.host();
    services.extend(forwarded);
    let has_rules = Cell::new(!policy.allow.is_empty());
    let audit = audit::open(audited.clone())?;
    credentials::announce(&credentials);
    let http = http_forwards::make(&hosted.http)?;
    let mcp = mcp_forwards::make(&hosted.mcp)?;
    let has_forwards = !(hosted.tcp.is_empty() && http.is_empty() && mcp.is_empty());
    announce(&nodes, services.is_empty() && !has_forwards);
    if !overridden.is_empty() {
        tracing::warn!(
            "`nodes` of the config file ({}) is not used: --node or DIALBACK_NODE names others",
            joined(&overridden)
        );
    }
    for forward in &hosted.tcp {
        tracing::info!("forwarding tcp:{} to {}", forward.name(), forward.upstream());
    }
    let builder = Agent::builder(credentials).policy(policy).limits(limits).audit(audit.clone());
    let to_nodes = paths::settings(&way)?;
    let to_enroller = to_nodes.clone().of_enroller(way.enroll_tunnel_url.clone());
    let builder = builder.paths(to_nodes);
    let builder = nodes.iter().fold(builder, |builder, node| builder.node(node.to_string()));
    let builder = hosted.tcp.iter().cloned().fold(builder, dialback::AgentBuilder::tcp);
    let builder = http.into_iter().fold(builder, dialback::AgentBuilder::http);
    let builder = mcp.into_iter().fold(builder, dialback::AgentBuilder::mcp);
    let builder = traces.announced().into_iter().fold(builder, dialback::AgentBuilder::traces);
    let agent = services.into_iter().fold(builder, |builder, service| builder.serve(service));
    let run = async {
        let agent = agent.start()?;
        let listener = match &admin {
            Some(admin) => Some(Admin::of_agent(&agent, &admin::listen(admin)).await?),
            None => None,
        };
        let _renewing = renewal.clone().map(|renewal| renewal.paths(to_enroller).start());
        let renewed = |renewal: &Option<Renewal>| {
            renewal.as_ref().map(|renewal| (renewal.enroller().clone(), renewal.files().clone()))
        };
        let check = |next: &Settings| {
            expect_rules(&has_rules, &next.policy)?;
            Ok(reload::restarts([
                (next.nodes != nodes, "nodes"),
                (next.hosted != hosted, "what the agent hosts"),
                (!forwards.is_registered_as(&next.forwards), "which services are forwarded"),
                (next.audit != audited, "audit"),
                (next.admin != admin, "admin"),
                (next.traces != traces, "trace"),
                (next.paths != way, "path, tunnel_url, enroll_tunnel_url, proxy or [tunnel]"),
                (
                    renewed(&next.renewal) != renewed(&renewal),
                    "enroll, or which files are renewed,",
                ),
            ]))
        };
        let apply = async |next: Settings| {
            let credentials = next.credentials.clone();
            agent
                .apply(ConfigUpdate {
                    credentials: Some(next.credentials),
                    policy: Some(next.policy),
                    limits: Some(next.limits),
                })
                .await?;
            credentials::announce(&credentials);
            next.forwards.replace(&forwards);
            Ok(())
        };
        let drain = admin::drain_requested(listener.as_ref(), admin.as_ref());
        let first = signals.first_or(drain, reloads.run(&dialling(&nodes), check, apply)).await;
        signals.stop(first, |abort| agent.shutdown_or_abort(abort.cancelled_owned())).await
    };
    audit::kept(&audit, run).await?
}

/// Rejects an update without rules, which would open every hosted service: likely a truncated file.
fn expect_rules(has_rules: &Cell<bool>, next: &AgentPolicy) -> Result<(), Failure> {
    if has_rules.get() && next.allow.is_empty() {
        return Err(Failure::usage(
            "the config file has no [[allow]] rule any more, which would open every hosted service to every node; keep at least one rule, or restart the agent if this is intended",
        ));
    }
    has_rules.set(!next.allow.is_empty());
    Ok(())
}

fn joined(nodes: &[NodeAddress]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn dialling(nodes: &[NodeAddress]) -> String {
    format!("dialling {}", joined(nodes))
}

fn announce(nodes: &[NodeAddress], is_idle: bool) {
    tracing::info!("{}", dialling(nodes));
    if is_idle {
        tracing::warn!(
            "this agent hosts no services; add --http NAME=URL for a local HTTP server, --mcp NAME=URL for an MCP server, --tcp NAME=ADDR for TCP forwards, --forward for services that speak Connect, --demo for the demo services"
        );
    }
}
