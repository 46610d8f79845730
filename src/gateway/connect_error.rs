//! Failures as the Connect protocol writes them, and the names of dialback's headers.
//! Source: <https://connectrpc.com/docs/protocol/>, "Error Codes".

use crate::status::{Code, Status};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use hyper::{StatusCode, header::HeaderName};
use serde_json::{Value, json};

pub(super) const OUTCOME: HeaderName = HeaderName::from_static("dialback-outcome");
/// Header with the id of the call, as in logs.
pub(super) const CALL_ID: HeaderName = HeaderName::from_static("dialback-call-id");
pub(super) const METADATA: &str = "dialback-metadata-";
/// Type of a status' details: bytes that caller and handler agree on.
const DETAILS_TYPE: &str = "dialback.v1.Details";

/// By Connect's table: <https://connectrpc.com/docs/protocol#error-codes>.
pub(super) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        // "Client closed request", not defined by HTTP; read only if a handler returns CANCELLED.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(super) fn connect_code(code: Code) -> String {
    match code {
        Code::Cancelled => "canceled".into(),
        other => other.as_str().to_ascii_lowercase(),
    }
}

pub(super) fn error_json(status: &Status) -> Value {
    let mut error = json!({ "code": connect_code(status.code()), "message": status.message() });
    if !status.details().is_empty() {
        let value = STANDARD_NO_PAD.encode(status.details());
        error["details"] = json!([{ "type": DETAILS_TYPE, "value": value }]);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_status_of_connects_table() {
        let table =
            [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        for (number, http) in (0..).zip(table) {
            let code = Code::from_number(number).expect("a code");
            assert_eq!(http_status(code).as_u16(), http, "{code}");
        }
    }

    #[test]
    fn an_error_has_connects_spelling_and_its_details() {
        let status = Status::new(Code::Cancelled, "no \"more\"").with_details(vec![0xfb, 0xff]);
        let expected = r#"{"code":"canceled","message":"no \"more\"","details":[{"type":"dialback.v1.Details","value":"+/8"}]}"#;
        assert_eq!(error_json(&status), serde_json::from_str::<Value>(expected).expect("JSON"));
        let plain = error_json(&Status::new(Code::DeadlineExceeded, "late"));
        assert_eq!(plain, json!({"code": "deadline_exceeded", "message": "late"}));
    }
}
