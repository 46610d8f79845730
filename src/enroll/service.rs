//! Answers enrolment requests with a certificate, a list or a rejection. No sockets here.

use crate::{
    certs::{EnrolmentIssuer, GrantedLeaf, IssueError, TokenUseError},
    limits::{COUNTED_ADDRESSES_MAX, JOIN_REPLY_BYTES_MAX, TOKEN_TRIES_BURST, TOKEN_TRIES_EVERY},
    prefixes::Prefix,
    rate_limit::{LogLimits, RateLimit, TokenBuckets},
    tls::{Identity, Utc},
    wire::{Ask, JoinRefusal, JoinReply, JoinRequest},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};
use tokio::time::Instant;

/// The enrolment service. It reads and writes files, which blocks its thread.
pub(super) struct EnrolmentService {
    issuer: EnrolmentIssuer,
    /// Unknown tokens by address. Locked during the check, so that no client tries many at once.
    tries: Mutex<TokenBuckets<Prefix>>,
    refused: LogLimits<Prefix>,
}

#[derive(Debug, Clone)]
pub(super) struct RequestOrigin {
    pub(super) from: SocketAddr,
    /// The identity in its certificate, if it has shown one.
    pub(super) identity: Option<Identity>,
}

/// Wall clock, which decides the validity of certificates, and monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) wall: SystemTime,
    pub(super) steady: Instant,
}

impl Clocks {
    pub(super) fn read() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }
}

type Rejection = (JoinRefusal, String);

impl EnrolmentService {
    pub(super) fn new(issuer: EnrolmentIssuer) -> Self {
        let rate = RateLimit::new(TOKEN_TRIES_BURST, TOKEN_TRIES_EVERY);
        let tries = Mutex::new(TokenBuckets::new(rate, COUNTED_ADDRESSES_MAX));
        Self { issuer, tries, refused: LogLimits::default() }
    }

    pub(super) fn issuer(&self) -> &EnrolmentIssuer {
        &self.issuer
    }

    /// Decides a request. Grants and refusals are logged; of refusals a limited number of lines.
    pub(super) fn answer(
        &self,
        requester: &RequestOrigin,
        request: &[u8],
        now: Clocks,
    ) -> JoinReply {
        let decided = match JoinRequest::decode(request) {
            Ok(mut request) => {
                let decided = self.decide(requester, &request, now);
                request.wipe();
                decided
            }
            Err(error) => Err((JoinRefusal::Malformed, error.to_string())),
        };
        decided.unwrap_or_else(|(why, text)| {
            self.note_refusal(requester.from, why, &text, now.steady);
            JoinReply::refused(why, text)
        })
    }

    fn decide(
        &self,
        requester: &RequestOrigin,
        request: &JoinRequest,
        now: Clocks,
    ) -> Result<JoinReply, Rejection> {
        match request.ask() {
            Some(Ask::Join) => {
                let granted = self.join(requester.from.ip(), request, now)?;
                self.grant(requester, &granted, "by a token")
            }
            Some(Ask::Renew) => {
                let renewed = self.issuer.renew(shown(requester)?, &request.request, now.wall);
                self.grant(requester, &renewed.map_err(refusal)?, "for its present certificate")
            }
            Some(Ask::List) => {
                self.issuer.expect_good(shown(requester)?).map_err(refusal)?;
                Ok(JoinReply::list(self.list()?))
            }
            None => Err((JoinRefusal::Malformed, "unknown request".into())),
        }
    }

