//! Which of the waiting clients gets a message of a process.

use crate::{
    limits::MCP_MESSAGES_AHEAD,
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
    pending: Vec<(RequestId, mpsc::Sender<Bytes>)>,
    /// The client that asked for all other messages.
    listener: Option<mpsc::Sender<Bytes>>,
    /// Messages for which nobody waited.
    kept: VecDeque<Bytes>,
    /// Why the process has ended.
    ended: Option<String>,
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
        waiting.pending.push((id.clone(), sender));
        Ok(receiver)
    }

    /// Waits no more. `true` if the answer had not come.
    pub(super) fn remove(&self, id: &RequestId) -> bool {
        let mut waiting = self.waiting();
        let before = waiting.pending.len();
        waiting.pending.retain(|(pending, _)| pending != id);
        waiting.pending.len() < before
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
            tracing::debug!("{path} wrote a line to its output that is no message of MCP");
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
            let at = waiting.pending.iter().position(|(pending, _)| Some(pending) == id.as_ref());
            // The answer to a request that was cancelled has nobody.
            return at.map(|at| waiting.pending.remove(at).1);
        }
        let about = message.about().and_then(|id| waiting.pending.iter().find(|(it, _)| it == id));
        let request = about.or_else(|| waiting.pending.last()).map(|(_, sender)| sender);
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
        !waiting.pending.is_empty() || listener.is_some_and(|listener| !listener.is_closed())
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingClients> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitingClients {
    fn is_pending(&self, id: &RequestId) -> bool {
        self.pending.iter().any(|(pending, _)| pending == id)
    }

    fn expect_running(&self) -> Result<(), NoRoute> {
        self.ended.clone().map_or(Ok(()), |why| Err(NoRoute::Ended(why)))
    }
}
