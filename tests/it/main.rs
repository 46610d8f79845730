//! Integration tests over QUIC on localhost, one binary.

mod call;
#[cfg(feature = "cli")]
mod cli;
