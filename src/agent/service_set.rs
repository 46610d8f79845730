//! What an agent is to host.

use super::TcpForward;
#[cfg(feature = "forward")]
use super::{HttpForward, McpForward};
use crate::serve::Service;
use std::fmt;

/// Services and forwards for an agent to host, at its start or, by
/// [`Agent::apply`](super::Agent::apply), while it runs.
///
/// A clone has the same services. What an agent hosts already and is given again, in a set made of
/// clones, keeps its connections, its sessions and what is known of its health.
#[derive(Clone, Default)]
#[must_use = "services answer once they are hosted"]
pub struct ServiceSet {
    pub(super) services: Vec<Service>,
    #[cfg(feature = "forward")]
    pub(super) mcp: Vec<McpForward>,
}

impl ServiceSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service.
    pub fn serve(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Adds a TCP forward: callers reach its upstream as `tcp:NAME`, if rules allow it.
    pub fn tcp(self, forward: TcpForward) -> Self {
        self.serve(forward.into_service())
    }

    /// Adds an HTTP forward: callers reach its upstream as `http:NAME`, if rules allow it.
    #[cfg(feature = "forward")]
    pub fn http(self, forward: HttpForward) -> Self {
        self.serve(forward.into_service())
    }

    /// Adds an MCP server: callers reach its tools as `mcp:NAME/TOOL`, if rules allow it.
    #[cfg(feature = "forward")]
    pub fn mcp(mut self, forward: McpForward) -> Self {
        self.mcp.push(forward);
        self
    }

    /// Adds all of another set.
    pub fn and(mut self, other: Self) -> Self {
        self.services.extend(other.services);
        #[cfg(feature = "forward")]
        self.mcp.extend(other.mcp);
        self
    }
}

impl fmt::Debug for ServiceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_struct("ServiceSet");
        set.field("services", &self.services);
        #[cfg(feature = "forward")]
        set.field("mcp", &self.mcp);
        set.finish()
    }
}
