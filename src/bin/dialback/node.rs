//! `dialback node`: reads its settings, runs until a signal, applies changes of its files.

use crate::{
    admin,
    args::TlsArgs,
    audit::{self, AuditArgs},
    credentials::{self, Locator},
    exit::Failure,
    gateway::{self, GatewaySettings},
    policy::count_rules,
    reload::{self, Start},
    trace::{TraceArgs, TraceSettings},
    tunnel::{self, TunnelSettings},
    writable,
};
use clap::Args;
use dialback::{
    Admin, AdminAddress, ConfigUpdate, Credentials, Limits, Node, NodePolicy, Role,
    config::{AdminConfig, AuditFile, NodeConfig, PolicyFile, parse_listen, parse_memory_max},
};
use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
};

/// `dialback node`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: dialback node --config examples/first/node.toml
Without rules (--config or --policy) every remote call is denied.
SIGINT or SIGTERM: accepts no new calls, lets calls in flight finish (25 s at most), exits 0.
A second signal aborts the calls in flight and exits 1.")]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) flags: NodeFlags,
}

/// Flags of `dialback node`, which `doctor node` and `config print node` read too.
#[derive(Debug, Args)]
pub(crate) struct NodeFlags {
    /// Config file of the node
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// UDP address to listen on [default: [::]:4433, IPv6 and IPv4]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// File with policy rules, which replace those of the config file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Directory for state that survives a restart, so that peers detect one at once; created if
    /// missing
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// TCP address of the HTTP gateway; without it, or [gateway] in the config file, there is none
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) gateway: Option<SocketAddr>,
    /// TCP address for tunnels, as [::]:443; without it, or [tunnel] in the config file, links need
    /// UDP
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) tunnel: Option<SocketAddr>,
    /// Admin listener, for status and metrics: IP:PORT on loopback, as 127.0.0.1:9433, or
    /// unix:/PATH; without it, or [admin] in the config file, there is none
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<AdminAddress>,
    /// File with the bearer tokens of the HTTP gateway; see `dialback token`
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// Memory for messages of all callers, as 256MiB [default: half of the memory limit of the
    /// process]
    #[arg(long, value_name = "BYTES", value_parser = parse_memory_max)]
    pub(crate) memory_max: Option<usize>,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    #[command(flatten)]
    pub(crate) audit: AuditArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

struct Settings {
    credentials: Credentials,
    listen: SocketAddr,
    policy: NodePolicy,
    limits: Limits,
    state: Option<PathBuf>,
    audit: AuditFile,
    gateway: Option<GatewaySettings>,
    tunnel: Option<TunnelSettings>,
    admin: Option<AdminConfig>,
    traces: TraceSettings,
    files: Vec<PathBuf>,
}

pub(crate) fn run(args: NodeArgs) -> Result<(), Failure> {
    let locator = Locator::new(Role::Node);
    let read = move || Settings::read(&args.flags, &locator);
    reload::run(read, |settings| settings.files.clone(), serve)
}

impl NodeFlags {
    /// The config file, if there is one.
    pub(crate) fn file(&self) -> Result<NodeConfig, Failure> {
        Ok(self.config.as_deref().map(NodeConfig::read).transpose()?.unwrap_or_default())
    }

    /// The UDP address to listen on.
    pub(crate) fn listen(&self, of_file: Option<SocketAddr>) -> SocketAddr {
        self.listen.or(of_file).unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, 4433).into())
    }

    /// The settings that a node runs with: of the flags, of its file, and defaults. Credentials are
    /// located later.
    pub(crate) fn merge(&self, mut file: NodeConfig) -> Result<NodeConfig, Failure> {
        if let Some(path) = &self.policy {
            file.replace_rules(PolicyFile::read(path)?);
        }
        file.listen = Some(self.listen(file.listen));
        file.limits.memory_max = self.memory_max.or(file.limits.memory_max);
        file.state = self.state.clone().or(file.state);
        file.audit = AuditFile::from(self.audit.clone()).or(file.audit);
        file.admin = admin::settings(self.admin.clone(), file.admin);
        file.trace = self.trace.merge(file.trace);
        file.gateway = gateway::merge(self, file.gateway, !file.sites.is_empty())?;
        file.tunnel = tunnel::merge(self.tunnel, file.tunnel, file.gateway.is_some())?;
        Ok(file)
    }
}

