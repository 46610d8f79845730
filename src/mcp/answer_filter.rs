//! Decides which messages of a server reach one client.

use super::{
    ClientMessage, MessageError, Needs, RequestId, ServerBody, ServerMessage, error_response,
    filter_tools, rpc_message::MessageKind,
};
use crate::{
    name::{CallId, Name},
    status::{Code, Status},
};
use bytes::Bytes;
use serde::de::IgnoredAny;

/// The request of a client for whose answer it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AskedRequest {
    pub(crate) id: RequestId,
}

impl AskedRequest {
    /// The request in a message; `None` for other messages.
    pub(crate) fn of(message: &ClientMessage) -> Option<Self> {
        Some(Self { id: message.request_id()?.clone() })
    }
}

/// What a client may call and get.
pub(crate) type MayPass = Box<dyn Fn(&Needs) -> bool + Send + Sync>;

/// Decides on the messages of a server on their way to one client, with `may` as the rules.
pub(crate) struct AnswerFilter {
    may: MayPass,
    server: Name,
    call_id: CallId,
    /// The request that is answered, if there is one.
    asked: Option<AskedRequest>,
    is_answered: bool,
    /// Ids of requests of the server that its client does not get.
    refused: Vec<RequestId>,
}

impl AnswerFilter {
    pub(crate) fn new(
        server: &Name,
        asked: Option<AskedRequest>,
        call_id: CallId,
        may: MayPass,
    ) -> Self {
        let server = server.clone();
        Self { may, server, call_id, asked, is_answered: false, refused: Vec::new() }
    }

    /// True once the answer to the request was passed on.
    pub(crate) const fn is_answered(&self) -> bool {
        self.is_answered
    }

    pub(crate) const fn server(&self) -> &Name {
        &self.server
    }

    /// True if a request is answered, and has no answer yet.
    pub(crate) const fn is_awaited(&self) -> bool {
        self.asked.is_some() && !self.is_answered
    }

    /// Requests of the server that were kept from its client since the last call. The server waits
    /// for their answers.
    pub(crate) fn take_refused(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.refused)
    }

    /// What the client gets of a body or of the data of an event; `None` if that is nothing.
    ///
    /// # Errors
    /// The body could be read in different ways, as a whole. Nothing of it may be passed on.
    pub(crate) fn pass(&mut self, body: &Bytes) -> Result<Option<Bytes>, MessageError> {
        let ServerBody { is_batch, messages } = ServerBody::parse(body)?;
        let passed: Vec<Bytes> =
            messages.into_iter().filter_map(|message| self.pass_one(message.ok()?)).collect();
        Ok(match passed.as_slice() {
            [] => None,
            [one] if !is_batch => Some(one.clone()),
            all => Some(super::batch(all)),
        })
    }

    fn pass_one(&mut self, message: ServerMessage) -> Option<Bytes> {
        let is_allowed = (self.may)(message.needs());
        match message.kind() {
            MessageKind::Request { id, .. } if !is_allowed => {
                self.refused.push(id.clone());
                None
            }
            MessageKind::Notification { .. } if !is_allowed => None,
            MessageKind::Request { .. } | MessageKind::Notification { .. } => {
                Some(message.raw().clone())
            }
            MessageKind::Response { .. } => Some(self.pass_response(&message, is_allowed)),
        }
    }

    fn pass_response(&mut self, message: &ServerMessage, is_allowed: bool) -> Bytes {
        let id = message.answered_id();
        let asked = self.asked.as_ref().filter(|asked| Some(&asked.id) == id);
        self.is_answered |= asked.is_some();
        if !is_allowed {
            let path = message.needs().path(&self.server);
            let text = match message.needs() {
                Needs::Client => format!(
                    "the server asks its client for something, and no rule over {path} allows that"
                ),
                _ => format!("no rule allows anything of {path} any more"),
            };
            let status = Status::unknown(Code::PermissionDenied, text);
            return error_response(id, &status, self.call_id);
        }
        // Whatever was asked: servers mix up the answers to requests of one id.
        let may = &self.may;
        let is_open = |tool: &_| may(&Needs::Tool(Clone::clone(tool)));
        filter_tools(message.raw(), is_open).unwrap_or_else(|fault| {
            let text = format!("the list of tools of the server is malformed: {fault}");
            error_response(id, &Status::unknown(Code::Internal, text), self.call_id)
        })
    }

    /// The answer to the request whose call failed; `None` if it has its answer, or needs none.
    pub(crate) fn failure(&mut self, status: &Status) -> Option<Bytes> {
        let asked = self.asked.as_ref().filter(|_| !self.is_answered)?;
        self.is_answered = true;
        Some(error_response(Some(&asked.id), status, self.call_id))
    }
}

/// Returns what passes of a body in JSON from which no message may: nothing, unless it is JSON and
/// not a message at all, as an error of OAuth or of a proxy.
pub(crate) fn not_a_message(body: Bytes) -> Bytes {
    let text = std::str::from_utf8(&body).unwrap_or("jsonrpc");
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    // An escape could hide the name.
    let may_be_message = text.to_ascii_lowercase().contains("jsonrpc") || text.contains('\\');
    if is_json && !may_be_message { body } else { Bytes::new() }
}

#[cfg(test)]
mod tests {
    use super::super::ClientBody;
    use super::*;

