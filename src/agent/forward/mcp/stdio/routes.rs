//! Which of the waiting clients gets a message of a process.

use crate::{
    limits::{MCP_GIVEN_UP_MAX, MCP_MESSAGES_AHEAD},
    mcp::{MessageKind, RequestId, ServerBody, ServerMessage},
    name::MethodPath,
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;

/// Clients that wait for messages of one process.
#[derive(Default)]
pub(super) struct ProcessRoutes(Mutex<WaitingClients>);

#[derive(Default)]
struct WaitingClients {
    /// Requests without an answer, oldest first.
    pending: Vec<PendingAnswer>,
    /// The client that asked for all other messages.
    listener: Option<mpsc::Sender<Bytes>>,
    /// Messages for which nobody waited.
    kept: VecDeque<Bytes>,
    /// Why the process has ended.
    ended: Option<String>,
}

/// An answer that has not come. Its id is in use until then, also if nobody waits for it any more:
/// it would be taken for the answer to a later request of that id.
struct PendingAnswer {
    id: RequestId,
    sender: Option<mpsc::Sender<Bytes>>,
}

/// Why nobody may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// Another one does already.
    Taken,
    /// The process has ended, for this reason.
    Ended(String),
}

impl ProcessRoutes {
    /// Waits for the answer to a request, and for other messages until then.
    pub(super) fn add(&self, id: &RequestId) -> Result<mpsc::Receiver<Bytes>, NoRoute> {
        let mut waiting = self.waiting();
        waiting.expect_running()?;
        if waiting.is_pending(id) {
            return Err(NoRoute::Taken);
        }
        let (sender, receiver) = mpsc::channel(MCP_MESSAGES_AHEAD);
        waiting.pending.push(PendingAnswer { id: id.clone(), sender: Some(sender) });
        Ok(receiver)
    }

    /// Waits no more. `true` if the answer had not come.
    pub(super) fn give_up(&self, id: &RequestId) -> bool {
        let mut waiting = self.waiting();
        let mut pending = waiting.pending.iter_mut();
        let given_up = pending.find(|pending| pending.id == *id && pending.sender.is_some());
        let was_pending = given_up.is_some_and(|pending| pending.sender.take().is_some());
        let given_up = waiting.given_up();
        if given_up.count() > MCP_GIVEN_UP_MAX {
            let oldest = waiting.pending.iter().position(|pending| pending.sender.is_none());
            waiting.pending.remove(oldest.unwrap_or_default());
        }
        was_pending
    }

    /// True if many requests were given up, whose answers may still come.
    pub(super) fn are_worn_out(&self) -> bool {
        self.waiting().given_up().count() >= MCP_GIVEN_UP_MAX
    }

    /// Waits for messages that belong to no request, beginning with those that were kept.
    pub(super) fn listen(&self) -> Result<mpsc::Receiver<Bytes>, NoRoute> {
        let mut waiting = self.waiting();
        waiting.expect_running()?;
        if waiting.listener.as_ref().is_some_and(|listener| !listener.is_closed()) {
            return Err(NoRoute::Taken);
        }
        let (sender, receiver) = mpsc::channel(MCP_MESSAGES_AHEAD);
        for message in waiting.kept.drain(..) {
            // There is room for as many as are kept.
            drop(sender.try_send(message));
        }
        waiting.listener = Some(sender);
        Ok(receiver)
    }

    /// Delivers a line of the process to who waits for the messages in it.
    pub(super) async fn deliver(&self, path: &MethodPath, line: Bytes) {
        let Ok(ServerBody { messages, .. }) = ServerBody::parse(&line) else {
            tracing::debug!("{path} wrote a line to its output that is not a message of MCP");
            return;
        };
        for message in messages {
            match message {
                Ok(message) => {
                    if let Some(sender) = self.of(&message) {
                        // A client that is gone needs none.
                        drop(sender.send(message.raw().clone()).await);
                    }
                }
                Err(fault) => tracing::debug!("{path} wrote a message that is dropped: {fault}"),
            }
        }
    }

    /// Who gets a message; `None` if nobody does, or it is kept for the next who listens.
    fn of(&self, message: &ServerMessage) -> Option<mpsc::Sender<Bytes>> {
        let mut waiting = self.waiting();
        if let MessageKind::Response { id } = message.kind() {
            let at = waiting.pending.iter().position(|it| Some(&it.id) == id.as_ref());
            // The answer to a request that was given up has nobody.
            return at.and_then(|at| waiting.pending.remove(at).sender);
        }
        let mut pending = waiting.pending.iter().filter(|pending| pending.sender.is_some());
        let about = message.about().and_then(|id| pending.clone().find(|it| it.id == *id));
        let request = about.or_else(|| pending.next_back()).and_then(|it| it.sender.as_ref());
        let listener = waiting.listener.as_ref().filter(|listener| !listener.is_closed());
        if let Some(found) = request.or(listener) {
            return Some(found.clone());
        }
        if waiting.kept.len() == MCP_MESSAGES_AHEAD {
            waiting.kept.pop_front();
        }
        waiting.kept.push_back(message.raw().clone());
        None
    }

    /// Ends all waiting.
    pub(super) fn end(&self, why: String) {
        let mut waiting = self.waiting();
        *waiting = WaitingClients { ended: Some(why), ..WaitingClients::default() };
    }

    /// Why the process has ended, if it has.
    pub(super) fn ended(&self) -> Option<String> {
        self.waiting().ended.clone()
    }

    /// True if somebody waits.
    pub(super) fn are_used(&self) -> bool {
        let waiting = self.waiting();
        let listener = waiting.listener.as_ref();
        waiting.pending.iter().any(|pending| pending.sender.is_some())
            || listener.is_some_and(|listener| !listener.is_closed())
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingClients> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitingClients {
    fn is_pending(&self, id: &RequestId) -> bool {
        self.pending.iter().any(|pending| pending.id == *id)
    }

    fn given_up(&self) -> impl Iterator<Item = &PendingAnswer> {
        self.pending.iter().filter(|pending| pending.sender.is_none())
    }

    fn expect_running(&self) -> Result<(), NoRoute> {
        self.ended.clone().map_or(Ok(()), |why| Err(NoRoute::Ended(why)))
    }
}
