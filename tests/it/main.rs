//! Integration tests over QUIC on localhost, one binary.

mod call;
mod hostile;
mod raw_peer;
mod tidy;
mod wire;
