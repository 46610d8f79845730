//! Messages of servers: the body of a response, or the data of an event.

use super::{
    MessageError, MessageKind, Needs, RequestId,
    body::{json_error, split},
    members::{OtherKeys, pick},
    message_error::{RpcCode, quoted},
    rpc_message::RpcMessage,
};
use bytes::Bytes;
use serde_json::value::RawValue;

/// Code of an error by which a server of revision 2025-11-25 asks the client to open a page.
const URL_ELICITATION_REQUIRED: f64 = -32042.0;

/// The messages of one body or event.
#[derive(Debug)]
pub(crate) struct ServerBody {
    /// True if they came in an array.
    pub(crate) is_batch: bool,
    /// Each message, or its fault: such a message is dropped, and the others may pass.
    pub(crate) messages: Vec<Result<ServerMessage, MessageError>>,
}

impl ServerBody {
    /// Parses a body.
    ///
    /// # Errors
    /// It is not JSON, or its messages could be read in different ways. All of it is dropped.
    pub(crate) fn parse(body: &Bytes) -> Result<Self, MessageError> {
        let texts = split(body)?;
        let parse = |text: &&str| ServerMessage::parse(body, text);
        let messages = texts.messages.iter().map(parse).collect();
        Ok(Self { is_batch: texts.is_batch, messages })
    }
}

/// A message of a server.
#[derive(Debug)]
pub(crate) struct ServerMessage {
    raw: Bytes,
    kind: MessageKind,
    needs: Needs,
    about: Option<RequestId>,
}

impl ServerMessage {
    fn parse(body: &Bytes, text: &str) -> Result<Self, MessageError> {
        let message = RpcMessage::parse(text)?;
        let needs = match &message.kind {
            MessageKind::Request { method, .. } if method == "ping" => Needs::AnyTool,
            MessageKind::Request { .. } => Needs::Client,
            MessageKind::Notification { method } => Needs::of_server_notification(method)
                .ok_or_else(|| {
                    MessageError::invalid_request(format!(
                        "the method {} is not one of a notification",
                        quoted(method)
                    ))
                })?,
            MessageKind::Response { .. } if asks_client(&message)? => Needs::Client,
            MessageKind::Response { .. } => Needs::AnyTool,
        };
        let about = about(&message);
        Ok(Self { raw: body.slice_ref(text.as_bytes()), kind: message.kind, needs, about })
    }

    /// The message as it was received; one that came alone with the space around it.
    pub(crate) const fn raw(&self) -> &Bytes {
        &self.raw
    }

    pub(crate) const fn kind(&self) -> &MessageKind {
        &self.kind
    }

    /// The id of the request that this message answers.
    pub(crate) const fn answered_id(&self) -> Option<&RequestId> {
        match &self.kind {
            MessageKind::Response { id } => id.as_ref(),
            _ => None,
        }
    }

    /// The request about which a notification tells, if it says so: by its progress, whose token
    /// most clients make of the id, or as a subscription.
    pub(crate) const fn about(&self) -> Option<&RequestId> {
        self.about.as_ref()
    }

    /// What a rule has to allow for the client to get it. Of a request or a response that needs
    /// [`Needs::Client`], one side gets an error instead; a notification is dropped.
    pub(crate) const fn needs(&self) -> &Needs {
        &self.needs
    }
}

fn about(message: &RpcMessage<'_>) -> Option<RequestId> {
    let params = message.params?;
    let members = pick(params.get(), ["progressToken", "_meta"], OtherKeys::Ignored);
    let [token, meta] = members.ok()?;
    let subscription = || {
        let key = ["io.modelcontextprotocol/subscriptionId"];
        pick(meta?.get(), key, OtherKeys::Ignored).ok()?[0]
    };
    RequestId::parse(token.or_else(subscription)?).ok()?
}

