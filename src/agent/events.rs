//! What happens to an agent's links, for programs that want to know.

use crate::{link::LinkFault, name::Name};

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
