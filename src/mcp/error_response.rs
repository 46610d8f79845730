//! Error responses to requests that were not passed on, or failed.

use super::{MessageError, Needs, RequestId};
use crate::{
    name::{CallId, Name},
    status::Status,
};
use bytes::Bytes;
use serde::Serialize;

/// The code of a failed call is this, less the number of its status. The MCP specification leaves
/// -32000 to -32019 to implementations, of which SDKs use the first three for other errors.
const STATUS_BASE: i32 = -32002;

#[derive(Serialize)]
struct ErrorResponse<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RequestId>,
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: i32,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<ErrorDetails<'a>>,
}

#[derive(Serialize)]
struct ErrorDetails<'a> {
    outcome: &'a str,
    call_id: String,
    code: &'a str,
}

impl ErrorResponse<'_> {
    fn write(&self) -> Bytes {
        // Texts and numbers are always serialised.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

fn write_response(id: Option<&RequestId>, code: i32, status: &Status, call_id: CallId) -> Bytes {
    let details = ErrorDetails {
        outcome: status.outcome().as_str(),
        call_id: call_id.to_string(),
        code: status.code().as_str(),
    };
    let error = ErrorObject { code, message: status.message(), data: Some(details) };
    ErrorResponse { jsonrpc: "2.0", id, error }.write()
}

/// The response to a request whose call failed.
pub(crate) fn error_response(id: Option<&RequestId>, status: &Status, call_id: CallId) -> Bytes {
    write_response(id, STATUS_BASE - i32::from(status.code().number()), status, call_id)
}

impl MessageError {
    /// The response to a body with this fault.
    pub(crate) fn response(&self, call_id: CallId) -> Bytes {
        write_response(self.id.as_ref(), self.code.number(), &self.status(), call_id)
    }
}

/// The response to a request of a server that its client may not get: as of a client that does not
/// have the method.
pub(crate) fn refusal_of_server_request(server: &Name, id: &RequestId) -> Bytes {
    let path = Needs::Client.path(server);
    let message =
        &format!("the client takes no requests of the server: no rule over {path} allows them");
    let error = ErrorObject { code: super::RpcCode::MethodNotFound.number(), message, data: None };
    ErrorResponse { jsonrpc: "2.0", id: Some(id), error }.write()
}

/// The notification that nobody waits for the answer to a request any more.
pub(crate) fn cancelled(id: &RequestId) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        request_id: &'a RequestId,
        reason: &'static str,
    }
    #[derive(Serialize)]
    struct Notification<'a> {
        jsonrpc: &'static str,
        method: &'static str,
        params: Params<'a>,
    }
    let params = Params { request_id: id, reason: "the client hung up, or its time is over" };
    let notification = Notification { jsonrpc: "2.0", method: "notifications/cancelled", params };
    serde_json::to_vec(&notification).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::super::ClientBody;
    use super::*;
    use crate::status::Code;

    const ID: CallId = CallId::from_bytes([0xab; 16]);

    #[test]
    fn a_failed_call_is_answered_with_its_outcome() {
        let status = Status::not_executed(Code::Unavailable, "agent \"a\" is not attached");
        let expected = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32016,"message":"agent \"a\" is not attached","data":{"outcome":"not_executed","call_id":"abababababababababababababababab","code":"UNAVAILABLE"}}}"#;
        assert_eq!(error_response(Some(&RequestId::Integer(7)), &status, ID), expected);
        let id = RequestId::Text("a\"b".into());
        let response = error_response(Some(&id), &Status::unknown(Code::Internal, "x"), ID);
        assert!(response.starts_with(br#"{"jsonrpc":"2.0","id":"a\"b","error":{"code":-32015,"#));
        assert!(error_response(None, &status, ID).starts_with(br#"{"jsonrpc":"2.0","id":null,"#));
    }

    #[test]
    fn every_status_has_a_code_that_the_specification_leaves_free() {
        for number in 1..=16 {
            let code = Code::from_number(number).expect("a code");
            let response = error_response(None, &Status::new(code, ""), ID);
            let value: serde_json::Value = serde_json::from_slice(&response).expect("JSON");
            let rpc_code = value["error"]["code"].as_i64().expect("a number");
            assert!((-32019..=-32003).contains(&rpc_code), "{code}: {rpc_code}");
        }
    }

    #[test]
    fn a_body_with_a_fault_is_answered_with_its_code() {
        let body = |text: &str| ClientBody::parse(&Bytes::copy_from_slice(text.as_bytes()));
        for (text, code, id, status) in [
            ("{", -32700, "null", "INVALID_ARGUMENT"),
            ("7", -32600, "null", "INVALID_ARGUMENT"),
            (r#"{"jsonrpc":"2.0","id":7,"method":"x"}"#, -32601, "7", "UNIMPLEMENTED"),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#, -32602, "7", "INVALID_ARGUMENT"),
        ] {
            let response = body(text).expect_err(text).response(ID);
            let response = std::str::from_utf8(&response).expect("UTF-8");
            let start =
                format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"#);
            assert!(response.starts_with(&start), "{response}");
            assert!(response.contains(&format!(
                r#""outcome":"not_executed","call_id":"{ID}","code":"{status}""#
            )));
        }
    }

    #[test]
    fn a_cancelled_request_is_named_by_its_id() {
        let text = cancelled(&RequestId::Integer(7));
        let body = ClientBody::parse(&text).expect("a notification");
        assert_eq!(body.messages[0].method(), Some("notifications/cancelled"));
        assert!(text.windows(13).any(|part| part == b"\"requestId\":7"));
    }

    #[test]
    fn a_server_gets_an_answer_to_a_request_that_its_client_does_not_get() {
        let server = "jira".parse().expect("a name");
        let response = refusal_of_server_request(&server, &RequestId::Text("s-1".into()));
        let expected = r#"{"jsonrpc":"2.0","id":"s-1","error":{"code":-32601,"message":"the client takes no requests of the server: no rule over mcp:jira/client allows them"}}"#;
        assert_eq!(response, expected);
        let body = ClientBody::parse(&response).expect("a response");
        assert_eq!(body.messages[0].needs(), [Needs::Client]);
    }
}
