//! One node, for as long as the agent runs: dial, register, stay, and come back.

use super::{Attached, STOPS, Shared, acceptor::AgentAcceptor};
use crate::{
    drain::{Signal, SignalListener},
    limits::{CLOSE_WAIT_MAX, GOODBYE_WAIT_MAX, HELLO_WAIT_MAX},
    link::{
        ControlStream, Former, FormerPlace, Leave, Leaving, Link, LinkFault, Present, Redial,
        beside,
    },
    name::{Name, NodeAddress},
    net::SharedNet,
    observe::Event,
    serve::take_calls,
    wire::{CloseCode, Control, Register, Welcome},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, time::Instant};

/// Keeps the agent attached to one address. Never gives up; ends when the agent leaves and has no
/// link there.
pub(super) async fn hold(shared: Arc<Shared>, address: NodeAddress) {
    let mut redial = Redial::default();
    let mut leaving = Leaving::default();
    let mut word = shared.unregister.listen();
    let (mut anew, mut renewed) = (shared.anew.subscribe(), shared.renewed.subscribe());
    loop {
        anew.mark_unchanged();
        // Before the dial: what is put in force during it, the link is made once more for.
        renewed.mark_unchanged();
        let dialled = tokio::select! {
            biased;
            () = word.notified() => return,
            dialled = shared.dialler.dial(&address, None) => dialled,
            () = leaving.ended() => {
                redial.succeeded();
                continue;
            }
        };
        // Not cancelled from here on: the node routes calls to the link from REGISTER on.
        let attached = match dialled {
            Ok(dialled) => {
                let attachment = Attachment::new(&shared, dialled);
                // The attachment has a listener of its own by now.
                word.done();
                attachment.registered().await
            }
            Err(fault) => Err(fault),
        };
        let fault = match attached {
            Ok(mut attachment) => {
                attachment.enter(&address);
                redial.linked(Instant::now());
                stay(&shared, attachment, &address, &mut leaving, &mut renewed).await
            }
            Err(fault) => {
                if fault.is_refusal() {
                    let refused = Event::DialRefused { address: &address, reason: &fault };
                    shared.observer.tell(refused);
                }
                fault
            }
        };
        word = shared.unregister.listen();
        if shared.unregister.is_notified() {
            return;
        }
        let wait = wait_after(&mut redial, &fault, &address, shared.net.chance());
        tokio::select! {
            () = word.notified() => return,
            () = tokio::time::sleep(wait) => {}
            () = leaving.ended() => redial.succeeded(),
            // With other credentials it may be another story.
            changed = anew.changed() => if changed.is_ok() { redial.succeeded() },
        }
    }
}

/// Stays until another link is wanted. Calls on the link of a node that is leaving go on beside the
/// next one; two such links at once are no restart but a node that plays with us, and then the
/// second is stayed with.
async fn stay(
    shared: &Arc<Shared>,
    mut attachment: Attachment,
    address: &NodeAddress,
    leaving: &mut Leaving,
    renewed: &mut watch::Receiver<u64>,
) -> LinkFault {
    let mut former = Former::default();
    let parting = loop {
        let link = attachment.link.clone();
        let needs_newer = tokio::select! {
            biased;
            parting = attachment.stay() => break parting,
            changed = renewed.changed() => changed.is_err(),
            () = link.near_expiry() => true,
        };
        let place = tokio::select! {
            biased;
            parting = attachment.stay() => break parting,
            place = former.place(shared.limits.get().drain_max) => place,
        };
        // What was said up to here, the next link will be made by.
        renewed.mark_unchanged();
        let newer_than = needs_newer.then(|| link.ends().at());
        let dial = || dial(shared, address, newer_than);
        let register = |dialled| Attachment::new(shared, dialled).registered();
        match beside(&mut attachment, address, shared.anew.subscribe(), dial, register).await {
            Ok(mut next) => {
                link.replace();
                next.enter(address);
                former.add(&link);
                let before = std::mem::replace(&mut attachment, next);
                shared.links.spawn_until_stopped(before.retire(place));
            }
            Err(parting) => break parting,
        }
    };
    match parting {
        Parting::Ended(fault) => fault,
        // Boxed: a link that ends in the usual way need not carry room for it.
        Parting::NodeLeaves(_) if leaving.is_open() => Box::pin(attachment.see_off()).await,
        Parting::NodeLeaves(fault) => {
            leaving.begin(&attachment.link);
            shared.links.spawn_until_stopped(async move {
                let (node, fault) = (attachment.node.clone(), attachment.see_off().await);
                tracing::info!("no longer linked to node {node}, which was leaving: {fault}");
            });
            fault
        }
    }
}

