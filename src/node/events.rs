//! What happens to a node's links, for programs that want to know.

use crate::{link::LinkFault, name::Name};
use std::net::SocketAddr;

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
