//! The interfaces between a keeper and its role: hooks, the link in use, and signals.

use crate::{
    drain::{Signal, SignalListener, Tasks},
    link::{connection::Link, fault::LinkFault},
    name::{NodeAddress, PeerName},
    wire::CloseCode,
};
use std::{
    fmt,
    future::Future,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

/// The role whose link is kept up: its actions when the link is dialled, in use, and lost.
pub(crate) trait KeeperHooks: Send + Sync + 'static {
    /// A link that the peer has welcomed.
    type Dialled: Send;
    type Active: ActiveLink;

    fn address(&self) -> &NodeAddress;

    /// The requests of the role's owner.
    fn signals(&self) -> &KeeperSignals;

    /// Listens for the end of dialling: the role stops, or its address is not wanted any more.
    fn stop(&self) -> SignalListener {
        self.signals().stop.listen()
    }

    fn is_stopped(&self) -> bool {
        self.signals().stop.is_notified()
    }

    /// The tasks of the role. They finish the links that are not used any more.
    fn tasks(&self) -> &Tasks;

    /// A random number from 0 to 1.
    fn chance(&self) -> f64;

    /// Returns how long a replacement waits for a retiring link before it closes the oldest.
    fn drain_max(&self) -> Duration;

    /// Dials once; the peer's chain must be valid beyond `newer_than`, if given. May be dropped.
    fn dial(
        &self,
        newer_than: Option<SystemTime>,
    ) -> impl Future<Output = Result<Self::Dialled, LinkFault>> + Send;

    /// Makes the link usable, for example by a registration. Is not dropped before its end unless
    /// the role ends: the peer may use the link from its start on.
    fn establish(
        &self,
        dialled: Self::Dialled,
    ) -> impl Future<Output = Result<Self::Active, LinkFault>> + Send;

    /// New calls use this link from now on.
    fn publish(&self, active: &mut Self::Active);

    /// New calls have no link, for this reason.
    fn down(&self, _fault: &LinkFault) {}

    /// The peer refused a dial or what followed it.
    fn refused(&self, _fault: &LinkFault) {}

    /// Logs the reason why no link is up, and the time of the next dial.
    fn log_retry(&self, retry: &Retry<'_>);
}

/// A dial that failed or a link that was lost, and the time until the next dial.
pub(crate) struct Retry<'a> {
    pub(crate) address: &'a NodeAddress,
    pub(crate) fault: &'a LinkFault,
    pub(crate) wait: Duration,
}

impl Retry<'_> {
    /// The wait in seconds, as precise as the line.
    pub(crate) fn seconds(&self) -> f64 {
        (self.wait.as_secs_f64() * 10.0).round() / 10.0
    }
}

impl fmt::Display for Retry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, fault, .. } = self;
        let what = if fault.is_refusal() { "refused" } else { "not linked" };
        write!(f, "{what}: node {address}: {fault}; retrying in {:.1} s", self.seconds())
    }
}

/// A link in use, with what its role holds for it. Dropping it closes the link.
pub(crate) trait ActiveLink: Send + 'static {
    type Link: KeptLink;

    fn link(&self) -> &Self::Link;

    /// Keeps the link up until it ends or its peer drains it. May be dropped and called again.
    fn maintain(&mut self) -> impl Future<Output = EndReason> + Send;

    /// Keeps the link up to its end, for the calls that are on it.
    fn maintain_to_end(&mut self) -> impl Future<Output = LinkFault> + Send {
        async {
            loop {
                if let EndReason::Ended(fault) = self.maintain().await {
                    return fault;
                }
            }
        }
    }

    /// Finishes the calls on a link that was replaced, however long they take, and closes it.
    fn drain_and_close(self) -> impl Future<Output = ()> + Send;

    /// A link that its peer had drained has ended, for this reason.
    fn log_drained(&self, _fault: &LinkFault) {}
}

#[derive(Debug)]
pub(crate) enum EndReason {
    Ended(LinkFault),
    /// The peer drains it. The link stays up for the calls that are on it.
    Draining(LinkFault),
    /// Its address is not wanted any more. The link stays up for the calls that are on it.
    Unwanted,
}

/// A link, as far as a keeper knows it, with the methods of [`Link`].
pub(crate) trait KeptLink: Clone + Send + Sync + 'static {
    fn peer(&self) -> &PeerName;

    fn is_closed(&self) -> bool;

    fn closed(&self) -> impl Future<Output = ()> + Send;

    fn close(&self, code: CloseCode, text: &str);

    fn replace(&self);

    /// The end of the peer's chain.
    fn valid_until(&self) -> SystemTime;

    /// Resolves some time before the peer's chain ends.
    fn near_expiry(&self) -> impl Future<Output = ()> + Send;
}

impl KeptLink for Link {
    fn peer(&self) -> &PeerName {
        self.peer()
    }

    fn is_closed(&self) -> bool {
        self.is_closed()
    }

    async fn closed(&self) {
        self.closed().await;
    }

    fn close(&self, code: CloseCode, text: &str) {
        self.close(code, text);
    }

    fn replace(&self) {
        self.replace();
    }

    fn valid_until(&self) -> SystemTime {
        self.ends().at()
    }

    async fn near_expiry(&self) {
        self.near_expiry().await;
    }
}

/// The requests of the owner of a role to its keepers.
#[derive(Debug, Default)]
pub(crate) struct KeeperSignals {
    /// Nothing is dialled any more. An agent also requests no more calls from every node.
    pub(crate) stop: Signal,
    pub(super) reconnect: watch::Sender<()>,
    pub(super) replace: watch::Sender<()>,
}

impl KeeperSignals {
    /// Has a keeper without a link dial at once: the next dial may end otherwise than the last one.
    pub(crate) fn request_reconnect(&self) {
        self.reconnect.send_replace(());
    }

    /// Has every link made once more, while the active one stays in use.
    pub(crate) fn request_replacement(&self) {
        self.replace.send_replace(());
    }
}
