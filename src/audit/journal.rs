//! What is written down, by one node or agent: each event with what is known of it.

use super::{Audit, line::Line};
use crate::{
    name::{CallId, MethodPath, Name, PeerName},
    rate_limit::Suppressed,
    status::{Code, Outcome},
    tls::{Claim, Identity},
    wire::CallKind,
};
use std::{
    fmt::Display,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// The audit log in the hands of one party. Without one nothing is built and nothing is written.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    audit: Audit,
    by: PeerName,
}

impl Journal {
    pub(super) const fn new(audit: Audit, by: PeerName) -> Self {
        Self { audit, by }
    }

    /// Whether calls are written down.
    pub(crate) const fn has_calls(&self) -> bool {
        self.audit.has_calls && self.audit.queue.is_some()
    }

    /// Writes a line, if lines are written.
    fn write(&self, event: &str, rest: impl FnOnce(Line) -> Line) {
        if self.audit.is_on() {
            let line = Line::new(SystemTime::now(), event).text("by", &self.by);
            self.audit.write(rest(line).end());
        }
    }

    /// A link was made.
    pub(crate) fn link_up(&self, peer: &Identity, address: SocketAddr) {
        self.write("link_up", |line| of_peer(line, peer, address));
    }

    /// It has ended.
    pub(crate) fn link_down(
        &self,
        peer: &Identity,
        address: SocketAddr,
        lasted: Duration,
        reason: &dyn Display,
    ) {
        self.write("link_down", |line| {
            of_peer(line, peer, address).text("reason", reason).millis("duration_ms", lasted)
        });
    }

    /// A link was refused to somebody who is known, to a stranger, or to us. A stranger may cause
    /// many such lines, so that some are left out and counted.
    pub(crate) fn link_refused(
        &self,
        peer: Option<Peer<'_>>,
        address: &dyn Display,
        reason: &dyn Display,
        suppressed: Suppressed,
    ) {
        self.write("link_refused", |line| {
            let (proved, claim) = match peer {
                Some(Peer::Proved(identity)) => (Some(identity), None),
                Some(Peer::Claimed(claim)) => (None, Some(claim)),
                None => (None, None),
            };
            let line = line
                .text_or_null("peer", proved.map(Identity::peer_name))
                .text_or_null("serial", proved.map(Identity::serial))
                .text("address", address)
                .text("reason", reason)
                .number("left_out", suppressed.0);
            of_claim(line, claim)
        });
    }

    /// So many handshakes were not answered, the last from there.
    pub(crate) fn handshakes_ignored(&self, address: SocketAddr, count: u64) {
        self.write("handshakes_ignored", |line| {
            line.text("address", address).number("count", count)
        });
    }

    /// A request over HTTP was refused to a stranger, who may cause many such lines.
    #[cfg(feature = "gateway")]
    pub(crate) fn http_refused(
        &self,
        address: std::net::IpAddr,
        claim: Option<&Claim>,
        reason: &dyn Display,
        suppressed: Suppressed,
    ) {
        self.write("http_refused", |line| {
            let line = line.text("address", address).text("reason", reason);
            of_claim(line.number("left_out", suppressed.0), claim)
        });
    }

    /// A call was refused by a rule, or for want of one.
    pub(crate) fn call_refused(&self, refused: Refused<'_>, code: Code, reason: &dyn Display) {
        let Refused { caller, agent, via, method } = refused;
        self.write("call_refused", |line| {
            via_of(line.text("caller", caller).text_or_null("agent", agent), via)
                .text("method", method)
                .text("code", code)
                .text("reason", reason)
        });
    }

    /// A call that has begun; it is written down when it has ended. `None` if calls are not.
    pub(crate) fn call(&self, facts: impl FnOnce() -> CallFacts) -> Option<Box<CallNote>> {
        self.has_calls().then(|| {
            let agent = Arc::default();
            Box::new(CallNote { journal: self.clone(), facts: facts(), agent, has_ended: false })
        })
    }
}

