//! Credentials, certificates and TLS configurations.
//!
//! The only module that uses rustls, webpki and x509-parser. QUIC is the link's.

mod authorities;
mod chain;
mod claim;
mod config;
mod credentials;
mod crypto;
#[cfg(feature = "certs")]
mod csr;
#[cfg(any(feature = "certs", feature = "gateway"))]
mod digest;
#[cfg(feature = "certs")]
mod enrolment;
mod error;
mod expiry_warnings;
mod explain;
mod certificate_info;
mod files;
#[cfg(all(test, feature = "certs"))]
mod tests;
mod hex;
#[cfg(feature = "gateway")]
mod http;
mod identity;
#[cfg(feature = "certs")]
mod key_digest;
mod key_kind;
mod lists;
mod mac;
mod pem;
mod pem_error;
mod revalidation;
mod sections;
mod trust;
#[cfg(feature = "forward")]
mod upstream;
mod verifiers;

pub use certificate_info::{CertificateInfo, CrlInfo, RevokedSerial, Utc};
pub use chain::{ChainBound, Validity};
pub(crate) use claim::{Claim, ClaimSlot};
pub use credentials::Credentials;
pub(crate) use crypto::{fill_random, random_bytes};
#[cfg(feature = "certs")]
pub use csr::CsrInfo;
#[cfg(any(feature = "certs", feature = "gateway"))]
pub(crate) use digest::{DIGEST_BYTES, is_same, sha256};
#[cfg(feature = "certs")]
pub(crate) use enrolment::{EnrollerTls, ToEnroller, enroller_uri, fingerprints};
pub use error::CredentialsError;
pub(crate) use expiry_warnings::ExpiryWarnings;
pub(crate) use explain::{HandshakeFault, RejectedBy, explain};
#[cfg(feature = "gateway")]
pub(crate) use files::exposed_mode;
#[cfg(any(feature = "config", feature = "gateway"))]
pub(crate) use files::open_regular;
#[cfg(feature = "certs")]
pub(crate) use files::requested_key;
pub use files::{CredentialFiles, CredentialPem, CrlScope, CrlScopeError};
#[cfg(feature = "certs")]
pub(crate) use hex::fill_from_hex;
#[cfg(feature = "gateway")]
pub(crate) use hex::push_hex;
#[cfg(any(feature = "certs", feature = "gateway"))]
pub(crate) use hex::{from_hex, hex};
#[cfg(feature = "gateway")]
pub use http::ServerCertificate;
#[cfg(feature = "gateway")]
pub(crate) use http::{ClientCertificate, HttpTls, RejectedCertificate};
pub use identity::{Identity, IdentityError};
#[cfg(feature = "certs")]
pub(crate) use identity::{check_trust_domain, spiffe_uri};
#[cfg(feature = "certs")]
pub(crate) use key_digest::key_digest;
#[cfg(feature = "certs")]
pub(crate) use key_kind::fault_of as key_fault;
pub(crate) use mac::MacKey;
#[cfg(feature = "certs")]
pub(crate) use pem::{PemKind, blocks as pem_blocks, bodies as pem_bodies, private_key};
pub use pem_error::PemError;
pub(crate) use revalidation::RevalidationError;
#[cfg(feature = "forward")]
pub(crate) use upstream::UpstreamTls;
