//! A request of the page to stop gracefully, which a program takes or does not.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Requests to drain, and whether the program listens for them.
#[derive(Debug, Default)]
pub(super) struct DrainRequests {
    is_taken: AtomicBool,
    requested: Notify,
}

impl DrainRequests {
    /// True if the program has begun to listen.
    pub(super) fn can_drain(&self) -> bool {
        self.is_taken.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) {
        self.is_taken.store(true, Ordering::Relaxed);
    }

    pub(super) fn request(&self) {
        self.requested.notify_one();
    }

    pub(super) async fn requested(&self) {
        self.requested.notified().await;
    }
}
