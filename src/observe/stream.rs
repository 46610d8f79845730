//! Events of a node or an agent, as a stream for programs.

use crate::{drain::Tasks, limits::EVENTS_WAITING_MAX};
use std::fmt;
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

/// Sender of events. Works without receivers.
#[derive(Debug)]
pub(crate) struct EventSender<E>(broadcast::Sender<E>);

impl<E: Clone> Default for EventSender<E> {
    fn default() -> Self {
        Self(broadcast::Sender::new(EVENTS_WAITING_MAX))
    }
}

impl<E: Clone> EventSender<E> {
    /// Sends an event to all current receivers.
    pub(crate) fn send(&self, event: E) {
        drop(self.0.send(event));
    }

    /// Subscribes to later events until the owner has stopped.
    pub(crate) fn listen(&self, owner: &Tasks) -> Events<E> {
        Events { coming: self.0.subscribe(), owner: owner.clone(), lost: 0 }
    }
}

/// Events since the subscription, in order. Created by [`Node::events`](crate::Node::events) and
/// [`Agent::events`](crate::Agent::events).
///
/// Up to 1,024 events are queued. A program that falls behind loses the oldest of them; nothing
/// waits for it.
pub struct Events<E> {
    coming: broadcast::Receiver<E>,
    owner: Tasks,
    lost: u64,
}

impl<E: Clone> Events<E> {
    /// Waits for the next event. `None` once the node or agent has stopped and all earlier events
    /// were received. Cancel safe.
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

    /// Events that were sent before the stop and not received yet.
    fn rest(&mut self) -> Option<E> {
        loop {
            match self.coming.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(lost)) => self.lost += lost,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// Number of events lost because they were not received in time, as of the last
    /// [`Events::next`].
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
    async fn a_slow_receiver_loses_the_oldest_events_and_sees_the_count() {
        let (sender, owner) = (EventSender::default(), Tasks::default());
        let mut events = sender.listen(&owner);
        (0..EVENTS_WAITING_MAX).for_each(|n| sender.send(n));
        assert_eq!((events.next().await, events.lost()), (Some(0), 0), "all fit");
        (0..3).for_each(|n| sender.send(EVENTS_WAITING_MAX + n));
        assert_eq!((events.next().await, events.lost()), (Some(3), 2), "the oldest two went");
        owner.stop();
        for wanted in 4..EVENTS_WAITING_MAX + 3 {
            assert_eq!(events.next().await, Some(wanted), "what was told before the stop");
        }
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn a_receiver_gets_no_earlier_events_and_sending_to_none_is_fine() {
        let (sender, owner) = (EventSender::default(), Tasks::default());
        sender.send(1);
        let mut events = sender.listen(&owner);
        sender.send(2);
        owner.stop();
        assert_eq!((events.next().await, events.next().await), (Some(2), None));
    }
}
