//! The observer: every event is told to it once.

use super::{
    event::Event,
    log::log,
    program::ProgramEvent,
    record::{CallFacts, CallRecord, Recorder},
    stream::{EventSender, Events},
};
use crate::{
    audit::Audit,
    drain::Tasks,
    name::{PeerName, Role},
    rate_limit::{LogLimits, Suppressed},
    source_address::Source,
};
use tokio::time::Instant;

/// Makes log lines, audit records and program events of what happens to one node or agent.
///
/// Lines that a peer can cause are limited, for each peer or address and for all of them.
pub(crate) struct Observer<E> {
    recorder: Recorder,
    events: EventSender<E>,
    limits: EventLimits,
}

/// Bounds of the events that peers can cause, by cause.
#[derive(Default)]
struct EventLimits {
    handshakes: LogLimits<Source>,
    links: LogLimits<PeerName>,
    calls: LogLimits<PeerName>,
    requests: LogLimits<Source>,
}

impl EventLimits {
    /// Whether an event may be logged now, and how many of its kind were left out before.
    fn admit(&self, event: &Event<'_>, now: Instant) -> Option<Suppressed> {
        match event {
            Event::HandshakeRefused { address, .. } => {
                self.handshakes.say(Source::of(address.ip()), now)
            }
            Event::LinkRefused { peer, .. } => self.links.say(peer.peer_name().clone(), now),
            Event::LinkEvicted { peer, .. } => self.links.say((*peer).clone(), now),
            Event::AgentHeldBack { agent, is_first: false, .. }
            | Event::AgentRegistered { agent, superseded: [_, ..], .. } => {
                self.links.say(PeerName::new(Role::Agent, (*agent).clone()), now)
            }
            Event::CallRefused { caller, .. } => self.calls.say((*caller).clone(), now),
            Event::HttpRefused { address, .. } => self.requests.say(Source::of(*address), now),
            _ => Some(Suppressed(0)),
        }
    }
}

/// An event that programs have received. Dropping it writes log line and audit record.
#[must_use = "the event is logged when this is dropped"]
pub(crate) struct Told<'a, E: ProgramEvent> {
    observer: &'a Observer<E>,
    event: Event<'a>,
}

impl<E: ProgramEvent> Observer<E> {
    /// An observer of one node or agent, which writes to this audit log.
    pub(crate) fn new(audit: &Audit, own: PeerName) -> Self {
        let recorder = Recorder::new(audit.clone(), own);
        Self { recorder, events: EventSender::default(), limits: EventLimits::default() }
    }

    /// Tells an event to programs, log and audit log.
    pub(crate) fn tell(&self, event: Event<'_>) {
        drop(self.tell_programs(event));
    }

    /// Tells an event to programs now, for a caller that holds a lock which orders events, and to
    /// log and audit log once the result is dropped.
    pub(crate) fn tell_programs<'a>(&'a self, event: Event<'a>) -> Told<'a, E> {
        if let Some(program) = E::of(&event) {
            self.events.send(program);
        }
        Told { observer: self, event }
    }

    /// Begins the record of a call. `None` if calls are not recorded.
    pub(crate) fn call(&self, facts: impl FnOnce() -> CallFacts) -> Option<Box<CallRecord>> {
        self.recorder.call(facts)
    }

    /// Events for a program, from now on, until the owner has stopped.
    pub(crate) fn events(&self, owner: &Tasks) -> Events<E> {
        self.events.listen(owner)
    }

    fn write(&self, event: &Event<'_>) {
        let logged = self.limits.admit(event, Instant::now());
        if let Some(suppressed) = logged {
            log(event, self.recorder.own(), suppressed);
        }
        self.recorder.record(event, logged);
    }
}

impl<E: ProgramEvent> Drop for Told<'_, E> {
    fn drop(&mut self) {
        self.observer.write(&self.event);
    }
}
