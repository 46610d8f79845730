//! State that the parts of a node share, and a link of an agent as calls use it.

use super::{
    candidates::Candidates,
    quotas::Quotas,
    registry::{Line, Now, Registry},
    waiters::Waiters,
};
use crate::{
    audit::Audit,
    call::{Permits, RetryBudget},
    drain::{Signal, Tasks},
    limits::{self, Limits},
    link::{CloseSequence, Link, LinkFault},
    memory::MessageMemory,
    name::{CallIds, Name, PeerName},
    net::SharedNet,
    observe::{Event, NodeEvent, Observer},
    policy::NodePolicy,
    serve::Services,
    shared_value::SharedValue,
    wire::{CloseCode, ServiceInfo},
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::broadcast;

/// Why a node leaves.
pub(super) const STOPS: &str = "the node stops";

/// One registered link of an agent, as calls need it.
#[derive(Clone)]
pub(crate) struct AgentLink {
    pub(super) link: Link,
    pub(super) permits: Permits,
    pub(super) services: Vec<ServiceInfo>,
    pub(super) software: String,
    /// Those of when it was made.
    pub(super) limits: Arc<Limits>,
}

pub(super) type SharedAgentLink = Arc<AgentLink>;

/// State that the parts of a node share. A program holds it through [`Node`](super::Node) and
/// [`AgentHandle`](super::AgentHandle), tasks hold their own clones.
pub(crate) struct NodeState {
    pub(super) net: SharedNet,
    pub(super) name: Name,
    pub(super) peer: PeerName,
    pub(super) limits: SharedValue<Limits>,
    pub(super) policy: SharedValue<NodePolicy>,
    /// What callers have held for them.
    pub(super) memory: MessageMemory,
    /// What callers have used up of rules that count calls. Beside the policy: it goes on when the
    /// policy is read anew.
    pub(super) quotas: Quotas,
    pub(super) observer: Observer<NodeEvent>,
    pub(super) services: Services,
    pub(super) directory: OnceLock<Services>,
    pub(super) registry: Mutex<Registry<SharedAgentLink>>,
    /// Which hosts callers may call, where those are few.
    pub(super) candidates: Candidates,
    /// Those who wait for an agent.
    pub(super) waiters: Waiters,
    /// Each with its number.
    pub(super) arrivals: broadcast::Sender<(u64, Name)>,
    /// On this word every link says that it takes no more calls.
    pub(super) drain: Signal,
    /// On this one that nothing is left to do: the other side is to close it.
    pub(super) goodbye: Signal,
    /// And on this one that the time is over: it is closed, and its calls break off.
    pub(super) cut: Signal,
    pub(super) call_ids: Arc<CallIds>,
    /// How many more calls may be tried again.
    pub(super) retries: Arc<RetryBudget>,
    /// One task a link, until the link ends.
    pub(super) links: Tasks,
    /// One task a call that came over a link.
    pub(super) calls: Tasks,
}

impl NodeState {
    /// A node with no link yet.
    pub(super) fn new(peer: PeerName, net: SharedNet, parts: NodeParts) -> Self {
        let NodeParts { policy, limits, services, audit } = parts;
        Self {
            call_ids: Arc::new(CallIds::new(net.random_bytes())),
            net,
            name: peer.name.clone(),
            memory: MessageMemory::new(&limits),
            limits: SharedValue::new(limits),
            policy: SharedValue::new(policy),
            quotas: Quotas::default(),
            observer: Observer::new(&audit, peer.clone()),
            peer,
            services,
            directory: OnceLock::new(),
            registry: Mutex::default(),
            candidates: Candidates::default(),
            waiters: Waiters::default(),
            arrivals: broadcast::Sender::new(limits::ARRIVALS_WAITING_MAX),
            drain: Signal::default(),
            goodbye: Signal::default(),
            cut: Signal::default(),
            retries: Arc::default(),
            links: Tasks::default(),
            calls: Tasks::default(),
        }
    }

    /// The registry, for a moment. Its map is whole after every call, so a panic elsewhere does not
    /// spoil it.
    pub(super) fn registry(&self) -> MutexGuard<'_, Registry<SharedAgentLink>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies something of every agent that is attached or was, by name. Some at a time, so that no
    /// call waits for the whole of it; who comes or goes meanwhile may be in it or not.
    pub(super) fn copied<T>(
        &self,
        copy: impl Fn(Line<'_, SharedAgentLink>) -> Option<T>,
    ) -> Vec<T> {
        let (mut copied, mut after) = (Vec::new(), None);
        loop {
            let registry = self.registry();
            let (mut count, mut last) = (0, None);
            let lines = registry.lines_after(after.as_ref(), Now::read());
            for line in lines.take(limits::AGENTS_COPIED_AT_ONCE) {
                count += 1;
                last = Some(line.name);
                copied.extend(copy(line));
            }
            if count < limits::AGENTS_COPIED_AT_ONCE {
                return copied;
            }
            after = last.cloned();
        }
    }

    /// Reports a new link.
    pub(super) fn link_up(&self, link: &Link) {
        let (peer, address) = (link.identity(), link.remote_address());
        self.observer.report(Event::LinkUp { peer, address });
    }

    /// Ends a link, also towards the peer if this side found the fault, and reports why.
    pub(super) fn link_down(&self, link: &Link, fault: LinkFault) -> LinkFault {
        let reason = link.end(fault);
        let (peer, address, lasted) = (link.identity(), link.remote_address(), link.age());
        self.observer.report(Event::LinkDown { peer, address, lasted, reason: &reason });
        reason
    }

    /// Close sequence of one of this node's links.
    pub(super) fn close_sequence(&self, link: &Link) -> CloseSequence {
        let words = [self.drain.listen(), self.goodbye.listen(), self.cut.listen()];
        CloseSequence::new(link.clone(), words, CloseCode::Drained, STOPS)
            .within(self.limits.get().drain_max)
    }
}

/// What a program says of a node that it starts.
pub(super) struct NodeParts {
    pub(super) policy: NodePolicy,
    pub(super) limits: Limits,
    pub(super) services: Services,
    pub(super) audit: Audit,
}
