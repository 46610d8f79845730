//! Error of reading a certificate, list, request or key.

/// Error of reading PEM or DER.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The text is not PEM, or is truncated.
    #[error("it is not complete PEM text: {why}")]
    NotPem {
        /// The parser's error.
        why: String,
    },
    /// Undamaged content of an unsupported kind: UTF-16, DER, an encrypted key, DSA.
    #[error("{why}")]
    Unusable {
        /// The fault and the remedy.
        why: String,
    },
    /// The bytes are not a certificate or list.
    #[error("it cannot be parsed: {why}")]
    Damaged {
        /// The parser's error.
        why: String,
    },
}
