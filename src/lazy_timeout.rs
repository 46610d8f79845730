//! Waiting with an end, and a timer only for those who really wait.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::Poll,
};
use tokio::time::{Instant, error::Elapsed};

/// The output of a future that is usually ready at once, or the end of its time.
///
/// A timer of tokio's takes a reference on the runtime that all threads share, so making one for
/// each of the ten waits of a call, of which nine do not happen, costs as much as the call's own
/// work. Here it is made after the first poll, and only then is `until` asked. It is boxed, and the
/// work is pinned by whoever waits, so that waits that do not happen take no room in the future of
/// a call either.
pub(crate) async fn ready_by<F: Future>(
    until: impl FnOnce() -> Instant,
    mut work: Pin<&mut F>,
) -> Result<F::Output, Elapsed> {
    match poll_once(work.as_mut()).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Box::pin(tokio::time::timeout_at(until(), work)).await,
    }
}

/// Polls once, with the waker of the task at hand.
pub(crate) fn poll_once<F: Future>(mut work: Pin<&mut F>) -> impl Future<Output = Poll<F::Output>> {
    std::future::poll_fn(move |cx| Poll::Ready(work.as_mut().poll(cx)))
}

/// Counts one who waits, as long as it lives.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    /// One more.
    pub(crate) fn new(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::AcqRel) }
    }

    /// How many waited before this one.
    pub(crate) const fn before(&self) -> usize {
        self.before
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{pin::pin, time::Duration};

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_never_asks_for_the_time() {
        let asked = || -> Instant { unreachable!("it was ready") };
        assert_eq!(ready_by(asked, pin!(async { 7 })).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_given_and_what_does_not_is_not() {
        let within = |wait: u64, work: u64| async move {
            let until = Instant::now() + Duration::from_secs(wait);
            ready_by(|| until, pin!(tokio::time::sleep(Duration::from_secs(work)))).await.is_ok()
        };
        assert!(within(2, 1).await);
        assert!(!within(1, 2).await);
    }
}
