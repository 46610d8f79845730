//! Reverse RPC over QUIC.

#[cfg(feature = "certs")]
pub mod certs;
pub mod tls;
pub mod backoff;
pub mod name;
pub mod metadata;
pub mod status;
pub mod limits;
