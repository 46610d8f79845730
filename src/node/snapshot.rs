//! Snapshots of attached agents and their services, and the directory service that shows them to
//! peers.

use super::{
    listing::{self, Viewer},
    registry::AgentSummary,
    routes::may_answer,
    service_index::Cursor,
    state::NodeState,
};
use crate::{
    call::Context,
    directory::{AgentInfo, DIRECTORY, Directory, ListedService},
    limits::AGENTS_COPIED_AT_ONCE,
    name::{MethodPath, Name, NameError, PeerName},
    policy::NodePolicy,
    printable::printable,
    serve::Service,
    status::{Code, Status},
    wire::ServiceInfo,
};
use std::{
    sync::{Arc, Weak},
    time::SystemTime,
};

/// All agents that pass the filter, by name.
pub(super) fn agents(shared: &NodeState, may_see: impl Fn(&Name) -> bool) -> Vec<AgentInfo> {
    // Copied first, so that calls do not wait: each entry evaluates the policy and queries its
    // link.
    let lines = shared.copied(|line| {
        let AgentSummary { name, newest, is_draining, is_used_twice, since, .. } = line;
        Some((name.clone(), newest.cloned(), [is_draining, is_used_twice], since))
    });
    lines
        .into_iter()
        .filter(|(name, ..)| may_see(name))
        .map(|(name, newest, [draining, certificate_used_twice], since)| AgentInfo {
            name: name.to_string(),
            attached: newest.is_some(),
            since_ms: unix_ms(since),
            node: shared.name.to_string(),
            address: newest.as_ref().map(|agent| agent.link.remote_address().to_string()),
            software: newest.as_ref().map(|agent| printable(&agent.software)),
            calls_in_flight: newest.as_ref().map_or(0, |agent| agent.permits.in_flight() as u64),
            rtt_us: newest
                .as_ref()
                .map(|agent| u64::try_from(agent.link.rtt().as_micros()).unwrap_or(u64::MAX)),
            draining,
            certificate_used_twice,
        })
        .collect()
}

fn unix_ms(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn viewer<'a>(shared: &NodeState, policy: &'a NodePolicy, requester: &PeerName) -> Viewer<'a> {
    if *requester == shared.peer { Viewer::own(policy) } else { Viewer::new(policy, requester) }
}

/// Agents and services that one caller may see.
pub(super) fn directory_for(shared: &NodeState, requester: &PeerName) -> Directory {
    let policy = shared.policy.get();
    let viewer = viewer(shared, &policy, requester);
    Directory {
        node: shared.name.to_string(),
        agents: agents(shared, |agent| viewer.on(agent).sees_it()),
        services: all_services(shared, requester),
    }
}

/// Services of all agents that take calls, as the requester may call them.
fn all_services(shared: &NodeState, requester: &PeerName) -> Vec<ListedService> {
    // Copied first, so that calls do not wait while the policy is evaluated.
    let links = shared.copied(|line| {
        let newest = line.newest.filter(|_| !line.is_draining)?;
        Some((line.name.clone(), newest.clone()))
    });
    let policy = shared.policy.get();
    let hosted = links.iter().map(|(name, link)| (name, &link.services[..]));
    listing::list(&viewer(shared, &policy, requester), hosted)
}

/// Services of one agent as the requester may call them, if it may see the agent.
fn services(
    shared: &NodeState,
    requester: &PeerName,
    agent: &Name,
) -> Result<Vec<ServiceInfo>, Status> {
    let policy = shared.policy.get();
    let on_agent = viewer(shared, &policy, requester).on(agent);
    if !on_agent.sees_it() {
        return Err(Status::new(
            Code::PermissionDenied,
            format!("{requester} may not see agent {agent}"),
        ));
    }
    let link = shared.registry().pick(agent).cloned();
    let link = link
        .ok_or_else(|| Status::new(Code::Unavailable, format!("agent {agent} is not attached")))?;
    Ok(on_agent.services(&link.services))
}

/// Attached agents that may answer for the method's service and that the requester may call, by
/// name.
pub(super) fn hosts(shared: &NodeState, requester: &PeerName, method: &MethodPath) -> Vec<Name> {
    let policy = shared.policy.get();
    let (mut seen, mut hosts) = (Cursor::default(), Vec::new());
    loop {
        // The registry's lock is held for one batch at a time.
        let some =
            shared.registry().service_index.of(method).next(&mut seen, AGENTS_COPIED_AT_ONCE);
        if some.is_empty() {
            break;
        }
        hosts.extend(
            some.into_iter().filter(|host| may_answer(shared, &policy, requester, host, method)),
        );
    }
    hosts.sort();
    // An agent that has registered again meanwhile occurs twice.
    hosts.dedup();
    hosts
}

/// The directory service. It holds a weak reference to the node, which owns it.
pub(super) fn directory(shared: &Arc<NodeState>) -> Service {
    let (for_agents, for_services) = (Arc::downgrade(shared), Arc::downgrade(shared));
    let (for_hosts, for_all) = (Arc::downgrade(shared), Arc::downgrade(shared));
    Service::new(DIRECTORY)
        .method("AllServices", move |(): (), ctx: Context| {
            let shared = for_all.clone();
            async move { Ok(all_services(&*upgrade(&shared)?, ctx.caller())) }
        })
        .method("Agents", move |(): (), ctx: Context| {
            let shared = for_agents.clone();
            async move {
                let shared = upgrade(&shared)?;
                let policy = shared.policy.get();
                let viewer = viewer(&shared, &policy, ctx.caller());
                Ok(agents(&shared, |agent| viewer.on(agent).sees_it()))
            }
        })
        .method("Hosts", move |method: String, ctx: Context| {
            let shared = for_hosts.clone();
            async move {
                let method: MethodPath = method.parse().map_err(invalid)?;
                let hosts = hosts(&*upgrade(&shared)?, ctx.caller(), &method);
                Ok(hosts.iter().map(ToString::to_string).collect::<Vec<_>>())
            }
        })
        .method("Services", move |agent: String, ctx: Context| {
            let shared = for_services.clone();
            async move {
                let agent: Name = agent.parse().map_err(invalid)?;
                services(&*upgrade(&shared)?, ctx.caller(), &agent)
            }
        })
}

fn invalid(fault: NameError) -> Status {
    Status::new(Code::InvalidArgument, fault.to_string())
}

fn upgrade(shared: &Weak<NodeState>) -> Result<Arc<NodeState>, Status> {
    shared.upgrade().ok_or_else(|| Status::new(Code::Unavailable, "the node is stopping"))
}
