//! The registration of an agent at one node address: REGISTER, the calls that come, the node's
//! DRAIN, and the end of the link. A keeper dials and reconnects.

use super::{
    acceptor::AgentAcceptor,
    hosted_services::HostedServices,
    state::{AgentState, AttachedLink, STOPS},
};
use crate::{
    call::Permits,
    drain::{Signal, SignalListener, Tasks},
    limits::{CLOSE_WAIT_MAX, GOODBYE_WAIT_MAX, HELLO_WAIT_MAX},
    link::{
        ActiveLink, CloseSequence, ControlStream, EndReason, KeeperHooks, KeeperSignals, Link,
        LinkFault, Retry, keep,
    },
    name::{Name, NodeAddress},
    observe::Event,
    serve::take_calls,
    wire::{CloseCode, Control, Register, ServiceInfo, Welcome},
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

const LEAVES: &str = "the agent leaves this node";

struct NodeRegistration {
    state: Arc<AgentState>,
    address: NodeAddress,
    /// The address is not one of the agent's nodes any more.
    unwanted: Arc<Signal>,
}

impl AgentState {
    /// Dials these nodes from now on, and no others. Returns true if that is a change.
    pub(super) fn dial(self: &Arc<Self>, wanted: BTreeSet<NodeAddress>) -> bool {
        let mut dialled = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *dialled).into_iter();
        let (stay, left): (_, BTreeMap<_, _>) =
            all.partition(|(address, _)| wanted.contains(address));
        *dialled = stay;
        let mut new = Vec::new();
        for address in wanted {
            let Entry::Vacant(entry) = dialled.entry(address) else { continue };
            let (state, address) = (self.clone(), entry.key().clone());
            new.push(address.clone());
            let unwanted = entry.insert(Arc::default()).clone();
            self.links.spawn_until_stopped(keep(NodeRegistration { state, address, unwanted }));
        }
        let has_changed = !(new.is_empty() && left.is_empty());
        if !left.is_empty() {
            let state = self.clone();
            self.links.spawn_until_stopped(async move { state.leave(left, &new).await });
        }
        has_changed
    }

    /// Leaves nodes once links to the new ones are up: they may be the same by other names.
    async fn leave(&self, left: BTreeMap<NodeAddress, Arc<Signal>>, new: &[NodeAddress]) {
        let mut attached = self.attached.subscribe();
        let are_up = attached.wait_for(|all| {
            new.iter().all(|address| all.iter().any(|attached| attached.address == *address))
        });
        drop(tokio::time::timeout(HELLO_WAIT_MAX, are_up).await);
        for (address, unwanted) in left {
            tracing::info!(%address, "leaving the node at {address}: it is not one of the nodes any more");
            unwanted.notify();
        }
    }
}

/// A link that the node has welcomed and on which nothing is registered yet.
type WelcomedLink = (Link, ControlStream, Welcome);

impl KeeperHooks for NodeRegistration {
    type Dialled = WelcomedLink;
    type Active = Attachment;

    fn address(&self) -> &NodeAddress {
        &self.address
    }

    fn signals(&self) -> &KeeperSignals {
        &self.state.keeper
    }

    fn stop(&self) -> SignalListener {
        self.state.keeper.stop.listen().or(self.unwanted.listen())
    }

    fn is_stopped(&self) -> bool {
        self.state.keeper.stop.is_notified() || self.unwanted.is_notified()
    }

    fn tasks(&self) -> &Tasks {
        &self.state.links
    }

    fn chance(&self) -> f64 {
        self.state.net.chance()
    }

    fn drain_max(&self) -> Duration {
        self.state.limits.get().drain_max
    }

    async fn dial(&self, newer_than: Option<SystemTime>) -> Result<WelcomedLink, LinkFault> {
        self.state.dialler.dial(&self.address, newer_than).await
    }

    async fn establish(&self, dialled: WelcomedLink) -> Result<Attachment, LinkFault> {
        Attachment::new(&self.state, self.unwanted.listen(), dialled).registered().await
    }

    fn publish(&self, attachment: &mut Attachment) {
        attachment.publish(&self.address);
    }

    fn refused(&self, fault: &LinkFault) {
        self.state.observer.report(Event::DialRefused { address: &self.address, reason: fault });
    }

