//! Who asks: by the certificate that was shown in the handshake, by a token, or by the name that an
//! operator gives to everybody.

use super::{request, response::Refusal};
use crate::{
    httpd::Peer,
    limits::{COUNTED_ADDRESSES_MAX, TOKEN_GUESS_WAIT, TOKEN_TRIES_BURST, TOKEN_TRIES_EVERY},
    name::{PeerName, Role},
    observe::{Event, NodeEvent, Observer},
    rate_limit::{RateLimit, TokenBuckets},
    source_address::Source,
    status::{Code, Status},
    tls::{Claim, Credentials},
};
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
};
use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Tells whose a token is, or why it is nobody's. The reason is for the log; who shows a wrong
/// token is told nothing.
pub type TokenJudge = Arc<dyn Fn(&str, SystemTime) -> Result<PeerName, String> + Send + Sync>;

/// Who asks, and by what that is known.
#[derive(Clone)]
pub(super) struct Who {
    pub(super) caller: PeerName,
    proof: Proof,
}

#[derive(Clone)]
enum Proof {
    Certificate(Arc<Peer>),
    Token(Zeroizing<String>),
    Anonymous,
}

/// By whom and what a proof is judged.
pub(super) struct Judges<'a> {
    pub(super) tokens: Option<&'a TokenJudge>,
    pub(super) credentials: &'a Credentials,
    pub(super) anonymous: Option<&'a PeerName>,
    /// Whether the request names this machine itself: nobody else's pages can be everybody.
    pub(super) is_local: bool,
}

impl Who {
    /// Whether a proof can end while a call goes on.
    pub(super) const fn can_lapse(&self) -> bool {
        !matches!(self.proof, Proof::Anonymous)
    }

    /// Whether the proof still holds.
    pub(super) fn still_holds(&self, judges: &Judges<'_>, now: SystemTime) -> bool {
        match &self.proof {
            Proof::Anonymous => true,
            Proof::Token(token) => judges
                .tokens
                .is_some_and(|judge| judge(token, now).is_ok_and(|who| who == self.caller)),
            Proof::Certificate(peer) => peer
                .shown
                .as_ref()
                .is_some_and(|shown| shown.revalidate(judges.credentials, now).is_ok()),
        }
    }
}

/// Why nobody is believed to ask.
#[derive(Debug, PartialEq, Eq)]
enum Unknown {
    /// Nothing was shown.
    Nothing,
    /// The same, where everybody may ask, under a name that is not this machine's.
    Elsewhere,
    /// What was shown does not hold.
    Bad(String),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("it shows neither a token nor a certificate"),
            Self::Elsewhere => f.write_str("everybody may ask only under the name localhost"),
            Self::Bad(why) => f.write_str(why),
        }
    }
}

/// Tells who asks: a token that is shown decides, then a certificate, then the name for everybody.
fn known(
    headers: &HeaderMap,
    peer: &Arc<Peer>,
    judges: &Judges<'_>,
    now: SystemTime,
) -> Result<Who, Unknown> {
    if headers.contains_key(header::AUTHORIZATION) {
        return by_token(headers, judges, now);
    }
    if let Some(shown) = &peer.shown {
        let lapsed = |lapse: crate::tls::RevalidationError| Unknown::Bad(lapse.to_string());
        shown.revalidate(judges.credentials, now).map_err(lapsed)?;
        let caller = shown.identity().peer_name().clone();
        if caller.role == Role::Node {
            return Err(Unknown::Bad(format!("{caller} is a node, and nodes do not call")));
        }
        return Ok(Who { caller, proof: Proof::Certificate(peer.clone()) });
    }
    match judges.anonymous {
        Some(name) if judges.is_local => Ok(Who { caller: name.clone(), proof: Proof::Anonymous }),
        Some(_) => Err(Unknown::Elsewhere),
        None => Err(Unknown::Nothing),
    }
}

fn by_token(headers: &HeaderMap, judges: &Judges<'_>, now: SystemTime) -> Result<Who, Unknown> {
    let bad = |why: &str| Unknown::Bad(why.into());
    let shown = request::one(headers, &header::AUTHORIZATION).ok().flatten();
    let token = shown.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let token = token.ok_or_else(|| bad("the authorization header is not one `Bearer TOKEN`"))?;
    let judge = judges.tokens.ok_or_else(|| bad("it shows a token, and this node takes none"))?;
    let caller = judge(token, now).map_err(Unknown::Bad)?;
    Ok(Who { caller, proof: Proof::Token(Zeroizing::new(token.to_owned())) })
}

/// Where strangers are counted.
pub(super) struct Strangers {
    wrong: Mutex<TokenBuckets<Source>>,
}

impl Default for Strangers {
    fn default() -> Self {
        let pace = RateLimit::new(TOKEN_TRIES_BURST, TOKEN_TRIES_EVERY);
        Self { wrong: Mutex::new(TokenBuckets::new(pace, COUNTED_ADDRESSES_MAX)) }
    }
}

impl Strangers {
    /// Tells who asks, from this address. Whoever guesses is soon refused without another line
    /// anywhere; a good token is good all the same, so that a guesser in one's own network is no
    /// harm.
    ///
    /// # Errors
    /// Nobody who is known.
    pub(super) fn who(
        &self,
        headers: &HeaderMap,
        (peer, from): (&Arc<Peer>, IpAddr),
        judges: &Judges<'_>,
        observer: &Observer<NodeEvent>,
    ) -> Result<Who, Refusal> {
        let unknown = match known(headers, peer, judges, SystemTime::now()) {
            Ok(who) => return Ok(who),
            Err(unknown) => unknown,
        };
        let (source, now) = (Source::of(from), Instant::now());
        let is_a_try = matches!(unknown, Unknown::Bad(_));
        if is_a_try
            && !self.wrong.lock().unwrap_or_else(PoisonError::into_inner).allows(source, now, true)
        {
            return Err(too_many());
        }
        // The certificate of an open connection that is good no more.
        let lapsed = peer.shown.as_ref().filter(|_| !headers.contains_key(header::AUTHORIZATION));
        let claim = lapsed.map(|shown| Claim::from(shown.identity()));
        let (claim, reason) = (claim.as_ref(), &unknown);
        observer.report(Event::HttpRefused { address: from, claim, reason });
        Err(nobody(&unknown))
    }
}

fn nobody(unknown: &Unknown) -> Refusal {
    let text = match unknown {
        Unknown::Nothing => {
            "who asks has to show a caller's certificate, or a token as `Authorization: Bearer TOKEN`"
        }
        Unknown::Elsewhere => {
            "without a token this door is asked as localhost or by a loopback address, and by no other name"
        }
        Unknown::Bad(_) => "the token or certificate is not good; the node's log says why",
    };
    let challenge = HeaderValue::from_static("Bearer realm=\"dialback\"");
    Refusal::from(Status::not_executed(Code::Unauthenticated, text))
        .header(header::WWW_AUTHENTICATE, challenge)
}

/// It waits, and then the connection is closed: so many guesses an address can make, and others
/// keep the machine.
fn too_many() -> Refusal {
    let seconds = HeaderValue::from(TOKEN_TRIES_EVERY.as_secs());
    let text = "too many wrong tokens from this address; wait, or show a good one";
    Refusal::with(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, text)
        .header(header::RETRY_AFTER, seconds)
        .held_back(TOKEN_GUESS_WAIT)
}
