//! Events of a node or an agent, as a stream for programs.

use crate::drain::Tasks;
use std::fmt;
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

/// Events since the subscription, in order. Created by [`Node::events`](crate::Node::events) and
/// [`Agent::events`](crate::Agent::events).
///
/// Up to 1,024 events are queued. A program that falls behind loses the oldest of them.
pub struct Events<E> {
    coming: broadcast::Receiver<E>,
    owner: Tasks,
    lost: u64,
}

impl<E: Clone> Events<E> {
    /// Receives the later events of this sender until the owner has stopped.
    pub(super) fn new(sender: &broadcast::Sender<E>, owner: &Tasks) -> Self {
        Self { coming: sender.subscribe(), owner: owner.clone(), lost: 0 }
    }

    /// Waits for the next event. `None` once the node or agent has stopped and all earlier events
    /// were received. Cancel safe.
    pub async fn next(&mut self) -> Option<E> {
        loop {
            let next = tokio::select! {
                biased;
                next = self.coming.recv() => next,
                // One may have been sent between the two polls.
                () = self.owner.stopped() => match self.coming.try_recv() {
                    Err(TryRecvError::Lagged(lost)) => Err(RecvError::Lagged(lost)),
                    sent => Ok(sent.ok()?),
                },
            };
            match next {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(lost)) => self.lost += lost,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Number of events lost because they were not received in time, as of [`Events::next`].
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
    use crate::limits::EVENTS_WAITING_MAX;

    fn events<E: Clone>() -> (broadcast::Sender<E>, Tasks, Events<E>) {
        let (sender, owner) = (broadcast::Sender::new(EVENTS_WAITING_MAX), Tasks::default());
        let events = Events::new(&sender, &owner);
        (sender, owner, events)
    }

    #[tokio::test]
    async fn a_slow_receiver_loses_the_oldest_events_and_sees_the_count() {
        let (sender, owner, mut events) = events();
        (0..EVENTS_WAITING_MAX).for_each(|n| drop(sender.send(n)));
        assert_eq!((events.next().await, events.lost()), (Some(0), 0), "all fit");
        (0..3).for_each(|n| drop(sender.send(EVENTS_WAITING_MAX + n)));
        assert_eq!((events.next().await, events.lost()), (Some(3), 2), "the oldest two went");
        owner.stop();
        for wanted in 4..EVENTS_WAITING_MAX + 3 {
            assert_eq!(events.next().await, Some(wanted), "what was told before the stop");
        }
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn a_receiver_gets_no_earlier_events_and_sending_to_none_is_fine() {
        let (sender, owner, earlier) = events();
        drop(earlier);
        sender.send(1).expect_err("no receiver");
        let mut events = Events::new(&sender, &owner);
        drop(sender.send(2));
        owner.stop();
        assert_eq!((events.next().await, events.next().await), (Some(2), None));
    }
}
