//! Waits of calls and links: timeouts that create a timer only if the future is not ready at once,
//! and futures that may be absent.

use std::{
    future::{Future, Pending, pending},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::Poll,
};
use tokio::time::{Instant, error::Elapsed};
use tokio_util::either::Either;

/// Waits for a future that is usually ready at once, until a deadline.
///
/// A timer of tokio takes a reference on the runtime that all threads share. Creating one for each
/// of the ten waits of a call, of which nine do not happen, costs as much as the call's own work.
/// Here the timer and `until` come after the first poll. The timer is boxed and the caller pins the
/// future, so that waits that do not happen take no room in a call's future.
pub(crate) async fn ready_by<F: Future>(
    until: impl FnOnce() -> Instant,
    mut work: Pin<&mut F>,
) -> Result<F::Output, Elapsed> {
    match poll_once(work.as_mut()).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Box::pin(tokio::time::timeout_at(until(), work)).await,
    }
}

/// Polls a future once, with the waker of the current task.
pub(crate) fn poll_once<F: Future>(mut work: Pin<&mut F>) -> impl Future<Output = Poll<F::Output>> {
    std::future::poll_fn(move |cx| Poll::Ready(work.as_mut().poll(cx)))
}

/// Waits for a future; forever if there is none. Not an async function, which would take the room
/// of three.
pub(crate) fn or_pending<F: Future>(future: Option<F>) -> Either<F, Pending<F::Output>> {
    future.map_or_else(|| Either::Right(pending()), Either::Left)
}

/// Counts one waiting task until it is dropped.
#[derive(Debug)]
pub(crate) struct WaitCount<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> WaitCount<'a> {
    pub(crate) fn new(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::AcqRel) }
    }

    /// Number of tasks that waited before this one.
    pub(crate) const fn before(&self) -> usize {
        self.before
    }
}

impl Drop for WaitCount<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{pin::pin, time::Duration};

    #[tokio::test(start_paused = true)]
    async fn a_ready_future_does_not_evaluate_the_deadline() {
        let asked = || -> Instant { unreachable!("it was ready") };
        assert_eq!(ready_by(asked, pin!(async { 7 })).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_ends_by_its_output_or_by_the_deadline() {
        let within = |wait: u64, work: u64| async move {
            let until = Instant::now() + Duration::from_secs(wait);
            ready_by(|| until, pin!(tokio::time::sleep(Duration::from_secs(work)))).await.is_ok()
        };
        assert!(within(2, 1).await);
        assert!(!within(1, 2).await);
    }
}
