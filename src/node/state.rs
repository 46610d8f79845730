//! State that the parts of a node share, and a link of an agent as calls use it.

use super::{
    candidates::Candidates,
    quotas::Quotas,
    registry::{AgentSummary, Registry, Times},
    waiters::Waiters,
};
use crate::{
    audit::Audit,
    call::{Permits, RetryBudget},
    drain::{Signal, Tasks},
    limits::{self, Limits},
    link::{CloseSequence, Link, LinkFault, LinkMove},
    memory::MessageMemory,
    name::{CallIds, Name, PeerName},
    net::SharedNet,
    observe::{Event, NodeEvent, Observer},
    policy::NodePolicy,
    readiness::Readiness,
    serve::Services,
    shared_value::SharedValue,
    tls::Credentials,
    trace::Tracer,
    wire::{CloseCode, ServiceInfo},
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::broadcast;

pub(super) const STOPS: &str = "the node stops";

/// One registered link of an agent, as calls use it.
#[derive(Clone)]
pub(crate) struct AgentLink {
    pub(super) link: Link,
    pub(super) permits: Permits,
    pub(super) services: Vec<ServiceInfo>,
    pub(super) software: String,
    pub(super) limits: Arc<Limits>,
}

pub(super) type SharedAgentLink = Arc<AgentLink>;

/// State that the parts of a node share: the handles of its program, and its tasks.
pub(crate) struct NodeState {
    pub(super) net: SharedNet,
    pub(super) name: Name,
    pub(super) peer: PeerName,
    pub(super) limits: SharedValue<Limits>,
    pub(super) policy: SharedValue<NodePolicy>,
    /// Memory for messages, per caller.
    pub(super) memory: MessageMemory,
    /// Usage of callers under rules that count calls. Not in the policy, to survive its reload.
    pub(super) quotas: Quotas,
    pub(super) observer: Observer<NodeEvent>,
    pub(super) services: Services,
    pub(super) directory: OnceLock<Services>,
    pub(super) registry: Mutex<Registry<SharedAgentLink>>,
    /// Cached hosts that callers may call, where those are few.
    pub(super) candidates: Candidates,
    /// Calls that wait for an agent or a service.
    pub(super) waiters: Waiters,
    /// Arrivals with their numbers.
    pub(super) arrivals: broadcast::Sender<(u64, Name)>,
    /// Notified when every link must send DRAIN: no more calls are taken.
    pub(super) drain: Signal,
    /// Notified when every link must send GOODBYE: no call is left, and the peer closes the link.
    pub(super) goodbye: Signal,
    /// Notified when the drain time is over: links are closed, and their calls are aborted.
    pub(super) abort: Signal,
    pub(super) call_ids: Arc<CallIds>,
    pub(super) retries: Arc<RetryBudget>,
    /// One task per link, until the link ends.
    pub(super) links: Tasks,
    /// One task per call that arrived over a link.
    pub(super) calls: Tasks,
}

impl NodeState {
    /// State of a node without links.
    pub(super) fn new(peer: PeerName, net: SharedNet, parts: NodeParts) -> Self {
        let NodeParts { policy, limits, services, audit, tracer } = parts;
        Self {
            call_ids: Arc::new(CallIds::new(net.random_bytes())),
            net,
            name: peer.name.clone(),
            memory: MessageMemory::new(&limits),
            limits: SharedValue::new(limits),
            policy: SharedValue::new(policy),
            quotas: Quotas::default(),
            observer: Observer::new(&audit, peer.clone()).traced_by(tracer),
            peer,
            services,
            directory: OnceLock::new(),
            registry: Mutex::default(),
            candidates: Candidates::default(),
            waiters: Waiters::default(),
            arrivals: broadcast::Sender::new(limits::ARRIVALS_WAITING_MAX),
            drain: Signal::default(),
            goodbye: Signal::default(),
            abort: Signal::default(),
            retries: Arc::default(),
            links: Tasks::default(),
            calls: Tasks::default(),
        }
    }

    /// Locks the registry, which is consistent after every call, so that it survives a panic.
    pub(super) fn registry(&self) -> MutexGuard<'_, Registry<SharedAgentLink>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies data of every agent that is attached or remembered, by name, in batches, so that
    /// calls do not wait. Agents that come or go meanwhile may be missing.
    pub(super) fn copied<T>(
        &self,
        copy: impl Fn(AgentSummary<'_, SharedAgentLink>) -> Option<T>,
    ) -> Vec<T> {
        let (mut copied, mut after) = (Vec::new(), None);
        loop {
            let registry = self.registry();
            let (mut count, mut last) = (0, None);
            let lines = registry.summaries_after(after.as_ref(), Times::read());
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

    pub(super) fn link_up(&self, link: &Link) {
        let (peer, address, path) = (link.identity(), link.remote_address(), link.path());
        self.observer.report(Event::LinkUp { peer, address, path });
    }

    /// Reports that the peer of a link has another address or path.
    pub(super) fn link_moved(&self, link: &Link, moved: LinkMove) {
        self.observer.report(Event::LinkMoved { peer: link.identity(), moved });
    }

    /// Ends a link and reports the reason. Closes it towards the peer if this side found the fault.
    pub(super) fn link_down(&self, link: &Link, fault: LinkFault) -> LinkFault {
        let reason = link.end(fault);
        let (peer, address, lasted) = (link.identity(), link.remote_address(), link.age());
        self.observer.report(Event::LinkDown { peer, address, lasted, reason: &reason });
        reason
    }

    /// True once it has begun to stop.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_notified() || self.calls.is_draining()
    }

    pub(super) fn readiness(&self, credentials: &Credentials) -> Readiness {
        let [mut reasons, _soon] = credentials.expiry_lines(self.net.now());
        if self.is_draining() {
            reasons.push(STOPS.to_owned());
        }
        Readiness::new(reasons, BTreeMap::new())
    }

    pub(super) fn close_sequence(&self, link: &Link) -> CloseSequence {
        let signals = [self.drain.listen(), self.goodbye.listen(), self.abort.listen()];
        CloseSequence::new(link.clone(), signals, CloseCode::Drained, STOPS)
            .within(self.limits.get().drain_max)
    }
}

/// Configuration of a node that is started.
pub(super) struct NodeParts {
    pub(super) policy: NodePolicy,
    pub(super) limits: Limits,
    pub(super) services: Services,
    pub(super) audit: Audit,
    pub(super) tracer: Tracer,
}
