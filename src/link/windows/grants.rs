//! Decides how far the peer may send ahead of the reader of one stream.

use crate::limits::{STREAM_WINDOW_BYTES, STREAM_WINDOW_BYTES_MAX};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes that a stream sends or reads before anything is kept about its window.
pub(super) const UNCOUNTED_BYTES: u64 = STREAM_WINDOW_BYTES as u64 / 4;

/// Bytes that were read without a wait for them, from which the sender may be waiting for a grant:
/// less than a steady reader takes of a stream in the time after which it counts as stalled.
pub(super) const UNREAD_BYTES_MIN: u64 = 8 * 1024;

/// Bytes that are read without a look at the clock: those of a second of the slowest steady reader.
pub(super) const UNTIMED_BYTES: u64 = 1024;

/// Interval between two grants to a sender that may be waiting. It sees by them that its reader is
/// slow, and has not stalled.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// Round trip from which a wider window is worth its memory: with the first one, 1 Gbit/s.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(2);

/// Decides when the peer is granted more, and how much.
#[derive(Debug)]
pub(super) struct Grants {
    /// Bytes that the peer may send on the stream since its beginning.
    pub(super) granted: u64,
    /// Bytes that it may be ahead of the reader.
    pub(super) window: u64,
    /// Time of the last grant.
    at: Instant,
    /// The end of the message for which the window was last made.
    end: u64,
}

impl Grants {
    pub(super) fn new(now: Instant) -> Self {
        let window = STREAM_WINDOW_BYTES.into();
        Self { granted: window, window, at: now, end: 0 }
    }

    /// Returns true once a quarter of the window was read since the last grant, and for a message
    /// that does not fit; not while the rest of a message fits.
    pub(super) const fn is_due(&self, read: u64, end: u64) -> bool {
        if end > read && self.granted >= end + UNCOUNTED_BYTES {
            return false;
        }
        let has_read_a_quarter = read + self.window >= self.granted + self.window / 4;
        has_read_a_quarter || (end > self.granted && end != self.end)
    }

    /// Returns true if something was read since the last grant, and that was long ago.
    pub(super) fn is_late(&self, read: u64, now: Instant) -> bool {
        read + self.window > self.granted && now.duration_since(self.at) >= LATE_AFTER
    }

    /// Grants the window beyond what was read.
    pub(super) const fn grant(&mut self, read: u64, now: Instant) {
        self.granted = read + self.window;
        self.at = now;
    }

    /// Returns the window to have: as wide as the message needs, and twice as wide if the reader
    /// took a quarter of it in half a round trip, so that a faster path would wait for grants.
    pub(super) fn wanted(
        &mut self,
        read: u64,
        end: u64,
        now: Instant,
        round_trip: Duration,
    ) -> u64 {
        let is_long = round_trip >= LONG_ROUND_TRIP;
        let is_fast = is_long && now.duration_since(self.at) <= round_trip / 2;
        self.end = end;
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
                grants.grant(read, self.now);
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
    fn a_grant_is_late_after_a_second_if_something_was_read() {
        let mut reader = Reader::new();
        let now = reader.now;
        assert!(!reader.grants.is_late(0, now + LATE_AFTER));
        assert!(reader.grants.is_late(1, now + LATE_AFTER));
        assert!(!reader.grants.is_late(1, now + LATE_AFTER / 2));
        reader.read(FIRST / 4, 0, LATE_AFTER).expect("a grant");
        assert!(!reader.grants.is_late(FIRST / 4, reader.now + LATE_AFTER));
        assert!(!reader.grants.is_late(FIRST / 4 + 1, now + LATE_AFTER));
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
    fn on_a_short_path_the_window_stays_as_it_is() {
        let mut grants = Grants::new(Instant::now());
        let at = grants.at;
        assert_eq!(grants.wanted(FIRST / 4, 0, at, LONG_ROUND_TRIP / 2), FIRST);
        assert_eq!(grants.wanted(FIRST / 4, 0, at, LONG_ROUND_TRIP), 2 * FIRST);
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
                grants.grant(read, reader.now);
                granted = grants.granted;
            }
        }
        assert!(granted > MIB, "{granted}");
    }
}
