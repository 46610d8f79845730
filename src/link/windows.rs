//! Windows of streams: how far a peer may send ahead of the reader of one stream.
//!
//! quinn fixes the window of all streams when it makes a connection. It is wide, for one stream
//! that fills a long path; many streams whose readers stall would use up the connection's window
//! and hold back the control stream. So a sender keeps to [`STREAM_WINDOW_BYTES`] ahead of the
//! reader, and the reader's side grants more by a WINDOW frame where the reader keeps up. See
//! `docs/decisions/0041`.

use super::send_order::SendOrder;
use crate::{
    limits::{
        LINK_AHEAD_BYTES_MAX, LINK_GROWTH_BYTES_MAX, STREAM_WINDOW_BYTES, STREAM_WINDOW_BYTES_MAX,
    },
    wire::{ALPN_WITH_WINDOWS, Window},
};
use quinn::crypto::rustls::HandshakeData;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Bytes that a stream sends or reads before anything is kept about its window.
const UNCOUNTED_BYTES: u64 = STREAM_WINDOW_BYTES as u64 / 4;

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
    /// Bytes that streams have sent beyond the grants of the peer.
    ahead: Mutex<u64>,
    /// Grants of the peer, by the number of the stream, for streams that send much.
    credits: Mutex<HashMap<u64, Arc<Credit>>>,
    order: SendOrder,
}

#[derive(Debug, Default)]
struct Growth {
    now: u64,
    highest: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            ahead: Mutex::default(),
            credits: Mutex::default(),
            order: SendOrder::default(),
        })
    }

    /// Resolves to grants to send, once there are some. Cancel safe.
    pub(super) async fn unsent(&self) -> Vec<Window> {
        self.has_unsent.notified().await;
        lock(&self.unsent).drain().map(|(stream, bytes)| Window { stream, bytes }).collect()
    }

    /// Records a grant of the peer. One for a stream that has ended is ignored.
    pub(super) fn granted(&self, window: &Window) {
        let credit = lock(&self.credits).get(&window.stream).cloned();
        if let Some(credit) = credit {
            credit.bytes.fetch_max(window.bytes, Ordering::AcqRel);
            credit.changed.notify_one();
        }
    }

    fn grant(&self, stream: u64, bytes: u64) {
        lock(&self.unsent).insert(stream, bytes);
        self.has_unsent.notify_one();
    }

    /// Grows a stream's window by up to `bytes`, as far as the link allows, and the connection's
    /// with it.
    fn grow(&self, bytes: u64) -> u64 {
        let mut growth = lock(&self.growth);
        let grown = bytes.min(LINK_GROWTH_BYTES_MAX - growth.now);
        growth.now += grown;
        if growth.now > growth.highest {
            growth.highest = growth.now;
            set_receive_window(&self.connection, self.window + growth.highest);
        }
        grown
    }

    fn shrink(&self, bytes: u64) {
        lock(&self.growth).now -= bytes;
    }

    /// Exchanges what a stream has taken of the bytes ahead of grants for what it wants now, as far
    /// as they last.
    fn take_ahead(&self, taken: u64, wanted: u64) -> u64 {
        let mut ahead = lock(&self.ahead);
        *ahead -= taken;
        let taken = wanted.min(LINK_AHEAD_BYTES_MAX - *ahead);
        *ahead += taken;
        taken
    }
}

fn set_receive_window(connection: &quinn::Connection, bytes: u64) {
    connection.set_receive_window(quinn::VarInt::try_from(bytes).unwrap_or(quinn::VarInt::MAX));
}

/// The grants of the peer for one stream.
#[derive(Debug)]
struct Credit {
    /// Bytes that may be sent on the stream since its beginning.
    bytes: AtomicU64,
    changed: Notify,
}

/// The window of a stream that is sent.
pub(super) struct SendWindow {
    stream: u64,
    /// None if the peer grants nothing.
    windows: Option<Arc<StreamWindows>>,
    /// Only QUIC bounds the stream.
    is_open: bool,
    sent: u64,
    credit: Option<Arc<Credit>>,
    /// Bytes that it may send ahead of its grants.
    ahead: u64,
    /// Bytes of the message that has a turn.
    message: Option<u64>,
}

impl SendWindow {
    pub(super) const fn new(stream: u64, windows: Option<Arc<StreamWindows>>) -> Self {
        Self { stream, windows, is_open: false, sent: 0, credit: None, ahead: 0, message: None }
    }

