//! What the peer lets this side send on long streams.

use crate::limits::{LINK_AHEAD_BYTES_MAX, STREAM_WINDOW_BYTES};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// The credit of a link's long streams, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Credits(Mutex<CreditTable>);

#[derive(Debug, Default)]
struct CreditTable {
    /// Bytes that all streams together have sent beyond their grants.
    ahead: u64,
    streams: HashMap<u64, Credit>,
}

/// The credit of one stream, in bytes since its beginning.
#[derive(Debug)]
struct Credit {
    granted: u64,
    /// Sent, or about to be.
    sent: u64,
    /// Its sender is gone, and the peer may not have read all.
    is_gone: bool,
    changed: Arc<Notify>,
}

impl Credit {
    const fn ahead(&self) -> u64 {
        self.sent.saturating_sub(self.granted)
    }
}

impl CreditTable {
    fn change(&mut self, stream: u64, change: impl FnOnce(&mut Credit)) {
        let Some(credit) = self.streams.get_mut(&stream) else { return };
        self.ahead -= credit.ahead();
        change(credit);
        let ahead = credit.ahead();
        self.ahead += ahead;
        if credit.is_gone && ahead == 0 {
            self.streams.remove(&stream);
        }
    }
}

impl Credits {
    fn table(&self) -> MutexGuard<'_, CreditTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to count a stream. Returns the signal of its grants.
    pub(super) fn add(&self, stream: u64) -> Arc<Notify> {
        let changed = Arc::<Notify>::default();
        let granted = STREAM_WINDOW_BYTES.into();
        let credit = Credit { granted, sent: 0, is_gone: false, changed: changed.clone() };
        self.table().streams.insert(stream, credit);
        changed
    }

    /// Takes room for up to `bytes` on a stream that has sent `sent`, beyond its grants only if it
    /// `runs_ahead`. Returns how many may be sent now; what was taken before and not sent returns.
    pub(super) fn take(&self, stream: u64, sent: u64, bytes: u64, runs_ahead: bool) -> u64 {
        let mut table = self.table();
        table.change(stream, |credit| credit.sent = sent);
        let ahead = if runs_ahead { LINK_AHEAD_BYTES_MAX - table.ahead } else { 0 };
        let mut taken = 0;
        table.change(stream, |credit| {
            taken = bytes.min(credit.granted.saturating_sub(sent) + ahead);
            credit.sent = sent + taken;
        });
        taken
    }

    /// Records a grant of the peer. One for a stream that has ended is ignored.
    pub(super) fn grant(&self, stream: u64, bytes: u64) {
        self.table().change(stream, |credit| {
            credit.granted = credit.granted.max(bytes);
            credit.changed.notify_one();
        });
    }

    /// Ends a stream that has sent `sent`. What it is ahead of its grants returns at once if the
    /// peer holds nothing of it any more, and with its grants otherwise.
    pub(super) fn remove(&self, stream: u64, sent: u64, is_read: bool) {
        self.table().change(stream, |credit| {
            credit.sent = if is_read { 0 } else { sent };
            credit.is_gone = true;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u64 = STREAM_WINDOW_BYTES as u64;
    const MOST: u64 = FIRST + LINK_AHEAD_BYTES_MAX;

    /// Credits with a stream that has used up what all may send ahead.
    fn used() -> Credits {
        let credits = Credits::default();
        [1, 2].into_iter().for_each(|stream| drop(credits.add(stream)));
        assert_eq!(credits.take(1, 0, u64::MAX, true), MOST);
        credits
    }

    #[test]
    fn a_stream_that_does_not_run_ahead_keeps_to_its_grants() {
        let credits = Credits::default();
        drop(credits.add(1));
        assert_eq!(credits.take(1, 0, u64::MAX, false), FIRST);
        assert_eq!(credits.take(1, FIRST, 1, false), 0);
        credits.grant(1, FIRST + 10);
        assert_eq!(credits.take(1, FIRST, 100, false), 10);
    }

    #[test]
    fn all_streams_share_what_may_be_sent_ahead() {
        let credits = used();
        assert_eq!(credits.take(2, 0, u64::MAX, true), FIRST);
        // What was taken and not sent returns.
        assert_eq!(credits.take(1, FIRST + 100, 0, true), 0);
        assert_eq!(credits.take(2, FIRST, u64::MAX, true), LINK_AHEAD_BYTES_MAX - 100);
    }

    #[test]
    fn grants_give_back_what_was_sent_ahead() {
        let credits = used();
        credits.grant(1, MOST);
        assert_eq!(credits.take(2, 0, u64::MAX, true), MOST);
        credits.grant(3, 1);
        credits.grant(1, 1);
    }

    #[test]
    fn a_stream_that_ends_gives_back_what_the_peer_has_read_and_the_rest_with_its_grants() {
        let credits = used();
        credits.remove(1, MOST, false);
        assert_eq!(credits.take(2, 0, u64::MAX, true), FIRST, "it is unread");
        credits.grant(1, MOST - 7);
        assert_eq!(credits.take(2, FIRST, u64::MAX, true), LINK_AHEAD_BYTES_MAX - 7);
        credits.grant(1, MOST);
        assert!(!credits.table().streams.contains_key(&1));
        let credits = used();
        credits.remove(1, MOST, true);
        assert_eq!(credits.take(2, 0, u64::MAX, true), MOST);
        assert_eq!(credits.table().streams.len(), 1);
    }
}
