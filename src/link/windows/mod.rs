//! Windows of streams: how far a peer may send ahead of the reader of one stream.
//!
//! quinn fixes the window of all streams when it makes a connection. It is wide, for one stream
//! that fills a long path; many streams whose readers stall would use up the connection's window
//! and hold back the control stream. So a sender keeps to [`STREAM_WINDOW_BYTES`] ahead of the
//! reader, and the reader's side grants more by a WINDOW frame where the reader keeps up. See
//! `docs/decisions/0041`.

mod credits;
mod grants;

use self::{
    credits::Credits,
    grants::{Grants, UNCOUNTED_BYTES, UNREAD_BYTES_MIN, UNTIMED_BYTES},
};
use super::{
    endpoint::set_receive_window,
    send_order::{LARGE_BYTES_MIN, SendOrder},
};
use crate::{
    limits::{LINK_AHEAD_BYTES_MAX, LINK_GROWTH_BYTES_MAX, STREAM_WINDOW_BYTES},
    wire::{ALPN_WITH_WINDOWS, Window},
};
use quinn::crypto::rustls::HandshakeData;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::Notify, time::Instant};

/// The grant for a stream of which nothing is held any more: more than a stream can have.
const ALL: u64 = 1 << 62;

/// The windows of a link's streams in both directions.
pub(super) struct StreamWindows {
    connection: quinn::Connection,
    /// The connection's receive window while no stream has a grown one.
    window: u64,
    /// Bytes by which all streams that are read here have grown, and the highest number so far.
    growth: Mutex<Growth>,
    /// Grants for the peer that no frame was made of yet, by the number of the stream.
    unsent: Mutex<HashMap<u64, u64>>,
    has_unsent: Notify,
    credits: Credits,
    order: SendOrder,
}

#[derive(Debug, Default)]
struct Growth {
    now: u64,
    highest: u64,
}

impl StreamWindows {
    /// Makes the windows of a connection with this receive window; `None` if the peer does not know
    /// WINDOW frames, so that QUIC alone bounds the streams.
    pub(super) fn new(connection: &quinn::Connection, window: u32) -> Option<Arc<Self>> {
        let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
        let is_known = data.protocol.as_deref() == Some(ALPN_WITH_WINDOWS);
        is_known.then(|| Self::with(connection.clone(), u64::from(window) + LINK_AHEAD_BYTES_MAX))
    }

    fn with(connection: quinn::Connection, window: u64) -> Arc<Self> {
        set_receive_window(&connection, window);
        Arc::new(Self {
            connection,
            window,
            growth: Mutex::default(),
            unsent: Mutex::default(),
            has_unsent: Notify::new(),
            credits: Credits::default(),
            order: SendOrder::default(),
        })
    }

    fn growth(&self) -> MutexGuard<'_, Growth> {
        self.growth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grants(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves to grants to send, once there are some. Cancel safe.
    pub(super) async fn unsent(&self) -> Vec<Window> {
        self.has_unsent.notified().await;
        self.grants().drain().map(|(stream, bytes)| Window { stream, bytes }).collect()
    }

    /// Records a grant of the peer. One for a stream that has ended is ignored.
    pub(super) fn granted(&self, window: &Window) {
        self.credits.grant(window.stream, window.bytes);
    }

    fn grant(&self, stream: u64, bytes: u64) {
        self.grants().insert(stream, bytes);
        self.has_unsent.notify_one();
    }

    /// Grows a stream's window by up to `bytes`, at most by half of what the link has left for all,
    /// and the connection's with it.
    fn grow(&self, bytes: u64) -> u64 {
        let mut growth = self.growth();
        let grown = bytes.min((LINK_GROWTH_BYTES_MAX - growth.now) / 2);
        growth.now += grown;
        if growth.now > growth.highest {
            growth.highest = growth.now;
            set_receive_window(&self.connection, self.window + growth.highest);
        }
        grown
    }

    fn shrink(&self, bytes: u64) {
        self.growth().now -= bytes;
    }
}

/// The window of a stream that is sent.
pub(super) struct SendWindow {
    stream: u64,
    /// None if the peer grants nothing.
    windows: Option<Arc<StreamWindows>>,
    sent: u64,
    /// Signals its grants; made once the stream is long.
    changed: Option<Arc<Notify>>,
    /// Bytes of the only message, until it is with the transport.
    message: Option<u64>,
    /// It has only one message, which the peer reads to its end or breaks off.
    runs_ahead: bool,
    /// When it is dropped, the peer holds nothing of it any more.
    is_read_when_dropped: bool,
}

impl SendWindow {
    pub(super) const fn new(stream: u64, windows: Option<Arc<StreamWindows>>) -> Self {
        Self {
            stream,
            windows,
            sent: 0,
            changed: None,
            message: None,
            runs_ahead: false,
            is_read_when_dropped: false,
        }
    }

