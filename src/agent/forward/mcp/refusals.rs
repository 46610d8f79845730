//! Answers to requests of a server that its client does not get.

use crate::{
    limits::MCP_MESSAGES_AHEAD,
    mcp::{RequestId, refusal_of_server_request},
    name::Name,
    status::{Code, Status},
};
use bytes::Bytes;
use tokio::sync::mpsc;

type StartSending = Box<dyn FnOnce(mpsc::Receiver<Bytes>) + Send>;

/// The queue of refusals of one stream, for one task that sends them one after the other.
pub(super) struct Refusals {
    server: Name,
    queue: mpsc::Sender<Bytes>,
    /// Starts the task, with the first refusal.
    start: Option<(mpsc::Receiver<Bytes>, StartSending)>,
}

impl Refusals {
    pub(super) fn new(
        server: Name,
        send: impl FnOnce(mpsc::Receiver<Bytes>) + Send + 'static,
    ) -> Self {
        let (queue, bodies) = mpsc::channel(MCP_MESSAGES_AHEAD);
        Self { server, queue, start: Some((bodies, Box::new(send))) }
    }

    /// Refuses these requests.
    ///
    /// # Errors
    /// The server asks faster than it takes the refusals.
    pub(super) fn send(&mut self, refused: Vec<RequestId>) -> Result<(), Status> {
        if let Some((bodies, send)) = self.start.take() {
            send(bodies);
        }
        for id in refused {
            let body = refusal_of_server_request(&self.server, &id);
            self.queue.try_send(body).map_err(|_full| {
                let text = "the server asks its client for more than it can be refused";
                Status::unknown(Code::ResourceExhausted, text)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_over_the_size_of_the_queue_end_the_stream() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut refusals = Refusals::new("jira".parse().expect("a name"), move |bodies| {
            sender.send(bodies).expect("a receiver");
        });
        assert!(receiver.try_recv().is_err(), "no task without a refusal");
        let id = RequestId::Integer(1);
        refusals.send(vec![id.clone(); MCP_MESSAGES_AHEAD]).expect("room");
        let fault = refusals.send(vec![id]).expect_err("no room");
        assert_eq!(fault.code(), Code::ResourceExhausted);
        let mut bodies = receiver.recv().expect("a task");
        assert!(bodies.try_recv().is_ok());
    }
}
