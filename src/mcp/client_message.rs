//! Messages of clients: the body of a POST.

use super::{
    METHOD, MessageError, MessageKind, NAME, Needs, RequestId,
    body::split,
    headers::{check_method, check_name},
    message_error::quoted,
    params::MessageParams,
    rpc_message::RpcMessage,
};
use bytes::Bytes;
use hyper::HeaderMap;

/// The messages of one POST.
#[derive(Debug)]
pub(crate) struct ClientBody {
    /// True if they came in an array, and are answered in one.
    pub(crate) is_batch: bool,
    /// At least one.
    pub(crate) messages: Vec<ClientMessage>,
}

impl ClientBody {
    /// Parses a body.
    ///
    /// # Errors
    /// The first fault of the body or of a message. Nothing of it may be passed on then.
    pub(crate) fn parse(body: &Bytes) -> Result<Self, MessageError> {
        let texts = split(body)?;
        let parse = |text: &&str| ClientMessage::parse(body, text);
        let messages = texts.messages.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { is_batch: texts.is_batch, messages })
    }

    /// Checks the headers `Mcp-Method` and `Mcp-Name` of the POST, where they are present, against
    /// every message: other parts of a network decide by them.
    pub(crate) fn check_headers(&self, headers: &HeaderMap) -> Result<(), MessageError> {
        let [method, name] = [METHOD, NAME].map(|name| {
            let mut values = headers.get_all(name).iter();
            let first = values.next()?;
            // Two of them agree with no message, and neither does one that is not a text.
            Some(first.to_str().ok().filter(|_| values.next().is_none()).unwrap_or_default())
        });
        self.messages.iter().try_for_each(|message| {
            let checked = check_method(method, message.method())
                .and_then(|()| check_name(name, message.named.as_deref()));
            checked.map_err(|fault| fault.with_id(message.kind.request_id()))
        })
    }
}

/// A message of a client.
#[derive(Debug)]
pub(crate) struct ClientMessage {
    raw: Bytes,
    kind: MessageKind,
    needs: Vec<Needs>,
    /// The text that the header `Mcp-Name` repeats.
    named: Option<String>,
}

impl ClientMessage {
    fn parse(body: &Bytes, text: &str) -> Result<Self, MessageError> {
        let message = RpcMessage::parse(text)?;
        let id = message.kind.request_id().cloned();
        let (needs, named) = Self::read(&message).map_err(|fault| fault.with_id(id.as_ref()))?;
        let raw = body.slice_ref(text.as_bytes());
        Ok(Self { raw, kind: message.kind, needs, named })
    }

    fn read(message: &RpcMessage<'_>) -> Result<(Vec<Needs>, Option<String>), MessageError> {
        let params = MessageParams::parse(message.params)?;
        match &message.kind {
            MessageKind::Request { method, .. } => {
                Ok((params.needs(method)?, params.named(method)?))
            }
            MessageKind::Notification { method } if method.starts_with("notifications/") => {
                Ok((vec![Needs::AnyTool], None))
            }
            // Some servers would run it, and answer nothing.
            MessageKind::Notification { method } => Err(MessageError::invalid_request(format!(
                "a request of the method {} has no id",
                quoted(method)
            ))),
            MessageKind::Response { id: None } => {
                Err(MessageError::invalid_request("a response of the client has no id"))
            }
            MessageKind::Response { .. } => Ok((vec![Needs::Client], None)),
        }
    }

    /// The message as it was received; one that came alone with the space around it.
    pub(crate) const fn raw(&self) -> &Bytes {
        &self.raw
    }

    pub(crate) fn method(&self) -> Option<&str> {
        self.kind.method()
    }

    /// The id of a request, which is answered.
    pub(crate) const fn request_id(&self) -> Option<&RequestId> {
        self.kind.request_id()
    }

    /// What rules have to allow: all of these. The first is the subject of the message.
    pub(crate) fn needs(&self) -> &[Needs] {
        &self.needs
    }
}

