//! The heartbeat of a link: PINGs sent, PONGs received, and requests for one more.

use crate::wire::Ping;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

pub(super) struct Pulse {
    /// Time at which the last frame of the peer came.
    received_at: Mutex<Instant>,
    /// PINGs sent; the number of the last one.
    sent: AtomicU64,
    /// The highest number that came back in a PONG.
    answered: watch::Sender<u64>,
    wanted: Notify,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            received_at: Mutex::new(Instant::now()),
            sent: AtomicU64::new(0),
            answered: watch::Sender::default(),
            wanted: Notify::new(),
        }
    }
}

impl Pulse {
    pub(super) fn received_at(&self) -> Instant {
        *self.received_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_received(&self) {
        *self.received_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Has a PING sent soon, without waiting for anything.
    pub(super) fn want_ping(&self) {
        self.wanted.notify_one();
    }

    /// Resolves when a PING sent from now on was answered; never if the link is lost.
    pub(super) async fn fresh(&self) {
        let next = self.sent.load(Ordering::Acquire) + 1;
        let mut answered = self.answered.subscribe();
        self.want_ping();
        // The sender is alive, so it resolves only when this is true.
        drop(answered.wait_for(|number| *number >= next).await);
    }

    pub(super) fn next(&self) -> Ping {
        Ping { number: self.sent.fetch_add(1, Ordering::AcqRel) + 1 }
    }

    /// Records a PONG. One without its PING is ignored.
    pub(super) fn answered(&self, pong: &Ping) {
        if pong.number <= self.sent.load(Ordering::Acquire) {
            self.answered.send_if_modified(|highest| {
                let is_news = pong.number > *highest;
                *highest = pong.number.max(*highest);
                is_news
            });
        }
    }
}
