//! Audit records of events: one JSON object each, with the fields of the event.

use super::{counts::ObservedCounts, event::Event};
use crate::{
    audit::{Audit, AuditLine},
    link::LinkMove,
    name::{CallId, MethodPath, Name, PeerName, Role},
    rate_limit::Suppressed,
    status::{Code, Outcome},
    tls::{Claim, Identity},
    wire::CallKind,
};
use std::{
    fmt::Display,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::SystemTime,
};
use tokio::time::Instant;

/// Writes the audit records of one node or agent. Builds nothing without an audit log.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    pub(super) audit: Audit,
    pub(super) own: PeerName,
    pub(super) counts: Arc<ObservedCounts>,
}

impl Recorder {
    /// Starts the record of a call, which counts it, and is written at its end if calls are
    /// recorded.
    pub(super) fn call(
        &self,
        start: CallStart,
        info: impl FnOnce() -> CallInfo,
    ) -> Box<CallRecord> {
        self.counts.call_started(start.kind);
        let audited = self.audit.records_calls().then(|| AuditedCall {
            recorder: self.clone(),
            info: info(),
            agent: Arc::default(),
        });
        Box::new(CallRecord { counts: self.counts.clone(), start, audited, has_ended: false })
    }

    fn write(&self, event: &str, rest: impl FnOnce(AuditLine) -> AuditLine) {
        if self.audit.is_on() {
            let line = AuditLine::new(SystemTime::now(), event).text("by", &self.own);
            self.audit.write(rest(line).end());
        }
    }

    /// Writes the record of an event that has one. `logged` is the number of lines suppressed
    /// before it, if it was logged: events of unauthenticated clients are recorded only then.
    pub(super) fn record(&self, event: &Event<'_>, logged: Option<Suppressed>) {
        match *event {
            Event::HandshakesIgnored { last, count, .. } => {
                self.write("handshakes_ignored", |line| {
                    line.text("address", last).number("count", count)
                });
            }
            Event::LinkUp { peer, address, path } => {
                self.write("link_up", |line| of_peer(line, peer, address).text("path", path));
            }
            Event::LinkMoved { peer, moved: LinkMove { old, new } } => {
                self.write("link_moved", |line| {
                    of_peer(line, peer, new.address)
                        .text("path", new.path)
                        .text("old_address", old.address)
                        .text("old_path", old.path)
                });
            }
            Event::LinkDown { peer, address, lasted, reason } => {
                self.write("link_down", |line| {
                    of_peer(line, peer, address)
                        .text("reason", reason)
                        .millis("duration_ms", lasted)
                });
            }
            Event::HandshakeRefused { address, peer, claim, reason } => {
                let Some(Suppressed(left_out)) = logged else { return };
                let claim = claim.filter(|_| peer.is_none());
                self.refused_link(peer, claim, &address, reason, left_out);
            }
            Event::LinkRefused { peer, address, reason } => {
                self.refused_link(Some(peer), None, &address, &reason, 0);
            }
            Event::DialRefused { address, reason } => {
                self.refused_link(None, None, address, reason, 0);
            }
            Event::HttpRefused { address, claim, reason } => {
                let Some(Suppressed(left_out)) = logged else { return };
                self.write("http_refused", |line| {
                    let line = line.text("address", address).text("reason", reason);
                    of_claim(line.number("left_out", left_out), claim)
                });
            }
            Event::CallRefused { caller, target, via, method, code, reason } => {
                self.write("call_refused", |line| {
                    line.text("caller", caller)
                        .text_or_null("agent", target)
                        .text_if("via", via_of(via))
                        .text("method", method)
                        .text("code", code)
                        .text("reason", reason)
                });
            }
            _ => {}
        }
    }

    fn refused_link(
        &self,
        peer: Option<&Identity>,
        claim: Option<&Claim>,
        address: &dyn Display,
        reason: &dyn Display,
        left_out: u64,
    ) {
        self.write("link_refused", |line| {
            let line = line
                .text_or_null("peer", peer.map(Identity::peer_name))
                .text_or_null("serial", peer.map(Identity::serial))
                .text("address", address)
                .text("reason", reason)
                .number("left_out", left_out);
            of_claim(line, claim)
        });
    }
}