/// A peer whose link was refused, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Peer<'a> {
    /// By its verified certificate.
    Proved(&'a Identity),
    /// By what a certificate says of itself that TLS refused.
    Claimed(&'a Claim),
}

/// What a refused certificate says of itself, under keys of its own, so that nobody takes it for a
/// peer's name.
fn of_claim(line: Line, claim: Option<&Claim>) -> Line {
    match claim {
        Some(claim) => line.text("claimed_peer", &claim.name).text("claimed_serial", &claim.serial),
        None => line,
    }
}

/// A call that was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused<'a> {
    pub(crate) caller: &'a PeerName,
    /// Whom; nobody for a call that names only the service.
    pub(crate) agent: Option<&'a PeerName>,
    /// On an agent, the node that brought it.
    pub(crate) via: Option<&'a Name>,
    pub(crate) method: &'a MethodPath,
}

/// An agent says which node brought a call; on a node there is none.
fn via_of(line: Line, node: Option<&Name>) -> Line {
    match node {
        Some(node) => line.text("via", format_args!("node/{node}")),
        None => line,
    }
}

fn of_peer(line: Line, peer: &Identity, address: SocketAddr) -> Line {
    line.text("peer", peer.peer_name()).text("serial", peer.serial()).text("address", address)
}

/// What is known of a call when it begins.
#[derive(Debug)]
pub(crate) struct CallFacts {
    /// Who asks: by its certificate, and on an agent by the node's word.
    pub(crate) caller: String,
    /// Whom, if that is known.
    pub(crate) agent: Option<PeerName>,
    /// On an agent, the node that brought it.
    pub(crate) via: Option<Name>,
    pub(crate) method: MethodPath,
    pub(crate) call_id: CallId,
    pub(crate) kind: CallKind,
    pub(crate) attempt: u32,
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
}

/// A call that is under way. Dropped before its end is known, it was broken off or out of time.
#[derive(Debug)]
pub(crate) struct CallNote {
    journal: Journal,
    facts: CallFacts,
    /// Who was asked, where the call did not say.
    agent: Arc<OnceLock<PeerName>>,
    has_ended: bool,
}

impl CallNote {
    /// Where whoever picks an agent says which.
    pub(crate) fn agent(&self) -> Arc<OnceLock<PeerName>> {
        self.agent.clone()
    }

    /// This one was asked.
    pub(crate) fn picked(&self, agent: &PeerName) {
        drop(self.agent.set(agent.clone()));
    }

    /// How the call ended, and what was carried each way in its messages, as far as that is known.
    pub(crate) fn ended(mut self, code: Code, outcome: Outcome, bytes: [Option<u64>; 2]) {
        self.has_ended = true;
        self.write(code, outcome, bytes);
    }

    fn write(&self, code: Code, outcome: Outcome, [bytes_in, bytes_out]: [Option<u64>; 2]) {
        let Self { journal, facts, agent, .. } = self;
        journal.write("call", |line| {
            let line = line.text("call_id", facts.call_id).text("caller", &facts.caller);
            let line = line.text_or_null("agent", facts.agent.as_ref().or_else(|| agent.get()));
            via_of(line, facts.via.as_ref())
                .text("method", &facts.method)
                .text("kind", facts.kind)
                .number("attempt", facts.attempt.into())
                .text("code", code)
                .text("outcome", outcome)
                .number_or_null("bytes_in", bytes_in)
                .number_or_null("bytes_out", bytes_out)
                .millis("duration_ms", facts.began.elapsed())
        });
    }
}

impl Drop for CallNote {
    fn drop(&mut self) {
        if !self.has_ended {
            let is_late = Instant::now() >= self.facts.deadline;
            let code = if is_late { Code::DeadlineExceeded } else { Code::Cancelled };
            self.write(code, Outcome::Unknown, [None, None]);
        }
    }
}
