//! Hosting of services, for agents and nodes: handlers of methods, and the loop that accepts the
//! calls of a link.

mod description;
mod error;
mod fallback;
mod service;
mod services;

pub use description::Description;
pub use error::ServiceError;
pub use service::Service;
#[doc(hidden)]
pub use service::method_path;
pub(crate) use services::Services;

use crate::{
    call::{CallAcceptor, answer},
    drain::Tasks,
    lazy_timeout::poll_once,
    limits::Limits,
    link::Link,
};
use std::{pin::pin, sync::Arc, task::Poll};

/// Calls that a link takes before the first of them run.
const PIECE: usize = 32;

/// Accepts the calls of one link until it ends, one task each, so a slow peer delays no other call.
pub(crate) async fn take_calls<R: CallAcceptor>(
    link: Link,
    acceptor: Arc<R>,
    limits: Arc<Limits>,
    tasks: Tasks,
) {
    let next = || link.accept(limits.message_bytes_max);
    take_in_pieces(next, |stream| {
        let (acceptor, limits) = (acceptor.clone(), limits.clone());
        // Boxed: the runtime moves a task's future several times, and this one has some kilobytes.
        let peer_max = link.peer_message_bytes_max();
        tasks.spawn(Box::pin(answer(stream, acceptor, limits, peer_max)));
    })
    .await;
}

/// Takes what has come in pieces, and lets the tasks that are ready run between two of them. The
/// peer has the replies of one piece while this side works on the next: with all at once, the two
/// sides would take turns. Each piece is twice as large as the one before, so that what has come
/// is soon taken. See `docs/decisions/0036`.
async fn take_in_pieces<T, F: Future<Output = Option<T>>>(
    mut next: impl FnMut() -> F,
    mut take: impl FnMut(T),
) {
    let (mut piece, mut left) = (PIECE, PIECE);
    loop {
        if left == 0 {
            piece *= 2;
            left = piece;
            tokio::task::yield_now().await;
        }
        let mut coming = pin!(next());
        let taken = match poll_once(coming.as_mut()).await {
            Poll::Ready(taken) => taken,
            Poll::Pending => {
                (piece, left) = (PIECE, PIECE);
                coming.await
            }
        };
        let Some(taken) = taken else { return };
        take(taken);
        left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::VecDeque,
        sync::{Mutex, MutexGuard},
        time::Duration,
    };

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no panic")
    }

    /// Takes as many as come at a time, and returns the numbers that were taken before tasks ran.
    async fn taken_before_a_task_ran(bursts: &[usize]) -> Vec<usize> {
        let bursts = Arc::new(Mutex::new(VecDeque::from_iter(bursts.iter().copied())));
        let (counts, mut tasks) = (Arc::new(Mutex::new(vec![0])), tokio::task::JoinSet::new());
        let counts_of_tasks = counts.clone();
        let next = || {
            let bursts = bursts.clone();
            async move {
                while *lock(&bursts).front()? == 0 {
                    lock(&bursts).pop_front();
                    // Until all tasks have run.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                lock(&bursts)[0] -= 1;
                Some(())
            }
        };
        take_in_pieces(next, |()| {
            *lock(&counts).last_mut().expect("never empty") += 1;
            let counts = counts_of_tasks.clone();
            tasks.spawn(async move {
                if lock(&counts).last() != Some(&0) {
                    lock(&counts).push(0);
                }
            });
        })
        .await;
        tasks.join_all().await;
        let mut counts = lock(&counts).clone();
        assert_eq!(counts.pop(), Some(0), "the last tasks have run");
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn calls_run_before_all_of_a_burst_are_taken() {
        let taken = taken_before_a_task_ran(&[PIECE * 8]).await;
        assert_eq!(taken, [PIECE, 2 * PIECE, 4 * PIECE, PIECE]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_pieces_are_small_again() {
        let taken = taken_before_a_task_ran(&[PIECE * 2, 5, PIECE + 1]).await;
        assert_eq!(taken, [PIECE, PIECE, 5, PIECE, 1]);
    }
}
