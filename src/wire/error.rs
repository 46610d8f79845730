//! Error of bytes that violate the protocol.

/// Bytes that violate the protocol. The text names the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// A frame over its limit; nothing was allocated for it.
    #[error("a {kind} frame of {bytes} bytes is over the limit of {limit}")]
    TooLarge { kind: &'static str, bytes: u64, limit: usize },
    /// CBOR that does not decode into what was expected.
    #[error("{0}")]
    Cbor(String),
}
