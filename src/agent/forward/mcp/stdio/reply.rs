//! Messages of a process as the reply of a call.

use super::{process::line, session::Session};
use crate::{
    call::{Next, Source},
    limits::TCP_READ_BYTES_MAX,
    mcp::{AnswerFilter, RequestId, refusal_of_server_request, write_event},
    metadata::Metadata,
    status::{Code, Status},
};
use bytes::Bytes;
use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::sync::mpsc;

/// The messages for one client: to the answer of its request, or while it listens.
pub(super) struct ProcessReply {
    session: Arc<Session>,
    filter: AnswerFilter,
    route: mpsc::Receiver<Bytes>,
    /// The request that is answered. Without an answer it is cancelled at the end.
    request: Option<RequestId>,
    /// True if the request begins the session.
    begins: bool,
    /// What is still to be passed on.
    rest: Bytes,
    is_over: bool,
}

impl ProcessReply {
    pub(super) fn new(
        session: Arc<Session>,
        filter: AnswerFilter,
        route: mpsc::Receiver<Bytes>,
        request: Option<RequestId>,
        begins: bool,
    ) -> Self {
        Self { session, filter, route, request, begins, rest: Bytes::new(), is_over: false }
    }

    /// The next message that the client gets; `None` once its request is answered, or there are no
    /// more for a client that listens.
    pub(super) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        while !self.filter.is_answered() {
            let Some(message) = ready!(self.route.poll_recv(cx)) else {
                return Poll::Ready(self.request.as_ref().map(|_| Err(self.ended())));
            };
            let passed = self.filter.pass(&message).ok().flatten();
            for id in self.filter.take_refused() {
                self.session
                    .input
                    .try_write(line(&refusal_of_server_request(self.filter.server(), &id)));
            }
            if let Some(passed) = passed {
                return Poll::Ready(Some(Ok(passed)));
            }
        }
        Poll::Ready(None)
    }

    fn ended(&self) -> Status {
        let why = self.session.routes.ended();
        let why = why.unwrap_or_else(|| "its answer was lost".into());
        let server = self.filter.server();
        let text = format!("the process of mcp:{server} has ended before it had answered: {why}");
        Status::unknown(Code::Unavailable, text)
    }
}

impl Source for ProcessReply {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.rest.is_empty() {
            if self.is_over {
                return Poll::Ready(Next::End(Metadata::default()));
            }
            match ready!(self.poll_message(cx)) {
                Some(Ok(message)) => self.rest = write_event(&message),
                Some(Err(status)) => return Poll::Ready(Next::Failed(status)),
                None => self.is_over = true,
            }
        }
        // An empty message ends the body.
        let bytes = self.rest.len().min(TCP_READ_BYTES_MAX);
        Poll::Ready(Next::Message(self.rest.split_to(bytes)))
    }
}

impl Drop for ProcessReply {
    fn drop(&mut self) {
        self.session.touch();
        if let Some(request) = &self.request {
            self.session.give_up(request, self.begins);
        }
    }
}
