//! The lines of a node's log that others can cause: each kind is bounded, for each of those who cause it and for all together.

use crate::{knocks::Source, name::PeerName, pace::Lines};

/// What a node says of those whom it refuses.
#[derive(Default)]
pub(super) struct NodeLines {
    /// Handshakes that failed, by address.
    pub(super) handshakes: Lines<Source>,
    /// Links that were refused to parties that are known by then.
    pub(super) links: Lines<PeerName>,
    /// Calls that were refused.
    pub(super) calls: Lines<PeerName>,
}
