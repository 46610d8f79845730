//! Waits for states, never for a time; every wait fails the test if the state is not reached.

use dialback::Events;
use std::{
    future::Future,
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
    task::JoinHandle,
};

/// No state in these tests takes longer, even on a busy machine.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(45);

/// The time between two checks of a state without events.
pub(super) const STEP: Duration = Duration::from_millis(2);

/// Awaits the future, or fails the test with what did not happen and where it was awaited.
#[track_caller]
pub(crate) fn soon<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> + use<F> {
    let (what, at) = (what.to_owned(), Location::caller());
    async move {
        match tokio::time::timeout(WAIT_MAX, future).await {
            Ok(output) => output,
            Err(_elapsed) => panic!("it did not happen that {what}, awaited at {at}"),
        }
    }
}

/// Polls until a state without events holds: calls in flight, tasks and retiring links; files,
/// ports and clocks of the system. Where there is an event, [`until_event`] waits for it.
#[track_caller]
pub(crate) fn until<H>(what: &str, mut holds: H) -> impl Future<Output = ()> + use<H>
where
    H: FnMut() -> bool,
{
    soon(what, async move {
        while !holds() {
            tokio::time::sleep(STEP).await;
        }
    })
}

/// Waits until a state of a node or an agent holds that changes only with its events: attached,
/// draining or lost agents. It is checked after each event.
#[track_caller]
pub(crate) fn until_event<E, H>(
    what: &str,
    mut events: Events<E>,
    mut holds: H,
) -> impl Future<Output = ()> + use<E, H>
where
    E: Clone,
    H: FnMut() -> bool,
{
    soon(what, async move {
        while !holds() {
            assert!(events.next().await.is_some(), "it has stopped");
        }
    })
}

/// A permit for a test that needs the whole machine for a while: one such test runs at a time. The
/// others continue meanwhile.
pub(crate) async fn take_turn() -> SemaphorePermit<'static> {
    static TURNS: Semaphore = Semaphore::const_new(1);
    TURNS.acquire().await.expect("never closed")
}

/// A background task. Dropping it aborts the task.
pub(crate) struct Background<T>(JoinHandle<T>);

/// Starts one.
pub(crate) fn spawn<F>(future: F) -> Background<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    Background(Handle::current().spawn(future))
}

impl<T> Background<T> {
    /// Aborts the task, and returns when that is done.
    pub(crate) async fn cancel(mut self) {
        self.0.abort();
        drop((&mut self.0).await);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for Background<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx).map(|ended| ended.expect("it ran to its end"))
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Polls each call once, in order, so that they are queued in this order. They continue when they
/// are awaited.
pub(crate) async fn poll_in_order<F: IntoFuture>(
    calls: impl IntoIterator<Item = F>,
) -> Vec<Pin<Box<F::IntoFuture>>> {
    let mut calls: Vec<_> = calls.into_iter().map(|call| Box::pin(call.into_future())).collect();
    std::future::poll_fn(|cx| {
        for call in &mut calls {
            assert!(call.as_mut().poll(cx).is_pending(), "a call ended before it was sent");
        }
        Poll::Ready(())
    })
    .await;
    calls
}
