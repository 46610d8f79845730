//! Another link beside the present one: with other credentials of ours, or because the node's
//! certificate is about to end. And the links whose place another one has taken, which go on for
//! the calls that are on them.

use super::{Link, LinkFault, redial::Redial};
use crate::{limits::RETIRING_LINKS_MAX, name::NodeAddress, net::SharedNet, wire::CloseCode};
use std::{collections::VecDeque, future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// A link in use.
pub(crate) trait Present: Send {
    /// Why it is not to be stayed with any longer.
    type Parting;

    /// The network that it is on.
    fn net(&self) -> &SharedNet;

    /// Keeps the link up until then. May be dropped and called again.
    fn parting(&mut self) -> impl Future<Output = Self::Parting> + Send;
}

/// Dials until there is another link, while the present one goes on; ends with that one if it is to
/// be left anyhow. A word in `anew` says that a dial may end otherwise than the last one did. A
/// dial is dropped when the present link ends; `register`, which follows it and after whose start
/// the peer may use the new link, is not.
pub(crate) async fn beside<P: Present, L, N, D, R>(
    present: &mut P,
    address: &NodeAddress,
    mut anew: watch::Receiver<u64>,
    dial: impl Fn() -> D,
    register: impl Fn(L) -> R,
) -> Result<N, P::Parting>
where
    D: Future<Output = Result<L, LinkFault>>,
    R: Future<Output = Result<N, LinkFault>>,
{
    let mut redial = Redial::default();
    loop {
        let dialled = tokio::select! {
            biased;
            parting = present.parting() => return Err(parting),
            dialled = dial() => dialled,
        };
        let registered = match dialled {
            Ok(link) => registered(present, register(link)).await,
            Err(fault) => (Err(fault), None),
        };
        let fault = match registered {
            (Ok(next), _) => return Ok(next),
            (Err(_), Some(parting)) => return Err(parting),
            (Err(fault), None) => fault,
        };
        let wait = redial.failed_now(&fault, present.net().chance());
        if wait.is_worth_saying {
            tracing::warn!(
                "no newer link to node {address} yet, the present one goes on: {fault}; trying again, the next time in {:.1} s",
                wait.duration.as_secs_f64()
            );
        }
        tokio::select! {
            biased;
            parting = present.parting() => return Err(parting),
            () = tokio::time::sleep(wait.duration) => {}
            // With other credentials it may be another story.
            changed = anew.changed() => if changed.is_ok() { redial.succeeded() },
        }
    }
}

/// Registers a new link to the end, and says whether the present one is to be left meanwhile.
async fn registered<P: Present, N>(
    present: &mut P,
    registering: impl Future<Output = Result<N, LinkFault>>,
) -> (Result<N, LinkFault>, Option<P::Parting>) {
    let (mut registering, mut parted) = (pin!(registering), None);
    loop {
        tokio::select! {
            biased;
            parting = present.parting(), if parted.is_none() => parted = Some(parting),
            registered = &mut registering => return (registered, parted),
        }
    }
}

/// The links whose place another one has taken, as long as calls are on them: so many and no more,
/// because a node takes no more of one agent.
#[derive(Debug)]
pub(crate) struct Former {
    places: Arc<Semaphore>,
    /// Oldest first.
    links: VecDeque<Link>,
}

/// Held by whoever minds a former link, as long as he does.
#[derive(Debug)]
pub(crate) struct FormerPlace(
    #[expect(dead_code, reason = "held for its end")] Option<OwnedSemaphorePermit>,
);

impl Default for Former {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(RETIRING_LINKS_MAX)), links: VecDeque::new() }
    }
}

impl Former {
    /// A place for one more, as soon as one of them has ended; after `wait_max` the oldest is
    /// closed for it. May be dropped and called again.
    pub(crate) async fn place(&mut self, wait_max: Duration) -> FormerPlace {
        self.links.retain(|link| !link.is_closed());
        let in_time = tokio::time::timeout(wait_max, self.places.clone().acquire_owned()).await;
        if let Ok(place) = in_time {
            return FormerPlace(place.ok());
        }
        if let Some(oldest) = self.links.pop_front() {
            tracing::warn!(
                "closed a former link to {}: it was replaced {RETIRING_LINKS_MAX} times more while calls were on it",
                oldest.peer()
            );
            oldest.close(CloseCode::Drained, "it was replaced too often");
        }
        FormerPlace(self.places.clone().acquire_owned().await.ok())
    }

    /// This link holds a place from now on.
    pub(crate) fn add(&mut self, link: &Link) {
        self.links.push_back(link.clone());
    }
}
