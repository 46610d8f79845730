//! HTTP/1.1 client of one local upstream: its address, its connections, and a pool of idle ones.

mod address;
mod connection;
mod pool;
mod reuse;
mod socket;

pub(super) use address::Place;
pub use address::{UpstreamAddress, UpstreamError};
pub(super) use connection::{Broken, Line, Outgoing, Unreachable};
pub(super) use pool::{Pool, Taken};
