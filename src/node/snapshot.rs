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
    name::{MethodPath, Name, NameError, PeerName, Role},
    policy::NodePolicy,
    printable::printable,
    probe::{PROBE, Prober},
    serve::Service,
    status::{Code, Status},
    wire::ServiceInfo,
};
use std::{
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
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
            path: newest.as_ref().map(|agent| agent.link.path().to_string()),
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

pub(super) fn directory_for(shared: &NodeState, requester: &PeerName) -> Directory {
    Directory {
        node: shared.name.to_string(),
        agents: visible_agents(shared, requester),
        services: all_services(shared, requester),
    }
}

fn visible_agents(shared: &NodeState, requester: &PeerName) -> Vec<AgentInfo> {
    let policy = shared.policy.get();
    let viewer = viewer(shared, &policy, requester);
    agents(shared, |agent| viewer.on(agent).sees_it())
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
            some.into_iter()
                .filter(|host| may_answer(shared, &policy, requester, host, method, None)),
        );
    }
    hosts.sort();
    // An agent that has registered again meanwhile occurs twice.
    hosts.dedup();
    hosts
}

pub(super) fn directory(shared: &Arc<NodeState>) -> Service {
    let all = answer(shared, |shared, caller, ()| Ok(all_services(shared, caller)));
    let agents = answer(shared, |shared, caller, ()| Ok(visible_agents(shared, caller)));
    let hosts = answer(shared, |shared, caller, method: String| {
        let hosts = hosts(shared, caller, &method.parse().map_err(invalid)?);
        Ok(hosts.iter().map(ToString::to_string).collect::<Vec<_>>())
    });
    let services = answer(shared, |shared, caller, agent: String| {
        services(shared, caller, &agent.parse().map_err(invalid)?)
    });
    Service::new(DIRECTORY)
        .method(PROBE, probe_back(shared))
        .method("AllServices", all)
        .method("Agents", agents)
        .method("Hosts", hosts)
        .method("Services", services)
}

/// Calls the agent that asks, on the link that calls of it take.
fn probe_back(shared: &Arc<NodeState>) -> impl Fn((), Context) -> ReplyOf<()> + use<> {
    let shared = Arc::downgrade(shared);
    move |(), ctx| {
        let shared = shared.upgrade();
        Box::pin(async move {
            let shared = shared.ok_or_else(stopping)?;
            if ctx.caller().role != Role::Agent {
                return Err(Status::new(Code::InvalidArgument, "only agents are probed"));
            }
            let link = shared.registry().pick(&ctx.caller().name).cloned();
            let link = link.ok_or_else(|| {
                Status::new(Code::Unavailable, "the node sends this agent no calls")
            })?;
            let limits = (&*link.limits).into();
            let prober = Prober { peer: &shared.peer, call_ids: &shared.call_ids, limits };
            prober.probe_agent(&link.link, ctx.deadline()).await
        })
    }
}

type ReplyOf<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

fn stopping() -> Status {
    Status::new(Code::Unavailable, "the node is stopping")
}

/// A method of the directory. It holds a weak reference to the node, which owns it.
fn answer<T, R>(
    shared: &Arc<NodeState>,
    answer: fn(&NodeState, &PeerName, T) -> Result<R, Status>,
) -> impl Fn(T, Context) -> Ready<Result<R, Status>> + use<T, R> {
    let shared = Arc::downgrade(shared);
    move |request, ctx| {
        let shared = shared.upgrade().ok_or_else(stopping);
        ready(shared.and_then(|shared| answer(&shared, ctx.caller(), request)))
    }
}

fn invalid(fault: NameError) -> Status {
    Status::new(Code::InvalidArgument, fault.to_string())
}
