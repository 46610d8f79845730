//! The queue between those who write lines and the thread that writes them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64},
    mpsc::SyncSender,
};

/// The sending side of the writer's queue.
pub(super) struct Queue {
    pub(super) lines: SyncSender<Order>,
    pub(super) marks: Arc<Marks>,
}

/// Requests that need no room in the queue.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Lines that found no room or were not written, and that no line has reported yet.
    pub(super) lost: AtomicU64,
    /// The file must be opened again.
    pub(super) reopen: AtomicBool,
}

/// A message to the writer's thread.
pub(super) enum Order {
    Line(String),
    /// Look at the marks.
    Look,
    /// Answer once all earlier lines are written.
    Flush(SyncSender<()>),
}