    /// Lets QUIC alone bound the stream from now on, because its reader never pauses.
    pub(super) const fn open(&mut self) {
        self.is_open = true;
    }

    /// Begins the only message of the stream. Returns its turn if it is large.
    pub(super) fn begin_message(&mut self, bytes: usize) -> Option<i32> {
        let bytes = bytes as u64;
        let windows = self.windows.as_ref().filter(|_| bytes > UNCOUNTED_BYTES)?;
        let path = windows.connection.stats().path;
        self.message = Some(bytes);
        Some(windows.order.begin(bytes, path.cwnd as f64 / path.rtt.as_secs_f64()))
    }

    /// Returns how many of these bytes may be sent now.
    pub(super) fn room(&mut self, bytes: usize) -> usize {
        let Some(windows) = self.windows.as_ref().filter(|_| !self.is_open) else { return bytes };
        let wanted = self.sent.saturating_add(bytes as u64);
        // Before the peer can have read so much that it grants more.
        if wanted > UNCOUNTED_BYTES && self.credit.is_none() {
            let bytes = AtomicU64::new(STREAM_WINDOW_BYTES.into());
            let credit = Arc::new(Credit { bytes, changed: Notify::new() });
            lock(&windows.credits).insert(self.stream, credit.clone());
            self.credit = Some(credit);
        }
        let Some(credit) = &self.credit else { return bytes };
        // With what was sent ahead so far.
        let beyond = wanted.saturating_sub(credit.bytes.load(Ordering::Acquire));
        if beyond > 0 || self.ahead > 0 {
            self.ahead = windows.take_ahead(self.ahead, beyond);
        }
        bytes - usize::try_from(beyond - self.ahead).unwrap_or(bytes).min(bytes)
    }

    /// Resolves when the peer may have granted more.
    pub(super) async fn changed(&self) {
        match &self.credit {
            Some(credit) => credit.changed.notified().await,
            None => std::future::pending().await,
        }
    }

    pub(super) const fn note_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    fn leave(&mut self) {
        let Some(windows) = &self.windows else { return };
        if self.credit.take().is_some() {
            lock(&windows.credits).remove(&self.stream);
        }
        windows.take_ahead(std::mem::take(&mut self.ahead), 0);
        if let Some(bytes) = self.message.take() {
            windows.order.end(bytes);
        }
    }
}

impl Drop for SendWindow {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The window of a stream that is read.
pub(super) struct ReadWindow {
    stream: u64,
    /// None if nothing is granted.
    windows: Option<Arc<StreamWindows>>,
    /// Made once the stream is long.
    grants: Option<Box<Grants>>,
}

impl ReadWindow {
    pub(super) const fn new(stream: u64, windows: Option<Arc<StreamWindows>>) -> Self {
        Self { stream, windows, grants: None }
    }

    /// Grants nothing from now on: the peer sends as if the window was open.
    pub(super) fn open(&mut self) {
        self.leave();
        self.windows = None;
    }

    /// Grants the peer more, if it is time, when `read` bytes of the stream were read. The message
    /// that is being read ends at `end`.
    pub(super) fn note_read(&mut self, read: usize, end: usize) {
        let read = read as u64;
        let Some(windows) = &self.windows else { return };
        if read <= UNCOUNTED_BYTES {
            return;
        }
        let now = Instant::now();
        let grants = self.grants.get_or_insert_with(|| Box::new(Grants::new(now)));
        if !grants.is_due(read, end as u64) {
            return;
        }
        let wanted = grants.wanted(read, end as u64, now, windows.connection.rtt());
        grants.window += windows.grow(wanted - grants.window);
        grants.granted = read + grants.window;
        windows.grant(self.stream, grants.granted);
    }

    fn leave(&mut self) {
        if let (Some(windows), Some(grants)) = (&self.windows, self.grants.take()) {
            windows.shrink(grants.window - u64::from(STREAM_WINDOW_BYTES));
        }
    }
}

impl Drop for ReadWindow {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Decides when the peer is granted more, and how much.
#[derive(Debug)]
struct Grants {
    /// Bytes that the peer may send on the stream since its beginning.
    granted: u64,
    /// Bytes that it may be ahead of the reader.
    window: u64,
    /// Time of the last grant.
    at: Instant,
    /// The end of the message for which the window was last made.
    end: u64,
}

impl Grants {
    fn new(now: Instant) -> Self {
        let window = STREAM_WINDOW_BYTES.into();
        Self { granted: window, window, at: now, end: 0 }
    }

