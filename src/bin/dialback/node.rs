//! `dialback node`: reads its settings, runs until it is told to stop, and takes up what its files say meanwhile.

use crate::{
    args::NodeArgs,
    credentials,
    exit::Failure,
    policy::{count_rules, rules_of},
    reload::{self, Read},
    signals::{Hangups, Signals},
};
use dialback::{
    Credentials, Generation, Limits, Node, NodePolicy, Role,
    config::{NodeConfig, Watch},
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
    /// Where all this was read.
    files: Vec<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: NodeArgs) -> Result<(), Failure> {
    // Read once to know which files these are: they are watched from before they are read for good, so that no change falls between.
    let watch = Watch::new(Settings::read(&args)?.files);
    let settings = Settings::read(&args)?;
    runtime()?.block_on(serve(args, settings, watch))
}

/// The runtime of programs that stay: a thread a core.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Runtime::new().map_err(|error| Failure::runtime(&error))
}

impl Settings {
    fn read(args: &NodeArgs) -> Result<Self, Failure> {
        let file = args.config.as_deref().map(NodeConfig::read).transpose()?.unwrap_or_default();
        let listen = args.listen.or(file.listen);
        let policy = rules_of(args.policy.as_deref(), file.policy)?;
        let located = credentials::locate(Role::Node, args.tls.clone().into(), file.tls)?;
        let mut files = credentials::paths(&located);
        files.extend(args.config.iter().chain(&args.policy).cloned());
        Ok(Self {
            policy,
            credentials: credentials::load_from(Role::Node, &located)?,
            listen: listen.unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, 4433).into()),
            limits: file.limits,
            state: args.state.clone().or(file.state),
            files,
        })
    }

    fn announce(&self) {
        credentials::announce(&self.credentials);
        announce_rules(&self.policy);
    }
}

async fn serve(args: NodeArgs, settings: Settings, watch: Watch) -> Result<(), Failure> {
    let (mut signals, hangups) = (Signals::listen()?, Hangups::listen()?);
    settings.announce();
    let Settings { credentials, listen, policy, limits, state, .. } = settings;
    let builder = Node::builder(credentials).listen(listen).policy(policy).limits(limits);
    let builder = match &state {
        Some(dir) => builder.state_dir(dir),
        None => builder,
    };
    let node = builder.start().await?;
    let read = || Settings::read(&args).map(|next| next.in_place_of(listen, state.as_ref()));
    let apply = async |next| node.apply(next).await;
    let first = signals.first(reload::mind(watch, hangups, read, apply)).await;
    signals.stop(first, node.shutdown()).await
}

impl Settings {
    /// For a node that runs with this address and this directory.
    fn in_place_of(self, listen: SocketAddr, state: Option<&PathBuf>) -> Read<NodePolicy> {
        self.announce();
        let changed = [(self.listen != listen, "listen"), (self.state.as_ref() != state, "state")];
        let next = Generation {
            credentials: Some(self.credentials),
            policy: Some(self.policy),
            limits: Some(self.limits),
        };
        let needs_restart = changed.iter().filter(|(has, _)| *has).map(|(_, name)| *name);
        Read { next, files: self.files, needs_restart: needs_restart.collect() }
    }
}

fn announce_rules(policy: &NodePolicy) {
    tracing::info!("{}", count_rules(policy));
    if policy.allow.is_empty() {
        tracing::warn!(
            "no [[allow]] rule: remote callers can call nothing; write rules into --config FILE or --policy FILE"
        );
    }
}
