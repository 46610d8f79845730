//! What happens to a node or an agent, as a stream that a program may follow or leave alone.

use crate::{drain::Tasks, limits::EVENTS_WAITING_MAX};
use std::fmt;
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

/// Where events are told. Nobody listening is fine.
#[derive(Debug)]
pub(crate) struct EventSender<E>(broadcast::Sender<E>);

impl<E: Clone> Default for EventSender<E> {
    fn default() -> Self {
        Self(broadcast::Sender::new(EVENTS_WAITING_MAX))
    }
}

impl<E: Clone> EventSender<E> {
    /// Tells everybody who listens now.
    pub(crate) fn send(&self, event: E) {
        drop(self.0.send(event));
    }

    /// Everything from now on, until the owner has stopped.
    pub(crate) fn listen(&self, owner: &Tasks) -> Events<E> {
        Events { coming: self.0.subscribe(), owner: owner.clone(), lost: 0 }
    }
}

/// Events from the moment at which this was asked for, in their order. Made by
/// [`Node::events`](crate::Node::events) and [`Agent::events`](crate::Agent::events).
///
/// It holds 1,024 events. A program that takes none for long loses the oldest of them, and nobody
/// waits for it.
pub struct Events<E> {
    coming: broadcast::Receiver<E>,
    owner: Tasks,
    lost: u64,
}

impl<E: Clone> Events<E> {
    /// The next event. `None` once the node or agent has stopped and all that was told before was
    /// taken.
    pub async fn next(&mut self) -> Option<E> {
        loop {
            let next = tokio::select! {
                biased;
                next = self.coming.recv() => next,
                () = self.owner.stopped() => return self.rest(),
            };
            match next {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(lost)) => self.lost += lost,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// What was told before the stop and not yet taken.
    fn rest(&mut self) -> Option<E> {
        loop {
            match self.coming.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(lost)) => self.lost += lost,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// How many events were lost because they were not taken in time, as far as [`Events::next`]
    /// has come.
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}

impl<E> fmt::Debug for Events<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("lost", &self.lost).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_takes_nothing_for_long_loses_the_oldest_and_knows_how_many() {
        let (teller, owner) = (EventSender::default(), Tasks::default());
        let mut events = teller.listen(&owner);
        (0..EVENTS_WAITING_MAX).for_each(|n| teller.send(n));
        assert_eq!((events.next().await, events.lost()), (Some(0), 0), "all fit");
        (0..3).for_each(|n| teller.send(EVENTS_WAITING_MAX + n));
        assert_eq!((events.next().await, events.lost()), (Some(3), 2), "the oldest two went");
        owner.stop();
        for wanted in 4..EVENTS_WAITING_MAX + 3 {
            assert_eq!(events.next().await, Some(wanted), "what was told before the stop");
        }
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn nobody_hears_what_was_told_before_and_telling_to_nobody_is_fine() {
        let (teller, owner) = (EventSender::default(), Tasks::default());
        teller.send(1);
        let mut events = teller.listen(&owner);
        teller.send(2);
        owner.stop();
        assert_eq!((events.next().await, events.next().await), (Some(2), None));
    }
}
