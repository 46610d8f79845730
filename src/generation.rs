//! What a party may be given while it runs, as one whole: it was checked before, and comes into force at once or not at all.

use crate::{limits::Limits, tls::Credentials};

/// Another set of what a running node or agent goes by. `P` is its policy. What is `None` stays as it is.
///
/// Calls that are in flight go on under what they began with. New bounds hold for links that are made from then on.
#[derive(Debug, Clone)]
pub struct Generation<P> {
    /// The certificate to show and whom to believe: the same party's, with the same role, name and trust domain. After it every link is
    /// judged again, and closed if a handshake would now refuse it.
    pub credentials: Option<Credentials>,
    /// Who may call what.
    pub policy: Option<P>,
    /// The bounds.
    pub limits: Option<Limits>,
}

impl<P> Default for Generation<P> {
    fn default() -> Self {
        Self { credentials: None, policy: None, limits: None }
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
