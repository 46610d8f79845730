//! Handlers that forward calls to a local upstream.

mod check;
#[cfg(feature = "forward")]
mod connect;
#[cfg(feature = "forward")]
mod http;
#[cfg(feature = "forward")]
mod identity;
#[cfg(feature = "forward")]
mod mcp;
#[cfg(feature = "forward")]
mod proxy;
mod tcp;
mod upstream;
#[cfg(feature = "forward")]
mod upstream_span;

pub use check::{UpstreamCheck, UpstreamCheckError};
#[cfg(feature = "forward")]
pub use connect::{Forward, ForwardFormat};
#[cfg(feature = "forward")]
pub use http::{UpstreamAddress, UpstreamError};
#[cfg(feature = "forward")]
pub use mcp::McpForward;
#[cfg(feature = "forward")]
pub(super) use mcp::SessionOwners;
#[cfg(feature = "forward")]
pub use proxy::HttpForward;
pub use tcp::TcpForward;
pub use upstream::Upstream;
