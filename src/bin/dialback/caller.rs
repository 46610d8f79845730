//! A caller for one command: connects, does one thing, closes the link gracefully in any case.

use crate::{
    args::TlsArgs,
    credentials,
    exit::Failure,
    paths::{self, PathArgs},
    signals::{Signals, block_on},
};
use clap::Args;
use dialback::{
    Caller, CallerBuilder, ConnectError, Credentials, NodeAddress, PathSettings, Role, Traces,
    config::TlsFiles,
    limits::{SPANS_FLUSH_WAIT_MAX, TIMEOUT_CEILING},
};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

/// The node of callers that name none.
const DEFAULT_NODE: &str = "localhost:4433";

/// Flags of a command that acts as a caller.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReachArgs {
    /// Address of the node
    #[arg(long, value_name = "HOST:PORT", default_value = DEFAULT_NODE)]
    pub(crate) node: NodeAddress,
    #[command(flatten)]
    pub(crate) paths: PathArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// Time to connect, whatever the timeout of the call.
pub(crate) const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Time to close after success: GOODBYE is sent within one turn of the runtime. Waiting for a
/// retransmission is noticeable at a prompt; a node that misses it drops the link by its heartbeat.
const CLOSE_WAIT_MAX: Duration = Duration::from_millis(20);

/// Time to close after a failed or dropped call, whose handler may run on: retransmits GOODBYE.
const CANCEL_WAIT_MAX: Duration = Duration::from_millis(250);

/// Runs work with a connected caller, whose calls may be traced, and passes it the remaining time.
/// The timeout includes connecting. A signal drops the work. A failed call is printed as JSON if
/// wanted.
pub(crate) fn run(
    args: ReachArgs,
    timeout: Duration,
    wants_json: bool,
    traces: Option<Traces>,
    work: impl AsyncFnOnce(&Caller, Duration) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let ReachArgs { node, paths, tls } = args;
    let paths = paths::settings(&paths.read()?)?;
    let credentials = credentials::load(Role::Caller, tls, TlsFiles::default())?;
    block_on(Builder::new_current_thread(), async {
        let mut signals = Signals::listen()?;
        let timeout = timeout.min(TIMEOUT_CEILING);
        let settings = CallerSettings { credentials, paths, traces };
        let worked = connect_and(&mut signals, settings, &node, timeout, work).await;
        let Err(failure) = worked else { return Ok(()) };
        Err(signals.unless_stopped(failure.printed_as_json(wants_json)).await?)
    })
}

struct CallerSettings {
    credentials: Credentials,
    paths: PathSettings,
    traces: Option<Traces>,
}

async fn connect_and(
    signals: &mut Signals,
    settings: CallerSettings,
    node: &NodeAddress,
    timeout: Duration,
    work: impl AsyncFnOnce(&Caller, Duration) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let started = Instant::now();
    let CallerSettings { credentials, paths, traces } = settings;
    let is_traced = traces.is_some();
    let builder = Caller::builder(credentials).node(node.to_string()).paths(paths);
    let builder = traces.into_iter().fold(builder, CallerBuilder::traces);
    let dialled = builder.connect_timeout(timeout.min(CONNECT_WAIT_MAX)).connect();
    let caller = signals.unless_stopped(dialled).await?.inspect_err(|_| {
        if node.to_string() == DEFAULT_NODE {
            let address = DEFAULT_NODE;
            tracing::warn!(
                address,
                "the node is {address} unless --node or DIALBACK_NODE names another"
            );
        }
    })?;
    let left = timeout.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
    let worked = signals.unless_stopped(work(&caller, left)).await;
    let wait_max = match worked {
        _ if is_traced => SPANS_FLUSH_WAIT_MAX,
        Ok(Ok(())) => CLOSE_WAIT_MAX,
        _ => CANCEL_WAIT_MAX,
    };
    drop(tokio::time::timeout(wait_max, caller.close()).await);
    worked?
}

pub(crate) async fn dial(
    credentials: Credentials,
    (node, paths): (&NodeAddress, PathSettings),
    wait_max: Duration,
) -> Result<Caller, ConnectError> {
    let caller = Caller::builder(credentials).node(node.to_string()).paths(paths);
    caller.connect_timeout(wait_max).connect().await
}
