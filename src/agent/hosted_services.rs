//! What an agent hosts at one time, with what it has hosted before for calls on their way.

use super::ServiceSet;
#[cfg(feature = "forward")]
use super::{McpForward, forward::SessionOwners};
use crate::{
    call::SharedHandler,
    name::MethodPath,
    policy::AgentPolicy,
    serve::{ServiceError, Services},
    status::Status,
    wire::{CallKind, ServiceInfo},
};
#[cfg(feature = "forward")]
use crate::{name::Name, serve::Service};
#[cfg(feature = "forward")]
use std::collections::HashMap;
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
    /// Who began the sessions of MCP servers over HTTP, which outlive their forwards.
    #[cfg(feature = "forward")]
    owners: HashMap<Name, Arc<SessionOwners>>,
    /// What was hosted before, as long as nodes may have calls for it on their way.
    previous: Option<PreviousServices>,
}

#[derive(Clone)]
struct PreviousServices {
    hosted: Arc<HostedServices>,
    /// The rules of that time. Those of now may be wider, for what is hosted now.
    rules: Arc<AgentPolicy>,
}

/// A handler.
pub(super) struct FoundHandler {
    pub(super) handler: SharedHandler,
    /// Of a service that is left out by now: the rules that have to allow the call too.
    pub(super) previous_rules: Option<Arc<AgentPolicy>>,
}

impl HostedServices {
    /// The set that follows, after a time with these rules. `host_mcp` makes the service of an MCP
    /// forward that is not hosted yet.
    pub(super) fn next(
        self: &Arc<Self>,
        set: ServiceSet,
        rules: Arc<AgentPolicy>,
        #[cfg(feature = "forward")] host_mcp: impl Fn(McpForward, Arc<SessionOwners>) -> Service,
    ) -> Result<Self, ServiceError> {
        #[cfg(feature = "forward")]
        let mut owners = self.owners.clone();
        #[cfg(feature = "forward")]
        let mcp: Vec<_> = {
            let hosted = |forward: McpForward| {
                let owners = owners.entry(forward.name().clone()).or_default().clone();
                let service =
                    self.hosted_mcp(&forward).unwrap_or_else(|| host_mcp(forward.clone(), owners));
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
            #[cfg(feature = "forward")]
            owners,
            previous: match is_known {
                true => self.previous.clone(),
                false => Some(PreviousServices { hosted: self.clone(), rules }),
            },
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
    pub(super) fn find(&self, path: &MethodPath, kind: CallKind) -> Result<FoundHandler, Status> {
        let found = self.services.find(path, kind).cloned();
        let fault = match (found, &self.previous) {
            (Ok(handler), _) => return Ok(FoundHandler { handler, previous_rules: None }),
            (Err(fault), None) => return Err(fault),
            (Err(fault), Some(_)) => fault,
        };
        let mut previous = self.previous.as_ref();
        while let Some(PreviousServices { hosted, rules }) = previous {
            if let Ok(handler) = hosted.services.find(path, kind).cloned() {
                return Ok(FoundHandler { handler, previous_rules: Some(rules.clone()) });
            }
            previous = hosted.previous.as_ref();
        }
        Err(fault)
    }
}
