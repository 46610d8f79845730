//! The state that the parts of an agent share, and the links on which it is registered.

use super::{hosted_services::HostedServices, probes::LastProbe};
use crate::{
    call::Permits,
    drain::{Signal, Tasks},
    limits::Limits,
    link::{Dialler, KeeperSignals, Link},
    memory::MessageMemory,
    name::{CallIds, Name, NodeAddress, PeerName},
    net::SharedNet,
    observe::{AgentEvent, Observer},
    policy::AgentPolicy,
    shared_value::SharedValue,
    wire::CloseCode,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

pub(super) const STOPS: &str = "the agent stops";

/// A link on which this agent is registered.
#[derive(Clone)]
pub(super) struct AttachedLink {
    pub(super) node: Name,
    /// The address that was dialled.
    pub(super) address: NodeAddress,
    pub(super) link: Link,
    /// The version of what it hosts that the node has confirmed.
    pub(super) hosted: u64,
    /// New calls do not use it: the node is draining, or the link was replaced.
    pub(super) is_retiring: bool,
    /// Of the calls that come on it.
    pub(super) permits: Permits,
    pub(super) probe: Arc<LastProbe>,
}

/// The state that the parts of an agent share.
pub(super) struct AgentState {
    pub(super) net: SharedNet,
    pub(super) peer: PeerName,
    pub(super) dialler: Dialler,
    /// What it hosts. Each link registers what is new.
    pub(super) hosted: watch::Sender<Arc<HostedServices>>,
    /// The nodes that it dials, each with the signal that its link is not wanted any more.
    pub(super) nodes: Mutex<BTreeMap<NodeAddress, Arc<Signal>>>,
    pub(super) policy: Arc<SharedValue<AgentPolicy>>,
    pub(super) observer: Observer<AgentEvent>,
    /// Message memory, by caller.
    pub(super) memory: MessageMemory,
    pub(super) limits: SharedValue<Limits>,
    pub(super) call_ids: Arc<CallIds>,
    /// The links on which it is registered, oldest first.
    pub(super) attached: watch::Sender<Vec<AttachedLink>>,
    /// Its `stop` also requests no more calls from every node.
    pub(super) keeper: KeeperSignals,
    /// Every link sends DRAIN: it takes no more calls.
    pub(super) drain: Arc<Signal>,
    /// Every link sends GOODBYE: nothing is left to do, and the node closes it.
    pub(super) goodbye: Signal,
    /// Every link is closed at once, and its calls break off.
    pub(super) abort: Signal,
    /// A keeper for each node address, and a task for each link.
    pub(super) links: Tasks,
    /// One task per call.
    pub(super) calls: Tasks,
}

impl AgentState {
    /// True once it has begun to stop.
    pub(super) fn is_draining(&self) -> bool {
        self.keeper.stop.is_notified() || self.calls.is_draining()
    }

    /// Closes the links that there still are, and ends all tasks.
    pub(super) fn close(&self, code: CloseCode) {
        self.attached.borrow().iter().for_each(|attached| attached.link.close(code, STOPS));
        self.links.stop();
        self.calls.stop();
    }
}

/// The links that were not replaced.
pub(super) fn in_use(attached: &[AttachedLink]) -> impl Iterator<Item = &AttachedLink> {
    attached.iter().filter(|attached| !attached.link.is_replaced())
}

/// The newest link for calls. A draining node would only refuse them.
pub(super) fn newest(attached: &[AttachedLink]) -> Option<Link> {
    attached.iter().rfind(|attached| !attached.is_retiring).map(|attached| attached.link.clone())
}