    fn log_retry(&self, retry: &Retry<'_>) {
        let Retry { address, fault: reason, .. } = retry;
        tracing::warn!(%address, %reason, retry_s = retry.seconds(), "{retry}");
    }
}

/// The signals of one link alone, once another one has replaced it.
#[derive(Default)]
struct LinkSignals {
    /// The node sends no more calls on the link.
    unregistered: Signal,
    drain: Signal,
    goodbye: Signal,
}

fn close_signals(state: &AgentState, own: &LinkSignals) -> [SignalListener; 3] {
    [
        state.drain.listen().or(own.drain.listen()),
        state.goodbye.listen().or(own.goodbye.listen()),
        state.abort.listen(),
    ]
}

/// The last REGISTER on a link.
#[derive(Default)]
struct SentRegistration {
    /// Counts them, from 1.
    generation: u64,
    /// Version of the services in it.
    version: u64,
    services: Arc<[ServiceInfo]>,
    is_confirmed: bool,
    /// True if it requests no more calls, with no services. It is the last one then.
    is_last: bool,
}

/// One link to one node. Dropping it takes it from the list of links and closes it.
pub(super) struct Attachment {
    state: Arc<AgentState>,
    link: Link,
    control: ControlStream,
    node: Name,
    stop: SignalListener,
    unwanted: SignalListener,
    signals: Arc<LinkSignals>,
    hosted: watch::Receiver<Arc<HostedServices>>,
    sent: SentRegistration,
    /// The node's reason for draining, if it sent DRAIN before it confirmed the registration.
    early_drain: Option<String>,
    is_registered: bool,
    is_retired: bool,
    /// Why the agent closes the link, if it does.
    closes: &'static str,
    reason: Option<LinkFault>,
    permits: Permits,
}

impl Attachment {
    /// Takes the calls of a new link and keeps it up. Nothing is registered yet.
    fn new(
        state: &Arc<AgentState>,
        unwanted: SignalListener,
        (link, mut control, _welcome): WelcomedLink,
    ) -> Self {
        let node = link.peer().name.clone();
        let limits = state.limits.get();
        let (peer, address, path) = (link.identity(), link.remote_address(), link.path());
        state.observer.report(Event::LinkUp { peer, address, path });
        let acceptor = Arc::new(AgentAcceptor::new(state.clone(), link.clone(), limits.clone()));
        let (watching, permits) = (acceptor.clone(), acceptor.permits.clone());
        state.links.spawn_until_stopped(async move { watching.suspend_guard.watch().await });
        state.links.spawn_until_stopped(take_calls(
            link.clone(),
            acceptor,
            limits.clone(),
            state.calls.clone(),
        ));
        let signals = Arc::new(LinkSignals::default());
        let closing = close_signals(state, &signals);
        let sequence = CloseSequence::new(link.clone(), closing, CloseCode::Goodbye, STOPS);
        control.close_by(sequence.within(limits.drain_max));
        Self {
            state: state.clone(),
            link,
            control,
            node,
            stop: state.keeper.stop.listen(),
            unwanted,
            signals,
            hosted: state.hosted.subscribe(),
            sent: SentRegistration::default(),
            early_drain: None,
            is_registered: false,
            is_retired: false,
            closes: STOPS,
            reason: None,
            permits,
        }
    }

    /// Registers within [`HELLO_WAIT_MAX`]. Must not be dropped before its end: the calls that the
    /// node has routed to the link by then would be lost, with unknown outcome.
    async fn registered(mut self) -> Result<Self, LinkFault> {
        let registered = tokio::time::timeout(HELLO_WAIT_MAX, self.register()).await;
        let silent = LinkFault::Silent("the node did not confirm the registration in time");
        match registered.unwrap_or(Err(silent)) {
            Ok(()) => Ok(self),
            Err(fault) => Err(self.link.end(fault)),
        }
    }

