//! `dialback node`: reads its settings, runs until it is told to stop.

use crate::{
    args::NodeArgs,
    audit, credentials,
    exit::Failure,
    policy::{count_rules, rules_of},
    signals::Signals,
};
use dialback::{
    Audit, Credentials, Limits, Node, NodePolicy, Role,
    config::{AuditFile, NodeConfig},
};
use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
};

/// What the node is to be, once flags, environment and file have spoken.
struct Settings {
    credentials: Credentials,
    listen: SocketAddr,
    policy: NodePolicy,
    limits: Limits,
    state: Option<PathBuf>,
    audit: Audit,
}

/// Runs the command.
pub(crate) fn run(args: NodeArgs) -> Result<(), Failure> {
    let settings = Settings::read(args)?;
    runtime()?.block_on(serve(settings))
}

/// The runtime of programs that stay: a thread a core.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Runtime::new().map_err(|error| Failure::runtime(&error))
}

impl Settings {
    fn read(args: NodeArgs) -> Result<Self, Failure> {
        let file = args.config.as_deref().map(NodeConfig::read).transpose()?.unwrap_or_default();
        let listen = args.listen.or(file.listen);
        Ok(Self {
            policy: rules_of(args.policy.as_deref(), file.policy)?,
            credentials: credentials::load(Role::Node, args.tls, file.tls)?,
            listen: listen.unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, 4433).into()),
            limits: file.limits,
            state: args.state.or(file.state),
            // Last, so that nothing is made for a start that fails.
            audit: audit::open(AuditFile::from(args.audit).or(file.audit))?,
        })
    }
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    let Settings { credentials, listen, policy, limits, state, audit } = settings;
    let mut signals = Signals::listen()?;
    credentials::announce(&credentials);
    announce_rules(&policy);
    let builder = Node::builder(credentials).listen(listen).policy(policy).limits(limits);
    let builder = builder.audit(audit.clone());
    let builder = match state {
        Some(dir) => builder.state_dir(dir),
        None => builder,
    };
    let run = async {
        let node = builder.start().await?;
        signals.run_until_stopped(node.shutdown()).await
    };
    audit::kept(&audit, run).await?
}

fn announce_rules(policy: &NodePolicy) {
    tracing::info!("{}", count_rules(policy));
    if policy.allow.is_empty() {
        tracing::warn!(
            "no [[allow]] rule: remote callers can call nothing; write rules into --config FILE or --policy FILE"
        );
    }
}
