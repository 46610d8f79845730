//! Permits of calls in flight, and a bounded queue for them.

use crate::{
    lazy_timeout::WaitCount,
    observe::ObservedCounts,
    status::{Code, Status},
};
use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Permit of one call in flight. Dropping it, with the handler, releases it.
#[derive(Debug)]
pub(crate) struct Permit {
    _permit: OwnedSemaphorePermit,
    waited: Duration,
}

impl Permit {
    /// Time spent waiting for it.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}

/// Permits of one link, granted in order of arrival.
#[derive(Debug, Clone)]
pub(crate) struct Permits(Arc<PermitsState>);

#[derive(Debug)]
struct PermitsState {
    semaphore: Arc<Semaphore>,
    waiting: AtomicUsize,
    in_flight_max: usize,
    queue_max: usize,
    /// Counts calls that wait, and those that get none.
    counts: Option<Arc<ObservedCounts>>,
}

impl Permits {
    /// Allows `in_flight_max` calls in flight, and `queue_max` waiting.
    #[cfg(test)]
    pub(crate) fn new(in_flight_max: usize, queue_max: usize) -> Self {
        Self::with(in_flight_max, queue_max, None)
    }

    /// The same, and counts what its callers wait for.
    pub(crate) fn counted(
        in_flight_max: usize,
        queue_max: usize,
        counts: Arc<ObservedCounts>,
    ) -> Self {
        Self::with(in_flight_max, queue_max, Some(counts))
    }

    fn with(in_flight_max: usize, queue_max: usize, counts: Option<Arc<ObservedCounts>>) -> Self {
        let semaphore = Arc::new(Semaphore::new(in_flight_max.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(PermitsState {
            semaphore,
            waiting: AtomicUsize::new(0),
            in_flight_max,
            queue_max,
            counts,
        }))
    }

    /// Acquires a permit at once or within `wait_max`, but not after the deadline of the call.
    /// Fails, not executed, with `RESOURCE_EXHAUSTED`, or `DEADLINE_EXCEEDED` if the call's time
    /// was over first.
    pub(crate) async fn acquire(
        &self,
        deadline: Instant,
        wait_max: Duration,
    ) -> Result<Permit, Status> {
        match self.0.semaphore.clone().try_acquire_owned() {
            Ok(permit) => Ok(Permit { _permit: permit, waited: Duration::ZERO }),
            // Boxed: most calls do not wait, and do not carry its size.
            Err(_all_taken) => {
                let queued = Box::pin(self.queue(deadline, wait_max)).await;
                if let (Err(_), Some(counts)) = (&queued, &self.0.counts) {
                    counts.call_limited();
                }
                queued
            }
        }
    }

    async fn queue(&self, deadline: Instant, wait_max: Duration) -> Result<Permit, Status> {
        let waiting = WaitCount::new(&self.0.waiting);
        if waiting.before() >= self.0.queue_max {
            return Err(self.queue_is_full());
        }
        let _counted = self.0.counts.as_ref().map(ObservedCounts::call_waits);
        let began = Instant::now();
        let until = deadline.min(began + wait_max);
        match tokio::time::timeout_at(until, self.0.semaphore.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Permit { _permit: permit, waited: began.elapsed() }),
            _ if until == deadline => Err(Status::not_executed(
                Code::DeadlineExceeded,
                "the deadline passed in the queue for a place among the calls in flight",
            )),
            _ => Err(self.exhausted("and none ended in time")),
        }
    }

    /// Fails if neither a permit nor a place in the queue is free.
    pub(crate) fn expect_room(&self) -> Result<(), Status> {
        let waiting = self.0.waiting.load(std::sync::atomic::Ordering::Relaxed);
        if self.is_full() && waiting >= self.0.queue_max {
            return Err(self.queue_is_full());
        }
        Ok(())
    }

    fn queue_is_full(&self) -> Status {
        self.exhausted(&format!("and the queue of {} is full", self.0.queue_max))
    }

    fn exhausted(&self, why: &str) -> Status {
        let text =
            format!("the limit of {} calls in flight is reached, {why}", self.0.in_flight_max);
        Status::not_executed(Code::ResourceExhausted, text)
    }

    /// Returns `true` if the next call has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.0.semaphore.available_permits() == 0
    }

    /// Returns `true` if, with one more call, at least half of the permits are free.
    pub(crate) fn is_half_free(&self) -> bool {
        self.in_flight() < self.0.in_flight_max / 2
    }