    /// Notes that the peer holds nothing of the stream any more when this is dropped: it has
    /// answered by then, or the stream is reset.
    pub(super) const fn is_read_when_dropped(&mut self) {
        self.is_read_when_dropped = true;
    }

    /// Begins the only message of the stream. Returns its place in the order if it is large.
    pub(super) fn begin_message(&mut self, bytes: usize) -> Option<i32> {
        self.runs_ahead = true;
        let bytes = bytes as u64;
        let windows = self.windows.as_ref().filter(|_| bytes >= LARGE_BYTES_MIN)?;
        let path = windows.connection.stats().path;
        self.message = Some(bytes);
        Some(windows.order.begin(bytes, path.cwnd as f64 / path.rtt.as_secs_f64()))
    }

    /// Ends the message: all of it is with the transport, or none of it follows.
    pub(super) fn end_message(&mut self) {
        if let (Some(windows), Some(bytes)) = (&self.windows, self.message.take()) {
            windows.order.end(bytes);
        }
    }

    /// Returns how many of these bytes may be sent now.
    pub(super) fn room(&mut self, bytes: usize) -> usize {
        let Some(windows) = &self.windows else { return bytes };
        // Before the peer can have read so much that it grants more.
        if self.changed.is_none() && self.sent + bytes as u64 > UNCOUNTED_BYTES {
            self.changed = Some(windows.credits.add(self.stream));
        }
        if self.changed.is_none() {
            return bytes;
        }
        let taken = windows.credits.take(self.stream, self.sent, bytes as u64, self.runs_ahead);
        usize::try_from(taken).unwrap_or(bytes)
    }

    /// Resolves when the peer may have granted more.
    pub(super) async fn changed(&self) {
        match &self.changed {
            Some(changed) => changed.notified().await,
            None => std::future::pending().await,
        }
    }

    pub(super) const fn note_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

impl Drop for SendWindow {
    fn drop(&mut self) {
        self.end_message();
        if let (Some(windows), Some(_)) = (&self.windows, &self.changed) {
            windows.credits.remove(self.stream, self.sent, self.is_read_when_dropped);
        }
    }
}

/// The window of a stream that is read.
pub(super) struct ReadWindow {
    stream: u64,
    /// None if nothing is granted.
    windows: Option<Arc<StreamWindows>>,
    /// Number of bytes read from which the peer's sender may have been waiting for a grant.
    late_from: u64,
    /// Made once the stream is long, or its reader slow.
    grants: Option<Box<Grants>>,
}

impl ReadWindow {
    pub(super) const fn new(stream: u64, windows: Option<Arc<StreamWindows>>) -> Self {
        Self { stream, windows, late_from: UNREAD_BYTES_MIN, grants: None }
    }

    /// Tells the peer that nothing of the stream is held here any more.
    pub(super) fn release(&self) {
        if let Some(windows) = &self.windows {
            windows.grant(self.stream, ALL);
        }
    }

    /// Notes that `read` bytes of the stream were read and nothing more has come: the sender was
    /// not waiting.
    pub(super) const fn note_empty(&mut self, read: usize) {
        self.late_from = read as u64 + UNREAD_BYTES_MIN;
    }

    /// Grants the peer more, if it is time, when `read` bytes of the stream were read. The message
    /// that is being read ends at `end`.
    pub(super) fn note_read(&mut self, read: usize, end: usize) {
        let read = read as u64;
        let Some(windows) = &self.windows else { return };
        let may_be_late = read >= self.late_from;
        let is_counted = read > UNCOUNTED_BYTES;
        if !is_counted && !may_be_late {
            return;
        }
        let grants = self.grants.get_or_insert_with(|| Box::new(Grants::new(Instant::now())));
        // The sender may not count the stream before, and ignores what it is granted: then it does
        // not wait for it either.
        let is_due = is_counted && grants.is_due(read, end as u64);
        if !is_due && !may_be_late {
            return;
        }
        let now = Instant::now();
        // The clock is read once for many small frames.
        self.late_from = self.late_from.max(read + UNTIMED_BYTES);
        if is_due {
            let wanted = grants.wanted(read, end as u64, now, windows.connection.rtt());
            grants.window += windows.grow(wanted - grants.window);
        } else if !grants.is_late(read, now) {
            return;
        }
        grants.grant(read, now);
        windows.grant(self.stream, grants.granted);
    }
}

impl Drop for ReadWindow {
    fn drop(&mut self) {
        if let (Some(windows), Some(grants)) = (&self.windows, &self.grants) {
            windows.shrink(grants.window - u64::from(STREAM_WINDOW_BYTES));
        }
    }
}
