//! Log lines of events: a sentence for people, and its facts as fields for machines.

use super::event::Event;
use crate::{
    limits::SHORT_LINK_MAX,
    link::{LinkFault, LinkMove, LinkPath, PathChange},
    name::{PeerName, Role},
    printable::printable,
    rate_limit::Suppressed,
    wire::CloseCode,
};
use std::{fmt::Display, time::Duration};

/// Logs an event. `suppressed` counts lines of its kind that were suppressed before it.
pub(super) fn log(event: &Event<'_>, own: &PeerName, suppressed: Suppressed) {
    match *event {
        Event::HandshakesIgnored { last, count, per_second } => tracing::warn!(
            address = %last,
            count,
            "ignored {count} handshakes, the last from {last}: too many were waiting (at most {per_second} per second from one address: handshakes_per_address)"
        ),
        Event::HandshakeRefused { address, peer: Some(peer), reason, .. } => {
            let peer = peer.peer_name();
            tracing::warn!(%peer, %address, %reason, "refused link from {address}: {peer}: {reason}{suppressed}");
        }
        Event::HandshakeRefused { address, reason, .. } => {
            tracing::warn!(%address, %reason, "refused link from {address}: {reason}{suppressed}");
        }
        Event::LinkRefused { peer, address, reason } => {
            let peer = peer.peer_name();
            tracing::warn!(%peer, %address, reason, "refused {peer} at {address}: {reason}{suppressed}");
        }
        // The line about the next dial has the reason.
        Event::DialRefused { .. } | Event::NodeLost { .. } | Event::NodeDraining { .. } => {}
        Event::LinkUp { peer, address, path } if peer.peer_name().role == Role::Caller => {
            let peer = peer.peer_name();
            tracing::info!(%peer, %address, %path, "caller {} linked from {address} by {path}", peer.name);
        }
        Event::LinkMoved { peer, moved: LinkMove { old, new } } => {
            let (peer, address, path) = (peer.peer_name(), new.address, new.path);
            tracing::info!(
                %peer,
                %address,
                %path,
                old_address = %old.address,
                "{peer} moved from {old} to {new}, on the same link{suppressed}"
            );
        }
        Event::LinkDown { peer, reason, lasted, address } if own.role == Role::Node => {
            log_down((peer.peer_name(), &address), reason, lasted);
        }
        Event::LinkUp { .. } | Event::LinkDown { .. } => {}
        Event::LinkEvicted { peer, address, limit } => tracing::warn!(
            %peer,
            %address,
            limit,
            "closed the oldest link of {peer}, from {address}: it opened more than {limit}{suppressed}"
        ),
        Event::ResetsExceeded { peer, resets_max } => tracing::warn!(
            %peer,
            resets_max,
            "closed the link of {peer}: it reset more than {resets_max} calls in 10 s (resets_max)"
        ),
        Event::Registered { node, address, remote, path } => {
            tracing::info!(
                %node,
                address = %remote,
                %path,
                "registered as {} with node {node} at {address} ({remote}) by {path}",
                own.name
            );
        }
        Event::PathChanged(change) => log_path_change(change),
        Event::CallRefused { caller, via, target, method, code, reason } => {
            let of = |target: &PeerName| format!(" on {target}");
            let target = target.map_or_else(|| " on any agent".to_owned(), of);
            let through = via.map(|node| format!(" through node {node}")).unwrap_or_default();
            let target = if via.is_some() { "" } else { &target };
            tracing::warn!(
                %caller,
                %method,
                code = code.as_str(),
                %reason,
                "refused call by {caller}{through}: {method}{target}: {reason}{suppressed}"
            );
        }
        Event::HttpRefused { address, reason, .. } => {
            tracing::warn!(%address, %reason, "refused HTTP request from {address}: {reason}{suppressed}");
        }
        Event::CallsAborted { after } => {
            let duration_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(
                duration_ms,
                "aborted the calls still in flight after {after:?} (drain_max)"
            );
        }
        Event::CredentialsWarning { text } => tracing::warn!("{text}"),
        Event::ConfigApplied { config_version, changed, closed } => tracing::info!(
            config_version,
            closed,
            "applied configuration {config_version}: changed {changed}; closed links: {closed}"
        ),
        Event::AgentRegistered { .. }
        | Event::AgentHeldBack { .. }
        | Event::AgentDraining { .. }
        | Event::AgentDetached { .. } => log_agent(event, suppressed),
    }
}

