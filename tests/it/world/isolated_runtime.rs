//! A party that can be killed: it lives in a runtime of its own, and dies with it without a word to
//! anybody.

use std::future::Future;
use tokio::runtime::{Builder, Runtime};

/// A runtime with somebody in it, like a process of its own.
pub(crate) struct IsolatedRuntime<T> {
    runtime: Option<Runtime>,
    peer: Option<T>,
}

impl<T: Send + 'static> IsolatedRuntime<T> {
    /// Starts the party in a new runtime.
    pub(crate) async fn start(peer: impl Future<Output = T> + Send + 'static) -> Self {
        let runtime =
            Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let peer = runtime.spawn(peer).await.expect("it started");
        Self { runtime: Some(runtime), peer: Some(peer) }
    }

    /// Who lives there.
    pub(crate) fn peer(&self) -> &T {
        self.peer.as_ref().expect("alive")
    }

    /// Something that it does, beside what the test does.
    pub(crate) fn spawn<F>(&self, future: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        drop(self.runtime.as_ref().expect("alive").spawn(future));
    }

    /// Ends every task where it stands. Nothing is sent, as with SIGKILL; returns when the socket
    /// is closed.
    pub(crate) async fn kill(mut self) {
        let (runtime, peer) = (self.runtime.take(), self.peer.take());
        // A runtime may not be dropped inside another. The party goes after it: what it says then
        // nobody carries.
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
