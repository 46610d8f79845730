//! What an agent hosts at one time, with what it has hosted before for calls on their way.

#[cfg(feature = "forward")]
use super::McpForward;
use super::ServiceSet;
#[cfg(feature = "forward")]
use crate::serve::Service;
use crate::{
    call::SharedHandler,
    name::MethodPath,
    serve::{ServiceError, Services},
    status::Status,
    wire::{CallKind, ServiceInfo},
};
use std::sync::Arc;

/// What an agent hosts at one time.
#[derive(Clone, Default)]
pub(super) struct HostedServices {
    /// Counts the sets that this agent was given.
    pub(super) version: u64,
    pub(super) services: Arc<Services>,
    /// A later set with one of these has its service, and so its sessions.
    #[cfg(feature = "forward")]
    mcp: Vec<(McpForward, Service)>,
    /// What was hosted before, as long as nodes may have calls for it on their way.
    previous: Option<Arc<Self>>,
}

impl HostedServices {
    /// The set that follows. `host_mcp` makes the service of an MCP forward that is not hosted yet.
    pub(super) fn next(
        self: &Arc<Self>,
        set: ServiceSet,
        #[cfg(feature = "forward")] host_mcp: impl Fn(McpForward) -> Service,
    ) -> Result<Self, ServiceError> {
        #[cfg(feature = "forward")]
        let mcp: Vec<_> = {
            let hosted = |forward: McpForward| {
                let service =
                    self.hosted_mcp(&forward).unwrap_or_else(|| host_mcp(forward.clone()));
                (forward, service)
            };
            set.mcp.into_iter().map(hosted).collect()
        };
        #[cfg(feature = "forward")]
        let of_mcp = mcp.iter().map(|(_, service)| service.clone());
        #[cfg(not(feature = "forward"))]
        let of_mcp = [];
        let mut services = Services::new(set.services.into_iter().chain(of_mcp).collect())?;
        services.expect_registrable()?;
        services.keep_health_of(&self.services);
        // The first set has none before it.
        let is_known = self.version == 0 || self.infos() == services.infos();
        Ok(Self {
            version: self.version + 1,
            services: Arc::new(services),
            #[cfg(feature = "forward")]
            mcp,
            previous: if is_known { self.previous.clone() } else { Some(self.clone()) },
        })
    }

    #[cfg(feature = "forward")]
    fn hosted_mcp(&self, forward: &McpForward) -> Option<Service> {
        let hosted = self.mcp.iter().find(|(hosted, _)| hosted.is_same(forward));
        hosted.map(|(_, service)| service.clone())
    }

    /// True if services of before answer too.
    pub(super) const fn has_previous(&self) -> bool {
        self.previous.is_some()
    }

    pub(super) fn without_previous(&self) -> Self {
        Self { previous: None, ..self.clone() }
    }

    /// As nodes know them.
    pub(super) fn infos(&self) -> &Arc<[ServiceInfo]> {
        self.services.infos()
    }

    /// Finds the handler of a method that is called as its kind. Else `UNIMPLEMENTED`.
    pub(super) fn find(&self, path: &MethodPath, kind: CallKind) -> Result<SharedHandler, Status> {
        let found = self.services.find(path, kind).cloned();
        match &self.previous {
            Some(previous) => found.or_else(|fault| previous.find(path, kind).map_err(|_| fault)),
            None => found,
        }
    }
}
