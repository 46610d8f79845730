//! `dialback agent`: reads its settings, dials its nodes, runs until a signal, applies changes.

use crate::{
    admin,
    args::TlsArgs,
    audit::{self, AuditArgs},
    credentials::{self, Locator},
    exit::Failure,
    forwards::{self, parse_forward},
    hosted::{HostedConfig, LiveServices, merged},
    http_forwards::parse_http,
    join::{self, JoinCommand, parse_enroller},
    mcp_forwards::parse_mcp,
    paths::{self, PathArgs},
    reload::{self, Start},
    trace::{TraceArgs, TraceSettings},
    writable::is_writable,
};
use clap::{Args, builder::BoolishValueParser};
use dialback::{
    Admin, AdminAddress, Agent, AgentPolicy, AgentUpdate, ConfigUpdate, Credentials, Limits,
    NodeAddress, Role, TcpForward, TunnelUrl,
    config::{
        AdminConfig, AgentConfig, AuditFile, ForwardConfig, HttpForwardConfig, McpForwardConfig,
        PathsFile, parse_memory_max,
    },
    enroll::Renewal,
};
use std::{
    cell::{Cell, RefCell},
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

/// Flags of `dialback agent`, which `doctor agent` and `config print agent` read too.
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
    hosted: Vec<HostedConfig>,
    paths: PathsFile,
    audit: AuditFile,
    admin: Option<AdminConfig>,
    traces: TraceSettings,
    renewal: Option<Renewal>,
    files: Vec<PathBuf>,
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

    /// The settings that an agent runs with: of the flags, of its file, and defaults. Credentials
    /// are located later.
    pub(crate) fn merge(&self, mut file: AgentConfig) -> Result<AgentConfig, Failure> {
        file.nodes = self.nodes(file.nodes)?;
        file.demo = self.demo.unwrap_or(file.demo);
        file.ledger = self.ledger.clone().or(file.ledger);
        file.limits.memory_max = self.memory_max.or(file.limits.memory_max);
        file.tcp = merged("--tcp", &self.tcp, file.tcp, TcpForward::name)?;
        file.http = merged("--http", &self.http, file.http, |one| &one.name)?;
        file.mcp = merged("--mcp", &self.mcp, file.mcp, |one| &one.name)?;
        file.forwards = forwards::all(&self.forward, file.forwards);
        file.enroll = self.enroll.clone().or(file.enroll);
        file.paths = self.paths(file.paths)?;
        file.audit = AuditFile::from(self.audit.clone()).or(file.audit);
        file.admin = admin::settings(self.admin.clone(), file.admin);
        file.trace = self.trace.merge(file.trace);
        Ok(file)
    }
}

impl Settings {
    fn read(args: &AgentFlags, locator: &Locator) -> Result<Self, Failure> {
        let file = args.file()?;
        let of_file = &file.nodes;
        let is_overridden = !(args.node.is_empty() || of_file.is_empty() || args.node == *of_file);
        let overridden = if is_overridden { of_file.clone() } else { Vec::new() };
        let mut file = args.merge(file)?;
        let hosted = HostedConfig::all(&mut file)?;
        let located = locator.locate(args.tls.clone().into(), file.tls)?;
        let mut files = credentials::paths(&located);
        files.extend(args.config.clone());
        files.extend(hosted.iter().filter_map(HostedConfig::file).cloned());
        let renewal = file.enroll.map(|enroller| Renewal::new(enroller, located.clone()));
        let credentials = match &renewal {
            Some(renewal) => join::present(renewal, Role::Agent)?,
            None => credentials::load_from(Role::Agent, &located)?,
        };
        Ok(Self {
            hosted,
            credentials,
            renewal,
            nodes: file.nodes,
            overridden,
            policy: file.policy,
            limits: file.limits,
            paths: file.paths,
            audit: file.audit,
            admin: file.admin,
            traces: TraceSettings::new(file.trace),
            files,
        })
    }
}

