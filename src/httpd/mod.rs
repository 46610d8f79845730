//! HTTP server with limits on connections, sizes and times. Its owner answers the requests.

mod answers;
mod authority;
mod client_address;
mod connection;
mod discard;
mod frames;
mod guarded;
mod head;
mod listening;
mod persistence;
mod ping_timer;
mod request_body;
mod server;
mod slots;
#[cfg(test)]
mod tests;
mod unanswered_request;
mod watched;

pub(crate) use answers::{Answers, Peer};
#[cfg(feature = "gateway")]
pub(crate) use answers::{ResponseBodyError, UpgradedStream};
#[cfg(feature = "gateway")]
pub(crate) use authority::names_loopback;
pub(crate) use client_address::client_address;
pub use client_address::{IpRange, IpRangeError};
pub(crate) use head::Framing;
pub(crate) use request_body::RequestBody;
pub(crate) use server::serve;
pub(crate) use slots::Admission;
