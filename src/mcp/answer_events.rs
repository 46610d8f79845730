//! The events of a server's answer on their way to one client.

use super::{AnswerFilter, RequestId, SseEvent, SseParser, write_event};
use crate::{
    limits::MEMORY_COUNTED_BYTES_MIN,
    memory::{Exhausted, HeldBytes, MemoryAccount},
    status::{Code, Outcome, Status},
};
use bytes::{Bytes, BytesMut};

/// Passes a stream of server-sent events on: whole events, with the messages that may pass.
pub(crate) struct AnswerEvents {
    parser: SseParser,
    filter: AnswerFilter,
    memory: MemoryAccount,
    /// The event that is not complete.
    held: Option<HeldBytes>,
    /// True once an event had an id, by which its reader may resume the stream.
    is_resumable: bool,
}

impl AnswerEvents {
    /// Memory: an event is held until it is complete, and counted for this account.
    pub(crate) const fn new(
        filter: AnswerFilter,
        event_bytes_max: usize,
        memory: MemoryAccount,
    ) -> Self {
        let parser = SseParser::new(event_bytes_max);
        Self { parser, filter, memory, held: None, is_resumable: false }
    }

    /// Takes a piece of the stream and returns what the client gets of it, perhaps nothing.
    ///
    /// # Errors
    /// An event is too large. The stream has ended.
    pub(crate) fn pass(&mut self, mut piece: Bytes) -> Result<Bytes, Status> {
        let mut out = BytesMut::new();
        loop {
            let event = self.parser.next_event(&mut piece).map_err(|fault| {
                let text = format!("{fault} (message_bytes_max)");
                Status::unknown(Code::ResourceExhausted, text)
            })?;
            let Some(event) = event else { break };
            self.held = None;
            self.is_resumable |= event.id().is_some_and(|id| !id.is_empty());
            out.extend_from_slice(&self.pass_event(&event));
        }
        self.count().map_err(|why| why.into_status(Outcome::Unknown))?;
        Ok(out.freeze())
    }

    /// Counts the event that is not complete.
    fn count(&mut self) -> Result<(), Exhausted> {
        let bytes = self.parser.held_bytes();
        if bytes < MEMORY_COUNTED_BYTES_MIN {
            return Ok(());
        }
        match &mut self.held {
            Some(held) => held.grow(bytes.saturating_sub(held.bytes())),
            None => self.memory.take(bytes).map(|held| self.held = Some(held)),
        }
    }

    fn pass_event(&mut self, event: &SseEvent) -> Bytes {
        // Without data it tells only where a stream can be resumed.
        let Some(data) = event.data().filter(|data| !data.is_empty()) else {
            return event.with_data(event.data().as_deref());
        };
        // Clients read messages in events of the default type only.
        let passed = match event.event_type() {
            None => self.filter.pass(&data).ok().flatten(),
            Some(_) => None,
        };
        match passed {
            Some(passed) => event.with_data(Some(&passed)),
            None if event.id().is_some() => event.with_data(Some(b"")),
            None => Bytes::new(),
        }
    }

    /// Requests of the server that were kept from its client since the last call.
    pub(crate) fn take_refused(&mut self) -> Vec<RequestId> {
        self.filter.take_refused()
    }

    /// True once the answer to the request was passed on.
    pub(crate) const fn is_answered(&self) -> bool {
        self.filter.is_answered()
    }

    /// True if the client has its answer, or may fetch it by resuming the stream.
    pub(crate) const fn is_complete(&self) -> bool {
        self.is_resumable || self.filter.is_answered()
    }

    /// An event that answers the request whose call failed; `None` if it has its answer.
    pub(crate) fn failure(&mut self, status: &Status) -> Option<Bytes> {
        self.filter.failure(status).map(|answer| write_event(&answer))
    }
}

/// The answer to the request in a stream of events that has ended, without the other messages.
pub(crate) fn answer_in_events(stream: &Bytes, filter: &mut AnswerFilter) -> Option<Bytes> {
    let (mut parser, mut rest) = (SseParser::new(stream.len() + 1), stream.clone());
    while let Ok(Some(event)) = parser.next_event(&mut rest) {
        let passed = event.data().and_then(|data| filter.pass(&data).ok().flatten());
        if filter.is_answered() {
            return passed;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::{AskedRequest, ClientBody, Needs};
    use super::*;
    use crate::{limits::Limits, memory::MessageMemory, name::CallId};

    const CALL: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;
    const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    const ASK: &str = r#"{"jsonrpc":"2.0","id":2,"method":"roots/list"}"#;

    fn events() -> AnswerEvents {
        let body = ClientBody::parse(&Bytes::from_static(CALL)).expect("a body");
        let asked = AskedRequest::of(&body.messages[0]);
        let id = CallId::from_bytes([1; 16]);
        let may = Box::new(|needs: &Needs| *needs == Needs::AnyTool);
        let memory = MessageMemory::new(&Limits::default());
        let account = memory.account(&"caller/ops".parse().expect("a peer"));
        AnswerEvents::new(
            AnswerFilter::new(&"jira".parse().expect("a name"), asked, id, may),
            1_000,
            account,
        )
    }

    fn passed(events: &mut AnswerEvents, text: String) -> String {
        let out = events.pass(Bytes::from(text)).expect("within limits");
        String::from_utf8(out.into()).expect("UTF-8")
    }

    #[test]
    fn events_pass_as_they_are_when_they_are_whole() {
        let mut stream = events();
        let text = format!(": c\n\nid: 7\nretry: 5\ndata: {RESULT}\n\n");
        let (first, second) = text.split_at(20);
        assert_eq!(passed(&mut stream, first.into()), ":\n\n");
        assert!(!stream.is_complete());
        assert_eq!(passed(&mut stream, second.into()), text[5..]);
        assert!(stream.is_complete());
    }

    #[test]
    fn an_event_that_may_not_pass_leaves_its_id_and_nothing_else() {
        let mut stream = events();
        assert_eq!(passed(&mut stream, format!("data: {ASK}\n\n")), "");
        assert_eq!(stream.take_refused().len(), 1);
        assert_eq!(passed(&mut stream, format!("id: 7\ndata: {ASK}\n\n")), "id: 7\ndata: \n\n");
        assert_eq!(passed(&mut stream, "event: endpoint\ndata: /x\n\ndata: {\n\n".into()), "");
    }

    #[test]
    fn a_stream_with_an_id_may_be_resumed_for_its_answer() {
        let mut stream = events();
        assert_eq!(passed(&mut stream, "data:\n\n".into()), "data: \n\n");
        assert!(!stream.is_complete());
        assert_eq!(passed(&mut stream, "id: 7\ndata:\n\n".into()), "id: 7\ndata: \n\n");
        assert!(stream.is_complete());
    }

    #[test]
    fn a_failure_is_an_event_until_the_answer_has_passed() {
        let lost = Status::unknown(Code::Unavailable, "lost");
        let mut stream = events();
        let event = stream.failure(&lost).expect("an event");
        assert!(event.starts_with(b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,"));
        let mut stream = events();
        passed(&mut stream, format!("data: {RESULT}\n\n"));
        assert_eq!(stream.failure(&lost), None);
    }

    #[test]
    fn an_event_over_the_limit_ends_the_stream() {
        let long = format!("data: {}\n\n", "x".repeat(1_000));
        assert!(events().pass(Bytes::from(long)).is_err());
    }
}
