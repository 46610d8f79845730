//! Authenticates HTTP requests: by bearer token, client certificate, or as the anonymous caller.

use super::{request, response::Refusal};
use crate::{
    httpd::Peer,
    limits::{COUNTED_ADDRESSES_MAX, TOKEN_GUESS_WAIT, TOKEN_TRIES_BURST, TOKEN_TRIES_EVERY},
    name::{PeerName, Role},
    observe::{Event, NodeEvent, Observer},
    prefixes::Prefix,
    rate_limit::{RateLimit, TokenBuckets},
    status::{Code, Status},
    tls::{Claim, Credentials},
};
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Returns the caller of a bearer token, or why it is invalid, which is only logged.
pub type TokenVerifier = Arc<dyn Fn(&str, SystemTime) -> Result<PeerName, String> + Send + Sync>;

#[derive(Clone)]
pub(super) struct AuthenticatedCaller {
    pub(super) name: PeerName,
    credential: Credential,
}

#[derive(Clone)]
enum Credential {
    Certificate(Arc<Peer>),
    Token(Zeroizing<String>),
    Anonymous,
}

/// Configuration that credentials are verified against.
pub(super) struct AuthContext<'a> {
    pub(super) tokens: Arc<Option<TokenVerifier>>,
    pub(super) credentials: Credentials,
    pub(super) anonymous: Option<&'a PeerName>,
    /// True if the request names this machine: pages of other sites cannot send anonymous requests.
    pub(super) is_local: bool,
}

impl AuthContext<'_> {
    fn tokens(&self) -> Option<&TokenVerifier> {
        (*self.tokens).as_ref()
    }
}

impl AuthenticatedCaller {
    /// True if the credential can become invalid during a call.
    pub(super) const fn can_expire(&self) -> bool {
        !matches!(self.credential, Credential::Anonymous)
    }

