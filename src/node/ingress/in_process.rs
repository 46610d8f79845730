//! Calls of the program that runs the node.

use super::{Arrival, Ingress, Shared};
use crate::{
    audit::CallNote,
    call::{Handler, Permit, Reply, Request},
    node::routes::Links,
    status::Status,
};
use std::sync::Arc;
use tokio::time::Instant;

/// Handler behind the handles of agents that a program holds.
pub(in crate::node) struct InProcess {
    shared: Arc<Shared>,
    ingress: Ingress<Links>,
}

impl InProcess {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        Self { ingress: Ingress::new(shared.clone(), shared.dispatch()), shared }
    }
}

impl Handler for InProcess {
    /// Not an async function, which would keep the request twice.
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, Status>> + Send {
        let counted = self.shared.calls.counted();
        let answer = self.ingress.answer(request, ProgramCall { shared: &self.shared });
        async move { Ok(answer.await.reply?.holding(counted)) }
    }
}

/// A call whose request is in hand.
struct ProgramCall<'a> {
    shared: &'a Shared,
}

impl Arrival for ProgramCall<'_> {
    const IS_JUDGED: bool = false;

    fn note(&self, request: &Request) -> Option<Box<CallNote>> {
        let caller = || request.requester.peer().to_string();
        self.shared.journal.call(|| request.meta.facts(caller(), None, None, Instant::now()))
    }

    async fn permit(&mut self, _request: &Request) -> Result<Option<Permit>, Status> {
        Ok(None)
    }

    async fn read_body(
        &mut self,
        _request: &mut Request,
        _bytes_max: Option<usize>,
    ) -> Result<(), Status> {
        Ok(())
    }
}
