//! A peer that can be killed: it has its own runtime, and ends with it without sending anything.

use std::future::Future;
use tokio::runtime::{Builder, Runtime};

/// A runtime with a peer in it, like a separate process.
pub(crate) struct IsolatedRuntime<T> {
    runtime: Option<Runtime>,
    peer: Option<T>,
}

impl<T: Send + 'static> IsolatedRuntime<T> {
    /// Starts the peer in a new runtime of one thread: with a second one, that could still send
    /// what the first wrote when a kill dropped its tasks.
    pub(crate) async fn start(peer: impl Future<Output = T> + Send + 'static) -> Self {
        Self::with_threads(1, peer).await
    }

    /// Starts a peer in a new runtime of several threads; what is sent at its kill does not matter.
    pub(crate) async fn with_threads(
        threads: usize,
        peer: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(threads).enable_all().build().expect("a runtime");
        let peer = runtime.spawn(peer).await.expect("it started");
        Self { runtime: Some(runtime), peer: Some(peer) }
    }

    /// The peer.
    pub(crate) fn peer(&self) -> &T {
        self.peer.as_ref().expect("alive")
    }

    /// Runs a future of the peer next to the test.
    pub(crate) fn spawn<F>(&self, future: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        drop(self.runtime.as_ref().expect("alive").spawn(future));
    }

    /// Drops every task. Nothing is sent, as with SIGKILL; returns when the socket is closed.
    pub(crate) async fn kill(mut self) {
        let (runtime, peer) = (self.runtime.take(), self.peer.take());
        // A runtime must not be dropped inside another. The peer is dropped after it, when nothing
        // can be sent any more.
        let dead = tokio::task::spawn_blocking(move || {
            drop(runtime);
            drop(peer);
        });
        dead.await.expect("it ended");
    }
}

impl<T> Drop for IsolatedRuntime<T> {
    fn drop(&mut self) {
        // Only when a test fails half way.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
