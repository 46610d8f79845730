//! A caller for one command: connects, does one thing, closes the link gracefully in any case.

use crate::{
    args::TlsArgs,
    credentials,
    exit::Failure,
    signals::{Signals, block_on},
};
use clap::Args;
use dialback::{
    Caller, ConnectError, Credentials, NodeAddress, Role, config::TlsFiles, limits::TIMEOUT_CEILING,
};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

/// Flags of a command that acts as a caller.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReachArgs {
    /// Address of the node
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:4433")]
    pub(crate) node: NodeAddress,
    /// Certificates.
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// Time to connect, whatever the timeout of the call.
pub(crate) const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Time to close after success. GOODBYE is sent within one turn of the runtime. QUIC would wait
/// three round trips or more to retransmit it, which is noticeable at a prompt; a node that misses
/// it drops the link by its heartbeat.
const CLOSE_WAIT_MAX: Duration = Duration::from_millis(20);

/// Time to close after a failed or dropped call, whose handler may still run: long enough to
/// retransmit GOODBYE.
const CANCEL_WAIT_MAX: Duration = Duration::from_millis(250);

/// Node, credentials and timeout of a connection.
pub(crate) struct Reach {
    credentials: Credentials,
    node: NodeAddress,
    timeout: Duration,
    /// Prints a failed call as JSON.
    wants_json: bool,
}

impl Reach {
    /// Loads the caller's credentials. The timeout includes connecting.
    pub(crate) fn new(
        args: ReachArgs,
        timeout: Duration,
        wants_json: bool,
    ) -> Result<Self, Failure> {
        let credentials = credentials::load(Role::Caller, args.tls, TlsFiles::default())?;
        Ok(Self { credentials, node: args.node, timeout: timeout.min(TIMEOUT_CEILING), wants_json })
    }

    /// Runs work with a connected caller and passes it the remaining time. A signal drops it.
    pub(crate) fn run<T>(
        self,
        work: impl AsyncFnOnce(&Caller, Duration) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        block_on(Builder::new_current_thread(), async {
            let (mut signals, wants_json) = (Signals::listen()?, self.wants_json);
            match self.connect_and(&mut signals, work).await {
                Err(failure) => {
                    let printed = failure.printed_as_json(wants_json);
                    Err(signals.unless_stopped(printed).await?)
                }
                done => done,
            }
        })
    }

    async fn connect_and<T>(
        self,
        signals: &mut Signals,
        work: impl AsyncFnOnce(&Caller, Duration) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (started, timeout) = (Instant::now(), self.timeout);
        let caller = signals
            .unless_stopped(dial(self.credentials, &self.node, timeout.min(CONNECT_WAIT_MAX)))
            .await??;
        let left = timeout.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        let worked = signals.unless_stopped(work(&caller, left)).await;
        let wait_max = if matches!(worked, Ok(Ok(_))) { CLOSE_WAIT_MAX } else { CANCEL_WAIT_MAX };
        drop(tokio::time::timeout(wait_max, caller.close()).await);
        worked?
    }
}

/// Connects to a node.
pub(crate) async fn dial(
    credentials: Credentials,
    node: &NodeAddress,
    wait_max: Duration,
) -> Result<Caller, ConnectError> {
    Caller::builder(credentials).node(node.to_string()).connect_timeout(wait_max).connect().await
}
