//! Credentials, certificates and TLS configurations. The only module that uses rustls, webpki and
//! x509-parser; QUIC is the link's.

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
#[cfg(feature = "gateway")]
mod gateway_client;
#[cfg(all(test, feature = "certs"))]
mod tests;
mod hex;
#[cfg(feature = "gateway")]
mod host_certificates;
#[cfg(any(feature = "gateway", feature = "tunnel"))]
#[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "tunnels authenticate no client"))]
mod http;
mod identity;
#[cfg(feature = "certs")]
mod key_digest;
mod key_kind;
mod key_log;
mod lists;
mod mac;
mod pem;
mod pem_error;
mod revalidation;
mod sections;
#[cfg(any(feature = "gateway", feature = "tunnel"))]
mod server_certificate;
mod trust;
#[cfg(feature = "tunnel")]
mod tunnel;
#[cfg(feature = "forward")]
mod upstream;
mod verifiers;

pub use certificate_info::{CertificateInfo, CrlInfo, RevokedSerial, Utc};
pub use chain::{ChainBound, Validity};
pub use credentials::Credentials;
#[cfg(feature = "certs")]
pub use csr::CsrInfo;
pub use error::CredentialsError;
pub use expiry_warnings::ExpiryNotice;
pub use files::{CredentialFiles, CredentialPem, CrlScope, CrlScopeError};
#[cfg(feature = "gateway")]
pub use gateway_client::{GatewayClientTls, GatewayClientTlsError};
pub use identity::{Identity, IdentityError};
pub use key_log::log_tls_keys;
pub use pem_error::PemError;
#[cfg(any(feature = "gateway", feature = "tunnel"))]
pub use server_certificate::ServerCertificate;

#[cfg(feature = "gateway")]
pub(crate) use self::hex::push_hex;
pub(crate) use self::{
    claim::{Claim, ClaimSlot},
    crypto::{fill_random, random_bytes},
    expiry_warnings::ExpiryWarnings,
    explain::{RejectedBy, explain},
    mac::MacKey,
    revalidation::RevalidationError,
};
#[cfg(any(feature = "certs", feature = "gateway"))]
pub(crate) use self::{
    digest::{DIGEST_BYTES, is_same, sha256},
    hex::{from_hex, hex},
};
#[cfg(feature = "certs")]
pub(crate) use self::{
    enrolment::{EnrollerTls, ToEnroller, enroller_uri, fingerprints},
    files::requested_key,
    hex::fill_from_hex,
    identity::{check_trust_domain, spiffe_uri},
    key_digest::key_digest,
    key_kind::fault_of as key_fault,
    pem::{PemKind, blocks as pem_blocks, bodies as pem_bodies, private_key},
};
#[cfg(any(feature = "gateway", feature = "tunnel"))]
pub(crate) use files::exposed_mode;
#[cfg(any(feature = "config", feature = "gateway", feature = "tunnel"))]
pub(crate) use files::open_regular;
#[cfg(feature = "gateway")]
pub(crate) use host_certificates::HostCertificates;
#[cfg(feature = "gateway")]
pub(crate) use http::RejectedCertificate;
#[cfg(any(feature = "gateway", feature = "tunnel"))]
pub(crate) use http::{ClientCertificate, HttpTls};
#[cfg(feature = "tunnel")]
pub(crate) use tunnel::TunnelTls;
#[cfg(feature = "forward")]
pub(crate) use upstream::UpstreamTls;
