//! One link of an agent from its admission to its end: registered, draining, removed.

use super::{
    registry::{self, Registration, RegistrationError, Times},
    service_index,
    state::{AgentLink, NodeState, SharedAgentLink},
};
use crate::{
    link::LinkFault,
    name::{MethodName, MethodPath, Name, NameError, ServiceName},
    observe::Event,
    wire::{CloseCode, Control, Register, Registered, ServiceInfo},
};
use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::SocketAddr,
    sync::Arc,
};

/// An agent's link that may be registered. Dropping it removes that link from the registry.
pub(super) struct AgentSession<'a> {
    pub(super) shared: &'a Arc<NodeState>,
    pub(super) name: &'a Name,
    pub(super) admission: u64,
    pub(super) instance: [u8; 16],
    /// Registered link without its services.
    pub(super) agent: AgentLink,
    pub(super) is_registered: bool,
    /// Reason for the end of the link.
    pub(super) reason: Option<LinkFault>,
}

impl AgentSession<'_> {
    fn address(&self) -> SocketAddr {
        self.agent.link.remote_address()
    }

    /// Handles a REGISTER. A later one without services ends service on the link but not its calls.
    pub(super) fn register(&mut self, frame: Register) -> Result<Control, LinkFault> {
        let services = validated(frame.services)?;
        if self.is_registered && services.is_empty() {
            self.drain("the agent unregistered");
        } else {
            self.publish(services)?;
        }
        Ok(Control::Registered(Registered { generation: frame.generation }))
    }

    fn publish(&mut self, services: Vec<ServiceInfo>) -> Result<(), LinkFault> {
        let (count, hosted) = (services.len(), services.clone());
        // Computed before the lock is taken: a registration may have thousands of methods.
        let paths = service_index::paths(&services);
        let entry = registry::LinkEntry {
            admission: self.admission,
            instance: self.instance,
            is_draining: false,
            link: Arc::new(AgentLink { services, ..self.agent.clone() }),
        };
        let mut registry = self.shared.registry();
        let registration = registry.register(self.name, entry, Times::read());
        if registration.is_ok() {
            registry.service_index.set(self.name, paths);
        }
        // Under the lock, so that a subscriber sees each agent either as present or as arriving,
        // and programs receive events in order.
        let superseded: Vec<_> = registration
            .iter()
            .flat_map(|registered| &registered.superseded)
            .map(|old| old.link.remote_address())
            .collect();
        let report = registration.as_ref().ok().map(|registered| {
            if !self.is_registered {
                let arrival = registry.arrived(self.name);
                drop(self.shared.arrivals.send((arrival, self.name.clone())));
            }
            self.shared.observer.send_to_programs(Event::AgentRegistered {
                agent: self.name,
                address: self.address(),
                path: self.agent.link.path(),
                services: count,
                is_new: registered.is_new,
                is_again: self.is_registered,
                superseded: &superseded,
            })
        });
        drop(registry);
        drop(report);
        let registration = registration.map_err(|why| self.refused(&why))?;
        self.is_registered = true;
        self.shared.waiters.wake(self.name, &hosted);
        self.close_replaced(registration);
        Ok(())
    }

    fn close_replaced(&self, registration: Registration<SharedAgentLink>) {
        for old in registration.superseded {
            old.link.close(CloseCode::Superseded, "a later link of this identity has taken over");
        }
        for old in registration.excess {
            let (peer, address) = (old.link.peer(), old.link.remote_address());
            let limit = "the limit of links per agent";
            self.shared.observer.report(Event::LinkEvicted { peer, address, limit });
            old.link.close(CloseCode::Drained, "too many links of one instance");
        }
    }

    /// Fault of a link that is closed instead of being registered.
    fn refused(&self, why: &RegistrationError<SharedAgentLink>) -> LinkFault {
        let text = match why {
            RegistrationError::Stale => "a later link of this identity has taken over".into(),
            RegistrationError::HeldBack { other, is_first } => {
                let (address, other) = (self.address(), other.link.remote_address());
                let (agent, is_first) = (self.name, *is_first);
                self.shared.observer.report(Event::AgentHeldBack {
                    agent,
                    address,
                    other,
                    is_first,
                });
                "another instance uses the same certificate, and this one returned too often; give each its own certificate"
                    .to_owned()
            }
        };
        LinkFault::Closed { code: CloseCode::Superseded, text, by_peer: false }
    }

    /// Stops new calls on the link. Calls in flight continue.
    pub(super) fn drain(&self, reason: &str) {
        let mut registry = self.shared.registry();
        if !registry.drain(self.name, self.admission) {
            return;
        }
        let (agent, address) = (self.name, self.address());
        // An agent with another link, as after a renewal, continues there.
        let has_other_link = registry.pick(agent).is_some();
        let draining = Event::AgentDraining { agent, address, has_other_link, reason };
        let report = self.shared.observer.send_to_programs(draining);
        drop(registry);
        drop(report);
        self.shared.waiters.wake(self.name, &[]);
    }

    /// Reports the end of the link.
    pub(super) fn end(mut self, fault: LinkFault) -> LinkFault {
        let fault = self.shared.link_down(&self.agent.link, fault);
        self.reason = Some(fault.clone());
        fault
    }
}

impl Drop for AgentSession<'_> {
    fn drop(&mut self) {
        let mut registry = self.shared.registry();
        let is_detached = registry.unregister(self.name, self.admission, Times::read());
        let stopped = || LinkFault::Closed {
            code: CloseCode::Drained,
            text: "the node stops".into(),
            by_peer: false,
        };
        let reason = &self.reason.take().unwrap_or_else(stopped);
        // Under the lock, as the event of its next registration.
        let detached = Event::AgentDetached { agent: self.name, reason };
        let report = is_detached.then(|| self.shared.observer.send_to_programs(detached));
        drop(registry);
        drop(report);
        self.shared.waiters.wake(self.name, &[]);
    }
}

