//! Integration tests over QUIC on localhost, one binary.

mod call;
