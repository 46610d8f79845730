//! Integration tests over QUIC on localhost, one binary.

mod call;
#[cfg(all(feature = "cli", unix))]
mod cli;
