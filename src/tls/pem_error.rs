//! Why a certificate, list, request or key could not be read.

/// Why information could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The text is no PEM, or is cut off.
    #[error("it is not complete PEM text: {why}")]
    NotPem {
        /// What the parser says.
        why: String,
    },
    /// The text or what is in it is whole and of a kind that is not supported: UTF-16, DER, an
    /// encrypted key, DSA.
    #[error("{why}")]
    Unusable {
        /// What it is, and the remedy.
        why: String,
    },
    /// The bytes are no certificate or list.
    #[error("it cannot be parsed: {why}")]
    Damaged {
        /// What the parser says.
        why: String,
    },
}
