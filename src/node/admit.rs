//! Certificate and first words become an agent or a caller of this node, or a refusal with its reason.

use super::{
    AgentLink, Shared, SharedAgentLink,
    front::Front,
    registry::{Entry, Stale},
};
use crate::{
    call::Permits,
    limits::HELLO_WAIT_MAX,
    link::{ControlStream, Grants, Greeted, Knock, Link, LinkFault},
    name::{MethodName, Name, NameError, Role, ServiceName},
    serve::take_calls,
    wire::{CloseCode, Control, PROTOCOL_VERSION, Register, Registered, ServiceInfo, Welcome},
};
use std::{sync::Arc, time::SystemTime};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

/// Greets a stranger and, if it is one of ours, stays with its link until that ends.
pub(super) async fn admit(shared: Arc<Shared>, knock: Knock, place: OwnedSemaphorePermit) {
    let from = knock.remote_address();
    let greeted = match knock.greet().await {
        Ok(greeted) => greeted,
        Err(fault) => return tracing::warn!("refused a link from {from}: {fault}"),
    };
    drop(place);
    let peer = greeted.identity().peer_name().clone();
    let ended = match peer.role {
        Role::Agent => agent(&shared, greeted, &peer.name).await,
        Role::Caller => caller(&shared, greeted, &peer.name).await,
        Role::Node => {
            greeted.refuse(
                CloseCode::Unauthorized,
                "the role node does not dial nodes in this version of dialback",
            );
            return tracing::warn!(
                "refused {peer} at {from}: nodes do not dial nodes in this version"
            );
        }
    };
    if let Err(fault) = ended {
        tracing::debug!("the link of {peer} at {from} ended: {fault}");
    }
}

fn welcome(shared: &Shared, admission: u64, grants: Grants) -> Welcome {
    Welcome {
        protocol: PROTOCOL_VERSION,
        node: shared.name.to_string(),
        admission,
        calls_in_flight_max: u32::try_from(grants.calls_in_flight_max).unwrap_or(u32::MAX),
        message_bytes_max: shared.limits.message_bytes_max as u64,
        view_version: 0,
    }
}

/// Starts to take the calls that come over a link.
fn serve(shared: &Arc<Shared>, link: &Link, grants: Grants) {
    let front = Arc::new(Front::new(shared.clone(), link.clone(), grants.calls_in_flight_max));
    shared.links.spawn_until_stopped(take_calls(
        link.clone(),
        front,
        shared.limits.clone(),
        shared.calls.clone(),
    ));
}

async fn caller(shared: &Arc<Shared>, greeted: Greeted, name: &Name) -> Result<(), LinkFault> {
    let links_max = shared.limits.caller_links_max;
    if !shared.registry().caller_came(name, links_max) {
        let text = format!("caller {name} has its limit of {links_max} links (caller_links_max)");
        tracing::warn!("refused caller {name} at {}: {text}", greeted.remote_address());
        greeted.refuse(CloseCode::ExcessiveLoad, &text);
        return Ok(());
    }
    let _counted = CallerCounted { shared, name };
    let grants = Grants { calls_in_flight_max: shared.limits.caller_calls_in_flight_max };
    let welcome = welcome(shared, shared.registry().admit(), grants);
    let (link, mut control) = greeted.welcome(welcome, grants, &shared.limits).await?;
    tracing::info!("caller {name} linked from {}", link.remote_address());
    serve(shared, &link, grants);
    let fault =
        stay(&mut control, None, |_| Err(LinkFault::Broken("a caller registers nothing".into())))
            .await;
    Err(left(&link, fault))
}

/// One link of a caller, as long as it lives.
struct CallerCounted<'a> {
    shared: &'a Shared,
    name: &'a Name,
}

impl Drop for CallerCounted<'_> {
    fn drop(&mut self) {
        self.shared.registry().caller_left(self.name);
    }
}

