//! Task groups with graceful shutdown, and shutdown signals. Tasks start only here.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::{
    either::Either,
    future::FutureExt,
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// The tasks of one owner, which waits for them; shared by clones. [`Tasks::begin_drain`] starts
/// nothing new, [`Tasks::stop`] ends the time for finishing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// Tasks started after the drain had begun: refusals, which must not delay the drain.
    late: TaskTracker,
    draining: Arc<AtomicBool>,
    stopped: CancellationToken,
}

impl Tasks {
    /// Starts a task. It ends by itself; the owner waits for it in [`Tasks::wait`].
    #[expect(clippy::disallowed_methods, reason = "this is the one place where tasks start")]
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let tracker = if self.is_draining() { &self.late } else { &self.tracker };
        drop(tokio::spawn(tracker.track_future(task)));
    }

    /// Starts a task without an end, which is dropped once the owner has stopped.
    pub(crate) fn spawn_until_stopped<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Not within a block or an async function, each of which would hold the task once more.
        self.spawn(task.with_cancellation_token_owned(self.stopped.clone()));
    }

    /// Counts work elsewhere as a task, as long as the token lives.
    pub(crate) fn counted(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    /// Resolves when the owner has stopped.
    pub(crate) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Returns whether the drain has begun: nothing new starts.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Ends the time for finishing: endless tasks are dropped at once.
    pub(crate) fn stop(&self) {
        self.begin_drain();
        self.stopped.cancel();
    }

    /// Waits until every task has ended, `wait_max` at most. Returns whether all have.
    pub(crate) async fn wait(&self, wait_max: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(wait_max, self.tracker.wait()).await.is_ok()
    }
}

/// Runs blocking work on a thread for such work. `None` if it panicked. Dropping does not stop it.
#[cfg(any(feature = "certs", feature = "config", feature = "forward", feature = "gateway"))]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Counts work in progress, and waits until there is none.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(TaskTracker);

impl UnderWay {
    /// Counts one more, as long as the token lives.
    pub(crate) fn count(&self) -> TaskTrackerToken {
        self.0.token()
    }

    /// How many are in progress.
    #[cfg(feature = "admin")]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Resolves when nothing is in progress.
    pub(crate) async fn nothing(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// A notification that an owner sends once, and on which each listener acts in its own time.
#[derive(Debug, Default)]
pub(crate) struct Signal(watch::Sender<bool>);

impl Signal {
    /// Notifies all listeners, also later ones.
    pub(crate) fn notify(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_notified(&self) -> bool {
        *self.0.borrow()
    }

    /// Adds a listener, for which [`Signal::done`] waits.
    pub(crate) fn listen(&self) -> SignalListener {
        SignalListener([Some(self.0.subscribe()), None])
    }

    /// Waits for all listeners to be done or dropped, at most `wait_max`. Returns whether all are.
    pub(crate) async fn done(&self, wait_max: Duration) -> bool {
        tokio::time::timeout(wait_max, self.0.closed()).await.is_ok()
    }
}

/// A listener of a [`Signal`], or of the first of two.
#[derive(Debug, Default)]
pub(crate) struct SignalListener([Option<watch::Receiver<bool>>; 2]);

impl SignalListener {
    /// Resolves when the signal was notified, unless this listener is done. Boxed for two signals:
    /// most listeners have one, and a link waits with several.
    pub(crate) fn notified(&mut self) -> impl Future<Output = ()> + Send {
        match &mut self.0 {
            [one, None] => Either::Left(notified(one)),
            [one, other] => Either::Right(Box::pin(async {
                tokio::select! {
                    () = notified(one) => {}
                    () = notified(other) => {}
                }
            })),
        }
    }

    /// Joins two listeners: the first signal of the two counts.
    pub(crate) fn or(self, other: Self) -> Self {
        let ([one, _], [another, _]) = (self.0, other.0);
        Self([one, another])
    }

    pub(crate) fn done(&mut self) {
        self.0 = [None, None];
    }
}

async fn notified(signal: &mut Option<watch::Receiver<bool>>) {
    if let Some(signal) = signal
        && signal.wait_for(|is_notified| *is_notified).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_signal_is_done_when_all_listeners_are_done_or_dropped() {
        let signal = Signal::default();
        let (mut one, two) = (signal.listen(), signal.listen());
        signal.notify();
        let mut late = signal.listen();
        one.notified().await;
        late.notified().await;
        one.done();
        drop(two);
        assert!(!signal.done(LONG).await, "one was notified and is not done");
        late.done();
        assert!(signal.done(LONG).await);
        let again = tokio::time::timeout(LONG, one.notified()).await;
        assert!(again.is_err(), "a listener that is done was notified again");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_signals_the_first_counts_and_both_are_done_with_it() {
        let (ours, theirs) = (Signal::default(), Signal::default());
        let mut listener = ours.listen().or(theirs.listen());
        assert!(tokio::time::timeout(LONG, listener.notified()).await.is_err());
        theirs.notify();
        listener.notified().await;
        assert!(!ours.done(LONG).await, "nothing was done yet");
        listener.done();
        assert!(ours.done(LONG).await && theirs.done(LONG).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_that_was_not_notified_does_not_resolve() {
        let signal = Signal::default();
        let mut listener = signal.listen();
        assert!(tokio::time::timeout(LONG, listener.notified()).await.is_err());
        drop(signal);
        assert!(
            tokio::time::timeout(LONG, listener.notified()).await.is_err(),
            "the signal is gone"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_starts_after_the_drain_has_begun_does_not_delay_it() {
        let tasks = Tasks::default();
        tasks.spawn(tokio::time::sleep(LONG / 2));
        tasks.begin_drain();
        tasks.spawn(std::future::pending::<()>());
        let began = tokio::time::Instant::now();
        assert!(tasks.wait(LONG).await, "a late task was waited for");
        assert!(began.elapsed() >= LONG / 2, "an earlier task was not waited for");
    }

    #[test]
    fn a_stop_begins_the_drain() {
        let tasks = Tasks::default();
        assert!(!tasks.is_draining());
        tasks.stop();
        assert!(tasks.is_draining());
    }
}
