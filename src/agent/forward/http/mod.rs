//! HTTP/1.1 client of one local upstream: its address, its connections, and a pool of idle ones.

mod address;
mod connection;
mod pool;
mod reuse;
mod socket;

pub(super) use address::Destination;
pub use address::{UpstreamAddress, UpstreamError};
pub(super) use connection::{Outgoing, SendError, Unreachable, UpstreamConnection};
pub(super) use pool::Pool;