async fn agent(shared: &Arc<Shared>, greeted: Greeted, name: &Name) -> Result<(), LinkFault> {
    let admission = shared.registry().admit();
    let hello = greeted.hello();
    let (instance, software) = (*hello.instance, hello.software.clone());
    let answers_max = usize::try_from(hello.calls_in_flight_max).unwrap_or(usize::MAX);
    let asked_max = shared.limits.calls_in_flight_max.min(answers_max.max(1));
    let grants = Grants { calls_in_flight_max: shared.limits.agent_asks_in_flight_max };
    let welcome = welcome(shared, admission, grants);
    let (link, mut control) = greeted.welcome(welcome, grants, &shared.limits).await?;
    serve(shared, &link, grants);
    let mut admitted = Admitted { shared, name, admission, is_registered: false };
    let permits = Permits::new(asked_max, shared.limits.queue_max);
    let fault = stay(&mut control, Some(Instant::now() + HELLO_WAIT_MAX), |register| {
        let services = checked(register.services)?;
        let agent = Arc::new(AgentLink {
            link: link.clone(),
            permits: permits.clone(),
            services,
            software: software.clone(),
        });
        admitted.register(Entry { admission, instance, link: agent })?;
        Ok(Control::Registered(Registered { generation: register.generation }))
    })
    .await;
    Err(left(&link, fault))
}

/// Keeps a link up: answers its heartbeat and its registrations until it ends. Whoever has to register does so by then, or its link
/// would be held for nothing.
async fn stay(
    control: &mut ControlStream,
    mut register_by: Option<Instant>,
    mut register: impl FnMut(Register) -> Result<Control, LinkFault>,
) -> LinkFault {
    loop {
        let next = match register_by {
            Some(by) => tokio::time::timeout_at(by, control.next())
                .await
                .unwrap_or(Err(LinkFault::Silent("no REGISTER came in time"))),
            None => control.next().await,
        };
        let answer = match next {
            Ok(Control::Register(words)) => {
                register_by = None;
                register(words)
            }
            Ok(_) => Err(LinkFault::Broken("a control frame that only a node sends".into())),
            Err(fault) => Err(fault),
        };
        let sent = match answer {
            Ok(answer) => control.send(&answer).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = sent {
            return fault;
        }
    }
}

/// The link is over: says so here, and to the peer if it was we who found the fault.
fn left(link: &Link, fault: LinkFault) -> LinkFault {
    let fault = link.end(fault);
    tracing::info!("{} left: {fault}", link.peer());
    fault
}

/// Service and method names come from the peer: they follow the grammar or the link ends.
fn checked(services: Vec<ServiceInfo>) -> Result<Vec<ServiceInfo>, LinkFault> {
    let bad =
        |fault: NameError| LinkFault::Broken(format!("a registration with a bad name: {fault}"));
    for service in &services {
        // By itself too: a service may come without methods.
        service.name.parse::<ServiceName>().map_err(bad)?;
        for method in &service.methods {
            method.name.parse::<MethodName>().map_err(bad)?;
        }
    }
    Ok(services)
}

/// A link that may be in the registry. Dropping it takes it out, and no other.
struct Admitted<'a> {
    shared: &'a Arc<Shared>,
    name: &'a Name,
    admission: u64,
    is_registered: bool,
}

impl Admitted<'_> {
    fn register(&mut self, entry: Entry<SharedAgentLink>) -> Result<(), LinkFault> {
        let link = entry.link.link.clone();
        let services = entry.link.services.clone();
        let mut registry = self.shared.registry();
        let registration =
            registry.register(self.name, entry, SystemTime::now()).map_err(|Stale| {
                LinkFault::Closed {
                    code: CloseCode::Superseded,
                    text: "a later link of this identity has taken over".into(),
                    by_peer: false,
                }
            })?;
        registry.hosting.set(self.name, &services);
        if !self.is_registered {
            // Under the lock: whoever subscribes sees each agent either as present or as arriving. Nobody listening is fine.
            drop(self.shared.arrivals.send(self.name.clone()));
        }
        drop(registry);
        self.is_registered = true;
        self.shared.changed.send_replace(());
        tracing::info!(
            "agent {} attached from {} with {} services",
            self.name,
            link.remote_address(),
            services.len()
        );
        for old in registration.superseded {
            tracing::warn!(
                "agent {}: another instance at {} took over from the one at {}; if both are meant to run, give each its own certificate",
                self.name,
                link.remote_address(),
                old.link.remote_address()
            );
            old.link.close(CloseCode::Superseded, "a later link of this identity has taken over");
        }
        registration.surplus.iter().for_each(|old| {
            old.link.close(CloseCode::Drained, "more links of one instance than are allowed")
        });
        Ok(())
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut registry = self.shared.registry();
        let is_detached = registry.unregister(self.name, self.admission, SystemTime::now());
        if is_detached {
            registry.hosting.remove(self.name);
        }
        drop(registry);
        if is_detached {
            tracing::info!("agent {} is detached", self.name);
        }
        self.shared.changed.send_replace(());
    }
}
