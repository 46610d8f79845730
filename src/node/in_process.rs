//! Calls of the program that runs the node.

use super::{
    Shared, SharedAgentLink,
    authorise::Granted,
    dispatch::{Answered, Dispatch},
    routes::Links,
};
use crate::{
    audit::CallNote,
    call::{Body, Handler, Reply, Request},
    status::{Code, Outcome, Status},
};
use std::sync::Arc;
use tokio::time::Instant;

/// What handles of agents call. No policy stands before it.
pub(super) struct InProcess {
    shared: Arc<Shared>,
    dispatch: Dispatch<Links>,
}

impl InProcess {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { dispatch: shared.dispatch(), shared }
    }

    /// How a call is to be recorded, if it is.
    fn note(&self, request: &Request) -> Option<Box<CallNote>> {
        let caller = || request.requester.peer().to_string();
        self.shared.journal.call(|| request.meta.facts(caller(), None, None, Instant::now()))
    }
}

impl Handler for InProcess {
    /// No async function, which would keep the request twice.
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, Status>> + Send {
        let mut request = request;
        async move {
            let counted = self.shared.calls.counted();
            let note = self.note(&request);
            let bytes_in = request.message().ok().map(|message| message.len() as u64);
            let Answered { reply, route } =
                self.dispatch.forward(&mut request, Granted::IN_PROCESS).await;
            let reply = match note {
                Some(note) => noted(note, route.as_ref(), bytes_in, reply),
                None => reply,
            };
            Ok(reply?.holding(counted))
        }
    }
}

/// Writes down how a call has ended that came over no link; of a stream, how it will.
pub(super) fn noted(
    note: Box<CallNote>,
    asked: Option<&SharedAgentLink>,
    bytes_in: Option<u64>,
    mut answered: Result<Reply, Status>,
) -> Result<Reply, Status> {
    if let Some(asked) = asked {
        note.picked(asked.link.peer());
    }
    match &mut answered {
        Ok(Reply { body: Body::Messages(messages), .. }) => messages.note(note),
        Ok(Reply { body: Body::Message(message), .. }) => {
            note.ended(Code::Ok, Outcome::Ok, [bytes_in, Some(message.len() as u64)]);
        }
        Err(status) => note.ended(status.code(), status.outcome(), [bytes_in, Some(0)]),
    }
    answered
}