    /// Returns `true` if it has these limits: calls in flight, and waiting.
    #[cfg(feature = "gateway")]
    pub(crate) fn is_bounded_by(&self, bounds: (usize, usize)) -> bool {
        (self.0.in_flight_max, self.0.queue_max) == bounds
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.0.in_flight_max.saturating_sub(self.0.semaphore.available_permits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT_MAX: Duration = Duration::from_secs(2);

    fn later() -> Instant {
        Instant::now() + 15 * WAIT_MAX
    }

    #[cfg(feature = "gateway")]
    #[tokio::test(start_paused = true)]
    async fn there_is_room_while_one_more_call_could_wait() {
        let permits = Permits::new(1, 1);
        permits.expect_room().expect("a free place");
        let _first = permits.acquire(later(), WAIT_MAX).await.expect("a place");
        permits.expect_room().expect("one could wait");
        let mut second = std::pin::pin!(permits.acquire(later(), WAIT_MAX));
        assert!(crate::lazy_timeout::poll_once(second.as_mut()).await.is_pending());
        let full = permits.expect_room().expect_err("one waits");
        let refused = permits.acquire(later(), WAIT_MAX).await.expect_err("one waits");
        assert_eq!(full, refused);
    }

    #[cfg(feature = "gateway")]
    #[tokio::test(start_paused = true)]
    async fn without_a_queue_there_is_room_while_a_permit_is_free() {
        let permits = Permits::new(1, 0);
        permits.expect_room().expect("a free permit");
        let _held = permits.acquire(later(), WAIT_MAX).await.expect("a permit");
        permits.expect_room().expect_err("none is free");
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_the_permits_stay_free_for_others() {
        for (max, halves) in [(1, 0), (2, 1), (5, 2), (8, 4)] {
            let (permits, mut held) = (Permits::new(max, 0), Vec::new());
            while permits.is_half_free() {
                held.push(permits.acquire(later(), WAIT_MAX).await.expect("a permit"));
            }
            assert_eq!(held.len(), halves, "of {max}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_over_the_limit_waits_up_to_its_time_for_a_permit() {
        let permits = Permits::new(2, 1);
        let first = permits.acquire(later(), WAIT_MAX).await.expect("a place");
        let _second = permits.acquire(later(), WAIT_MAX).await.expect("a place");
        let refused = permits.acquire(later(), WAIT_MAX).await.expect_err("no place came");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.is_safe_to_retry() && refused.message().contains("2 calls in flight"));
        drop(first);
        assert!(permits.acquire(later(), WAIT_MAX).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_at_once_and_serves_those_in_it_in_order() {
        let permits = Permits::new(1, 2);
        let held = permits.acquire(later(), WAIT_MAX).await.expect("a place");
        let mut one = Box::pin(permits.acquire(later(), WAIT_MAX));
        let mut two = Box::pin(permits.acquire(later(), WAIT_MAX));
        assert!(polled_once(&mut one).await.is_none() && polled_once(&mut two).await.is_none());
        let began = Instant::now();
        assert!(permits.acquire(later(), WAIT_MAX).await.is_err());
        assert_eq!(began.elapsed(), Duration::ZERO, "a full queue makes nobody wait");
        drop(held);
        assert!(polled_once(&mut two).await.is_none(), "the second overtook the first");
        assert!(one.await.is_ok() && two.await.is_ok());
        assert_eq!(permits.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_passes_in_the_queue_is_deadline_exceeded() {
        let permits = Permits::new(1, 1);
        let _held = permits.acquire(later(), WAIT_MAX).await.expect("a place");
        let late = permits.acquire(Instant::now() + WAIT_MAX / 2, WAIT_MAX).await;
        let late = late.expect_err("no place came");
        assert!(late.code() == Code::DeadlineExceeded && late.is_safe_to_retry(), "{late}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_has_its_waiting_time() {
        let permits = Permits::new(1, 1);
        let held = permits.acquire(later(), WAIT_MAX).await.expect("a permit");
        assert_eq!(held.waited(), Duration::ZERO);
        let release = async {
            tokio::time::sleep(WAIT_MAX / 4).await;
            drop(held);
        };
        let (second, ()) = tokio::join!(permits.acquire(later(), WAIT_MAX), release);
        assert_eq!(second.expect("a permit").waited(), WAIT_MAX / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_call_in_the_queue_frees_its_permit_for_the_next() {
        let permits = Permits::new(1, 1);
        let held = permits.acquire(later(), WAIT_MAX).await.expect("a permit");
        let mut dropped = Box::pin(permits.acquire(later(), WAIT_MAX));
        assert!(polled_once(&mut dropped).await.is_none());
        drop(dropped);
        let mut next = Box::pin(permits.acquire(later(), WAIT_MAX));
        assert!(polled_once(&mut next).await.is_none(), "the place was not free");
        drop(held);
        assert!(next.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_queue_a_call_over_the_limit_is_refused_at_once() {
        let permits = Permits::new(1, 0);
        let _held = permits.acquire(later(), WAIT_MAX).await.expect("a permit");
        let began = Instant::now();
        let refused = permits.acquire(later(), WAIT_MAX).await.expect_err("no queue");
        assert!(refused.message().contains("queue of 0 is full"), "{refused}");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_in_the_queue_has_the_smaller_of_its_two_limits() {
        let permits = Permits::new(1, 1);
        let _held = permits.acquire(later(), WAIT_MAX).await.expect("a permit");
        for (deadline, waited) in [(WAIT_MAX * 3, WAIT_MAX), (WAIT_MAX / 2, WAIT_MAX / 2)] {
            let began = Instant::now();
            permits.acquire(began + deadline, WAIT_MAX).await.expect_err("no permit");
            let late = began.elapsed().saturating_sub(waited);
            assert!(began.elapsed() >= waited && late <= Duration::from_millis(1), "{late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn permits_are_all_back_once_their_calls_have_ended() {
        let permits = Permits::new(3, 3);
        let mut held = Vec::new();
        for n in 1..=3 {
            held.push(permits.acquire(later(), WAIT_MAX).await.expect("a permit"));
            assert_eq!((permits.in_flight(), permits.is_full()), (n, n == 3));
        }
        drop(held);
        assert_eq!((permits.in_flight(), permits.is_full()), (0, false));
    }

    async fn polled_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