    /// Sends REGISTER and waits for REGISTERED, which a draining node sends too: it may have routed
    /// calls to the link. If the agent shuts down meanwhile, requests no more calls at once.
    async fn register(&mut self) -> Result<(), LinkFault> {
        self.send_services().await?;
        let first = self.sent.generation;
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.control.next() => frame?,
                () = self.stop.notified(), if !self.sent.is_last => {
                    self.unregister().await?;
                    continue;
                }
            };
            match frame {
                Control::Registered(frame) if frame.generation == first => {
                    self.sent.is_confirmed = !self.sent.is_last;
                    return Ok(());
                }
                Control::Drain(frame) => self.early_drain = Some(frame.reason),
                // No reply is awaited on this link yet, so it ends now.
                Control::Goodbye(_) => {}
                _ => {
                    let text = "the node did not confirm the registration";
                    return Err(LinkFault::Broken(text.into()));
                }
            }
        }
    }

    /// Adds the link to those that calls use.
    fn publish(&mut self, address: &NodeAddress) {
        self.is_registered = true;
        let attached = AttachedLink {
            node: self.node.clone(),
            address: address.clone(),
            link: self.link.clone(),
            hosted: self.sent.version,
            is_retiring: false,
            permits: self.permits.clone(),
            probe: Arc::default(),
        };
        // Under the lock of the list: a program that sees the node in it had the event before, and
        // one that listens from then on does not get it again.
        let mut sent = None;
        self.state.attached.send_modify(|all| {
            all.push(attached);
            let (node, remote) = (&self.node, self.link.remote_address());
            let path = self.link.path();
            let registered = Event::Registered { node, address, remote, path };
            sent = Some(self.state.observer.send_to_programs(registered));
        });
        drop(sent);
    }

    /// Sends all that is hosted now.
    async fn send_services(&mut self) -> Result<(), LinkFault> {
        let (version, services) = {
            let hosted = self.hosted.borrow_and_update();
            (hosted.version, hosted.infos().clone())
        };
        let (generation, is_confirmed) = (self.sent.generation + 1, false);
        self.sent =
            SentRegistration { generation, version, services, is_confirmed, is_last: false };
        self.send_registration().await
    }

    /// Requests that the node sends calls elsewhere.
    async fn unregister(&mut self) -> Result<(), LinkFault> {
        self.sent.generation += 1;
        self.sent.services = Arc::default();
        self.sent.is_last = true;
        self.send_registration().await
    }

    async fn send_registration(&mut self) -> Result<(), LinkFault> {
        let SentRegistration { generation, services, .. } = &self.sent;
        let (generation, services) = (*generation, services.to_vec());
        self.control.send(&Control::Register(Register { generation, services })).await
    }

    /// True if the node is to be sent what has changed. One REGISTER at a time is under way.
    const fn follows_changes(&self) -> bool {
        self.sent.is_confirmed && !self.sent.is_last && !self.is_retired
    }

    /// Registers what is hosted now, unless the node knows it.
    async fn register_changes(&mut self) -> Result<(), LinkFault> {
        let is_known = *self.hosted.borrow().infos() == self.sent.services;
        if !is_known {
            return self.send_services().await;
        }
        self.sent.version = self.hosted.borrow_and_update().version;
        self.confirmed();
        Ok(())
    }

    /// The node has what was sent last.
    fn confirmed(&mut self) {
        self.sent.is_confirmed = true;
        self.state.attached.send_modify(|all| {
            for attached in all.iter_mut().filter(|attached| attached.link.is_same(&self.link)) {
                attached.hosted = self.sent.version;
            }
        });
    }

    /// The agent leaves the node, and does not stop. Calls have as long as they need.
    fn leave(&mut self) {
        self.unwanted.done();
        self.closes = LEAVES;
        let signals = close_signals(&self.state, &self.signals);
        let sequence =
            CloseSequence::new(self.link.clone(), signals, CloseCode::Goodbye, self.closes);
        self.control.close_by(sequence.within(Duration::MAX));
    }

    /// Excludes the link from new calls. Returns true if that is new.
    fn retire(&mut self) -> bool {
        self.is_retired = true;
        let mut is_new = false;
        self.state.attached.send_modify(|all| {
            for attached in all.iter_mut().filter(|attached| attached.link.is_same(&self.link)) {
                is_new = !std::mem::replace(&mut attached.is_retiring, true);
            }
        });
        is_new
    }

    /// Records that the node drains the link. The second time does not count.
    fn node_drains(&mut self, reason: &str) -> Option<EndReason> {
        if !self.retire() {
            return None;
        }
        self.state.observer.report(Event::NodeDraining { node: &self.node });
        Some(EndReason::Draining(LinkFault::draining(reason)))
    }

    fn end(&mut self, fault: LinkFault) -> EndReason {
        let fault = self.link.end(fault);
        self.reason = Some(fault.clone());
        EndReason::Ended(fault)
    }
}

