//! Reverse RPC over QUIC.

pub mod policy;
pub mod backoff;
pub mod name;
pub mod metadata;
pub mod status;
pub mod limits;