#[cfg(test)]
mod tests {
    use super::super::RpcCode;
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    fn parse(text: &str) -> Result<ClientBody, MessageError> {
        ClientBody::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    fn message(rest: &str) -> String {
        format!("{{\"jsonrpc\":\"2.0\",{rest}}}")
    }

    fn one(rest: &str) -> ClientMessage {
        let body = parse(&message(rest)).expect(rest);
        assert!(!body.is_batch);
        body.messages.into_iter().next().expect("a message")
    }

    fn tool(name: &str) -> Needs {
        Needs::Tool(name.parse().expect("a tool"))
    }

    #[test]
    fn requests_notifications_and_responses_need_what_they_are_about() {
        let call = one(r#""id":"x","method":"tools/call","params":{"name":"a"}"#);
        assert_eq!(call.needs(), [tool("a")]);
        assert_eq!(call.request_id(), Some(&RequestId::Text("x".into())));
        assert_eq!(one(r#""id":1,"method":"initialize","params":{}"#).needs(), [Needs::AnyTool]);
        let notified = one(r#""method":"notifications/cancelled","params":{"requestId":1}"#);
        assert_eq!((notified.needs(), notified.request_id()), (&[Needs::AnyTool][..], None));
        let answer = one(r#""id":1,"result":{"roots":[]}"#);
        assert_eq!((answer.needs(), answer.method()), (&[Needs::Client][..], None));
        assert_eq!(one(r#""id":1,"error":{"code":-1,"message":""}"#).needs(), [Needs::Client]);
    }

    #[track_caller]
    fn check_refused(rest: &str, code: RpcCode, id: Option<i64>) {
        let fault = parse(&message(rest)).expect_err(rest);
        assert_eq!((fault.code, fault.id.clone()), (code, id.map(RequestId::Integer)), "{fault}");
    }

    #[test]
    fn messages_that_no_rule_can_decide_are_refused_with_their_id() {
        let (invalid, params) = (RpcCode::InvalidRequest, RpcCode::InvalidParams);
        check_refused(r#""id":7,"method":"tasks/get""#, RpcCode::MethodNotFound, Some(7));
        check_refused(r#""id":7,"method":"tools/call""#, params, Some(7));
        check_refused(r#""id":7,"method":"ping","params":[]"#, params, Some(7));
        check_refused(r#""method":"tools/call","params":{"name":"a"}"#, invalid, None);
        check_refused(r#""method":"ping""#, invalid, None);
        check_refused(
            r#""id":7,"method":"notifications/initialized""#,
            RpcCode::MethodNotFound,
            Some(7),
        );
        check_refused(r#""error":{"code":1}"#, invalid, None);
        check_refused(r#""id":null,"error":{"code":1}"#, invalid, None);
    }

    #[test]
    fn messages_keep_their_bytes() {
        let (first, second) =
            (message(r#" "id":1,"method":"ping" "#), message(r#""method":"notifications/x""#));
        let single = parse(&format!(" {first}\n")).expect("a message");
        assert_eq!(single.messages[0].raw(), format!(" {first}\n").as_bytes());
        let body = parse(&format!("[{first} ,\n{second}]")).expect("a batch");
        assert!(body.is_batch);
        let raw: Vec<_> = body.messages.iter().map(ClientMessage::raw).collect();
        assert_eq!(raw, [first.as_bytes(), second.as_bytes()]);
        assert!(parse(&format!("[{first},7]")).is_err());
        assert!(parse(&format!("[{first},{}]", message(r#""id":2,"method":"x""#))).is_err());
    }

    #[test]
    fn headers_repeat_the_message() {
        let call = message(r#""id":7,"method":"tools/call","params":{"name":"a","uri":"b"}"#);
        let read = message(r#""id":7,"method":"resources/read","params":{"name":"a","uri":"b"}"#);
        let list = message(r#""id":7,"method":"tools/list""#);
        let answer = message(r#""id":7,"result":{}"#);
        let checked = |body: &str, method: Option<&'static str>, name: Option<&'static str>| {
            let pairs = [(METHOD, method), (NAME, name)].map(|(name, value)| {
                Some((HeaderName::from_static(name), HeaderValue::from_static(value?)))
            });
            parse(body).expect(body).check_headers(&pairs.into_iter().flatten().collect())
        };
        for (body, method, name, passes) in [
            (&call, None, None, true),
            (&call, Some("tools/call"), Some("a"), true),
            (&call, Some("tools/call"), Some("=?base64?YQ==?="), true),
            (&call, Some("tools/list"), Some("a"), false),
            (&call, Some("Tools/call"), None, false),
            (&call, None, Some("b"), false),
            (&read, Some("resources/read"), Some("b"), true),
            (&read, None, Some("a"), false),
            (&list, Some("tools/list"), None, true),
            (&list, None, Some("a"), false),
            (&answer, None, None, true),
            (&answer, Some("tools/call"), None, false),
        ] {
            assert_eq!(checked(body, method, name).is_ok(), passes, "{method:?} {name:?} {body}");
        }
        let fault = checked(&call, Some("ping"), None).expect_err("differs");
        assert_eq!((fault.code, fault.id), (RpcCode::HeaderMismatch, Some(RequestId::Integer(7))));
        let both = format!("[{list},{call}]");
        assert!(checked(&both, Some("tools/list"), None).is_err());
        assert!(checked(&format!("[{list},{list}]"), Some("tools/list"), None).is_ok());
    }
}
