//! What a party may be given while it runs, as one whole: it was checked before, and comes into
//! force at once or not at all.

use crate::{limits::Limits, tls::Credentials};
use std::fmt;

/// Another set of what a running node or agent goes by. `P` is its policy. What is `None` stays as
/// it is.
///
/// Calls that are in flight go on under what they began with. New bounds hold for links that are
/// made from then on.
#[derive(Debug, Clone)]
pub struct ConfigUpdate<P> {
    /// The certificate to show and whom to believe: the same party's, with the same role, name and
    /// trust domain. After it every link is judged again, and closed if a handshake would now
    /// refuse it.
    pub credentials: Option<Credentials>,
    /// Who may call what.
    pub policy: Option<P>,
    /// The bounds.
    pub limits: Option<Limits>,
}

impl<P> Default for ConfigUpdate<P> {
    fn default() -> Self {
        Self { credentials: None, policy: None, limits: None }
    }
}

/// What is other than before, for the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Changed {
    pub(crate) certificate: bool,
    pub(crate) trust: bool,
    pub(crate) rules: bool,
    pub(crate) bounds: bool,
}

impl Changed {
    /// Begins with what is other between two credentials.
    pub(crate) fn between(before: &Credentials, next: Option<&Credentials>) -> Self {
        let Some(next) = next else { return Self::default() };
        Self {
            certificate: !next.shows_the_same(before),
            trust: !next.believes_the_same(before),
            ..Self::default()
        }
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.certificate, "the certificate"),
            (self.trust, "CAs or revocation lists"),
            (self.rules, "rules"),
            (self.bounds, "limits"),
        ];
        let words: Vec<&str> = all.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        f.write_str(if words.is_empty() { "nothing" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Counts the generations of this process; what it started with was the first.
    pub generation: u64,
    /// Links that were closed, with REVOKED, EXPIRED or TRUST_CHANGED.
    pub closed: usize,
}
