//! Audit records of events: one JSON object each, with the fields of the event.

use super::{
    counts::ObservedCounts,
    event::Event,
    recent::{self, FailedCall, RecentEvents},
};
use crate::{
    audit::{Audit, AuditLine},
    health::ServiceHealth,
    link::LinkMove,
    name::{CallId, MethodPath, Name, PeerName, Role},
    rate_limit::{LogLimits, Suppressed},
    status::{Code, Outcome},
    tls::{Claim, Identity, Utc},
    trace::Span,
    wire::CallKind,
};
use std::{
    fmt::{self, Display},
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::SystemTime,
};
use tokio::time::Instant;

/// Writes the audit records of one node or agent. Builds nothing without an audit log.
#[derive(Debug, Clone)]
pub(super) struct Recorder(pub(super) Arc<RecorderState>);

#[derive(Debug)]
pub(super) struct RecorderState {
    pub(super) audit: Audit,
    pub(super) own: PeerName,
    pub(super) counts: Arc<ObservedCounts>,
    pub(super) recent: Arc<RecentEvents>,
    /// Limits of the lines about failed calls, by caller.
    pub(super) failed: LogLimits<String>,
}

impl Deref for Recorder {
    type Target = RecorderState;

    fn deref(&self) -> &RecorderState {
        &self.0
    }
}

impl Recorder {
    pub(super) fn new(audit: Audit, own: PeerName) -> Self {
        let (counts, recent, failed) = (Arc::default(), Arc::default(), LogLimits::default());
        Self(Arc::new(RecorderState { audit, own, counts, recent, failed }))
    }

    /// Starts the record of a call, which counts it. At its end it is written if calls are
    /// recorded, and logged if it has failed.
    pub(super) fn call(&self, start: CallStart, info: CallInfo) -> Box<CallRecord> {
        self.counts.call_started(start.kind);
        let (recorder, picked, health, span) = (self.clone(), None, None, Span::default());
        Box::new(CallRecord { recorder, start, info, picked, health, span, has_ended: false })
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
    pub(crate) caller: RecordedCaller,
    /// The agent, if the call names one.
    pub(crate) agent: Option<PeerName>,
    /// On an agent, the node that forwarded the call.
    pub(crate) via: Option<Name>,
    pub(crate) method: MethodPath,
    pub(crate) call_id: CallId,
    pub(crate) attempt: u32,
}

/// Who makes a call, for its record.
#[derive(Debug)]
pub(crate) enum RecordedCaller {
    Peer(PeerName),
    /// A text of the node, which may not be a name.
    Claimed(Box<str>),
}

impl Display for RecordedCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Claimed(text) => text.fmt(f),
        }
    }
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
    recorder: Recorder,
    start: CallStart,
    info: CallInfo,
    /// The agent that was picked, if the call named none.
    picked: Option<Arc<OnceLock<PeerName>>>,
    /// Learns how the call ends.
    health: Option<Arc<ServiceHealth>>,
    /// Of the call in this process.
    span: Span,
    has_ended: bool,
}

impl CallRecord {
    /// Has the end of the call counted for the health of its service.
    pub(crate) fn counts_for(&mut self, health: Option<&Arc<ServiceHealth>>) {
        self.health = health.cloned();
    }

    /// Ends the span of the call with the record.
    pub(crate) fn traced(&mut self, mut span: Span) {
        if span.is_recorded() {
            span.text("dialback.caller", &self.info.caller);
            if let Some(via) = &self.info.via {
                span.text("dialback.via", via);
            }
        }
        self.span = span;
    }

    /// Adds the status of the HTTP response that the call had to its span.
    #[cfg(feature = "gateway")]
    pub(crate) fn http_status(&mut self, status: u16) {
        self.span.http_status(status);
    }

    /// Cell that receives the picked agent.
    pub(crate) fn picked_agent(&mut self) -> Arc<OnceLock<PeerName>> {
        self.picked.get_or_insert_default().clone()
    }

    /// Notes the agent that was picked, if the call named none.
    pub(crate) fn picked(&mut self, agent: impl FnOnce() -> PeerName) {
        if self.info.agent.is_none() {
            self.info.agent = Some(agent());
        }
    }

    /// Writes the record with the result, the reason of a failure, and the bytes of messages each
    /// way, as far as known.
    pub(crate) fn ended(
        mut self,
        (code, outcome): (Code, Outcome),
        reason: &str,
        bytes: [Option<u64>; 2],
    ) {
        self.has_ended = true;
        self.write((code, outcome), reason, bytes);
        self.end_span((code, outcome), reason);
    }

