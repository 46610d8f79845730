//! Reverse RPC over QUIC.

#[cfg(feature = "config")]
pub mod config;
pub mod policy;
pub mod backoff;
pub mod name;
pub mod metadata;
pub mod status;
pub mod limits;
