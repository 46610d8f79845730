//! Runs a command until its end or a signal.

use crate::{
    exit::Failure,
    service_manager::{Notification, notify},
};
use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Two signals within this time are one: Ctrl-C reaches the group, a supervisor adds a SIGTERM.
const ONE_SIGNAL_WITHIN: Duration = Duration::from_millis(200);

/// Returns `true` if a signal at `now` is another one than that at `first`.
fn is_second(first: Instant, now: Instant) -> bool {
    now.saturating_duration_since(first) >= ONE_SIGNAL_WITHIN
}

/// Runs a command to its end on a runtime.
pub(crate) fn block_on<T>(
    mut runtime: tokio::runtime::Builder,
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime = runtime.enable_all().build().map_err(|error| Failure::runtime(&error))?;
    let result = runtime.block_on(command);
    // A resolver or a file that hangs in its thread must not keep the process alive.
    runtime.shutdown_background();
    result
}

/// SIGHUP from now on: it no longer ends the process by itself.
pub(crate) struct Hangups {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Hangups {
    /// Starts to listen. Needs a tokio runtime.
    #[cfg(unix)]
    pub(crate) fn listen() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let hangup = signal(SignalKind::hangup()).map_err(|error| Failure::runtime(&error))?;
        Ok(Self { hangup })
    }

    /// This platform has no hangup signal.
    #[cfg(not(unix))]
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {})
    }

    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        if self.hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// SIGINT and SIGTERM from now on: they no longer end the process by themselves.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Interrupt,
    /// Asked for at the admin page.
    Requested,
    /// Signal of service managers.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only Unix has it"))]
    Terminate,
}

impl Stop {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Requested => "request of the admin page",
        }
    }

    /// A command that it ended.
    const fn failure(self) -> Failure {
        Failure::Signal(match self {
            Self::Interrupt => 2,
            Self::Terminate | Self::Requested => 15,
        })
    }
}

impl Signals {
    #[cfg(unix)]
    pub(crate) fn listen() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|error| Failure::runtime(&error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    #[cfg(not(unix))]
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {})
    }

    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) -> Stop {
        // Without a handler nothing can be heard; then the system ends the process as it likes.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Stop::Interrupt
    }

    /// Awaits the future, or drops it when a signal comes first.
    pub(crate) async fn unless_stopped<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            stop = self.next() => Err(stop.failure()),
            ended = future => Ok(ended),
        }
    }

    /// Waits for a signal; `background` continues meanwhile.
    pub(crate) async fn first(&mut self, background: impl Future<Output = Infallible>) -> Stop {
        tokio::select! {
            stop = self.next() => stop,
            never = background => match never {},
        }
    }

    /// The same; `request` asks for a stop too.
    pub(crate) async fn first_or(
        &mut self,
        request: impl Future<Output = ()>,
        background: impl Future<Output = Infallible>,
    ) -> Stop {
        tokio::select! {
            stop = self.first(background) => stop,
            () = request => Stop::Requested,
        }
    }

    /// The next one that does not belong to the first.
    async fn second(&mut self, first: Instant) -> Stop {
        loop {
            let stop = self.next().await;
            if is_second(first, Instant::now()) {
                return stop;
            }
        }
    }

    /// Stops in good order after a signal. A second one cancels the token that `shutdown` is given,
    /// which then only notifies the peers.
    pub(crate) async fn stop<F: Future<Output = ()>>(
        &mut self,
        first: Stop,
        shutdown: impl FnOnce(CancellationToken) -> F,
    ) -> Result<(), Failure> {
        let (began, abort) = (Instant::now(), CancellationToken::new());
        let mut shutdown = pin!(shutdown(abort.clone()));
        notify(&Notification::Stopping);
        tracing::info!(
            signal = first.as_str(),
            "{} received: shutting down, calls in flight may finish; a second signal aborts them",
            first.as_str()
        );
        let second = tokio::select! {
            () = shutdown.as_mut() => {
                tracing::info!("stopped");
                return Ok(());
            }
            second = self.second(began) => second,
        };
        abort.cancel();
        shutdown.await;
        Err(Failure::Runtime(vec![format!(
            "{} received while shutting down: calls in flight were aborted",
            second.as_str()
        )]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_signals_within_200_ms_are_one() {
        let first = Instant::now();
        for (ms, expected) in [(0, false), (199, false), (200, true), (5_000, true)] {
            assert_eq!(is_second(first, first + Duration::from_millis(ms)), expected, "{ms} ms");
        }
    }
}