impl ActiveLink for Attachment {
    type Link = Link;

    fn link(&self) -> &Link {
        &self.link
    }

    async fn maintain(&mut self) -> EndReason {
        if let Some(reason) = self.early_drain.take()
            && let Some(end) = self.node_drains(&reason)
        {
            return end;
        }
        loop {
            let event = tokio::select! {
                biased;
                frame = self.control.next() => frame.map(Some),
                () = self.stop.notified(), if !self.sent.is_last => {
                    self.unregister().await.map(|()| None)
                }
                () = self.unwanted.notified() => {
                    self.leave();
                    return EndReason::Unwanted;
                }
                // The sender is in `state`, so there is a change.
                _ = self.hosted.changed(), if self.follows_changes() => {
                    self.register_changes().await.map(|()| None)
                }
            };
            match event {
                Ok(None) => {}
                Ok(Some(Control::Registered(frame))) => {
                    if frame.generation != self.sent.generation {
                        continue;
                    }
                    if self.sent.is_last {
                        self.stop.done();
                        self.signals.unregistered.notify();
                    } else {
                        self.confirmed();
                    }
                }
                Ok(Some(Control::Drain(frame))) => {
                    if let Some(end) = self.node_drains(&frame.reason) {
                        return end;
                    }
                }
                // Without a DRAIN before it. The link ends when the last reply is here, and the
                // code of the GOODBYE says when to dial again.
                Ok(Some(Control::Goodbye(frame))) => drop(self.node_drains(&frame.text)),
                Ok(Some(_)) => {
                    let text = "a control frame that only an agent sends";
                    return self.end(LinkFault::Broken(text.into()));
                }
                Err(fault) => return self.end(fault),
            }
        }
    }

    /// Requests no more calls on this link, lets those on it finish, and has the node close it.
    async fn drain_and_close(mut self) {
        self.retire();
        if !self.sent.is_last
            && let Err(fault) = self.unregister().await
        {
            self.end(fault);
            return;
        }
        let (signals, link) = (self.signals.clone(), self.link.clone());
        let finish = async move {
            let mut unregistered = signals.unregistered.listen();
            drop(tokio::time::timeout(GOODBYE_WAIT_MAX, unregistered.notified()).await);
            signals.drain.notify();
            signals.drain.done(GOODBYE_WAIT_MAX).await;
            link.idle().await;
            link.quiet().await;
            signals.goodbye.notify();
            tokio::time::sleep(CLOSE_WAIT_MAX).await;
        };
        let node = self.node.clone();
        tokio::select! {
            fault = self.maintain_to_end() => tracing::debug!(%node, reason = %fault, "the retiring link to node {node} has ended: {fault}"),
            // Dropping the attachment closes the link.
            () = finish => tracing::debug!(%node, "closed the retiring link to node {node}: the node did not close it in time"),
        }
    }

    fn log_drained(&self, fault: &LinkFault) {
        let node = &self.node;
        tracing::info!(%node, reason = %fault, "no longer linked to node {node}, which was draining: {fault}");
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let text = if self.is_registered { self.closes } else { "the dial was given up" };
        let dropped =
            || LinkFault::Closed { code: CloseCode::Goodbye, text: text.into(), by_peer: false };
        let reason = self.reason.take().unwrap_or_else(dropped);
        let (link, reason) = (&self.link, self.link.end(reason));
        let (peer, address, lasted) = (link.identity(), link.remote_address(), link.age());
        self.state.observer.report(Event::LinkDown { peer, address, lasted, reason: &reason });
        if self.is_registered {
            self.state.attached.send_modify(|all| {
                all.retain(|attached| !attached.link.is_same(&self.link));
                if !self.link.is_replaced() {
                    self.state
                        .observer
                        .report(Event::NodeLost { node: &self.node, reason: &reason });
                }
            });
        }
    }
}