/// Content of a refused certificate, under keys that are not mistaken for a peer's name.
fn of_claim(line: AuditLine, claim: Option<&Claim>) -> AuditLine {
    line.text_if("claimed_peer", claim.map(|claim| &claim.name))
        .text_if("claimed_serial", claim.map(|claim| &claim.serial))
}

/// On an agent, the node that forwarded a call; absent on a node.
fn via_of(node: Option<&Name>) -> Option<PeerName> {
    node.map(|node| PeerName::new(Role::Node, node.clone()))
}

fn of_peer(line: AuditLine, peer: &Identity, address: SocketAddr) -> AuditLine {
    line.text("peer", peer.peer_name()).text("serial", peer.serial()).text("address", address)
}

/// Facts of a call at its start.
#[derive(Debug)]
pub(crate) struct CallInfo {
    /// The caller: by its certificate, and on an agent as asserted by the node.
    pub(crate) caller: String,
    /// The agent, if the call names one.
    pub(crate) agent: Option<PeerName>,
    /// On an agent, the node that forwarded the call.
    pub(crate) via: Option<Name>,
    pub(crate) method: MethodPath,
    pub(crate) call_id: CallId,
    pub(crate) attempt: u32,
}

/// Kind and times of a call at its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallStart {
    pub(crate) kind: CallKind,
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
}

/// Record of a call in flight. Dropped before [`CallRecord::ended`], it was cancelled or timed out.
#[derive(Debug)]
pub(crate) struct CallRecord {
    counts: Arc<ObservedCounts>,
    start: CallStart,
    /// Set if the call is recorded in the audit log.
    audited: Option<AuditedCall>,
    has_ended: bool,
}

#[derive(Debug)]
struct AuditedCall {
    recorder: Recorder,
    info: CallInfo,
    /// The agent that was picked, if the call named none.
    agent: Arc<OnceLock<PeerName>>,
}

impl CallRecord {
    /// Cell that receives the picked agent; `None` if it is of no use.
    pub(crate) fn agent(&self) -> Option<Arc<OnceLock<PeerName>>> {
        self.audited.as_ref().map(|audited| audited.agent.clone())
    }

    pub(crate) fn picked(&self, agent: &PeerName) {
        if let Some(audited) = &self.audited {
            drop(audited.agent.set(agent.clone()));
        }
    }

    /// Writes the record with the result and the bytes of messages each way, as far as known.
    pub(crate) fn ended(mut self, code: Code, outcome: Outcome, bytes: [Option<u64>; 2]) {
        self.has_ended = true;
        self.write(code, outcome, bytes);
    }

    fn write(&self, code: Code, outcome: Outcome, [bytes_in, bytes_out]: [Option<u64>; 2]) {
        let CallStart { kind, began, .. } = self.start;
        self.counts.call_ended(kind, code, outcome, began.elapsed());
        let Some(AuditedCall { recorder, info, agent }) = &self.audited else { return };
        recorder.write("call", |line| {
            line.text("call_id", info.call_id)
                .text("caller", &info.caller)
                .text_or_null("agent", info.agent.as_ref().or_else(|| agent.get()))
                .text_if("via", via_of(info.via.as_ref()))
                .text("method", &info.method)
                .text("kind", kind)
                .number("attempt", info.attempt.into())
                .text("code", code)
                .text("outcome", outcome)
                .number_or_null("bytes_in", bytes_in)
                .number_or_null("bytes_out", bytes_out)
                .millis("duration_ms", began.elapsed())
        });
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        if !self.has_ended {
            let is_late = Instant::now() >= self.start.deadline;
            let code = if is_late { Code::DeadlineExceeded } else { Code::Cancelled };
            self.write(code, Outcome::Unknown, [None, None]);
        }
    }
}