/// Validates services of a peer: names by the grammar, none reserved, and texts within limits.
fn validated(services: Vec<ServiceInfo>) -> Result<Vec<ServiceInfo>, LinkFault> {
    let bad = |fault: NameError| {
        LinkFault::Broken(format!("a registration with an invalid name: {fault}"))
    };
    let reserved = |name: &ServiceName, whose: &str| {
        LinkFault::Broken(format!(
            "a registration with a reserved name: the service {name} is {whose}"
        ))
    };
    for service in &services {
        // Parsed separately, because a service may have no methods.
        let name = service.name.parse::<ServiceName>().map_err(bad)?;
        let is_rpc = service.methods.iter().any(|method| !method.kind.is_forward());
        if name.is_of_nodes() {
            return Err(reserved(&name, "the node's own (dialback. is reserved)"));
        }
        if name.is_of_forwards() && is_rpc {
            return Err(reserved(&name, "for forwards of that kind, and has RPC methods"));
        }
        if let Some(what) = service.too_long() {
            return Err(LinkFault::Broken(format!("a registration over its limits: {what}")));
        }
        for method in &service.methods {
            if method.kind.is_forward() {
                MethodPath::registered_forward(&service.name, &method.name).map_err(bad)?;
                if !method.kind.calls_forwards_of(&service.name) {
                    let whose = format!("for forwards, and {} is not one of them", method.kind);
                    return Err(reserved(&name, &whose));
                }
            } else if !method.is_any() {
                method.name.parse::<MethodName>().map_err(bad)?;
            }
        }
    }
    Ok(merged(services))
}

/// Merges services of the same name, and keeps the first of each method and kind.
fn merged(services: Vec<ServiceInfo>) -> Vec<ServiceInfo> {
    let (mut out, mut places) = (Vec::<ServiceInfo>::new(), HashMap::new());
    for service in services {
        match places.entry(service.name.clone()) {
            Entry::Vacant(place) => {
                place.insert(out.len());
                out.push(service);
            }
            Entry::Occupied(place) => out[*place.get()].methods.extend(service.methods),
        }
    }
    for service in &mut out {
        let mut seen = HashSet::new();
        service.methods.retain(|method| seen.insert((method.name.clone(), method.kind)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CallKind, MethodInfo};

    fn service(name: &str, methods: &[(&str, CallKind)]) -> ServiceInfo {
        let methods = methods.iter().map(|(name, kind)| MethodInfo::new(*name, *kind));
        ServiceInfo::new(name, methods.collect())
    }

    fn refused(service: ServiceInfo) -> String {
        validated(vec![service]).expect_err("refused").to_string()
    }

    #[test]
    fn duplicate_services_and_methods_are_merged() {
        use CallKind::{ServerStream, Unary};
        let listed = vec![
            service("A", &[("X", Unary), ("X", Unary), ("X", ServerStream)]),
            service("B", &[]),
            service("A", &[("X", Unary), ("Y", Unary)]),
        ];
        let wanted = vec![
            service("A", &[("X", Unary), ("X", ServerStream), ("Y", Unary)]),
            service("B", &[]),
        ];
        assert_eq!(validated(listed).ok(), Some(wanted));
    }

    #[test]
    fn reserved_names_are_refused_and_similar_ones_are_not() {
        for name in ["dialback", "dialback.v1.Directory", "dialback.x"] {
            assert!(refused(service(name, &[("X", CallKind::Unary)])).contains("reserved"));
            assert!(refused(service(name, &[])).contains("reserved"), "{name}");
        }
        for name in ["dialbacks", "dialback_", "my.dialback.X", "Dialback.X", "tcpX", "a.tcp"] {
            assert!(validated(vec![service(name, &[("X", CallKind::Unary)])]).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_services_tcp_and_http_are_for_forwards_only() {
        for method in ["db", "*"] {
            let unary = [(method, CallKind::Unary)];
            assert!(refused(service("tcp", &unary)).contains("reserved"), "{method}");
            assert!(refused(service("http", &unary)).contains("reserved"), "{method}");
            // A forward outside the service of its kind, and a wildcard forward.
            assert!(refused(service("S", &[(method, CallKind::Tcp)])).contains("name"));
        }
        assert!(refused(service("tcp", &[("*", CallKind::Tcp)])).contains("name"));
        let mixed = [("db", CallKind::Tcp), ("X", CallKind::Unary)];
        assert!(refused(service("tcp", &mixed)).contains("reserved"));
        assert!(validated(vec![service("tcp", &[("db", CallKind::Tcp)])]).is_ok());
    }

    #[test]
    fn the_service_mcp_is_for_servers_called_as_http() {
        use CallKind::{Http, Tcp, Unary};
        for listed in [("jira", Http), ("acme.jira-1", Http)] {
            assert!(validated(vec![service("mcp", &[listed])]).is_ok(), "{listed:?}");
        }
        for (listed, why) in [
            (("jira", Unary), "reserved"),
            (("*", Unary), "reserved"),
            (("jira", Tcp), "the service mcp is for forwards, and tcp is not one of them"),
            (("jira/create_issue", Http), "without their tools"),
            (("*", Http), "invalid name"),
            (("Jira", Http), "invalid name"),
        ] {
            let text = refused(service("mcp", &[listed]));
            assert!(text.contains(why), "{listed:?}: {text}");
        }
        assert!(refused(service("http", &[("web", Tcp)])).contains("reserved"));
    }
}