/// How long to wait before the next dial; says why, if that is new.
fn wait_after(
    redial: &mut Redial,
    fault: &LinkFault,
    address: &NodeAddress,
    chance: f64,
) -> Duration {
    let wait = redial.failed_now(fault, chance);
    if wait.is_worth_saying {
        let what = if fault.is_refusal() { "refused" } else { "not linked" };
        tracing::warn!(
            "{what}: node {address}: {fault}; trying again, the next time in {:.1} s",
            wait.duration.as_secs_f64()
        );
    }
    wait.duration
}

/// A link that the node has welcomed and on which nothing is registered yet.
type Dialled = (Link, ControlStream, Welcome);

/// Dials once, for a link beside the present one; does not end once the agent is leaving. The
/// node's chain must hold beyond `newer_than`, if that is given. May be dropped: the node routes no
/// call to the link yet.
async fn dial(
    shared: &Shared,
    address: &NodeAddress,
    newer_than: Option<SystemTime>,
) -> Result<Dialled, LinkFault> {
    let mut unregister = shared.unregister.listen();
    tokio::select! {
        biased;
        () = unregister.notified() => {}
        dialled = shared.dialler.dial(address, newer_than) => return dialled,
    }
    unregister.done();
    std::future::pending().await
}

/// What an agent says on one link alone, when another one has taken its place.
#[derive(Default)]
struct OwnWords {
    /// The node knows that calls are to go elsewhere.
    unregistered: Signal,
    drain: Signal,
    goodbye: Signal,
}

/// Why an attachment is not to be stayed with any longer.
enum Parting {
    /// The link has ended.
    Ended(LinkFault),
    /// The node is leaving; the link goes on for the calls that are on it.
    NodeLeaves(LinkFault),
}

/// One link to one node. Dropping it takes it from the list of those that can be used, and closes
/// it.
struct Attachment {
    shared: Arc<Shared>,
    link: Link,
    control: ControlStream,
    node: Name,
    unregister: SignalListener,
    own: Arc<OwnWords>,
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
        let own = Arc::new(OwnWords::default());
        let words = [
            shared.drain.listen().or(own.drain.listen()),
            shared.goodbye.listen().or(own.goodbye.listen()),
            shared.cut.listen(),
        ];
        let leave = Leave::on(link.clone(), words, CloseCode::Goodbye, STOPS);
        control.start_leaving_by(leave.within(limits.drain_max));
        Self {
            shared: shared.clone(),
            link,
            control,
            node,
            unregister: shared.unregister.listen(),
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
    fn enter(&mut self, address: &NodeAddress) {
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

    /// Keeps the link up until it ends or the node is leaving. May be called again after the
    /// latter.
    async fn stay(&mut self) -> Parting {
        if let Some(reason) = self.early_drain.take()
            && let Some(parting) = self.node_leaves(&reason)
        {
            return parting;
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
                    if let Some(parting) = self.node_leaves(&words.reason) {
                        return parting;
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
    fn node_leaves(&self, reason: &str) -> Option<Parting> {
        if !self.ask_nothing_more() {
            return None;
        }
        self.shared.observer.tell(Event::NodeDraining { node: &self.node });
        Some(Parting::NodeLeaves(LinkFault::leaving(reason)))
    }

    /// Another link has taken its place: asks for no more calls on this one, lets those that are on
    /// it finish, however long they take, and has the node close it, which is the last to receive.
    /// The place of a former link is held meanwhile.
    async fn retire(mut self, _place: FormerPlace) {
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
            fault = self.see_off() => tracing::debug!("the former link to node {node} has ended: {fault}"),
            // Dropping the attachment closes it.
            () = finish => tracing::debug!("the former link to node {node} was closed, the node did not"),
        }
    }

    /// Stays to the end for the calls that are on the link of a node that is leaving.
    async fn see_off(mut self) -> LinkFault {
        loop {
            if let Parting::Ended(fault) = self.stay().await {
                return fault;
            }
        }
    }

    fn end(&mut self, fault: LinkFault) -> Parting {
        // Whatever ended it, the node is to know; if the node ended it, this does nothing.
        let fault = self.link.end(fault);
        self.reason = Some(fault.clone());
        Parting::Ended(fault)
    }
}

impl Present for Attachment {
    type Parting = Parting;

    fn net(&self) -> &SharedNet {
        self.link.net()
    }

    async fn parting(&mut self) -> Parting {
        self.stay().await
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
