//! Handlers that lead to something beside the agent: a local upstream.

#[cfg(feature = "forward")]
mod connect;
mod tcp;
mod upstream;

#[cfg(feature = "forward")]
pub use connect::{Forward, ForwardFormat, ForwardHandle, UpstreamAddress, UpstreamError};
pub use tcp::TcpForward;
pub use upstream::Upstream;
