//! Handlers that lead to something beside the agent: a local upstream.

mod tcp;
mod upstream;

pub use tcp::TcpForward;
pub use upstream::Upstream;