async fn serve(start: Start<Settings>) -> Result<(), Failure> {
    let Start { settings, mut signals, reloads } = start;
    let Settings { credentials, nodes, policy, limits, hosted, renewal, .. } = settings;
    let (audited, way, admin) = (settings.audit, settings.paths, settings.admin);
    let traces = settings.traces;
    let has_rules = Cell::new(!policy.allow.is_empty());
    let hosted = LiveServices::default().next(hosted)?;
    renewal.iter().for_each(expect_renewable);
    let audit = audit::open(audited.clone())?;
    credentials::announce(&credentials);
    let current = Current { nodes, overridden: settings.overridden, hosted };
    current.announce(&Current::default());
    current.hosted.expect_some();
    let builder = Agent::builder(credentials).policy(policy).limits(limits).audit(audit.clone());
    let to_nodes = paths::settings(&way)?;
    let to_enroller = to_nodes.clone().of_enroller(way.enroll_tunnel_url.clone());
    let builder = builder.paths(to_nodes);
    let nodes = current.nodes.iter();
    let agent = nodes.fold(builder, |builder, node| builder.node(node.to_string()));
    let agent = traces.announced().into_iter().fold(agent, dialback::AgentBuilder::traces);
    let agent = agent.services(current.hosted.services());
    let current = RefCell::new(current);
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
            expect_rules(has_rules.get(), &next.policy)?;
            // What is dialled needs its path.
            let has_nodes = next.nodes != current.borrow().nodes && next.paths != way;
            Ok(reload::restarts([
                (has_nodes, "nodes, with their paths,"),
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
            let hosted = current.borrow().hosted.next(next.hosted)?;
            let is_hosted = hosted.is_same(&current.borrow().hosted);
            let is_open = next.policy.allow.is_empty();
            let nodes = match next.paths == way {
                true => next.nodes,
                false => current.borrow().nodes.clone(),
            };
            let config = ConfigUpdate {
                credentials: Some(next.credentials),
                policy: Some(next.policy),
                limits: Some(next.limits),
            };
            let services = (!is_hosted).then(|| hosted.services());
            agent.apply(AgentUpdate { config, services, nodes: Some(nodes.clone()) }).await?;
            has_rules.set(!is_open);
            credentials::announce(&credentials);
            let next = Current { nodes, overridden: next.overridden, hosted };
            next.announce(&current.borrow());
            if !is_hosted {
                next.hosted.expect_some();
            }
            current.replace(next);
            Ok(())
        };
        let status = || dialling(&current.borrow().nodes);
        let drain = admin::drain_requested(listener.as_ref(), admin.as_ref());
        let first = signals.first_or(drain, reloads.run(status, check, apply)).await;
        signals.stop(first, |abort| agent.shutdown_or_abort(abort.cancelled_owned())).await
    };
    audit::kept(&audit, run).await?
}

/// What a reload has changed last.
#[derive(Default)]
struct Current {
    nodes: Vec<NodeAddress>,
    overridden: Vec<NodeAddress>,
    hosted: LiveServices,
}

impl Current {
    fn announce(&self, previous: &Self) {
        if self.nodes != previous.nodes {
            let nodes = joined(&self.nodes);
            tracing::info!(nodes, "dialling {nodes}");
        }
        if self.overridden != previous.overridden && !self.overridden.is_empty() {
            let nodes = joined(&self.overridden);
            tracing::warn!(
                nodes,
                "`nodes` of the config file ({nodes}) is not used: --node or DIALBACK_NODE names others"
            );
        }
        self.hosted.announce(&previous.hosted);
    }
}

/// Rejects an update without rules, which would open every hosted service: likely a truncated file.
fn expect_rules(has_rules: bool, next: &AgentPolicy) -> Result<(), Failure> {
    if has_rules && next.allow.is_empty() {
        return Err(Failure::usage(
            "the config file has no [[allow]] rule any more, which would open every hosted service to every node; keep at least one rule, or restart the agent if this is intended",
        ));
    }
    Ok(())
}

/// Warns if a renewal could not replace its files, which would show only when the certificate is
/// due.
fn expect_renewable(renewal: &Renewal) {
    let dir = renewal.files().cert.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or_else(|| Path::new("."));
    if !is_writable(dir) {
        let shown = dir.display();
        tracing::warn!(
            directory = %shown,
            "the certificate cannot be renewed: this user cannot write to {shown}; move its files to a directory of this user, and name them in [tls]"
        );
    }
}

fn joined(nodes: &[NodeAddress]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn dialling(nodes: &[NodeAddress]) -> String {
    format!("dialling {}", joined(nodes))
}
