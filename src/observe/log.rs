//! Log lines of events.

use super::event::Event;
use crate::{
    link::{LinkMove, LinkPath, PathChange},
    name::{PeerName, Role},
    printable::printable,
    rate_limit::Suppressed,
};
use std::fmt::Display;

/// Logs an event. `suppressed` counts lines of its kind that were suppressed before it.
pub(super) fn log(event: &Event<'_>, own: &PeerName, suppressed: Suppressed) {
    match *event {
        Event::HandshakesIgnored { last, count, per_second } => tracing::warn!(
            "ignored {count} handshakes, the last from {last}: too many were waiting (at most {per_second} per second from one address: handshakes_per_address)"
        ),
        Event::HandshakeRefused { address, peer: Some(peer), reason, .. } => tracing::warn!(
            "refused link from {address}: {}: {reason}{suppressed}",
            peer.peer_name()
        ),
        Event::HandshakeRefused { address, reason, .. } => {
            tracing::warn!("refused link from {address}: {reason}{suppressed}");
        }
        Event::LinkRefused { peer, address, reason } => {
            tracing::warn!("refused {} at {address}: {reason}{suppressed}", peer.peer_name());
        }
        // The line about the next dial has the reason.
        Event::DialRefused { .. } | Event::NodeLost { .. } | Event::NodeDraining { .. } => {}
        Event::LinkUp { peer, address, path } if peer.peer_name().role == Role::Caller => {
            tracing::info!("caller {} linked from {address} by {path}", peer.peer_name().name);
        }
        Event::LinkMoved { peer, moved: LinkMove { old, new } } => tracing::info!(
            "{} moved from {old} to {new}, on the same link{suppressed}",
            peer.peer_name()
        ),
        Event::LinkDown { peer, reason, .. } if own.role == Role::Node => {
            tracing::info!("{} disconnected: {reason}", peer.peer_name());
        }
        Event::LinkUp { .. } | Event::LinkDown { .. } => {}
        Event::LinkEvicted { peer, address, limit } => tracing::warn!(
            "closed the oldest link of {peer}, from {address}: it opened more than {limit}{suppressed}"
        ),
        Event::ResetsExceeded { peer, resets_max } => tracing::warn!(
            "closed the link of {peer}: it reset more than {resets_max} calls in 10 s (resets_max)"
        ),
        Event::Registered { node, address, remote, path } => {
            tracing::info!(
                "registered as {} with node {node} at {address} ({remote}) by {path}",
                own.name
            );
        }
        Event::PathChanged(change) => log_path_change(change),
        Event::CallRefused { caller, via: Some(node), method, reason, .. } => tracing::warn!(
            "refused call by {caller} through node {node}: {method}: {reason}{suppressed}"
        ),
        Event::CallRefused { caller, target, method, reason, .. } => {
            let target: &dyn Display = target.map_or(&"any agent", |target| target);
            tracing::warn!("refused call by {caller}: {method} on {target}: {reason}{suppressed}");
        }
        Event::HttpRefused { address, reason, .. } => {
            tracing::warn!("refused HTTP request from {address}: {reason}{suppressed}");
        }
        Event::CallsAborted { after } => {
            tracing::warn!("aborted the calls still in flight after {after:?} (drain_max)");
        }
        Event::CredentialsWarning { text } => tracing::warn!("{text}"),
        Event::ConfigApplied { config_version, changed, closed } => tracing::info!(
            "applied configuration {config_version}: changed {changed}; closed links: {closed}"
        ),
        Event::AgentRegistered { .. }
        | Event::AgentHeldBack { .. }
        | Event::AgentDraining { .. }
        | Event::AgentDetached { .. } => log_agent(event, suppressed),
    }
}

/// Logs a change of the path of a link, also for a caller, which has no observer.
pub(crate) fn log_path_change(change: &PathChange) {
    let PathChange { address, cause, .. } = change;
    match (change.old, change.new) {
        (LinkPath::Udp, LinkPath::Tunnel) => tracing::warn!(
            "{address} does not acknowledge anything by UDP any more: the link goes on through a tunnel over TCP"
        ),
        (LinkPath::Tunnel, LinkPath::Udp) => {
            tracing::info!("{address} answers by UDP: the link has left its tunnel");
        }
        (LinkPath::Tunnel, LinkPath::Tunnel) => {
            tracing::info!("the tunnel to {address} was replaced by a new one: {cause}");
        }
        (LinkPath::Udp, LinkPath::Udp) => {
            tracing::info!("sending to {address} from a new socket, on the same link: {cause}");
        }
    }
}

fn log_agent(event: &Event<'_>, suppressed: Suppressed) {
    match *event {
        Event::AgentRegistered { agent, address, superseded: [.., old], .. } => tracing::warn!(
            "agent {agent}: the instance at {address} took over from the one at {old}; if both should run, give each its own certificate{suppressed}"
        ),
        Event::AgentRegistered { agent, address, services, is_again: true, .. } => {
            tracing::info!("agent {agent} at {address} registered again, with {services} services");
        }
        Event::AgentRegistered { agent, address, path, services, is_new, .. } => {
            let link = if is_new { "" } else { "another link " };
            tracing::info!(
                "agent {agent} attached {link}from {address} by {path} with {services} services"
            );
        }
        Event::AgentHeldBack { agent, address, other, is_first: true } => tracing::error!(
            "the certificate of agent {agent} is in use twice: instances at {address} and at {other} keep taking over from each other, and the one at {address} is held back; give each its own certificate (`dialback certs issue agent NAME`)"
        ),
        Event::AgentHeldBack { agent, address, other, .. } => tracing::warn!(
            "agent {agent} at {address} is held back: its certificate is in use at {other} too{suppressed}"
        ),
        Event::AgentDraining { agent, address, has_other_link: true, .. } => {
            tracing::info!("agent {agent} at {address} is draining a link that another replaced");
        }
        Event::AgentDraining { agent, address, reason, .. } => {
            tracing::info!("agent {agent} at {address} is draining: {}", printable(reason));
        }
        Event::AgentDetached { agent, .. } => tracing::info!("agent {agent} detached"),
        _ => {}
    }
}
