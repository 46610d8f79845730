//! HTTP client of one local upstream: its address, its connections, and a pool of idle ones.

mod address;
mod body;
mod client;
mod connection;
mod http2;
mod pool;
mod reuse;
mod socket;

pub use address::{UpstreamAddress, UpstreamError};
pub(super) use body::{BodyProgress, StreamedBody, UpstreamBody};
pub(super) use client::{Fault, HeldConnection, UpstreamClient, UpstreamResponse};
pub(super) use connection::Outgoing;