/// True if a response asks the client for something, as requests of the server do: since revision
/// 2026-07-28 by `inputRequests` in a result.
fn asks_client(message: &RpcMessage<'_>) -> Result<bool, MessageError> {
    let is_object = |value: &&RawValue| value.get().starts_with('{');
    let member = |value: Option<&'_ RawValue>, name| match value.filter(is_object) {
        Some(object) => pick(object.get(), [name], OtherKeys::Ignored)
            .map(|[found]| found.map(|found| found.get().to_owned()))
            .map_err(|fault| json_error(&fault, RpcCode::InvalidRequest, "response")),
        None => Ok(None),
    };
    let asked = member(message.result, "inputRequests")?;
    let code = member(message.error, "code")?.and_then(|code| code.parse::<f64>().ok());
    Ok(asked.is_some() || code == Some(URL_ELICITATION_REQUIRED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<ServerMessage, MessageError> {
        let text = Bytes::from(format!("{{\"jsonrpc\":\"2.0\",{rest}}}"));
        let body = ServerBody::parse(&text).expect(rest);
        body.messages.into_iter().next().expect("a message")
    }

    #[track_caller]
    fn check(rest: &str, needs: Needs) {
        assert_eq!(parse(rest).expect(rest).needs(), &needs, "{rest}");
    }

    #[test]
    fn requests_of_a_server_need_the_client_except_for_ping() {
        check(r#""id":1,"method":"ping""#, Needs::AnyTool);
        for method in
            ["sampling/createMessage", "roots/list", "elicitation/create", "tools/list", "x"]
        {
            check(&format!("\"id\":1,\"method\":\"{method}\""), Needs::Client);
        }
    }

    #[test]
    fn notifications_need_what_they_are_about_and_others_are_dropped() {
        check(r#""method":"notifications/message","params":{"level":"info"}"#, Needs::AnyTool);
        check(r#""method":"notifications/resources/updated""#, Needs::Resources);
        assert!(parse(r#""method":"roots/list""#).is_err());
        assert!(parse(r#""method":"ping""#).is_err());
    }

    #[test]
    fn responses_pass_unless_they_ask_the_client_for_something() {
        check(r#""id":1,"result":{"content":[]}"#, Needs::AnyTool);
        check(r#""id":1,"result":null"#, Needs::AnyTool);
        check(
            r#""id":1,"result":{"resultType":"input_required","requestState":"x"}"#,
            Needs::AnyTool,
        );
        check(
            r#""id":1,"result":{"resultType":"input_required","inputRequests":{}}"#,
            Needs::Client,
        );
        check(r#""id":1,"result":{"input\u0052equests":{}}"#, Needs::Client);
        check(r#""id":1,"error":{"code":-32603,"message":""}"#, Needs::AnyTool);
        check(r#""error":{"code":-32700,"message":""}"#, Needs::AnyTool);
        for code in ["-32042", "-32042.0", "-3.2042e4"] {
            check(&format!("\"id\":1,\"error\":{{\"code\":{code}}}"), Needs::Client);
        }
        for bad in [
            r#""id":1,"result":{"inputrequests":{}}"#,
            r#""id":1,"error":{"code":1,"code":-32042}"#,
            r#""id":1,"error":{"Code":-32042}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_response_names_the_request_that_it_answers() {
        let id = |rest: &str| parse(rest).expect(rest).answered_id().cloned();
        assert_eq!(id(r#""id":"a","result":{}"#), Some(RequestId::Text("a".into())));
        assert_eq!(id(r#""id":null,"error":{}"#), None);
        assert_eq!(id(r#""id":"a","method":"ping""#), None);
    }

    #[test]
    fn a_notification_tells_about_a_request_by_its_token_or_subscription() {
        let about = |rest: &str| parse(rest).expect(rest).about().cloned();
        let note =
            |params: &str| format!("\"method\":\"notifications/progress\",\"params\":{params}");
        assert_eq!(about(&note(r#"{"progressToken":7}"#)), Some(RequestId::Integer(7)));
        let meta = r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":"s"}}"#;
        assert_eq!(about(&note(meta)), Some(RequestId::Text("s".into())));
        for other in ["{}", "[]", r#"{"progressToken":null}"#, r#"{"_meta":7}"#] {
            assert_eq!(about(&note(other)), None, "{other}");
        }
    }

    #[test]
    fn a_message_with_a_fault_does_not_take_the_others_with_it() {
        let (good, bad) =
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, r#"{"jsonrpc":"2.0","id":1,"x":{}}"#);
        let body = ServerBody::parse(&Bytes::from(format!("[{good}, {bad}]"))).expect("a batch");
        assert!(body.is_batch);
        let [Ok(message), Err(_)] = &body.messages[..] else { panic!("{body:?}") };
        assert_eq!(message.raw(), good.as_bytes());
        for bad in ["", "[]", "{}x", "\u{feff}{}"] {
            let parsed = ServerBody::parse(&Bytes::copy_from_slice(bad.as_bytes()));
            assert!(parsed.is_err() || parsed.is_ok_and(|body| body.messages[0].is_err()), "{bad}");
        }
    }
}