/// Logs the end of a link. The short link of one command has a line already, from its start.
fn log_down((peer, address): (&PeerName, &dyn Display), reason: &LinkFault, lasted: Duration) {
    let is_goodbye =
        matches!(reason, LinkFault::Closed { code: CloseCode::Goodbye, by_peer: true, .. });
    let duration_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(%peer, %address, %reason, duration_ms, "{peer} disconnected: {reason}")
        };
    }
    if peer.role == Role::Caller && is_goodbye && lasted < SHORT_LINK_MAX {
        line!(debug);
    } else {
        line!(info);
    }
}

/// Logs a change of the path of a link, also for a caller, which has no observer.
pub(crate) fn log_path_change(change: &PathChange) {
    let PathChange { node, address, cause, new, .. } = change;
    match (change.old, change.new) {
        (LinkPath::Udp, LinkPath::Tunnel) => tracing::warn!(
            %node,
            path = %new,
            "{address} does not acknowledge anything by UDP any more: the link goes on through a tunnel over TCP"
        ),
        (LinkPath::Tunnel, LinkPath::Udp) => {
            tracing::info!(%node, path = %new, "{address} answers by UDP: the link has left its tunnel");
        }
        (LinkPath::Tunnel, LinkPath::Tunnel) => {
            tracing::info!(%node, path = %new, "the tunnel to {address} was replaced by a new one: {cause}");
        }
        (LinkPath::Udp, LinkPath::Udp) => {
            tracing::info!(%node, path = %new, "sending to {address} from a new socket, on the same link: {cause}");
        }
    }
}

fn log_agent(event: &Event<'_>, suppressed: Suppressed) {
    match *event {
        Event::AgentRegistered { agent, address, superseded: [.., old], .. } => tracing::warn!(
            %agent,
            %address,
            "agent {agent}: the instance at {address} took over from the one at {old}; if both should run, give each its own certificate{suppressed}"
        ),
        Event::AgentRegistered { agent, address, services, is_again: true, .. } => {
            tracing::info!(%agent, %address, services, "agent {agent} at {address} registered again, with {}{suppressed}", counted(services));
        }
        Event::AgentRegistered { agent, address, path, services, is_new, .. } => {
            let link = if is_new { "" } else { "another link " };
            tracing::info!(
                %agent,
                %address,
                %path,
                services,
                "agent {agent} attached {link}from {address} by {path} with {}",
                counted(services)
            );
        }
        Event::AgentHeldBack { agent, address, other, is_first: true } => tracing::error!(
            %agent,
            %address,
            "the certificate of agent {agent} is in use twice: instances at {address} and at {other} keep taking over from each other, and the one at {address} is held back; give each its own certificate (`dialback certs issue agent NAME`)"
        ),
        Event::AgentHeldBack { agent, address, other, .. } => tracing::warn!(
            %agent,
            %address,
            "agent {agent} at {address} is held back: its certificate is in use at {other} too{suppressed}"
        ),
        Event::AgentDraining { agent, address, has_other_link: true, .. } => {
            tracing::info!(%agent, %address, "agent {agent} at {address} is draining a link that another replaced");
        }
        Event::AgentDraining { agent, address, reason, .. } => {
            let reason = printable(reason);
            tracing::info!(%agent, %address, reason, "agent {agent} at {address} is draining: {reason}");
        }
        Event::AgentDetached { agent, reason } => {
            tracing::info!(%agent, %reason, "agent {agent} detached: {reason}");
        }
        _ => {}
    }
}

fn counted(services: usize) -> String {
    if services == 1 { "1 service".to_owned() } else { format!("{services} services") }
}
