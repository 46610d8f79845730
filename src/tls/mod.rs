//! Who a party is, by its certificate, and the two TLS settings that make a peer prove it.
//!
//! The only room that says rustls, webpki and x509-parser. QUIC is the link's.

mod config;
mod credentials;
mod explain;
mod facts;
mod files;
#[cfg(all(test, feature = "certs"))]
mod handshakes;
mod identity;

pub use config::random_bytes;
pub use credentials::{Credentials, CredentialsError};
pub use explain::{Explanation, FaultKind, HandshakeFault, Judge, explain};
pub use facts::{CertificateFacts, CrlFacts, FactsError, RevokedSerial, Utc};
pub use files::{CredentialFiles, CredentialPem};
pub use identity::{Identity, IdentityError, check_trust_domain, spiffe_uri};
