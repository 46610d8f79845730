//! Calls of the program that runs the node.

use super::steps::{Arrival, Ingress};
use crate::{
    call::{CallOrigin, Callee, Handler, Permit, Reply, Request, SharedHandler, Target},
    node::{routes::LinkRoutes, state::NodeState},
    observe::{CallRecord, RecordedCaller},
    status::Status,
    trace::{SpanKind, SpanOrigin},
};
use std::sync::Arc;
use tokio::time::Instant;

/// Handler behind the handles of agents that a program holds.
struct InProcess(Ingress<LinkRoutes>);

impl Handler for InProcess {
    // An async function keeps the request twice; a block that awaits a future made before it would
    // keep that future twice, which is ten times as large.
    async fn call(&self, request: Request) -> Result<Reply, Status> {
        let counted = self.0.shared.calls.counted();
        let answer = self.0.answer(request, ProgramCall(&self.0.shared)).await;
        Ok(answer.reply?.holding(counted))
    }
}

/// A callee for the program that runs the node.
pub(in crate::node) fn callee(shared: &Arc<NodeState>, target: Target) -> Callee {
    let handler: SharedHandler = Arc::new(InProcess(Ingress::over_links(shared)));
    let NodeState { peer, call_ids, calls: tasks, .. } = &**shared;
    let limits = &shared.limits.get();
    Callee::new(CallOrigin { handler, peer, call_ids, limits, tasks }, target)
}

/// A call whose request is in hand.
struct ProgramCall<'a>(&'a NodeState);

impl Arrival for ProgramCall<'_> {
    const IS_AUTHORISED: bool = false;

    fn note(&self, request: &mut Request) -> Option<Box<CallRecord>> {
        let requester = RecordedCaller::Peer(request.requester.peer().clone());
        let info = request.meta.info(requester, None, None);
        let mut note = self.0.observer.call(request.meta.start(Instant::now()), info);
        let tracer = self.0.observer.tracer();
        note.traced(request.meta.first_span(tracer, SpanKind::Internal, SpanOrigin::Program));
        Some(note)
    }

    async fn permit(&mut self, _request: &Request) -> Result<Option<Permit>, Status> {
        Ok(None)
    }

    fn bytes_in(&self, request: &Request) -> Option<u64> {
        request.message().ok().map(|message| message.len() as u64)
    }

    async fn read_body(
        &mut self,
        _request: &mut Request,
        _bytes_max: Option<usize>,
    ) -> Result<(), Status> {
        Ok(())
    }
}
