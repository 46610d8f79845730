//! A caller for one command: connect, do one thing, leave politely, whatever happened.

use crate::{
    args::TlsArgs,
    credentials,
    exit::Failure,
    signals::{Signals, Stop},
};
use clap::Args;
use dialback::{
    Caller, ConnectError, Credentials, NodeAddress, Role, config::TlsFiles, limits::TIMEOUT_CEILING,
};
use std::{
    future::Future,
    time::{Duration, Instant},
};

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

/// A node that has not answered by now does not, whatever the call's own time.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// The goodbye leaves within a turn of the runtime. QUIC would stay for three round trips and more
/// to repeat it if need be, which is felt at a prompt; a node that misses it drops the link by its
/// heartbeat.
const CLOSE_WAIT_MAX: Duration = Duration::from_millis(20);

/// After a call that was dropped or failed its end matters to a handler that may still run: long
/// enough to repeat the goodbye.
const CANCEL_WAIT_MAX: Duration = Duration::from_millis(250);

/// Whom to reach, as whom, and within which time.
pub(crate) struct Reach {
    credentials: Credentials,
    node: NodeAddress,
    timeout: Duration,
    /// A failed call is printed as JSON.
    wants_json: bool,
}

impl Reach {
    /// Loads the caller's credentials. The time counts from the connecting on.
    pub(crate) fn new(
        args: ReachArgs,
        timeout: Duration,
        wants_json: bool,
    ) -> Result<Self, Failure> {
        let credentials = credentials::load(Role::Caller, args.tls, TlsFiles::default())?;
        Ok(Self { credentials, node: args.node, timeout: timeout.min(TIMEOUT_CEILING), wants_json })
    }

    /// With credentials that were loaded before, for a caller that stays.
    pub(crate) const fn with(credentials: Credentials, node: NodeAddress) -> Self {
        Self { credentials, node, timeout: TIMEOUT_CEILING, wants_json: false }
    }

    /// Runs work with a linked caller. The work is told how much time is left; a signal drops it.
    pub(crate) fn run<T>(
        self,
        work: impl AsyncFnOnce(&Caller, Duration) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::runtime(&error))?;
        let result = runtime.block_on(async {
            let (mut signals, wants_json) = (Signals::listen()?, self.wants_json);
            match self.connect_and(&mut signals, work).await {
                Err(failure) => {
                    let told = failure.told_as_json(wants_json);
                    Err(unless_stopped(&mut signals, told).await.unwrap_or_else(Stop::failure))
                }
                done => done,
            }
        });
        // A resolver that still hangs in its thread must not keep the process.
        runtime.shutdown_background();
        result
    }

    /// A linked caller, unless a signal comes first.
    async fn connect(self, signals: &mut Signals) -> Result<Caller, Failure> {
        Ok(unless_stopped(signals, self.dial()).await.map_err(Stop::failure)??)
    }

    /// A linked caller.
    pub(crate) async fn dial(self) -> Result<Caller, ConnectError> {
        Caller::builder(self.credentials)
            .node(self.node.to_string())
            .connect_timeout(self.timeout.min(CONNECT_WAIT_MAX))
            .connect()
            .await
    }

    async fn connect_and<T>(
        self,
        signals: &mut Signals,
        work: impl AsyncFnOnce(&Caller, Duration) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (started, timeout) = (Instant::now(), self.timeout);
        let caller = self.connect(signals).await?;
        let left = timeout.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        let worked = unless_stopped(signals, work(&caller, left)).await;
        let wait_max = if matches!(worked, Ok(Ok(_))) { CLOSE_WAIT_MAX } else { CANCEL_WAIT_MAX };
        drop(tokio::time::timeout(wait_max, caller.close()).await);
        worked.map_err(Stop::failure)?
    }
}

/// What the future gives, or the signal that came first; the future is dropped then.
async fn unless_stopped<T>(
    signals: &mut Signals,
    future: impl Future<Output = T>,
) -> Result<T, Stop> {
    tokio::select! {
        biased;
        stop = signals.next() => Err(stop),
        ended = future => Ok(ended),
    }
}
