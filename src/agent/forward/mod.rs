//! Handlers that lead to something beside the agent: a local upstream.

#[cfg(feature = "forward")]
mod connect;

#[cfg(feature = "forward")]
pub use connect::{Forward, ForwardFormat, ForwardHandle, UpstreamAddress, UpstreamError};