impl Settings {
    fn read(args: &NodeFlags, locator: &Locator) -> Result<Self, Failure> {
        let file = args.merge(args.file()?)?;
        let located = locator.locate(args.tls.clone().into(), file.tls)?;
        let mut files = credentials::paths(&located);
        files.extend(args.config.iter().chain(&args.policy).cloned());
        let gateway = GatewaySettings::read(file.gateway, file.sites)?;
        files.extend(gateway.iter().flat_map(GatewaySettings::files));
        let tunnel = TunnelSettings::read(file.tunnel)?;
        files.extend(tunnel.iter().flat_map(TunnelSettings::files));
        Ok(Self {
            gateway,
            tunnel,
            policy: file.policy,
            credentials: credentials::load_from(Role::Node, &located)?,
            listen: args.listen(file.listen),
            limits: file.limits,
            state: file.state,
            audit: file.audit,
            admin: file.admin,
            traces: TraceSettings::new(file.trace),
            files,
        })
    }

    fn announce(credentials: &Credentials, policy: &NodePolicy) {
        credentials::announce(credentials);
        tracing::info!("{}", count_rules(policy));
        if policy.allow.is_empty() {
            tracing::warn!(
                "no [[allow]] rule: every remote call is denied; add [[allow]] to the config file (--config), or name a file of rules with --policy"
            );
        }
    }
}

/// Reads all that a node needs, as at its start.
pub(crate) fn check(args: &NodeFlags) -> Result<(), Failure> {
    let settings = Settings::read(args, &Locator::new(Role::Node))?;
    match settings.state.as_deref().and_then(writable::state_fault) {
        Some([text, remedy]) => Err(Failure::Local(vec![format!("state: {text}; {remedy}")])),
        None => Ok(()),
    }
}

async fn serve(start: Start<Settings>) -> Result<(), Failure> {
    let Start { settings, mut signals, reloads } = start;
    Settings::announce(&settings.credentials, &settings.policy);
    let Settings { credentials, listen, policy, limits, state, audit: audited, gateway, .. } =
        settings;
    let (tunnel, admin, traces) = (settings.tunnel, settings.admin, settings.traces);
    let audit = audit::open(audited.clone())?;
    let builder = Node::builder(credentials).listen(listen).policy(policy).limits(limits);
    let builder = builder.audit(audit.clone());
    let builder = match &state {
        Some(dir) => builder.state_dir(dir),
        None => builder,
    };
    let builder = match tunnel.as_ref().and_then(TunnelSettings::listener) {
        Some(listener) => builder.tunnel(listener),
        None => builder,
    };
    let builder = traces.announced().into_iter().fold(builder, dialback::NodeBuilder::traces);
    let run = async {
        let node = builder.start().await?;
        let tunnel_path = tunnel.as_ref().and_then(TunnelSettings::path_on_gateway);
        let running_gateway = gateway::open(&node, gateway.as_ref(), tunnel_path).await?;
        let listener = match &admin {
            Some(admin) => Some(Admin::of_node(&node, &admin::listen(admin)).await?),
            None => None,
        };
        let check = |next: &Settings| {
            Ok(reload::restarts([
                (next.listen != listen, "listen"),
                (next.state != state, "state"),
                (next.audit != audited, "audit"),
                (next.admin != admin, "admin"),
                (next.traces != traces, "trace"),
                (gateway::needs_restart(next.gateway.as_ref(), gateway.as_ref()), "gateway"),
                (tunnel::needs_restart(next.tunnel.as_ref(), tunnel.as_ref()), "tunnel"),
            ]))
        };
        let apply = async |next: Settings| {
            let (credentials, policy) = (next.credentials.clone(), next.policy.clone());
            node.apply(ConfigUpdate {
                credentials: Some(next.credentials),
                policy: Some(next.policy),
                limits: Some(next.limits),
            })
            .await?;
            gateway::apply(running_gateway.as_ref(), next.gateway);
            node.set_tunnel_certificate(next.tunnel.and_then(|tunnel| tunnel.certificate));
            Settings::announce(&credentials, &policy);
            Ok(())
        };
        let status = format!("listens on {}", node.local_addr());
        let drain = admin::drain_requested(listener.as_ref(), admin.as_ref());
        let first = signals.first_or(drain, reloads.run(|| status.clone(), check, apply)).await;
        signals.stop(first, |abort| node.shutdown_or_abort(abort.cancelled_owned())).await
    };
    audit::kept(&audit, run).await?
}
