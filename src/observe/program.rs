//! Events for programs that embed a node or an agent.

use super::event::Event;
use crate::{
    link::LinkFault,
    name::{Name, Role},
};
use std::net::SocketAddr;

/// An event as a program receives it.
pub(crate) trait ProgramEvent: Clone + Send + 'static {
    /// What a program is told of an event; `None` for an event that is not for programs.
    fn of(event: &Event<'_>) -> Option<Self>;
}

/// Something that happened to a link of this node. Made by [`Node::events`](crate::Node::events).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NodeEvent {
    /// An agent can be called, and could not before.
    Attached {
        /// Who.
        agent: Name,
        /// Where its packets come from.
        address: SocketAddr,
    },
    /// An agent's last link has ended.
    Lost {
        /// Who.
        agent: Name,
        /// Why.
        reason: LinkFault,
    },
    /// An agent takes no more calls on one of its links, because it is about to leave. Those that
    /// it has go on.
    Draining {
        /// Who.
        agent: Name,
    },
    /// Another instance of an agent has taken over, and the link of the old one was closed.
    TakenOver {
        /// Who.
        agent: Name,
        /// Where the old instance was.
        old: SocketAddr,
        /// Where the new one is.
        new: SocketAddr,
    },
    /// Two instances of an agent keep taking over from each other; one of them is held back from
    /// now on. Each needs a certificate of its own.
    CertificateUsedTwice {
        /// Who.
        agent: Name,
    },
    /// A caller has a link, one of perhaps many.
    CallerLinked {
        /// Who.
        caller: Name,
        /// Where its packets come from.
        address: SocketAddr,
    },
    /// A link of a caller has ended.
    CallerLeft {
        /// Who.
        caller: Name,
        /// Why.
        reason: LinkFault,
    },
}

impl ProgramEvent for NodeEvent {
    fn of(event: &Event<'_>) -> Option<Self> {
        Some(match *event {
            Event::LinkUp { peer, address } if peer.peer_name().role == Role::Caller => {
                Self::CallerLinked { caller: peer.peer_name().name.clone(), address }
            }
            Event::LinkDown { peer, reason, .. } if peer.peer_name().role == Role::Caller => {
                let caller = peer.peer_name().name.clone();
                Self::CallerLeft { caller, reason: reason.clone() }
            }
            Event::AgentRegistered { agent, address, superseded: [.., old], .. } => {
                Self::TakenOver { agent: agent.clone(), old: *old, new: address }
            }
            Event::AgentRegistered { agent, address, is_new: true, .. } => {
                Self::Attached { agent: agent.clone(), address }
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

/// Something that happened to a link of this agent. Made by
/// [`Agent::events`](super::Agent::events).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AgentEvent {
    /// A node has taken the registration and will send calls.
    Registered {
        /// Whom.
        node: Name,
    },
    /// A link on which the agent was registered has ended. It dials again.
    Lost {
        /// To whom.
        node: Name,
        /// Why.
        reason: LinkFault,
    },
    /// A node is about to leave: it sends no more calls, and gets none. Those that are under way go
    /// on, and the agent looks for a successor at its address.
    Draining {
        /// Who.
        node: Name,
    },
}

impl ProgramEvent for AgentEvent {
    fn of(event: &Event<'_>) -> Option<Self> {
        Some(match *event {
            Event::Registered { node, .. } => Self::Registered { node: node.clone() },
            Event::NodeLost { node, reason } => {
                Self::Lost { node: node.clone(), reason: reason.clone() }
            }
            Event::NodeDraining { node } => Self::Draining { node: node.clone() },
            _ => return None,
        })
    }
}
