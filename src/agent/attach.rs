//! One node, for as long as the agent runs: dial, register, stay, and come back.

use super::{Attached, STOPS, Shared, acceptor::AgentAcceptor};
use crate::{
    drain::{Signal, SignalListener, Tasks},
    limits::{CLOSE_WAIT_MAX, GOODBYE_WAIT_MAX, HELLO_WAIT_MAX},
    link::{
        ActiveLink, CloseSequence, ControlStream, EndReason, KeeperHooks, KeeperSignals, Link,
        LinkFault, keep,
    },
    name::{Name, NodeAddress},
    observe::Event,
    serve::take_calls,
    wire::{CloseCode, Control, Register, Welcome},
};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Keeps the agent attached to one address. Never gives up; returns when the agent leaves and has
/// no link there.
pub(super) async fn attach(shared: Arc<Shared>, address: NodeAddress) {
    keep(Registration { shared, address }).await;
}

/// The registration of the agent at one address.
struct Registration {
    shared: Arc<Shared>,
    address: NodeAddress,
}

/// A link that the node has welcomed and on which nothing is registered yet.
type Dialled = (Link, ControlStream, Welcome);

impl KeeperHooks for Registration {
    type Dialled = Dialled;
    type Active = Attachment;

    fn address(&self) -> &NodeAddress {
        &self.address
    }

    fn signals(&self) -> &KeeperSignals {
        &self.shared.keeper
    }

    fn tasks(&self) -> &Tasks {
        &self.shared.links
    }

    fn chance(&self) -> f64 {
        self.shared.net.chance()
    }

    fn drain_max(&self) -> Duration {
        self.shared.limits.get().drain_max
    }

    async fn dial(&self, newer_than: Option<SystemTime>) -> Result<Dialled, LinkFault> {
        self.shared.dialler.dial(&self.address, newer_than).await
    }

    async fn establish(&self, dialled: Dialled) -> Result<Attachment, LinkFault> {
        Attachment::new(&self.shared, dialled).registered().await
    }

    fn publish(&self, attachment: &mut Attachment) {
        attachment.publish(&self.address);
    }

    fn refused(&self, fault: &LinkFault) {
        self.shared.observer.tell(Event::DialRefused { address: &self.address, reason: fault });
    }

    fn log_retry(&self, line: fmt::Arguments<'_>) {
        tracing::warn!("{line}");
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

/// One link to one node. Dropping it takes it from the list of those that can be used, and closes
/// it.
struct Attachment {
    shared: Arc<Shared>,
    link: Link,
    control: ControlStream,
    node: Name,
    unregister: SignalListener,
    own: Arc<LinkSignals>,
    generation: u64,
    /// The node's reason for leaving, if it sent DRAIN before it confirmed the registration.
    early_drain: Option<String>,
    is_registered: bool,
    /// Why it has ended.
    reason: Option<LinkFault>,
}

impl Attachment {
    /// Takes the calls of a new link and keeps it up. Nothing is registered yet.
    fn new(shared: &Arc<Shared>, (link, mut control, _welcome): Dialled) -> Self {
        let node = link.peer().name.clone();
        let limits = shared.limits.get();
        let (peer, address) = (link.identity(), link.remote_address());
        shared.observer.tell(Event::LinkUp { peer, address });
        let reception = Arc::new(AgentAcceptor::new(shared.clone(), link.clone(), limits.clone()));
        let minding = reception.clone();
        shared.links.spawn_until_stopped(async move { minding.watch_suspends().await });
        shared.links.spawn_until_stopped(take_calls(
            link.clone(),
            reception,
            limits.clone(),
            shared.calls.clone(),
        ));
        let own = Arc::new(LinkSignals::default());
        let signals = [
            shared.drain.listen().or(own.drain.listen()),
            shared.goodbye.listen().or(own.goodbye.listen()),
            shared.abort.listen(),
        ];
        let sequence = CloseSequence::new(link.clone(), signals, CloseCode::Goodbye, STOPS);
        control.close_by(sequence.within(limits.drain_max));
        Self {
            shared: shared.clone(),
            link,
            control,
            node,
            unregister: shared.keeper.stop.listen(),
            own,
            generation: 1,
            early_drain: None,
            is_registered: false,
            reason: None,
        }
    }

    /// Registers within [`HELLO_WAIT_MAX`]. Must not be dropped before its end: the calls that the
    /// node has routed to the link by then would be lost, with unknown outcome.
    async fn registered(mut self) -> Result<Self, LinkFault> {
        let registered = tokio::time::timeout(HELLO_WAIT_MAX, self.register()).await;
        let silent = LinkFault::Silent("the node did not confirm the registration in time");
        match registered.unwrap_or(Err(silent)) {
            Ok(()) => Ok(self),
            // Whatever it was, the node is to know; if the node ended it, this does nothing.
            Err(fault) => Err(self.link.end(fault)),
        }
    }

    /// Sends REGISTER and waits for REGISTERED. If the agent leaves meanwhile, asks for no more
    /// calls at once. A node that leaves meanwhile still confirms: it may have routed calls to the
    /// link.
    async fn register(&mut self) -> Result<(), LinkFault> {
        let services = self.shared.services.infos().to_vec();
        let first = self.generation;
        self.control.send(&Control::Register(Register { generation: first, services })).await?;
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.control.next() => frame?,
                () = self.unregister.notified(), if !self.is_unregistering() => {
                    self.ask_for_no_more().await?;
                    continue;
                }
            };
            match frame {
                Control::Registered(words) if words.generation == first => return Ok(()),
                Control::Drain(words) => self.early_drain = Some(words.reason),
                // No reply is awaited on this link yet, so it ends now.
                Control::Goodbye(_) => {}
                _ => {
                    let text = "the node did not confirm the registration";
                    return Err(LinkFault::Broken(text.into()));
                }
            }
        }
    }

