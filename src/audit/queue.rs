//! The queue between producers of lines and the thread that writes them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
    mpsc::SyncSender,
};

/// Sending side of the queue.
#[derive(Debug)]
pub(super) struct LineQueue {
    pub(super) lines: SyncSender<WriterCommand>,
    pub(super) flags: Arc<WriterFlags>,
}

/// Requests that need no room in the queue.
#[derive(Debug, Default)]
pub(super) struct WriterFlags {
    /// Lines that found no room or were not written, and that no line has reported yet.
    pub(super) lost: AtomicU64,
    /// All such lines since the start.
    pub(super) lost_ever: AtomicU64,
    /// The file must be opened again.
    pub(super) reopen: AtomicBool,
}

impl WriterFlags {
    /// Counts lines that were not written.
    pub(super) fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::AcqRel);
        self.lost_ever.fetch_add(lines, Ordering::Relaxed);
    }
}

/// A command to the writer's thread.
pub(super) enum WriterCommand {
    Line(String),
    CheckFlags,
    /// Confirm once all earlier lines are written.
    Flush(SyncSender<()>),
}
