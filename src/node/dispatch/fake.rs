//! Routes with scripted answers, on tokio's paused clock.

use super::*;
use crate::call::{Body, Messages};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::watch;

/// One attempt, as a route sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct Attempt {
    pub(in crate::node) route: &'static str,
    pub(in crate::node) number: u32,
    /// True if its message was still coming.
    pub(in crate::node) was_coming: bool,
    /// True if a large reply may come in parts.
    pub(in crate::node) in_parts: bool,
    pub(in crate::node) deadline: Instant,
}

/// Scripted routes by name, the preferred one first.
#[derive(Default)]
pub(in crate::node) struct FakeState {
    pub(in crate::node) routes: Vec<&'static str>,
    pub(in crate::node) is_stopping: bool,
    /// Routes with a full queue.
    pub(in crate::node) full: Vec<&'static str>,
    /// Routes whose permits are needed for calls whose message has come.
    pub(in crate::node) busy: Vec<&'static str>,
    /// Time for which an attempt passes on a message that is still coming.
    pub(in crate::node) passes_for: Option<Duration>,
    /// Results of the next attempts; after them all succeed.
    pub(in crate::node) ends: VecDeque<Status>,
    /// Stream for the next success.
    pub(in crate::node) stream: Option<Messages>,
    /// Duration of each attempt.
    pub(in crate::node) takes: Duration,
    pub(in crate::node) attempts: Vec<Attempt>,
    /// Number of ended attempts.
    pub(in crate::node) ended: usize,
}

pub(in crate::node) struct FakeRoutes {
    pub(in crate::node) state: Mutex<FakeState>,
    pub(in crate::node) changes: watch::Sender<()>,
}

pub(in crate::node) struct FakeWaiter(watch::Receiver<()>);

impl Changes for FakeWaiter {
    async fn changed(&mut self) {
        drop(self.0.changed().await);
    }
}

impl Routes for FakeRoutes {
    type Route = &'static str;
    type Waiter<'a> = FakeWaiter;

    fn pick(&self, _: &Request, failed: Option<&&'static str>) -> Result<&'static str, NotPicked> {
        let state = self.state();
        if state.is_stopping {
            return Err(NotPicked::Stopping);
        }
        let other = state.routes.iter().find(|route| Some(*route) != failed);
        let any = other.or_else(|| state.routes.first()).copied();
        any.ok_or_else(|| NotPicked::absent("nobody is there".into()))
    }

    fn is_another(&self, next: &&'static str, failed: &&'static str) -> bool {
        next != failed
    }

    fn has_spare_permits(&self, route: &&'static str) -> bool {
        !self.state().busy.contains(route)
    }

    fn expect_room(&self, route: &&'static str) -> Result<(), Status> {
        let is_full = self.state().full.contains(route);
        if is_full { Err(Status::not_executed(Code::ResourceExhausted, "full")) } else { Ok(()) }
    }

    fn agent_of(&self, route: &&'static str) -> PeerName {
        format!("agent/{route}").parse().expect("a name")
    }

    fn wait_for(&self, _: &Request) -> FakeWaiter {
        FakeWaiter(self.changes.subscribe())
    }

    async fn ask(
        &self,
        route: &&'static str,
        request: &mut Request,
        in_parts: bool,
    ) -> Result<Reply, Status> {
        let takes = {
            let mut state = self.state();
            let (number, was_coming) = (request.meta.attempt, request.body.coming().is_some());
            let deadline = request.meta.deadline;
            state.attempts.push(Attempt { route, number, was_coming, in_parts, deadline });
            state.takes
        };
        let passes_for = self.state().passes_for;
        if let (Some(passes_for), Some(parts)) = (passes_for, request.body.coming()) {
            match tokio::time::timeout(passes_for, parts.become_whole()).await {
                Ok(whole) => whole?,
                Err(_elapsed) => {
                    parts.set_late();
                    return Err(Status::not_executed(Code::Unavailable, "late"));
                }
            }
        }
        if matches!(request.body, Body::Messages(_)) {
            // A link takes the stream.
            drop(std::mem::take(&mut request.body));
        }
        tokio::time::sleep(takes).await;
        let mut state = self.state();
        state.ended += 1;
        if let Some(status) = state.ends.pop_front() {
            return Err(status);
        }
        let message = || Reply::new(Bytes::from_static(b"ok"));
        Ok(state.stream.take().map_or_else(message, Reply::stream))
    }
}

impl FakeRoutes {
    pub(in crate::node) fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().expect("the state")
    }
}

/// A dispatch over these routes whose first attempts end with these.
pub(in crate::node) fn dispatch(
    routes: &[&'static str],
    ends: impl IntoIterator<Item = Status>,
) -> Dispatch<FakeRoutes> {
    let ends = ends.into_iter().collect();
    let state = FakeState { routes: routes.to_vec(), ends, ..FakeState::default() };
    let routes = FakeRoutes { state: Mutex::new(state), changes: watch::Sender::new(()) };
    Dispatch::new(routes, Arc::default())
}

impl Dispatch<FakeRoutes> {
    pub(in crate::node) fn change(&self, change: impl FnOnce(&mut FakeState)) {
        change(&mut self.routes.state());
        self.routes.changes.send_replace(());
    }

    pub(in crate::node) fn attempts(&self) -> Vec<&'static str> {
        self.routes.state().attempts.iter().map(|attempt| attempt.route).collect()
    }

    pub(in crate::node) async fn answer(
        &self,
        mut request: Request,
        granted: CallGrant,
    ) -> Result<Reply, Status> {
        self.forward(&mut request, granted, &mut None).await
    }
}