    /// The link is used from now on.
    fn publish(&mut self, address: &NodeAddress) {
        self.is_registered = true;
        let attached =
            Attached { node: self.node.clone(), link: self.link.clone(), is_being_left: false };
        // Under the lock of the list: a program that sees the node in it was told so before, and
        // who listens from then on is not told again.
        let mut told = None;
        self.shared.attached.send_modify(|all| {
            all.push(attached);
            let (node, remote) = (&self.node, self.link.remote_address());
            let registered = Event::Registered { node, address, remote };
            told = Some(self.shared.observer.tell_programs(registered));
        });
        drop(told);
    }

    /// The first generation hosts what there is, the second nothing: there is no third.
    const fn is_unregistering(&self) -> bool {
        self.generation > 1
    }

    /// Tells the node that calls are to go elsewhere.
    async fn ask_for_no_more(&mut self) -> Result<(), LinkFault> {
        self.generation += 1;
        let (generation, services) = (self.generation, Vec::new());
        self.control.send(&Control::Register(Register { generation, services })).await
    }

    /// Nothing more is asked over this link. Says whether that is new.
    fn ask_nothing_more(&self) -> bool {
        let mut is_new = false;
        self.shared.attached.send_modify(|all| {
            for attached in all.iter_mut().filter(|attached| attached.link.id() == self.link.id()) {
                is_new = !std::mem::replace(&mut attached.is_being_left, true);
            }
        });
        is_new
    }

    /// Asks nothing more of this node. Said twice, it counts once.
    fn node_leaves(&self, reason: &str) -> Option<EndReason> {
        if !self.ask_nothing_more() {
            return None;
        }
        self.shared.observer.tell(Event::NodeDraining { node: &self.node });
        Some(EndReason::Draining(LinkFault::leaving(reason)))
    }

    fn end(&mut self, fault: LinkFault) -> EndReason {
        // Whatever ended it, the node is to know; if the node ended it, this does nothing.
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
            && let Some(end) = self.node_leaves(&reason)
        {
            return end;
        }
        loop {
            let heard = tokio::select! {
                biased;
                frame = self.control.next() => frame.map(Some),
                () = self.unregister.notified(), if !self.is_unregistering() => Ok(None),
            };
            match heard {
                Ok(None) => {
                    if let Err(fault) = self.ask_for_no_more().await {
                        return self.end(fault);
                    }
                }
                Ok(Some(Control::Registered(words))) => {
                    if self.is_unregistering() && words.generation == self.generation {
                        self.unregister.done();
                        self.own.unregistered.notify();
                    }
                }
                Ok(Some(Control::Drain(words))) => {
                    if let Some(end) = self.node_leaves(&words.reason) {
                        return end;
                    }
                }
                // Without a DRAIN before it. The link ends when the last reply is here, and the
                // code of the GOODBYE says when to dial again.
                Ok(Some(Control::Goodbye(words))) => drop(self.node_leaves(&words.text)),
                Ok(Some(_)) => {
                    let text = "a control frame that only an agent sends";
                    return self.end(LinkFault::Broken(text.into()));
                }
                Err(fault) => return self.end(fault),
            }
        }
    }

    /// Asks for no more calls on this link, lets those that are on it finish, and has the node
    /// close it, which is the last to receive.
    async fn drain_and_close(mut self) {
        self.ask_nothing_more();
        if !self.is_unregistering()
            && let Err(fault) = self.ask_for_no_more().await
        {
            self.end(fault);
            return;
        }
        let (own, link) = (self.own.clone(), self.link.clone());
        let finish = async move {
            let mut unregistered = own.unregistered.listen();
            drop(tokio::time::timeout(GOODBYE_WAIT_MAX, unregistered.notified()).await);
            own.drain.notify();
            own.drain.done(GOODBYE_WAIT_MAX).await;
            link.idle().await;
            link.quiet().await;
            own.goodbye.notify();
            tokio::time::sleep(CLOSE_WAIT_MAX).await;
        };
        let node = self.node.clone();
        tokio::select! {
            fault = self.maintain_to_end() => tracing::debug!("the former link to node {node} has ended: {fault}"),
            // Dropping the attachment closes it.
            () = finish => tracing::debug!("the former link to node {node} was closed, the node did not"),
        }
    }

    fn log_drained(&self, fault: &LinkFault) {
        tracing::info!("no longer linked to node {}, which was leaving: {fault}", self.node);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let text = if self.is_registered { STOPS } else { "the dial was given up" };
        let dropped =
            || LinkFault::Closed { code: CloseCode::Goodbye, text: text.into(), by_peer: false };
        let reason = self.reason.take().unwrap_or_else(dropped);
        let (link, reason) = (&self.link, self.link.end(reason));
        let (peer, address, lasted) = (link.identity(), link.remote_address(), link.age());
        self.shared.observer.tell(Event::LinkDown { peer, address, lasted, reason: &reason });
        if self.is_registered {
            self.shared.attached.send_modify(|all| {
                all.retain(|attached| attached.link.id() != self.link.id());
                if !self.link.is_replaced() {
                    let lost = Event::NodeLost { node: &self.node, reason: &reason };
                    self.shared.observer.tell(lost);
                }
            });
        }
    }
}
