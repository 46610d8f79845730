//! The lines of a node's log that others can cause: each kind is bounded, for each of those who
//! cause it and for all together.

use crate::{name::PeerName, rate_limit::LogLimits, source_address::Source};

/// What a node says of those whom it refuses.
#[derive(Default)]
pub(super) struct NodeLogLimits {
    /// Handshakes that failed, by address.
    pub(super) handshakes: LogLimits<Source>,
    /// Links that were refused to parties that are known by then.
    pub(super) links: LogLimits<PeerName>,
    /// Calls that were refused.
    pub(super) calls: LogLimits<PeerName>,
}
