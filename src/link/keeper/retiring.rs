//! Links that stay up for the calls that are on them, and that new calls do not use: those that
//! were replaced, and the one that its peer drains.

use super::hooks::KeptLink;
use crate::{limits::RETIRING_LINKS_MAX, wire::CloseCode};
use std::{collections::VecDeque, future::pending, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The links to one address that were replaced, [`RETIRING_LINKS_MAX`] at most: a node takes no more
/// of one agent.
#[derive(Debug)]
pub(super) struct RetiringLinks<L> {
    slots: Arc<Semaphore>,
    /// Oldest first.
    links: VecDeque<L>,
}

/// Held while a retired link is drained.
#[derive(Debug)]
pub(super) struct RetiringSlot(
    #[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>,
);

impl<L> Default for RetiringLinks<L> {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(RETIRING_LINKS_MAX)), links: VecDeque::new() }
    }
}

impl<L: KeptLink> RetiringLinks<L> {
    /// A slot for one more, as soon as one of them has ended; after `wait_max` the oldest is closed
    /// for it. May be dropped and called again.
    pub(super) async fn slot(&mut self, wait_max: Duration) -> RetiringSlot {
        self.links.retain(|link| !link.is_closed());
        let in_time = tokio::time::timeout(wait_max, self.slots.clone().acquire_owned()).await;
        if let Ok(slot) = in_time {
            return RetiringSlot(slot.ok());
        }
        if let Some(oldest) = self.links.pop_front() {
            tracing::warn!(
                "closed a former link to {}: it was replaced {RETIRING_LINKS_MAX} times more while calls were on it",
                oldest.peer()
            );
            oldest.close(CloseCode::Drained, "it was replaced too often");
        }
        RetiringSlot(self.slots.clone().acquire_owned().await.ok())
    }

    /// Adds a link, which holds a slot.
    pub(super) fn add(&mut self, link: L) {
        self.links.push_back(link);
    }
}

/// The link that its peer drains, while it is open: when it ends, a successor may listen where the
/// peer did.
#[derive(Debug)]
pub(super) struct DrainingLink<L>(Option<L>);

impl<L> Default for DrainingLink<L> {
    fn default() -> Self {
        Self(None)
    }
}

impl<L: KeptLink> DrainingLink<L> {
    /// Sets it.
    pub(super) fn set(&mut self, link: L) {
        self.0 = Some(link);
    }

    /// Whether there is one.
    pub(super) fn is_open(&self) -> bool {
        self.0.as_ref().is_some_and(|link| !link.is_closed())
    }

    /// Resolves once when it has ended; never if there is none.
    pub(super) async fn ended(&mut self) {
        match &self.0 {
            Some(link) => link.closed().await,
            None => pending().await,
        }
        self.0 = None;
    }
}
