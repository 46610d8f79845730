//! The order in which a link sends large messages: those that began earlier go first.
//!
//! If all had the same share of a path, all would end at the same late time, and their replies
//! would wait for it together. Small messages and streams of messages are not part of this.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Bytes of messages that are sent in order.
pub(super) const LARGE_BYTES_MIN: u64 = 16 * 1024;

/// Time that large messages may wait for earlier ones. Beyond it they share the path, so that on a
/// slow path none of them stalls for as long as a peer waits.
const AHEAD_MAX: Duration = Duration::from_millis(500);

/// Priorities of the transport for each priority of a call: those of its large messages, and on top
/// the one of all other data.
const LEVELS: i32 = 1 << 20;

/// Returns the transport's priority of a call's small messages and streams.
pub(super) const fn priority(of_call: i8) -> i32 {
    of_call as i32 * LEVELS
}

/// The order of the large messages that a link sends.
#[derive(Debug, Default)]
pub(super) struct SendOrder(Mutex<LargeMessages>);

#[derive(Debug, Default)]
struct LargeMessages {
    /// The turn of the message that began last.
    last: i32,
    bytes: u64,
}

impl SendOrder {
    fn state(&self) -> MutexGuard<'_, LargeMessages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a message on a path that carries this many bytes in a second. Returns how far its
    /// priority is below that of small messages.
    pub(super) fn begin(&self, bytes: u64, per_second: f64) -> i32 {
        let mut state = self.state();
        if state.bytes as f64 <= per_second * AHEAD_MAX.as_secs_f64() {
            // The order of messages is lost once in a million.
            state.last = state.last % (LEVELS - 2) + 1;
        }
        state.bytes += bytes;
        state.last
    }

    /// Ends a message, sent or not.
    pub(super) fn end(&self, bytes: u64) {
        self.state().bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn earlier_messages_go_first_and_small_ones_before_all() {
        let order = SendOrder::default();
        let began: Vec<i32> = (0..5).map(|_| order.begin(MIB, 12.5e6)).collect();
        assert_eq!(began, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn messages_that_would_wait_for_long_share_the_path() {
        let order = SendOrder::default();
        // A mebibyte takes a quarter of a second.
        let began: Vec<i32> = (0..6).map(|_| order.begin(MIB, MIB as f64 * 4.0)).collect();
        assert_eq!(began, [1, 2, 3, 3, 3, 3]);
        (0..3).for_each(|_| order.end(MIB));
        assert_eq!(order.begin(MIB, MIB as f64 * 4.0), 3, "three are still ahead");
        order.end(MIB);
        order.end(MIB);
        assert_eq!(order.begin(MIB, MIB as f64 * 4.0), 4);
    }

    #[test]
    fn a_call_of_a_lower_priority_goes_after_all_of_a_higher_one() {
        let lowest_large = priority(0) - (LEVELS - 2);
        assert!(lowest_large > priority(-1));
        assert!(priority(i8::MAX) < i32::MAX && priority(i8::MIN) - LEVELS > i32::MIN);
        let order = SendOrder::default();
        for _ in 0..2 * LEVELS {
            assert!((1..LEVELS - 1).contains(&order.begin(0, 1.0)));
        }
    }
}
