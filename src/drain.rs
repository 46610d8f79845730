//! Tasks and how they end: stop taking, finish, leave. Tasks start only here.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// The tasks of one owner. Whoever owns them waits for them; cloning shares them.
///
/// Two signals: [`Tasks::draining`] says that nothing new is to start, [`Tasks::stopped`] that the time for finishing is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// What was started after the drain had begun: refusals. Nobody waits for them, or a steady stream of calls would keep the drain up.
    late: TaskTracker,
    draining: Arc<AtomicBool>,
    stopped: CancellationToken,
}

impl Tasks {
    /// Starts a task. It ends by itself; the owner waits for it in [`Tasks::drain`].
    #[expect(clippy::disallowed_methods, reason = "this is the one place where tasks start")]
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tracker = if self.is_draining() { &self.late } else { &self.tracker };
        drop(tokio::spawn(tracker.track_future(task)));
    }

    /// Starts a task that is dropped where it stands once the owner has stopped: for loops that have no end of their own.
    pub(crate) fn spawn_until_stopped<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stopped = self.stopped.clone();
        self.spawn(async move {
            stopped.run_until_cancelled(task).await;
        });
    }

    /// Counts work that is done elsewhere, as long as the token lives.
    pub(crate) fn counted(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    /// Ends when the owner has stopped.
    pub(crate) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Whether nothing new is to start.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Says that nothing new is to start.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Says that the time for finishing is over: endless tasks end at once.
    pub(crate) fn stop(&self) {
        self.begin_drain();
        self.stopped.cancel();
    }

    /// Waits until every task has ended, but no longer than `wait_max`. Says whether all have.
    pub(crate) async fn wait(&self, wait_max: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(wait_max, self.tracker.wait()).await.is_ok()
    }
}