    pub(super) fn is_still_valid(&self, context: &AuthContext<'_>, now: SystemTime) -> bool {
        match &self.credential {
            Credential::Anonymous => true,
            Credential::Token(token) => context
                .tokens()
                .is_some_and(|verifier| verifier(token, now).is_ok_and(|name| name == self.name)),
            Credential::Certificate(peer) => peer
                .shown
                .as_ref()
                .is_some_and(|shown| shown.revalidate(&context.credentials, now).is_ok()),
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum AuthError {
    #[error("it presented neither a token nor a certificate")]
    Missing,
    /// No credential was presented, and an anonymous request does not name this machine.
    #[error("anonymous requests must name localhost")]
    NotLoopback,
    #[error("{0}")]
    Invalid(String),
}

/// Verifies the credential of a request: token, then certificate, then the anonymous caller.
fn verify(
    headers: &HeaderMap,
    peer: &Arc<Peer>,
    context: &AuthContext<'_>,
    now: SystemTime,
) -> Result<AuthenticatedCaller, AuthError> {
    if headers.contains_key(header::AUTHORIZATION) {
        return verify_token(headers, context, now);
    }
    if let Some(shown) = &peer.shown {
        let expired = |why: crate::tls::RevalidationError| AuthError::Invalid(why.to_string());
        shown.revalidate(&context.credentials, now).map_err(expired)?;
        let caller = shown.identity().peer_name().clone();
        if caller.role == Role::Node {
            return Err(AuthError::Invalid(format!("{caller} is a node, and nodes do not call")));
        }
        return Ok(AuthenticatedCaller {
            name: caller,
            credential: Credential::Certificate(peer.clone()),
        });
    }
    match context.anonymous {
        Some(name) if context.is_local => {
            Ok(AuthenticatedCaller { name: name.clone(), credential: Credential::Anonymous })
        }
        Some(_) => Err(AuthError::NotLoopback),
        None => Err(AuthError::Missing),
    }
}

fn verify_token(
    headers: &HeaderMap,
    context: &AuthContext<'_>,
    now: SystemTime,
) -> Result<AuthenticatedCaller, AuthError> {
    let bad = |why: &str| AuthError::Invalid(why.into());
    let shown = request::one(headers, &header::AUTHORIZATION).ok().flatten();
    let token = shown.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let token = token.ok_or_else(|| bad("the authorization header is not `Bearer TOKEN`"))?;
    let verifier = context
        .tokens()
        .ok_or_else(|| bad("it presented a token, and this gateway accepts none"))?;
    let caller = verifier(token, now).map_err(AuthError::Invalid)?;
    Ok(AuthenticatedCaller {
        name: caller,
        credential: Credential::Token(Zeroizing::new(token.to_owned())),
    })
}

/// Authenticates requests, and limits wrong tokens per address.
pub(super) struct Authenticator {
    wrong_tokens: Mutex<TokenBuckets<Prefix>>,
}

impl Default for Authenticator {
    fn default() -> Self {
        let limit = RateLimit::new(TOKEN_TRIES_BURST, TOKEN_TRIES_EVERY);
        Self { wrong_tokens: Mutex::new(TokenBuckets::new(limit, COUNTED_ADDRESSES_MAX)) }
    }
}

impl Authenticator {
    /// Authenticates a request from this address. A client that guesses tokens is soon refused and
    /// not logged. A valid token is always accepted, so guessers in the same network do no harm.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        (peer, from): (&Arc<Peer>, IpAddr),
        context: &AuthContext<'_>,
        observer: &Observer<NodeEvent>,
    ) -> Result<AuthenticatedCaller, Refusal> {
        let error = match verify(headers, peer, context, SystemTime::now()) {
            Ok(caller) => return Ok(caller),
            Err(error) => error,
        };
        let may_try = || {
            let mut wrong_tokens = self.wrong_tokens.lock().unwrap_or_else(PoisonError::into_inner);
            wrong_tokens.allows(Prefix::host(from), Instant::now(), true)
        };
        if matches!(error, AuthError::Invalid(_)) && !may_try() {
            return Err(too_many_attempts());
        }
        // The certificate of an open connection that is no longer valid.
        let expired = peer.shown.as_ref().filter(|_| !headers.contains_key(header::AUTHORIZATION));
        let claim = expired.map(|shown| Claim::from(shown.identity()));
        let (claim, reason) = (claim.as_ref(), &error);
        observer.report(Event::HttpRefused { address: from, claim, reason });
        Err(unauthenticated(&error))
    }
}

fn unauthenticated(error: &AuthError) -> Refusal {
    let text = match error {
        AuthError::Missing => {
            "authentication required: present a caller's certificate, or a token as `Authorization: Bearer TOKEN`"
        }
        AuthError::NotLoopback => {
            "requests without a token must name this gateway as localhost or by a loopback address"
        }
        AuthError::Invalid(_) => "the token or certificate is not valid; the node's log says why",
    };
    let challenge = HeaderValue::from_static("Bearer realm=\"dialback\"");
    Refusal::from(Status::not_executed(Code::Unauthenticated, text))
        .header(header::WWW_AUTHENTICATE, challenge)
}

/// Delays the response and closes the connection, which limits guesses per address.
fn too_many_attempts() -> Refusal {
    let seconds = HeaderValue::from(TOKEN_TRIES_EVERY.as_secs());
    let text = "too many wrong tokens from this address; wait, or present a valid one";
    Refusal::with(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, text)
        .header(header::RETRY_AFTER, seconds)
        .held_back(TOKEN_GUESS_WAIT)
}

#[cfg(all(test, feature = "certs"))]
mod tests {
    use super::*;
    use crate::link::ends::{credentials, new_ca};

    fn peer(text: &str) -> PeerName {
        text.parse().expect("a peer")
    }

    #[test]
    fn a_token_that_now_belongs_to_another_caller_is_not_valid_any_more() {
        let (credentials, now) = (credentials(&new_ca(), "node/edge"), SystemTime::now());
        let credential = Credential::Token(Zeroizing::new("token".into()));
        let caller = AuthenticatedCaller { name: peer("caller/ops"), credential };
        let is_valid = |answer: Result<PeerName, String>| {
            let verifier: TokenVerifier = Arc::new(move |_, _| answer.clone());
            let (tokens, credentials) = (Arc::new(Some(verifier)), credentials.clone());
            let context = AuthContext { tokens, credentials, anonymous: None, is_local: false };
            caller.is_still_valid(&context, now)
        };
        assert!(is_valid(Ok(peer("caller/ops"))));
        assert!(!is_valid(Ok(peer("caller/billing"))));
        assert!(!is_valid(Err("revoked".into())));
    }
}
