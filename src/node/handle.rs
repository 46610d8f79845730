//! What the embedding program holds of an agent: a name to wait for, a handle to call, the stream
//! of arrivals.

use super::{
    ingress::callee,
    registry::Line,
    state::{NodeState, SharedAgentLink},
    waiters::Awaited,
};
use crate::{
    call::{Call, Callee, IntoMethod, Target, Tcp},
    name::{Name, NameError},
    wire::CloseCode,
};
use serde::Serialize;
use std::{collections::VecDeque, fmt, sync::Arc};
use tokio::sync::broadcast::{self, error::RecvError};

/// Why [`AgentRef::connected`] gave no agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotConnected {
    /// The text is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The node has stopped: nobody will attach any more.
    #[error("the node has stopped")]
    Stopped,
}

/// The agent of some name, attached or not. Made by [`Node::agent`](crate::Node::agent).
pub struct AgentRef {
    shared: Arc<NodeState>,
    name: Result<Name, NameError>,
}

impl AgentRef {
    pub(super) fn new(shared: &Arc<NodeState>, name: Result<Name, NameError>) -> Self {
        Self { shared: shared.clone(), name }
    }

    /// Waits until the agent is attached; at once if it is. Waits for ever if it never comes: wrap
    /// it in a timeout.
    ///
    /// # Errors
    /// The name breaks the grammar, or the node has stopped.
    pub async fn connected(self) -> Result<AgentHandle, NotConnected> {
        let name = self.name?;
        let mut waiter = self.shared.waiters.wait_for(Awaited::Agent(name.clone()));
        while self.shared.registry().pick(&name).is_none() {
            tokio::select! {
                () = waiter.changed() => {}
                () = self.shared.links.stopped() => return Err(NotConnected::Stopped),
            }
        }
        drop(waiter);
        Ok(AgentHandle::new(&self.shared, name))
    }

    /// The handle, without waiting: calls end `UNAVAILABLE`, not executed, while the agent is not
    /// attached.
    ///
    /// # Errors
    /// The name breaks the grammar.
    pub fn handle(self) -> Result<AgentHandle, NameError> {
        Ok(AgentHandle::new(&self.shared, self.name?))
    }
}

impl fmt::Debug for AgentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentRef").field(&self.name).finish()
    }
}

/// An agent to be called from the node's own process. Follows the agent from link to link. Cloning
/// is cheap.
#[derive(Clone)]
pub struct AgentHandle {
    shared: Arc<NodeState>,
    name: Name,
    callee: Callee,
}

impl AgentHandle {
    pub(super) fn new(shared: &Arc<NodeState>, name: Name) -> Self {
        Self { callee: callee(shared, Target::Agent(name.clone())), shared: shared.clone(), name }
    }

    /// The agent's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether it has a link that takes calls now.
    pub fn is_attached(&self) -> bool {
        self.shared.registry().pick(&self.name).is_some()
    }

    /// A unary call: see [`Callee::call`].
    pub fn call<R>(&self, method: impl IntoMethod, message: &(impl Serialize + ?Sized)) -> Call<R> {
        self.callee.call(method, message)
    }

    /// A connection of TCP to one of its forwards: see [`Callee::tcp`].
    pub fn tcp(&self, name: impl AsRef<str>) -> Call<(), Tcp> {
        self.callee.tcp(name)
    }

    /// Lets the agent go: closes its links. It will dial again after a moment.
    pub fn disconnect(&self) {
        let links = self.shared.registry().links(&self.name);
        links.iter().for_each(|agent| {
            agent.link.close(CloseCode::Goodbye, "the node has let this agent go")
        });
    }

    /// Ends when the agent has no link any more.
    pub async fn disconnected(&self) {
        let mut waiter = self.shared.waiters.wait_for(Awaited::Agent(self.name.clone()));
        while !self.shared.registry().links(&self.name).is_empty() {
            waiter.changed().await;
        }
    }
}

impl AsRef<Callee> for AgentHandle {
    fn as_ref(&self) -> &Callee {
        &self.callee
    }
}

impl fmt::Debug for AgentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentHandle").field(&self.name).finish()
    }
}

/// The agents of a node as they attach. Made by [`Node::arrivals`](crate::Node::arrivals).
pub struct Arrivals {
    shared: Arc<NodeState>,
    present: VecDeque<Name>,
    coming: broadcast::Receiver<(u64, Name)>,
}

impl Arrivals {
    pub(super) fn new(shared: &Arc<NodeState>) -> Self {
        // Under the registry's lock, so that nobody is missed or comes twice: who arrives from now
        // on comes by the channel.
        let (coming, arrivals) = {
            let registry = shared.registry();
            (shared.arrivals.subscribe(), registry.arrivals())
        };
        let is_present = |line: &Line<'_, SharedAgentLink>| {
            line.newest.is_some() && !line.is_draining && line.arrival <= arrivals
        };
        let present = shared.copied(|line| is_present(&line).then(|| line.name.clone()));
        Self { shared: shared.clone(), present: present.into(), coming }
    }

    /// The next agent. `None` once the node has stopped.
    pub async fn next(&mut self) -> Option<AgentHandle> {
        if let Some(name) = self.present.pop_front() {
            return Some(AgentHandle::new(&self.shared, name));
        }
        loop {
            tokio::select! {
                arrived = self.coming.recv() => match arrived {
                    Ok((_, name)) => return Some(AgentHandle::new(&self.shared, name)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                () = self.shared.links.stopped() => return None,
            }
        }
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").field("present", &self.present).finish_non_exhaustive()
    }
}