    fn end_span(&mut self, result: (Code, Outcome), reason: &str) {
        let mut span = std::mem::take(&mut self.span);
        if let Some(agent) = self.agent().filter(|_| span.is_recorded()) {
            span.text("dialback.agent", &agent.name);
        }
        span.ended(result, reason);
    }

    fn agent(&self) -> Option<&PeerName> {
        self.info.agent.as_ref().or_else(|| self.picked.as_ref()?.get())
    }

    fn write(&self, (code, outcome): (Code, Outcome), reason: &str, bytes: [Option<u64>; 2]) {
        let Self { recorder, start: CallStart { kind, began, .. }, info, .. } = self;
        let now = Instant::now();
        let took = now.duration_since(*began);
        recorder.counts.call_ended(*kind, (code, outcome), took, bytes);
        if recorder.counts.peers.is_on() {
            self.count_peers(code != Code::Ok);
        }
        if let Some(health) = &self.health {
            health.call_ended(code, outcome, now);
        }
        if code != Code::Ok && code != Code::Cancelled {
            self.failed((code, outcome), reason, now);
        }
        if !recorder.audit.records_calls() {
            return;
        }
        let [bytes_in, bytes_out] = bytes;
        recorder.write("call", |line| {
            line.text("call_id", info.call_id)
                .text("caller", &info.caller)
                .text_or_null("agent", self.agent())
                .text_if("via", via_of(info.via.as_ref()))
                .text("method", &info.method)
                .text("kind", kind)
                .number("attempt", info.attempt.into())
                .text("code", code)
                .text("outcome", outcome)
                .number_or_null("bytes_in", bytes_in)
                .number_or_null("bytes_out", bytes_out)
                .millis("duration_ms", took)
        });
    }

    /// Counts the call for its agent and for its caller.
    fn count_peers(&self, has_failed: bool) {
        let Self { recorder, info, .. } = self;
        let parsed = match &info.caller {
            RecordedCaller::Peer(_) => None,
            RecordedCaller::Claimed(text) => text.parse().ok(),
        };
        let caller = match &info.caller {
            RecordedCaller::Peer(peer) => Some(peer),
            RecordedCaller::Claimed(_) => parsed.as_ref(),
        };
        let agent = self.agent().filter(|peer| peer.role == Role::Agent);
        // Calls of the node's own services have none.
        if agent.is_some() {
            recorder.counts.peers.call_ended(true, agent, has_failed);
        }
        recorder.counts.peers.call_ended(false, caller, has_failed);
    }

    /// Logs a failed call and keeps it among the recent ones, as often as its caller may cause
    /// lines.
    fn failed(&self, (code, outcome): (Code, Outcome), reason: &str, now: Instant) {
        let Self { recorder, start: CallStart { kind, began, .. }, info, .. } = self;
        let caller = info.caller.to_string();
        let Some(suppressed) = recorder.failed.admit(caller.clone(), now) else { return };
        let took = now.duration_since(*began);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let (agent, reason) = (self.agent(), recent::bounded(reason));
        // A refusal has a line of its own, with the rule.
        if (code, outcome) != (Code::PermissionDenied, Outcome::NotExecuted) {
            tracing::info!(
                call_id = %info.call_id,
                %caller,
                agent = agent.map(tracing::field::display),
                via = info.via.as_ref().map(tracing::field::display),
                method = %info.method,
                kind = kind.as_str(),
                code = code.as_str(),
                outcome = outcome.as_str(),
                duration_ms,
                reason,
                "call of {} by {caller} failed: {code} ({outcome}): {reason}{suppressed}",
                info.method
            );
        }
        recorder.recent.call_failed(FailedCall {
            at: Utc(SystemTime::now()).to_string(),
            call_id: info.call_id.to_string(),
            caller: recent::bounded(caller),
            agent: agent.map(PeerName::to_string),
            method: info.method.to_string(),
            code: code.as_str(),
            outcome: outcome.as_str(),
            duration_ms,
            reason,
        });
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        if !self.has_ended {
            let is_late = Instant::now() >= self.start.deadline;
            let (code, reason) = match is_late {
                true => (Code::DeadlineExceeded, "its deadline passed"),
                false => (Code::Cancelled, "it was cancelled"),
            };
            self.write((code, Outcome::Unknown), reason, [None, None]);
            self.end_span((code, Outcome::Unknown), reason);
        }
    }
}