    /// Returns true once a quarter of the window was read since the last grant, and for a message
    /// that does not fit; not while the rest of a message fits.
    fn is_due(&self, read: u64, end: u64) -> bool {
        if end > read && self.granted >= end + UNCOUNTED_BYTES {
            return false;
        }
        let has_read_a_quarter = read + self.window >= self.granted + self.window / 4;
        has_read_a_quarter || (end > self.granted && end != self.end)
    }

    /// Returns the window to have: as wide as the message needs, and twice as wide if the reader
    /// took a quarter of it in half a round trip, so that a faster path would wait for grants.
    fn wanted(&mut self, read: u64, end: u64, now: Instant, round_trip: Duration) -> u64 {
        let is_fast = now.duration_since(self.at) <= round_trip / 2;
        (self.at, self.end) = (now, end);
        let wanted = if is_fast { self.window * 2 } else { self.window };
        let of_message = end.saturating_sub(read) + UNCOUNTED_BYTES;
        wanted.max(of_message).min(STREAM_WINDOW_BYTES_MAX.into()).max(self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    const FIRST: u64 = STREAM_WINDOW_BYTES as u64;
    const ROUND_TRIP: Duration = Duration::from_millis(40);

    /// A reader's side and its clock.
    struct Reader {
        grants: Grants,
        now: Instant,
    }

    impl Reader {
        fn new() -> Self {
            let now = Instant::now();
            Self { grants: Grants::new(now), now }
        }

        /// `read` bytes were read by `after` the last time. Returns the new grant and its window.
        fn read(&mut self, read: u64, end: u64, after: Duration) -> Option<(u64, u64)> {
            self.now += after;
            let grants = &mut self.grants;
            grants.is_due(read, end).then(|| {
                grants.window = grants.wanted(read, end, self.now, ROUND_TRIP);
                grants.granted = read + grants.window;
                (grants.granted, grants.window)
            })
        }
    }

    #[test]
    fn a_slow_reader_keeps_its_window() {
        let mut reader = Reader::new();
        assert_eq!(reader.read(FIRST / 4 - 1, 0, ROUND_TRIP), None);
        for quarters in 1..20 {
            let read = quarters * FIRST / 4;
            assert_eq!(reader.read(read, 0, ROUND_TRIP), Some((read + FIRST, FIRST)));
        }
    }

    #[test]
    fn a_fast_reader_gets_a_window_twice_as_wide_each_time_up_to_the_largest() {
        let mut reader = Reader::new();
        let (mut read, mut window) = (0, FIRST);
        for _ in 0..10 {
            read += window / 4;
            window = (window * 2).min(8 * MIB);
            assert_eq!(reader.read(read, 0, ROUND_TRIP / 2), Some((read + window, window)));
            // Within the window already granted.
            assert_eq!(reader.read(read + 1, 0, Duration::ZERO), None);
        }
        assert_eq!(window, 8 * MIB);
        read += window / 4;
        assert_eq!(reader.read(read, 0, ROUND_TRIP), Some((read + window, window)));
    }

    #[test]
    fn a_message_that_does_not_fit_gets_its_size_at_once_and_no_grant_more() {
        let mut reader = Reader::new();
        let end = MIB + 10;
        let (granted, window) = reader.read(65 * KIB, end, ROUND_TRIP).expect("a grant");
        assert_eq!((granted, window), (end + FIRST / 4, granted - 65 * KIB));
        for read in (66 * KIB..end).step_by(10_000) {
            assert_eq!(reader.read(read, end, Duration::ZERO), None, "{read}");
        }
    }

    #[test]
    fn a_message_that_fits_needs_no_grant() {
        let mut reader = Reader::new();
        for read in [65 * KIB, 100 * KIB, 128 * KIB - 1] {
            assert_eq!(reader.read(read, 128 * KIB, Duration::ZERO), None);
        }
    }

    #[test]
    fn a_message_for_which_the_link_has_no_room_is_granted_by_quarters() {
        let mut reader = Reader::new();
        let end = 4 * MIB;
        let mut granted = FIRST;
        for read in (65 * KIB..MIB).step_by(8 * KIB as usize) {
            let grants = &mut reader.grants;
            if grants.is_due(read, end) {
                assert!(read == 65 * KIB || read + FIRST >= granted + FIRST / 4, "{read}");
                assert!(grants.wanted(read, end, reader.now, ROUND_TRIP) > grants.window);
                // The window could not grow.
                grants.granted = read + grants.window;
                granted = grants.granted;
            }
        }
        assert!(granted > MIB, "{granted}");
    }
}
