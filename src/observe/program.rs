//! Events for programs that embed a node or an agent.

use super::event::Event;
use crate::{
    link::{LinkFault, LinkMove, LinkPath, PathChange, PathChangeCause},
    name::{Name, PeerName, Role},
};
use std::net::SocketAddr;

/// An event as a program receives it.
pub(crate) trait ProgramEvent: Clone + Send + 'static {
    /// Event for programs; `None` if it is not for them.
    fn of(event: &Event<'_>) -> Option<Self>;
}

/// An event of a node's links. Received from [`Node::events`](crate::Node::events).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NodeEvent {
    /// An agent can be called and could not be before.
    Attached {
        /// Name of the peer.
        agent: Name,
        /// Source address of its packets.
        address: SocketAddr,
        /// Path of the link.
        path: LinkPath,
    },
    /// An attached agent has made another link, as after a renewal of its certificate. New calls
    /// use it, and those on the earlier link finish there.
    LinkAdded {
        /// Name of the peer.
        agent: Name,
        /// Source address of its packets.
        address: SocketAddr,
        /// Path of the link.
        path: LinkPath,
    },
    /// The peer of a link, an agent or a caller, has another address or path. The link and the
    /// calls on it continue. A peer that moves often is reported every 10 s, from the last address
    /// that was reported to the present one.
    Moved {
        /// Name of the peer.
        peer: PeerName,
        /// Source address of its packets before.
        old: SocketAddr,
        /// Source address of its packets now.
        new: SocketAddr,
        /// Path before.
        old_path: LinkPath,
        /// Path now; the same if only the address has changed.
        new_path: LinkPath,
    },
    /// An agent's last link has ended.
    Lost {
        /// Name of the peer.
        agent: Name,
        /// Reason for the end of the link.
        reason: LinkFault,
    },
    /// An agent takes no more calls on a link, in a graceful close. Calls in flight continue.
    Draining {
        /// Name of the peer.
        agent: Name,
    },
    /// Another instance of an agent has taken over, and the old instance's link was closed.
    TakenOver {
        /// Name of the peer.
        agent: Name,
        /// Address of the old instance.
        old: SocketAddr,
        /// Address of the new instance.
        new: SocketAddr,
        /// Path of its link.
        path: LinkPath,
    },
    /// Two instances of an agent keep taking over from each other; one of them is held back from
    /// now on. Each needs its own certificate.
    CertificateUsedTwice {
        /// Name of the peer.
        agent: Name,
    },
    /// A caller has made a link. It may have others.
    CallerLinked {
        /// Name of the peer.
        caller: Name,
        /// Source address of its packets.
        address: SocketAddr,
        /// Path of the link.
        path: LinkPath,
    },
    /// A link of a caller has ended.
    CallerLeft {
        /// Name of the peer.
        caller: Name,
        /// Reason for the end of the link.
        reason: LinkFault,
    },
}

impl NodeEvent {
    fn moved(peer: &PeerName, LinkMove { old, new }: LinkMove) -> Self {
        Self::Moved {
            peer: peer.clone(),
            old: old.address,
            new: new.address,
            old_path: old.path,
            new_path: new.path,
        }
    }
}

impl ProgramEvent for NodeEvent {
    fn of(event: &Event<'_>) -> Option<Self> {
        Some(match *event {
            Event::LinkUp { peer, address, path } if peer.peer_name().role == Role::Caller => {
                Self::CallerLinked { caller: peer.peer_name().name.clone(), address, path }
            }
            Event::LinkMoved { peer, moved } => Self::moved(peer.peer_name(), moved),
            Event::LinkDown { peer, reason, .. } if peer.peer_name().role == Role::Caller => {
                let caller = peer.peer_name().name.clone();
                Self::CallerLeft { caller, reason: reason.clone() }
            }
            Event::AgentRegistered { agent, address, path, superseded: [.., old], .. } => {
                Self::TakenOver { agent: agent.clone(), old: *old, new: address, path }
            }
            Event::AgentRegistered { agent, address, path, is_new: true, .. } => {
                Self::Attached { agent: agent.clone(), address, path }
            }
            Event::AgentRegistered { agent, address, path, is_again: false, .. } => {
                Self::LinkAdded { agent: agent.clone(), address, path }
            }
            Event::AgentDraining { agent, has_other_link: false, .. } => {
                Self::Draining { agent: agent.clone() }
            }
            Event::AgentDetached { agent, reason } => {
                Self::Lost { agent: agent.clone(), reason: reason.clone() }
            }
            Event::AgentHeldBack { agent, is_first: true, .. } => {
                Self::CertificateUsedTwice { agent: agent.clone() }
            }
            _ => return None,
        })
    }
}

/// An event of an agent's links. Received from [`Agent::events`](crate::Agent::events).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AgentEvent {
    /// A node has accepted the registration and will send calls.
    Registered {
        /// Name of the node.
        node: Name,
        /// Path of the link.
        path: LinkPath,
    },
    /// A link has changed its path, and continues with the calls on it. `old` and `new` are the
    /// same if it has another tunnel or another UDP socket.
    PathChanged {
        /// Name of the node.
        node: Name,
        /// Path before.
        old: LinkPath,
        /// Path from now on.
        new: LinkPath,
        /// Reason for the change.
        cause: PathChangeCause,
    },
    /// A link on which the agent was registered has ended. The agent dials again.
    Lost {
        /// Name of the node.
        node: Name,
        /// Reason for the end of the link.
        reason: LinkFault,
    },
    /// A node is closing gracefully: it sends no more calls and takes none. Calls in flight
    /// continue, and the agent dials its address for a successor.
    Draining {
        /// Name of the peer.
        node: Name,
    },
}

impl ProgramEvent for AgentEvent {
    fn of(event: &Event<'_>) -> Option<Self> {
        Some(match *event {
            Event::Registered { node, path, .. } => Self::Registered { node: node.clone(), path },
            // A link that another has replaced only finishes its calls.
            Event::PathChanged(PathChange {
                node, old, new, cause, is_replaced: false, ..
            }) => Self::PathChanged { node: node.clone(), old: *old, new: *new, cause: *cause },
            Event::NodeLost { node, reason } => {
                Self::Lost { node: node.clone(), reason: reason.clone() }
            }
            Event::NodeDraining { node } => Self::Draining { node: node.clone() },
            _ => return None,
        })
    }
}
