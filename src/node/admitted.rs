//! One link of an agent, from its admission to its end: in the registry, draining, out of it. What
//! is told of it is told here.

use super::{
    registry::{self, Now, Refused, Registration},
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

/// A link that may be in the registry. Dropping it takes it out, and no other.
pub(super) struct Admitted<'a> {
    shared: &'a Arc<NodeState>,
    name: &'a Name,
    admission: u64,
    instance: [u8; 16],
    /// What is registered, but for the services.
    agent: AgentLink,
    is_registered: bool,
    /// Why the link has ended.
    reason: Option<LinkFault>,
}

impl<'a> Admitted<'a> {
    pub(super) fn new(
        shared: &'a Arc<NodeState>,
        name: &'a Name,
        admission: u64,
        instance: [u8; 16],
        agent: AgentLink,
    ) -> Self {
        Self { shared, name, admission, instance, agent, is_registered: false, reason: None }
    }

    fn address(&self) -> SocketAddr {
        self.agent.link.remote_address()
    }

    /// Takes a registration. A later one without services takes the link out of service, and leaves
    /// it its calls.
    pub(super) fn register(&mut self, words: Register) -> Result<Control, LinkFault> {
        let services = checked(words.services)?;
        if self.is_registered && services.is_empty() {
            self.drain("it has unregistered");
        } else {
            self.enter(services)?;
        }
        Ok(Control::Registered(Registered { generation: words.generation }))
    }

    fn enter(&mut self, services: Vec<ServiceInfo>) -> Result<(), LinkFault> {
        let (count, hosted) = (services.len(), services.clone());
        // Made before the lock is taken: a registration may have thousands of methods.
        let paths = service_index::paths(&services);
        let entry = registry::Entry {
            admission: self.admission,
            instance: self.instance,
            is_draining: false,
            link: Arc::new(AgentLink { services, ..self.agent.clone() }),
        };
        let mut registry = self.shared.registry();
        let registration = registry.register(self.name, entry, Now::read());
        if registration.is_ok() {
            registry.service_index.set(self.name, paths);
        }
        // Under the lock: whoever subscribes sees each agent either as present or as arriving, and
        // programs receive events in the order in which things happened.
        let superseded: Vec<_> = registration
            .iter()
            .flat_map(|registered| &registered.superseded)
            .map(|old| old.link.remote_address())
            .collect();
        let told = registration.as_ref().ok().map(|registered| {
            if !self.is_registered {
                let arrival = registry.arrived(self.name);
                drop(self.shared.arrivals.send((arrival, self.name.clone())));
            }
            self.shared.observer.send_to_programs(Event::AgentRegistered {
                agent: self.name,
                address: self.address(),
                services: count,
                is_new: registered.is_new,
                superseded: &superseded,
            })
        });
        drop(registry);
        drop(told);
        let registration = registration.map_err(|why| self.refused(&why))?;
        self.is_registered = true;
        self.shared.waiters.wake(self.name, &hosted);
        self.close_replaced(registration);
        Ok(())
    }

    /// Closes the links that this one replaces.
    fn close_replaced(&self, registration: Registration<SharedAgentLink>) {
        for old in registration.superseded {
            old.link.close(CloseCode::Superseded, "a later link of this identity has taken over");
        }
        for old in registration.surplus {
            let (peer, address) = (old.link.peer(), old.link.remote_address());
            let limit = "the links that an agent may have";
            self.shared.observer.report(Event::LinkEvicted { peer, address, limit });
            old.link.close(CloseCode::Drained, "more links of one instance than are allowed");
        }
    }

    /// Why this link is closed and not taken into service.
    fn refused(&self, why: &Refused<SharedAgentLink>) -> LinkFault {
        let text = match why {
            Refused::Stale => "a later link of this identity has taken over".into(),
            Refused::HeldBack { other, is_first } => {
                let (address, other) = (self.address(), other.link.remote_address());
                let (agent, is_first) = (self.name, *is_first);
                self.shared.observer.report(Event::AgentHeldBack {
                    agent,
                    address,
                    other,
                    is_first,
                });
                "another instance uses this certificate too, and this one has come back too often; give each a certificate of its own"
                    .to_owned()
            }
        };
        LinkFault::Closed { code: CloseCode::Superseded, text, by_peer: false }
    }

