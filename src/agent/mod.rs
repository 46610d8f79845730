//! The agent: dials its nodes, keeps a link to each, and answers calls. It opens no listening port.

mod acceptor;
mod builder;
mod calls;
#[cfg(feature = "cli")]
pub mod demo;
pub(crate) mod forward;
mod hosted_services;
mod service_changes;
mod probes;
mod readiness;
mod registration;
mod service_set;
mod state;
mod update;
#[cfg(feature = "admin")]
mod view;

pub use builder::AgentBuilder;
#[cfg(feature = "forward")]
pub use forward::{
    Forward, ForwardFormat, HttpForward, McpForward, UpstreamAddress, UpstreamError,
};
pub use forward::{TcpForward, Upstream, UpstreamCheck, UpstreamCheckError};
pub use service_set::ServiceSet;
pub use update::AgentUpdate;

#[cfg(feature = "admin")]
pub(crate) use view::AgentView;

use crate::{
    call::{CallOrigin, Callee, SharedHandler, Target},
    limits::{self, Limits},
    link::{BindError, HelloInfo},
    name::{Name, NameError},
    observe::{AgentEvent, Event, Events},
    readiness::Readiness,
    tls::Credentials,
    wire::CloseCode,
};
use state::{AgentState, in_use};
use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

/// A running agent. Dropping it closes its links at once; [`Agent::shutdown`] lets calls finish.
pub struct Agent {
    state: Arc<AgentState>,
    instance: [u8; 16],
    config_version: Mutex<u64>,
}

fn hello(instance: [u8; 16], limits: &Limits) -> HelloInfo {
    HelloInfo { instance, calls_in_flight_max: limits.calls_in_flight_max }
}

impl Agent {
    /// Returns a builder of an agent with this certificate.
    pub fn builder(credentials: Credentials) -> AgentBuilder {
        AgentBuilder::new(credentials)
    }

    /// The agent's name, from its certificate.
    pub fn name(&self) -> &Name {
        &self.state.peer.name
    }

    /// The nodes on which it is registered now.
    pub fn nodes(&self) -> Vec<Name> {
        let attached = self.state.attached.borrow();
        in_use(&attached).map(|attached| attached.node.clone()).collect()
    }

    /// The number of links that were replaced and are still up, because calls are on them.
    pub fn retiring_links(&self) -> usize {
        let attached = self.state.attached.borrow();
        attached.len() - in_use(&attached).count()
    }

    /// Readiness for calls: a link answers a probe of its node, and each service is assessed by its
    /// last calls and its check. Probes and checks are at most two seconds old; a new one takes up
    /// to two seconds.
    pub async fn readiness(&self) -> Readiness {
        self.state.readiness().await
    }

    /// Waits until it is registered on at least `count` links. Replaced links do not count.
    pub async fn registered(&self, count: usize) {
        let mut attached = self.state.attached.subscribe();
        // The sender is in `state`, so this ends only when it is true.
        drop(attached.wait_for(|attached| in_use(attached).count() >= count).await);
    }

    /// Services of the node on which it registered last. Calls wait for a link by their deadline.
    pub fn node(&self) -> Callee {
        self.callee(Target::Here)
    }

    /// Another agent, through that node. The node's policy names this one `agent/NAME` as the
    /// requester.
    ///
    /// # Errors
    /// The text is not a name.
    pub fn agent(&self, name: impl AsRef<str>) -> Result<Callee, NameError> {
        Ok(self.callee(Target::Agent(name.as_ref().parse()?)))
    }

    fn callee(&self, target: Target) -> Callee {
        let handler: SharedHandler = self.state.clone();
        let AgentState { peer, call_ids, calls: tasks, .. } = &*self.state;
        let limits = &self.state.limits.get();
        Callee::new(CallOrigin { handler, peer, call_ids, limits, tasks }, target)
    }

    /// Sends from a new socket from now on. For programs that know that the network has changed:
    /// the agent itself notices within some seconds. Links and calls in flight stay.
    ///
    /// # Errors
    /// The system gives no socket.
    pub fn rebind(&self) -> Result<(), BindError> {
        self.state.dialler.rebind()
    }

    /// The present certificate, key and trust.
    pub fn credentials(&self) -> Credentials {
        self.state.dialler.trust().credentials()
    }

    /// Runs until the future ends, then stops as [`Agent::shutdown`] does.
    pub async fn run_until(self, end: impl Future<Output = ()>) {
        end.await;
        self.shutdown().await;
    }

    /// Returns the events of links from now on: nodes that registered this agent, that were lost
    /// and why, and that drain, and changes of the paths of links and why.
    pub fn events(&self) -> Events<AgentEvent> {
        self.state.observer.events(&self.state.links)
    }

    /// Closes its links gracefully. Requests no more calls from its nodes and waits for their
    /// confirmation; refuses those that still come; lets those in flight finish within the drain
    /// time; then the nodes, which are the last to receive, close the links, within 3 s.
    pub async fn shutdown(self) {
        self.close_gracefully().await;
    }

    /// As [`Agent::shutdown`], until `abort` ends. Then every link is closed at once with DRAINED,
    /// calls in flight end with unknown outcome, and this returns within 100 ms.
    pub async fn shutdown_or_abort(self, abort: impl Future<Output = ()>) {
        tokio::select! {
            () = self.close_gracefully() => {}
            () = abort => self.abort().await,
        }
    }

    async fn abort(&self) {
        let dialler = &self.state.dialler;
        let was_linked = dialler.trust().is_any_up();
        self.state.close(CloseCode::Drained);
        let idle = async {
            if was_linked {
                dialler.wait_idle(limits::ABORT_WAIT_MAX).await;
            }
        };
        tokio::join!(idle, self.state.observer.tracer().close(limits::ABORT_WAIT_MAX));
    }

    async fn close_gracefully(&self) {
        let AgentState { keeper, drain, goodbye, abort, calls, links, dialler, .. } = &*self.state;
        let limits = self.state.limits.get();
        let finish_by = Instant::now() + limits.drain_max;
        keeper.stop.notify();
        keeper.stop.done(limits.drain_max.min(limits::GOODBYE_WAIT_MAX)).await;
        calls.begin_drain();
        drain.notify();
        let have_finished = calls.wait(left_until(finish_by)).await;
        let close_by = Instant::now() + limits::CLOSE_WAIT_MAX;
        let was_linked = dialler.trust().is_any_up();
        if have_finished {
            goodbye.notify();
            goodbye.done(limits::GOODBYE_WAIT_MAX).await;
        } else {
            self.state.observer.report(Event::CallsAborted { after: limits.drain_max });
            abort.notify();
            abort.done(limits::GOODBYE_WAIT_MAX).await;
        }
        self.state.close(CloseCode::Goodbye);
        links.wait(left_until(close_by)).await;
        // A dial that was given up needs no goodbye, and QUIC would take seconds over it.
        if was_linked {
            dialler.wait_idle(left_until(close_by)).await;
        }
        self.state.observer.tracer().close(limits::SPANS_FLUSH_WAIT_MAX).await;
    }
}

fn left_until(moment: Instant) -> Duration {
    moment.saturating_duration_since(Instant::now())
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.state.close(CloseCode::Goodbye);
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("name", self.name()).field("nodes", &self.nodes()).finish()
    }
}
