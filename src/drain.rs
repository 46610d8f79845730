//! Tasks and how they end: stop taking, finish, leave. Tasks start only here, and here is the word
//! on which they leave.

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
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// The tasks of one owner. Whoever owns them waits for them; cloning shares them.
///
/// Two signals: [`Tasks::draining`] says that nothing new is to start, [`Tasks::stopped`] that the
/// time for finishing is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// What was started after the drain had begun: refusals. Nobody waits for them, or a steady
    /// stream of calls would keep the drain up.
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

    /// Starts a task that is dropped where it stands once the owner has stopped: for loops that
    /// have no end of their own.
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

/// Does work that blocks its thread on one of the runtime's threads for such work, and waits for
/// it. `None` if it panicked. Dropped, the work goes on to its own end.
#[cfg(any(feature = "certs", feature = "config", feature = "forward", feature = "gateway"))]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Counts what is under way, for whoever waits until nothing is.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(TaskTracker);

impl UnderWay {
    /// Counts one more, as long as the token lives.
    pub(crate) fn count(&self) -> TaskTrackerToken {
        self.0.token()
    }

    /// Ends when nothing is under way.
    pub(crate) async fn nothing(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// A word that an owner says once, and on which each of those who listen acts in its own time.
#[derive(Debug)]
pub(crate) struct Signal(watch::Sender<bool>);

impl Default for Signal {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Signal {
    /// Says it, also to those who listen only later.
    pub(crate) fn notify(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was said.
    pub(crate) fn is_notified(&self) -> bool {
        *self.0.borrow()
    }

    /// Whoever listens is waited for in [`Signal::done`].
    pub(crate) fn listen(&self) -> SignalListener {
        SignalListener([Some(self.0.subscribe()), None])
    }

    /// Ends when all who listen have acted or are gone, or after `wait_max`. Says whether all have.
    pub(crate) async fn done(&self, wait_max: Duration) -> bool {
        tokio::time::timeout(wait_max, self.0.closed()).await.is_ok()
    }
}

/// Somebody who is to act on a [`Signal`], or on whichever of two is said first.
#[derive(Debug, Default)]
pub(crate) struct SignalListener([Option<watch::Receiver<bool>>; 2]);

impl SignalListener {
    /// Ends when the word was said and not yet acted upon.
    pub(crate) async fn notified(&mut self) {
        let [one, other] = &mut self.0;
        tokio::select! {
            () = said(one) => {}
            () = said(other) => {}
        }
    }

    /// The same who acts on another owner's word too.
    pub(crate) fn or(self, other: Self) -> Self {
        let ([one, _], [another, _]) = (self.0, other.0);
        Self([one, another])
    }

    /// This listener has done what the word asks for.
    pub(crate) fn done(&mut self) {
        self.0 = [None, None];
    }
}

async fn said(word: &mut Option<watch::Receiver<bool>>) {
    if let Some(word) = word
        && word.wait_for(|said| *said).await.is_ok()
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
    async fn a_word_is_done_when_everybody_has_acted_on_it_or_is_gone() {
        let word = Signal::default();
        let (mut one, two) = (word.listen(), word.listen());
        word.notify();
        let mut late = word.listen();
        one.notified().await;
        late.notified().await;
        one.done();
        drop(two);
        assert!(!word.done(LONG).await, "one has heard it and not acted");
        late.done();
        assert!(word.done(LONG).await);
        let again = tokio::time::timeout(LONG, one.notified()).await;
        assert!(again.is_err(), "it was heard again by one who has acted");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_words_the_first_that_is_said_is_heard_and_both_are_done_with_it() {
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
    async fn a_word_that_was_not_said_is_not_heard() {
        let word = Signal::default();
        let mut listener = word.listen();
        assert!(tokio::time::timeout(LONG, listener.notified()).await.is_err());
        drop(word);
        assert!(
            tokio::time::timeout(LONG, listener.notified()).await.is_err(),
            "nobody can say it"
        );
    }
}
