//! Handles of agents for the embedding program: a reference to wait with, a handle to call with,
//! the stream of arrivals.

use super::{
    ingress::callee,
    registry::AgentSummary,
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

/// Error of [`AgentRef::connected`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotConnected {
    /// The text is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The node has stopped; no agent will attach any more.
    #[error("the node has stopped")]
    Stopped,
}

/// Reference to an agent by name, attached or not. Created by [`Node::agent`](crate::Node::agent).
pub struct AgentRef {
    shared: Arc<NodeState>,
    name: Result<Name, NameError>,
}

impl AgentRef {
    pub(super) fn new(shared: &Arc<NodeState>, name: Result<Name, NameError>) -> Self {
        Self { shared: shared.clone(), name }
    }

    /// Waits until the agent is attached and returns its handle. Has no timeout of its own.
    ///
    /// # Errors
    /// The name is invalid, or the node has stopped.
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

    /// Returns the handle without waiting. Calls end `UNAVAILABLE`, not executed, while the agent
    /// is not attached.
    ///
    /// # Errors
    /// The name is invalid.
    pub fn handle(self) -> Result<AgentHandle, NameError> {
        Ok(AgentHandle::new(&self.shared, self.name?))
    }
}

impl fmt::Debug for AgentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentRef").field(&self.name).finish()
    }
}

/// Handle for calling an agent, over its current link, from the node's process. Clones are cheap.
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

    /// Name of the agent.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// True if the agent has a link that takes calls now.
    pub fn is_attached(&self) -> bool {
        self.shared.registry().pick(&self.name).is_some()
    }

    /// Makes a unary call: see [`Callee::call`].
    pub fn call<R>(&self, method: impl IntoMethod, message: &(impl Serialize + ?Sized)) -> Call<R> {
        self.callee.call(method, message)
    }

    /// Opens a TCP connection to one of the agent's forwards: see [`Callee::tcp`].
    pub fn tcp(&self, name: impl AsRef<str>) -> Call<(), Tcp> {
        self.callee.tcp(name)
    }

    /// Closes the agent's links. The agent dials again after a moment.
    pub fn disconnect(&self) {
        let links = self.shared.registry().links(&self.name);
        links.iter().for_each(|agent| {
            agent.link.close(CloseCode::Goodbye, "the node disconnected this agent")
        });
    }

    /// Waits until the agent has no link.
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

/// Stream of agents as they attach. Created by [`Node::arrivals`](crate::Node::arrivals).
pub struct Arrivals {
    shared: Arc<NodeState>,
    present: VecDeque<Name>,
    coming: broadcast::Receiver<(u64, Name)>,
}

impl Arrivals {
    pub(super) fn new(shared: &Arc<NodeState>) -> Self {
        // Under the registry's lock, so that no agent is missed or returned twice: later arrivals
        // come through the channel.
        let (coming, arrivals) = {
            let registry = shared.registry();
            (shared.arrivals.subscribe(), registry.arrivals)
        };
        let is_present = |line: &AgentSummary<'_, SharedAgentLink>| {
            line.newest.is_some() && !line.is_draining && line.arrival <= arrivals
        };
        let present = shared.copied(|line| is_present(&line).then(|| line.name.clone()));
        Self { shared: shared.clone(), present: present.into(), coming }
    }

    /// Waits for the next agent. `None` once the node has stopped. Cancel safe.
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