    const ID: CallId = CallId::from_bytes([1; 16]);

    fn message(rest: &str) -> Bytes {
        Bytes::from(format!("{{\"jsonrpc\":\"2.0\",{rest}}}"))
    }

    fn asked(rest: &str) -> Option<AskedRequest> {
        let body = ClientBody::parse(&message(rest)).expect(rest);
        AskedRequest::of(&body.messages[0])
    }

    /// Rules that allow the tool `a`.
    fn may(needs: &Needs) -> bool {
        match needs {
            Needs::AnyTool => true,
            Needs::Tool(tool) => tool.as_str() == "a",
            _ => false,
        }
    }

    const LIST: &str = r#""id":1,"method":"tools/list""#;
    const CALL: &str = r#""id":1,"method":"tools/call","params":{"name":"a"}"#;

    fn server() -> Name {
        "jira".parse().expect("a name")
    }

    fn filter(request: &str) -> AnswerFilter {
        AnswerFilter::new(&server(), asked(request), ID, Box::new(may))
    }

    #[test]
    fn a_list_has_the_tools_that_may_be_called_whatever_it_answers() {
        let tools = r#""id":1,"result":{"tools":[{"name":"a"},{"name":"b"}]}"#;
        let mut list = filter(LIST);
        let open = message(r#""id":1,"result":{"tools":[{"name":"a"}]}"#);
        assert_eq!(list.pass(&message(tools)), Ok(Some(open.clone())));
        assert!(list.is_answered());
        let mut call = filter(CALL);
        assert_eq!(call.pass(&message(tools)), Ok(Some(open.clone())));
        let result = message(r#""id":1,"result":{"content":[{"tools":[{"name":"b"}]}]}"#);
        assert_eq!(filter(CALL).pass(&result), Ok(Some(result)));
        // The answer to another request than this one, as in a stream that is resumed.
        let mut resumed = AnswerFilter::new(&server(), None, ID, Box::new(may));
        assert_eq!(resumed.pass(&message(tools)), Ok(Some(open)));
        assert!(!resumed.is_answered());
    }

    #[test]
    fn requests_of_the_server_are_kept_back_and_counted_as_refused() {
        let mut call = filter(CALL);
        let ask = message(r#""id":"s","method":"sampling/createMessage","params":{}"#);
        assert_eq!(call.pass(&ask), Ok(None));
        assert_eq!(call.take_refused(), [RequestId::Text("s".into())]);
        assert!(call.take_refused().is_empty());
        let ping = message(r#""id":2,"method":"ping""#);
        assert_eq!(call.pass(&ping), Ok(Some(ping.clone())));
        let note = message(r#""method":"notifications/resources/updated""#);
        assert_eq!(call.pass(&note), Ok(None));
        assert!(call.take_refused().is_empty() && !call.is_answered());
    }

    #[test]
    fn a_result_that_asks_the_client_becomes_an_error_of_unknown_outcome() {
        let mut call = filter(CALL);
        let ask = message(r#""id":1,"result":{"inputRequests":{}}"#);
        let text = call.pass(&ask).expect("a body").expect("an answer");
        let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(value["error"]["data"]["code"], "PERMISSION_DENIED");
        assert_eq!(
            (&value["id"], &value["error"]["data"]["outcome"]),
            (&1.into(), &"unknown".into())
        );
    }

    #[test]
    fn a_body_that_is_no_message_passes_and_a_message_that_may_not_does_not() {
        for (body, passes) in [
            (r#"{"error":"invalid_token"}"#, true),
            ("null", true),
            ("", false),
            ("<html>", false),
            ("{\0\"\0}\0", false),
            (r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#, false),
            (r#"{"json\u0072pc":"2.0","id":1,"method":"roots/list"}"#, false),
        ] {
            let expected = if passes { body } else { "" };
            assert_eq!(not_a_message(Bytes::from_static(body.as_bytes())), expected);
        }
    }

    #[test]
    fn a_failure_answers_once_and_only_a_request() {
        let lost = Status::unknown(Code::Unavailable, "lost");
        let mut call = filter(CALL);
        let answer = call.failure(&lost).expect("an answer");
        assert!(answer.starts_with(br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32016,"#));
        assert_eq!(call.failure(&lost), None);
        let mut answered = filter(CALL);
        assert!(answered.pass(&message(r#""id":1,"result":{}"#)).is_ok());
        assert_eq!(answered.failure(&lost), None);
        assert_eq!(AnswerFilter::new(&server(), None, ID, Box::new(may)).failure(&lost), None);
    }

    #[test]
    fn the_messages_of_a_batch_are_decided_one_by_one() {
        let (result, note) =
            (message(r#""id":1,"result":{}"#), message(r#""method":"notifications/x""#));
        let ask = message(r#""id":7,"method":"roots/list""#);
        let body = super::super::batch([&result, &ask, &note]);
        let mut call = filter(CALL);
        let expected = super::super::batch([&result, &note]);
        assert_eq!(call.pass(&body), Ok(Some(expected)));
        assert_eq!(call.take_refused(), [RequestId::Integer(7)]);
        assert!(call.pass(&Bytes::from_static(b"[{\"a\":1,")).is_err());
        assert_eq!(call.pass(&Bytes::from_static(b"{\"a\":1,")), Ok(None));
    }
}