    /// The link takes no more calls; those that are on it go on.
    pub(super) fn drain(&self, reason: &str) {
        let mut registry = self.shared.registry();
        if !registry.drain(self.name, self.admission) {
            return;
        }
        let (agent, address) = (self.name, self.address());
        // One that has another link, as after a renewal, goes on there.
        let has_other_link = registry.pick(agent).is_some();
        let draining = Event::AgentDraining { agent, address, has_other_link, reason };
        let told = self.shared.observer.send_to_programs(draining);
        drop(registry);
        drop(told);
        self.shared.waiters.wake(self.name, &[]);
    }

    /// The link is over.
    pub(super) fn left(mut self, fault: LinkFault) -> LinkFault {
        let fault = self.shared.link_down(&self.agent.link, fault);
        self.reason = Some(fault.clone());
        fault
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut registry = self.shared.registry();
        let is_detached = registry.unregister(self.name, self.admission, Now::read());
        let stopped = || LinkFault::Closed {
            code: CloseCode::Drained,
            text: "the node stops".into(),
            by_peer: false,
        };
        let reason = &self.reason.take().unwrap_or_else(stopped);
        // Under the lock, as the event of its next registration.
        let detached = Event::AgentDetached { agent: self.name, reason };
        let told = is_detached.then(|| self.shared.observer.send_to_programs(detached));
        drop(registry);
        drop(told);
        self.shared.waiters.wake(self.name, &[]);
    }
}

/// Names and texts come from the peer: names follow the grammar and are not reserved, and texts
/// have their limits, or the link ends.
fn checked(services: Vec<ServiceInfo>) -> Result<Vec<ServiceInfo>, LinkFault> {
    let bad =
        |fault: NameError| LinkFault::Broken(format!("a registration with a bad name: {fault}"));
    let reserved = |name: &ServiceName, whose: &str| {
        LinkFault::Broken(format!(
            "a registration with a reserved name: the service {name} is {whose}"
        ))
    };
    for service in &services {
        // By itself too: a service may come without methods.
        let name = service.name.parse::<ServiceName>().map_err(bad)?;
        let is_rpc = service.methods.iter().any(|method| !method.kind.is_forward());
        if name.is_of_nodes() {
            return Err(reserved(&name, "the node's own (dialback. is reserved)"));
        }
        if name.is_of_forwards() && is_rpc {
            return Err(reserved(&name, "for forwards of that kind, and has RPC methods"));
        }
        if let Some(what) = service.too_long() {
            return Err(LinkFault::Broken(format!("a registration that says too much: {what}")));
        }
        for method in &service.methods {
            if method.kind.is_forward() {
                method.path(&service.name).parse::<MethodPath>().map_err(bad)?;
            } else if !method.is_any() {
                method.name.parse::<MethodName>().map_err(bad)?;
            }
        }
    }
    Ok(joined(services))
}

/// Services of one name as one, and each method once for each kind: of what is listed again, the
/// first counts.
fn joined(services: Vec<ServiceInfo>) -> Vec<ServiceInfo> {
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
        checked(vec![service]).expect_err("refused").to_string()
    }

    #[test]
    fn a_service_that_is_listed_twice_is_one_and_a_method_counts_once_for_each_kind() {
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
        assert_eq!(checked(listed).ok(), Some(wanted));
    }

    #[test]
    fn reserved_names_are_refused_and_names_beside_them_are_not() {
        for name in ["dialback", "dialback.v1.Directory", "dialback.x"] {
            assert!(refused(service(name, &[("X", CallKind::Unary)])).contains("reserved"));
            assert!(refused(service(name, &[])).contains("reserved"), "{name}");
        }
        for name in ["dialbacks", "dialback_", "my.dialback.X", "Dialback.X", "tcpX", "a.tcp"] {
            assert!(checked(vec![service(name, &[("X", CallKind::Unary)])]).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_services_tcp_and_http_are_for_forwards_alone() {
        for method in ["db", "*"] {
            let unary = [(method, CallKind::Unary)];
            assert!(refused(service("tcp", &unary)).contains("reserved"), "{method}");
            assert!(refused(service("http", &unary)).contains("reserved"), "{method}");
            // A forward outside the service of its kind, and one that stands for all.
            assert!(refused(service("S", &[(method, CallKind::Tcp)])).contains("name"));
        }
        assert!(refused(service("tcp", &[("*", CallKind::Tcp)])).contains("name"));
        let mixed = [("db", CallKind::Tcp), ("X", CallKind::Unary)];
        assert!(refused(service("tcp", &mixed)).contains("reserved"));
        assert!(checked(vec![service("tcp", &[("db", CallKind::Tcp)])]).is_ok());
    }
}
