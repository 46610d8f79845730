//! The outer members of a message of JSON-RPC 2.0.

use super::{
    MessageError, RequestId, RpcCode,
    body::json_error,
    members::{OtherKeys, pick},
    message_error::quoted,
};
use serde_json::value::RawValue;

/// Kind of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// A call, which its receiver answers.
    Request { id: RequestId, method: String },
    /// A message without an answer.
    Notification { method: String },
    /// The answer to a request; without an id if the request could not be read.
    Response { id: Option<RequestId> },
}

impl MessageKind {
    pub(crate) fn method(&self) -> Option<&str> {
        match self {
            Self::Request { method, .. } | Self::Notification { method } => Some(method),
            Self::Response { .. } => None,
        }
    }

    /// The id of a request.
    pub(crate) const fn request_id(&self) -> Option<&RequestId> {
        match self {
            Self::Request { id, .. } => Some(id),
            _ => None,
        }
    }
}

/// A message with the texts of its contents.
#[derive(Debug)]
pub(super) struct RpcMessage<'a> {
    pub(super) kind: MessageKind,
    pub(super) params: Option<&'a RawValue>,
    pub(super) result: Option<&'a RawValue>,
    pub(super) error: Option<&'a RawValue>,
}

impl<'a> RpcMessage<'a> {
    /// Reads a message. Its text is in UTF-8, and not too deep.
    pub(super) fn parse(text: &'a str) -> Result<Self, MessageError> {
        let names = ["jsonrpc", "id", "method", "params", "result", "error"];
        let members = pick(text, names, OtherKeys::Refused);
        let [version, id, method, params, result, error] =
            members.map_err(|fault| json_error(&fault, RpcCode::InvalidRequest, "message"))?;
        let id = id.map(RequestId::parse).transpose().map_err(MessageError::invalid_request)?;
        let own_id = id.clone().flatten();
        let fault = |text: &str| MessageError::invalid_request(text).with_id(own_id.as_ref());
        if version.and_then(text_of).as_deref() != Some("2.0") {
            return Err(fault("the message does not have \"jsonrpc\": \"2.0\""));
        }
        let kind = match (method, result, error) {
            (Some(method), None, None) => {
                let method = text_of(method).ok_or_else(|| fault("the method is not a text"))?;
                match id {
                    None => MessageKind::Notification { method },
                    Some(None) => return Err(fault("the id of a request is null")),
                    Some(Some(id)) => MessageKind::Request { id, method },
                }
            }
            (None, Some(_), None) if params.is_none() => match id.flatten() {
                Some(id) => MessageKind::Response { id: Some(id) },
                None => return Err(fault("a result has no id")),
            },
            (None, None, Some(_)) if params.is_none() => MessageKind::Response { id: id.flatten() },
            _ => return Err(fault("the message is neither a request nor a response")),
        };
        Ok(Self { kind, params, result, error })
    }
}

/// The text of a value that is one.
pub(super) fn text_of(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// The text of a required parameter.
pub(super) fn required_text(value: Option<&RawValue>, name: &str) -> Result<String, MessageError> {
    let value = value.ok_or_else(|| MessageError::invalid_params(format!("{name} is missing")))?;
    text_of(value).ok_or_else(|| {
        MessageError::invalid_params(format!("{name} is not a text: {}", quoted(value.get())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Result<MessageKind, MessageError> {
        RpcMessage::parse(text).map(|message| message.kind)
    }

    fn check(text: &str, expected: MessageKind) {
        assert_eq!(kind(text), Ok(expected), "{text}");
    }

    #[test]
    fn messages_are_requests_notifications_and_responses() {
        let (id, method) = (RequestId::Integer(1), String::from("m"));
        let request = || MessageKind::Request { id: id.clone(), method: method.clone() };
        check(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#, request());
        check(r#" {"params":{},"method":"\u006d","id":1,"jsonrpc":"2.\u0030"} "#, request());
        check(
            r#"{"jsonrpc":"2.0","method":"m"}"#,
            MessageKind::Notification { method: method.clone() },
        );
        let response = |id| MessageKind::Response { id };
        check(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, response(Some(id.clone())));
        check(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#, response(Some(id.clone())));
        check(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#, response(None));
        check(r#"{"jsonrpc":"2.0","error":{"code":1}}"#, response(None));
        assert_eq!((request().method(), request().request_id()), (Some("m"), Some(&id)));
        assert_eq!((response(None).method(), response(Some(id)).request_id()), (None, None));
    }

    #[track_caller]
    fn check_refused(text: &str, why: &str) {
        let fault = kind(text).expect_err(text);
        assert!(fault.to_string().contains(why), "{text}: {fault}");
        assert_eq!(fault.code, RpcCode::InvalidRequest, "{text}");
    }

    #[test]
    fn messages_that_break_json_rpc_are_refused() {
        check_refused(r#"{"id":1,"method":"m"}"#, "jsonrpc");
        check_refused(r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, "jsonrpc");
        check_refused(r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#, "jsonrpc");
        check_refused(r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, "null");
        check_refused(r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#, "integer");
        check_refused(r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, "integer");
        check_refused(r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "not a text");
        check_refused(r#"{"jsonrpc":"2.0","result":{}}"#, "no id");
        check_refused(r#"{"jsonrpc":"2.0","id":null,"result":{}}"#, "no id");
        let neither = "neither a request nor a response";
        check_refused(r#"{"jsonrpc":"2.0","id":1}"#, neither);
        check_refused(r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#, neither);
        check_refused(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, neither);
        check_refused(r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#, neither);
        check_refused("7", "expected an object");
    }

    #[test]
    fn outer_keys_have_one_spelling_and_stand_once() {
        check_refused(r#"{"jsonrpc":"2.0","id":1,"method":"m","method":"n"}"#, "duplicate key");
        check_refused(
            r#"{"jsonrpc":"2.0","id":1,"method":"m","m\u0065thod":"n"}"#,
            "duplicate key",
        );
        check_refused(r#"{"jsonrpc":"2.0","id":1,"method":"m","Method":"n"}"#, "read as method");
        check_refused(r#"{"jsonrpc":"2.0","id":1,"method":"m","PARAMS":{}}"#, "read as params");
        check_refused(
            r#"{"jsonrpc":"2.0","id":1,"method":"m","other":1}"#,
            "unknown key \"other\"",
        );
    }

    #[test]
    fn a_text_that_is_not_json_is_a_parse_error() {
        for bad in
            ["", "{", "{}x", "{\"id\":1,}", "{'a':1}", "{\"jsonrpc\":\"2.0\",\"id\":01}", "nul"]
        {
            assert_eq!(kind(bad).expect_err(bad).code, RpcCode::ParseError, "{bad}");
        }
    }

    #[test]
    fn a_fault_has_the_id_of_its_request_if_it_can_be_read() {
        let id = |text: &str| kind(text).expect_err(text).id;
        assert_eq!(id(r#"{"jsonrpc":"1.0","id":7,"method":"m"}"#), Some(RequestId::Integer(7)));
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":[],"method":"m"}"#), None);
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":7,"method":"m","x":1}"#), None);
    }
}
