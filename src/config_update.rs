//! Configuration that a running node or agent can be given. It is checked first and then applied as
//! a whole or not at all.

use crate::{limits::Limits, tls::Credentials};
use std::fmt;

/// Update of a running node or agent with policy `P`. Fields that are `None` stay as they are.
///
/// Calls in flight continue under the configuration of their start. New limits apply to new links.
#[derive(Debug, Clone)]
pub struct ConfigUpdate<P> {
    /// Certificate, key and trusted CAs, for the same role, name and trust domain. Every link is
    /// verified against them, and closed if a handshake would now refuse it.
    pub credentials: Option<Credentials>,
    /// Rules of who may call what.
    pub policy: Option<P>,
    /// Limits.
    pub limits: Option<Limits>,
}

impl<P> Default for ConfigUpdate<P> {
    fn default() -> Self {
        Self { credentials: None, policy: None, limits: None }
    }
}

/// Parts of the configuration that an update changes, for the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Changed {
    pub(crate) certificate: bool,
    pub(crate) trust: bool,
    pub(crate) rules: bool,
    pub(crate) limits: bool,
    /// What an agent hosts.
    pub(crate) services: bool,
    /// The nodes that an agent dials.
    pub(crate) nodes: bool,
}

impl Changed {
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
            (self.limits, "limits"),
            (self.services, "services"),
            (self.nodes, "nodes"),
        ];
        let words: Vec<&str> = all.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        f.write_str(if words.is_empty() { "nothing" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

/// Result of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Version of the configuration in this process. The one that it started with is 1.
    pub generation: u64,
    /// Number of links that were closed, with REVOKED, EXPIRED or TRUST_CHANGED.
    pub closed: usize,
}
