//! Datagrams that wait to be written to one tunnel.

use super::message;
use bytes::{Bytes, BytesMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes that wait, with those that are being written. Later datagrams are dropped: QUIC takes it
/// as congestion. With 256 KiB, a small call beside bulk took twice as long, and a queue without a
/// bound held up everything for half a second.
const QUEUE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one message, unless a single datagram is larger: it is on its way before the next
/// datagrams join.
const BATCH_BYTES_MAX: usize = 16 * 1024;

/// The queue of one tunnel, with room for [`QUEUE_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    state: Mutex<QueueState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: BytesMut,
    writing: usize,
    is_closed: bool,
}

impl SendQueue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a datagram, or drops it if there is no room or the queue is closed.
    pub(super) fn push(&self, datagram: &[u8]) {
        let mut state = self.state();
        let bytes = state.waiting.len() + state.writing + message::LENGTH_BYTES + datagram.len();
        if bytes > QUEUE_BYTES_MAX || state.is_closed {
            return;
        }
        let was_empty = state.waiting.is_empty();
        message::push(&mut state.waiting, datagram);
        drop(state);
        if was_empty {
            self.changed.notify_one();
        }
    }

    /// Returns the next message once the last one was written; `None` after the end.
    pub(super) async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.state();
                state.writing = 0;
                if state.is_closed {
                    return None;
                }
                let batch = message::prefix_of_whole(&state.waiting, BATCH_BYTES_MAX);
                if batch > 0 {
                    state.writing = batch;
                    return Some(state.waiting.split_to(batch).freeze());
                }
            }
            self.changed.notified().await;
        }
    }

    /// Ends the queue: what waits is dropped.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn filled(datagrams: usize) -> SendQueue {
        let queue = SendQueue::default();
        (0..datagrams).for_each(|_| queue.push(&[7; 1_022]));
        queue
    }

    #[tokio::test]
    async fn what_is_over_the_bound_is_dropped_until_a_message_was_written() {
        let queue = filled(100);
        assert_eq!(queue.state().waiting.len(), QUEUE_BYTES_MAX);
        let first = queue.next().await.expect("a message");
        assert_eq!(first.len(), BATCH_BYTES_MAX);
        queue.push(&[8; 9]);
        assert_eq!(queue.state().waiting.len(), QUEUE_BYTES_MAX - BATCH_BYTES_MAX, "it is written");
        drop(queue.next().await);
        queue.push(&[8; 9]);
        assert_eq!(queue.state().waiting.len(), QUEUE_BYTES_MAX - 2 * BATCH_BYTES_MAX + 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_for_the_first_datagram_and_the_end_for_none() {
        let queue = SendQueue::default();
        let waits = tokio::time::timeout(Duration::from_secs(1), queue.next());
        assert!(waits.await.is_err());
        let (message, ()) = tokio::join!(queue.next(), async { queue.push(b"now") });
        assert_eq!(message.as_deref(), Some(&b"\0\x03now"[..]));
        let (ended, ()) = tokio::join!(queue.next(), async { queue.close() });
        assert!(ended.is_none());
        queue.push(b"late");
        assert!(queue.next().await.is_none() && queue.state().waiting.is_empty());
    }
}
