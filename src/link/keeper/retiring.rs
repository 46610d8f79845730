//! Links that stay up for the calls that are on them, and that new calls do not use: those that
//! were replaced, and the one that its peer drains.

use super::hooks::KeptLink;
use crate::{lazy_timeout::or_pending, limits::RETIRING_LINKS_MAX, wire::CloseCode};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The links to one address that were replaced, [`RETIRING_LINKS_MAX`] at most: a node takes no
/// more of one agent.
#[derive(Debug)]
pub(super) struct RetiringLinks<L> {
    slots: Arc<Semaphore>,
    /// Oldest first.
    links: VecDeque<L>,
}

/// Held while a retired link is drained.
pub(super) type RetiringSlot = Option<OwnedSemaphorePermit>;

impl<L: KeptLink> RetiringLinks<L> {
    pub(super) fn new() -> Self {
        Self { slots: Arc::new(Semaphore::new(RETIRING_LINKS_MAX)), links: VecDeque::new() }
    }

    /// A slot for one more, as soon as one of them has ended; after `wait_max` the oldest is closed
    /// for it. May be dropped and called again.
    pub(super) async fn slot(&mut self, wait_max: Duration) -> RetiringSlot {
        self.links.retain(|link| !link.is_closed());
        let in_time = tokio::time::timeout(wait_max, self.slots.clone().acquire_owned()).await;
        if let Ok(slot) = in_time {
            return slot.ok();
        }
        if let Some(oldest) = self.links.pop_front() {
            let peer = oldest.peer();
            tracing::warn!(
                %peer,
                "closed the oldest retiring link to {peer}: {RETIRING_LINKS_MAX} more replacements while calls were on it"
            );
            oldest.close(CloseCode::Drained, "it was replaced too often");
        }
        self.slots.clone().acquire_owned().await.ok()
    }

    /// Adds a link, which holds a slot.
    pub(super) fn add(&mut self, link: L) {
        self.links.push_back(link);
    }
}

/// The link that its peer drains, while open: at its end a successor may listen at that address.
#[derive(Debug)]
pub(super) struct DrainingLink<L>(pub(super) Option<L>);

impl<L: KeptLink> DrainingLink<L> {
    pub(super) fn is_open(&self) -> bool {
        self.0.as_ref().is_some_and(|link| !link.is_closed())
    }

    /// Resolves once when it has ended; never if there is none.
    pub(super) async fn ended(&mut self) {
        or_pending(self.0.as_ref().map(L::closed)).await;
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fakes::{EventLog, FakeLink},
        *,
    };
    use tokio::time::Instant;

    const WAIT_MAX: Duration = Duration::from_secs(25);

    /// Links in all slots, with what holds the slots.
    async fn full() -> (RetiringLinks<FakeLink>, Vec<FakeLink>, VecDeque<RetiringSlot>) {
        let (mut retiring, log) = (RetiringLinks::new(), EventLog::default());
        let (mut links, mut slots) = (Vec::new(), VecDeque::new());
        for number in 1..=RETIRING_LINKS_MAX {
            let began = Instant::now();
            slots.push_back(retiring.slot(WAIT_MAX).await);
            assert_eq!(began.elapsed(), Duration::ZERO);
            links.push(FakeLink::new(number, &log));
            retiring.add(links[number - 1].clone());
        }
        (retiring, links, slots)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_given_as_soon_as_one_is_dropped() {
        let (mut retiring, links, mut slots) = full().await;
        slots.pop_front();
        let began = Instant::now();
        retiring.slot(WAIT_MAX).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(links.iter().all(|link| !link.is_closed()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_link_that_is_open_is_closed_after_the_wait() {
        let (mut retiring, links, _slots) = full().await;
        links[0].close(CloseCode::Goodbye, "");
        assert!(
            tokio::time::timeout(WAIT_MAX - WAIT_MAX / 5, retiring.slot(WAIT_MAX)).await.is_err()
        );
        assert!(!links[1].is_closed(), "the wait was not over");
        // The slot is still held by the task that drains the link.
        assert!(tokio::time::timeout(2 * WAIT_MAX, retiring.slot(WAIT_MAX)).await.is_err());
        assert!(links[1].is_closed() && !links[2].is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_draining_link_resolves_once() {
        let mut draining = DrainingLink(None);
        assert!(tokio::time::timeout(WAIT_MAX, draining.ended()).await.is_err());
        let link = FakeLink::new(1, &EventLog::default());
        draining.0 = Some(link.clone());
        assert!(draining.is_open());
        link.close(CloseCode::Drained, "");
        assert!(!draining.is_open(), "it has ended");
        draining.ended().await;
        assert!(tokio::time::timeout(WAIT_MAX, draining.ended()).await.is_err());
    }
}
