//! The observer, to which every event is reported once.

#[cfg(feature = "admin")]
use super::recent::RecentEvents;
use super::{
    counts::ObservedCounts,
    event::Event,
    log::log,
    program::ProgramEvent,
    record::{CallInfo, CallRecord, CallStart, Recorder},
    stream::Events,
};
use crate::{
    audit::Audit,
    drain::Tasks,
    limits::EVENTS_WAITING_MAX,
    name::{PeerName, Role},
    prefixes::Prefix,
    rate_limit::{LogLimits, Suppressed},
    trace::Tracer,
};
use std::sync::Arc;
use tokio::{sync::broadcast, time::Instant};

/// Produces log lines, audit records and program events of one node or agent. Lines that a peer can
/// cause are limited, per peer or address and in total.
pub(crate) struct Observer<E> {
    recorder: Recorder,
    events: broadcast::Sender<E>,
    limits: EventLimits,
    tracer: Tracer,
}

/// Limits of the events that peers can cause, by cause.
#[derive(Default)]
struct EventLimits {
    handshakes: LogLimits<Prefix>,
    links: LogLimits<PeerName>,
    moves: LogLimits<PeerName>,
    calls: LogLimits<PeerName>,
    requests: LogLimits<Prefix>,
}

impl EventLimits {
    /// Number of suppressed lines to log with an event; `None` if it must not be logged now.
    fn admit(&self, event: &Event<'_>, now: Instant) -> Option<Suppressed> {
        match event {
            Event::HandshakeRefused { address, .. } => {
                self.handshakes.admit(Prefix::host(address.ip()), now)
            }
            Event::LinkRefused { peer, .. } => self.links.admit(peer.peer_name().clone(), now),
            Event::LinkMoved { peer, .. } => self.moves.admit(peer.peer_name().clone(), now),
            Event::LinkEvicted { peer, .. } => self.links.admit((*peer).clone(), now),
            Event::AgentHeldBack { agent, is_first: false, .. }
            | Event::AgentRegistered { agent, superseded: [_, ..], .. }
            | Event::AgentRegistered { agent, is_again: true, .. } => {
                self.links.admit(PeerName::new(Role::Agent, (*agent).clone()), now)
            }
            Event::CallRefused { caller, .. } => self.calls.admit((*caller).clone(), now),
            Event::HttpRefused { address, .. } => self.requests.admit(Prefix::host(*address), now),
            _ => Some(Suppressed(0)),
        }
    }
}

/// An event that programs have received. Dropping it writes the log line and the audit record.
#[must_use = "the event is logged when this is dropped"]
pub(crate) struct PendingReport<'a, E: ProgramEvent> {
    observer: &'a Observer<E>,
    event: Event<'a>,
}

impl<E: ProgramEvent> Observer<E> {
    pub(crate) fn new(audit: &Audit, own: PeerName) -> Self {
        let recorder = Recorder::new(audit.clone(), own);
        let events = broadcast::Sender::new(EVENTS_WAITING_MAX);
        let (limits, tracer) = (EventLimits::default(), Tracer::default());
        Self { recorder, events, limits, tracer }
    }

    /// Sets what starts the spans of calls. Default: traces are off.
    pub(crate) fn traced_by(mut self, tracer: Tracer) -> Self {
        self.tracer = tracer;
        self
    }

    /// Starts the spans of calls.
    pub(crate) const fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Reports an event to log, audit log and programs, in this order.
    pub(crate) fn report(&self, event: Event<'_>) {
        self.write(&event);
        self.send(&event);
    }

    /// Sends an event to programs now, for a caller that holds a lock which orders events. Log and
    /// audit log are written when the result is dropped.
    pub(crate) fn send_to_programs<'a>(&'a self, event: Event<'a>) -> PendingReport<'a, E> {
        self.send(&event);
        PendingReport { observer: self, event }
    }

    fn send(&self, event: &Event<'_>) {
        if let Some(program) = E::of(event) {
            // It fails without receivers.
            drop(self.events.send(program));
        }
    }

    /// Starts the record of a call.
    pub(crate) fn call(&self, start: CallStart, info: CallInfo) -> Box<CallRecord> {
        self.recorder.call(start, info)
    }

    pub(crate) fn counts(&self) -> Arc<ObservedCounts> {
        self.recorder.counts.clone()
    }

    /// Lines that the audit log could not take.
    #[cfg(feature = "admin")]
    pub(crate) fn audit_lines_lost(&self) -> u64 {
        self.recorder.audit.lost()
    }

    #[cfg(feature = "admin")]
    pub(crate) fn recent(&self) -> Arc<RecentEvents> {
        self.recorder.recent.clone()
    }

    /// Subscribes a program to events until the owner has stopped.
    pub(crate) fn events(&self, owner: &Tasks) -> Events<E> {
        Events::new(&self.events, owner)
    }

    fn write(&self, event: &Event<'_>) {
        self.recorder.counts.event(event);
        self.recorder.recent.event(event);
        let logged = self.limits.admit(event, Instant::now());
        if let Some(suppressed) = logged {
            log(event, &self.recorder.own, suppressed);
        }
        self.recorder.record(event, logged);
    }
}

impl<E: ProgramEvent> Drop for PendingReport<'_, E> {
    fn drop(&mut self) {
        self.observer.write(&self.event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LOG_LINES_PER_CAUSE_BURST;
    use std::net::SocketAddr;

    #[test]
    fn lines_about_evicted_links_are_limited_per_peer() {
        let (limits, now) = (EventLimits::default(), Instant::now());
        let [loud, quiet] = ["agent/loud", "agent/quiet"].map(|text| text.parse().expect("a peer"));
        let address = SocketAddr::from(([192, 0, 2, 1], 9));
        let admitted = |peer: &PeerName| {
            let evicted = Event::LinkEvicted { peer, address, limit: "links" };
            (0..100).filter(|_| limits.admit(&evicted, now).is_some()).count()
        };
        let burst = LOG_LINES_PER_CAUSE_BURST as usize;
        assert_eq!([&loud, &quiet].map(admitted), [burst; 2]);
    }
}
