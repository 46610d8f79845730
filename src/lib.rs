//! Reverse RPC over QUIC.

pub mod serve;
pub mod call;
pub mod link;
pub mod tls;
pub mod policy;
pub mod drain;
pub mod wire;
pub mod backoff;
pub mod name;
pub mod metadata;
pub mod status;
pub mod limits;