    /// A token is looked at only if its bearer's address has not tried too many unknown ones.
    ///
    /// Only an unknown secret counts as a guess. The holder of a token that was used, has expired
    /// or is another peer's has shown its secret, and a machine that repeats requests with it must
    /// not lock out its neighbours behind the same address. That is not an oracle: without one of
    /// the 128-bit secrets every answer is TOKEN_UNKNOWN, whatever peer is named, and beyond the
    /// limit every answer is TOO_MANY, whatever the secret.
    fn join(
        &self,
        from: IpAddr,
        request: &JoinRequest,
        now: Clocks,
    ) -> Result<GrantedLeaf, Rejection> {
        let from = Prefix::host(from);
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if !tries.allows(from, now.steady, false) {
            let text = "too many wrong tokens from this address";
            return Err((JoinRefusal::TooMany, text.into()));
        }
        let JoinRequest { secret, peer, request, .. } = request;
        let joined = self.issuer.join(secret, peer, request, now.wall);
        if let Err(IssueError::Token(TokenUseError::Unknown)) = &joined {
            tries.allows(from, now.steady, true);
        }
        joined.map_err(refusal)
    }

    fn grant(
        &self,
        requester: &RequestOrigin,
        granted: &GrantedLeaf,
        why: &str,
    ) -> Result<JoinReply, Rejection> {
        let GrantedLeaf { is_new, peer, serial, not_after, leaf_pem } = granted;
        let until = Utc(*not_after);
        let done = if *is_new { "signed" } else { "handed out again, for the same key," };
        let address = requester.from;
        tracing::info!(
            %peer,
            %address,
            %serial,
            "{done} {peer} for {address} {why}: serial {serial}, holds until {until}"
        );
        Ok(JoinReply::granted(leaf_pem.clone(), self.issuer.ca_pem().into(), self.list()?))
    }

    /// The list, if it fits into an answer with the certificates.
    fn list(&self) -> Result<String, Rejection> {
        let list =
            self.issuer.crl().map_err(IssueError::Broken).map_err(refusal)?.unwrap_or_default();
        if list.len() + self.issuer.ca_pem().len() < JOIN_REPLY_BYTES_MAX / 4 * 3 {
            return Ok(list);
        }
        tracing::warn!("crl.pem is too large to be sent to peers; copy it to them yourself");
        Ok(String::new())
    }

    fn note_refusal(&self, from: SocketAddr, why: JoinRefusal, text: &str, now: Instant) {
        if let Some(suppressed) = self.refused.admit(Prefix::host(from.ip()), now) {
            tracing::warn!(address = %from, reason = %why, "rejected a request from {from}: {why}: {text}{suppressed}");
        }
    }

    /// Logs a client that sent no valid request, or did not read the answer.
    pub(super) fn note_silent(&self, from: SocketAddr, why: &str, now: Instant) {
        if let Some(suppressed) = self.refused.admit(Prefix::host(from.ip()), now) {
            tracing::warn!(address = %from, reason = why, "request from {from} failed: {why}{suppressed}");
        }
    }
}

fn shown(requester: &RequestOrigin) -> Result<&Identity, Rejection> {
    let text =
        || (JoinRefusal::NoCertificate, "this takes a certificate that is still good".into());
    requester.identity.as_ref().ok_or_else(text)
}

fn refusal(fault: IssueError) -> Rejection {
    let why = match &fault {
        IssueError::Token(TokenUseError::Unknown) => JoinRefusal::TokenUnknown,
        IssueError::Token(TokenUseError::Used) => JoinRefusal::TokenUsed,
        IssueError::Token(TokenUseError::Expired) => JoinRefusal::TokenExpired,
        IssueError::Token(TokenUseError::OtherPeer) => JoinRefusal::OtherPeer,
        IssueError::Role(_) => JoinRefusal::Role,
        IssueError::Request(_) => JoinRefusal::Malformed,
        IssueError::Revoked(_) | IssueError::RevokedKey(_) => JoinRefusal::Revoked,
        IssueError::TooEarly => JoinRefusal::TooEarly,
        // A local fault, which is not shown to clients.
        IssueError::Broken(_) => {
            tracing::error!(reason = %fault, "cannot sign: {fault}");
            return (JoinRefusal::Internal, "the enroller cannot sign at the moment".into());
        }
    };
    (why, fault.to_string())
}
