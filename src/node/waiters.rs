//! Waiters for an agent or a service, woken only by changes that concern them.

use crate::{name::Name, wire::ServiceInfo};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Awaited {
    /// A link of this agent is registered, drains or ends.
    Agent(Name),
    /// An agent registers this service.
    Service(Box<str>),
}

type Waited = HashMap<Awaited, watch::Sender<()>>;

/// All waiters. At most as many entries as waiting calls.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<Waited>);

impl Waiters {
    /// Starts to wait for changes from now on.
    pub(super) fn wait_for(&self, awaited: Awaited) -> Waiter<'_> {
        let changes = Some(self.all().entry(awaited.clone()).or_default().subscribe());
        Waiter { waiters: self, awaited, changes }
    }

    /// Wakes the waiters of an agent and of the services that it now hosts.
    pub(super) fn wake(&self, agent: &Name, services: &[ServiceInfo]) {
        let all = self.all();
        if all.is_empty() {
            return;
        }
        let services = services.iter().map(|it| Awaited::Service(it.name.as_str().into()));
        for awaited in services.chain([Awaited::Agent(agent.clone())]) {
            if let Some(changes) = all.get(&awaited) {
                changes.send_replace(());
            }
        }
    }

    /// Wakes all waiters: the policy has changed, or the node is stopping.
    pub(super) fn wake_all(&self) {
        self.all().values().for_each(|changes| changes.send_replace(()));
    }

    fn all(&self) -> MutexGuard<'_, Waited> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    awaited: Awaited,
    /// Taken on drop.
    changes: Option<watch::Receiver<()>>,
}

impl Waiter<'_> {
    /// Waits for the next change since the start or the last change.
    pub(super) async fn changed(&mut self) {
        if let Some(changes) = &mut self.changes {
            // The sender lives as long as there is a waiter.
            drop(changes.changed().await);
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut all = self.waiters.all();
        self.changes = None;
        if all.get(&self.awaited).is_some_and(|changes| changes.receiver_count() == 0) {
            all.remove(&self.awaited);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lazy_timeout::poll_once;
    use std::pin::pin;

    async fn is_woken(waiter: &mut Waiter<'_>) -> bool {
        poll_once(pin!(waiter.changed())).await.is_ready()
    }

    #[tokio::test]
    async fn a_change_wakes_only_waiters_of_that_agent_or_its_services() {
        let waiters = Waiters::default();
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let service = |text: &str| Awaited::Service(text.into());
        let mut all = [
            waiters.wait_for(Awaited::Agent(name("a"))),
            waiters.wait_for(Awaited::Agent(name("b"))),
            waiters.wait_for(service("S")),
            waiters.wait_for(service("T")),
        ];
        let woken = async |all: &mut [Waiter<'_>; 4]| {
            let mut woken = [false; 4];
            for (waiter, woken) in all.iter_mut().zip(&mut woken) {
                *woken = is_woken(waiter).await;
            }
            woken
        };
        waiters.wake(&name("a"), &[ServiceInfo::new("S", vec![])]);
        assert_eq!(woken(&mut all).await, [true, false, true, false]);
        assert_eq!(woken(&mut all).await, [false; 4], "once for each change");
        waiters.wake(&name("b"), &[]);
        waiters.wake(&name("c"), &[ServiceInfo::new("U", vec![])]);
        assert_eq!(woken(&mut all).await, [false, true, false, false]);
        waiters.wake_all();
        assert_eq!(woken(&mut all).await, [true; 4]);
        drop(all);
        assert!(waiters.all().is_empty(), "nothing is left of those who have gone");
    }

    #[tokio::test]
    async fn a_dropped_waiter_does_not_affect_another_of_the_same_agent() {
        let (waiters, name) = (Waiters::default(), "a".parse::<Name>().expect("a name"));
        let [first, mut second] = [(); 2].map(|()| waiters.wait_for(Awaited::Agent(name.clone())));
        drop(first);
        waiters.wake(&name, &[]);
        assert!(is_woken(&mut second).await);
    }
}
