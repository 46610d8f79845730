//! Maps Connect and HTTP errors to statuses.
//!
//! Source: <https://connectrpc.com/docs/protocol/>, "Error Codes", "HTTP to Error Code", "Error
//! End-Stream".

use crate::{
    metadata::Metadata,
    status::{Code, Status},
    wire::json,
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Code of a Connect name, such as `not_found`.
fn code_of(name: &str) -> Option<Code> {
    match name {
        // The one that is spelt otherwise in gRPC.
        "canceled" => Some(Code::Cancelled),
        "cancelled" | "ok" => None,
        _ if name.bytes().any(|byte| byte.is_ascii_uppercase()) => None,
        _ => name.to_ascii_uppercase().parse().ok(),
    }
}

/// Code of an HTTP status without a Connect error.
pub(super) const fn code_of_http(status: u16) -> Code {
    match status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    code: Option<String>,
    message: Option<String>,
    details: Option<serde_json::Value>,
}

impl ErrorBody {
    /// Reads one, if it is one: JSON with a code of Connect's.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let body: Self = serde_json::from_slice(bytes).ok()?;
        (body.known_code().is_some()).then_some(body)
    }

    fn known_code(&self) -> Option<Code> {
        code_of(self.code.as_deref()?)
    }

    /// The same as the handler's own answer. Details travel as far as a STATUS has room for them.
    pub(super) fn into_status(self) -> Status {
        let code = self.known_code().unwrap_or(Code::Unknown);
        let status = Status::new(code, self.message.unwrap_or_default());
        match self.details.as_ref().and_then(details) {
            Some(details) => status.with_details(details),
            None => status,
        }
    }
}

/// The type of details that are dialback's own bytes.
const OWN_DETAILS: &str = "dialback.v1.Details";

/// Connect's list of details as bytes: a single one of dialback's type as such, else as CBOR.
fn details(list: &serde_json::Value) -> Option<Bytes> {
    if let [only] = list.as_array()?.as_slice()
        && only["type"] == OWN_DETAILS
    {
        let text = only["value"].as_str()?.trim_end_matches('=');
        return STANDARD_NO_PAD.decode(text).ok().map(Bytes::from);
    }
    json::to_cbor(list).ok()
}

/// The message that ends a stream.
#[derive(Debug, Deserialize)]
pub(super) struct EndOfStream {
    error: Option<ErrorBody>,
    metadata: Option<BTreeMap<String, Vec<String>>>,
}

impl EndOfStream {
    /// Reads one; fails with the JSON error.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|fault| fault.to_string())
    }

    /// Trailing metadata, or the failure.
    pub(super) fn into_result(self) -> Result<Metadata, Status> {
        let pairs = self.metadata.unwrap_or_default().into_iter();
        let trailing: Metadata = pairs
            .flat_map(|(key, values)| values.into_iter().map(move |value| (key.clone(), value)))
            .collect();
        match self.error {
            None => Ok(trailing),
            Some(error) => Err(error.into_status().with_metadata(trailing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Outcome;

    #[test]
    fn every_code_but_ok_has_its_name_in_connect() {
        for number in 1..=16 {
            let code = Code::from_number(number).expect("a code");
            let name = match code {
                Code::Cancelled => "canceled".to_owned(),
                _ => code.as_str().to_ascii_lowercase(),
            };
            assert_eq!(code_of(&name), Some(code));
        }
        for no in ["", "ok", "cancelled", "NOT_FOUND", "nope"] {
            assert_eq!(code_of(no), None, "{no}");
        }
    }

    #[test]
    fn an_error_is_the_handlers_own_answer_with_its_details() {
        let text =
            br#"{"code":"not_found","message":"no such","details":[{"type":"a.B","value":"AQ"}]}"#;
        let status = ErrorBody::read(text).expect("an error").into_status();
        assert_eq!((status.code(), status.outcome()), (Code::NotFound, Outcome::AppError));
        assert_eq!(status.message(), "no such");
        let details = json::from_cbor(status.details()).expect("CBOR");
        assert_eq!(details, serde_json::json!([{"type": "a.B", "value": "AQ"}]));
        let bare = ErrorBody::read(br#"{"code":"aborted"}"#).expect("an error").into_status();
        assert_eq!((bare.message(), bare.details().len()), ("", 0));
    }

    #[test]
    fn details_of_dialbacks_type_keep_their_bytes() {
        let of = |details: &str| {
            let text = format!(r#"{{"code":"aborted","details":{details}}}"#);
            ErrorBody::read(text.as_bytes()).expect("an error").into_status().details().clone()
        };
        for value in ["+/8", "+/8="] {
            let own = format!(r#"[{{"type":"dialback.v1.Details","value":"{value}"}}]"#);
            assert_eq!(&of(&own)[..], [0xfb, 0xff]);
        }
        for nothing in ["null", "7", r#"[{"type":"dialback.v1.Details","value":"?"}]"#] {
            assert!(of(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn a_body_that_is_not_a_connect_error_maps_the_http_status() {
        for other in [&b""[..], b"<html>", b"{}", br#"{"code":"nope"}"#, br#"{"code":5}"#, b"[]"] {
            assert!(ErrorBody::read(other).is_none(), "{other:?}");
        }
        let codes = [400, 404, 429, 503, 500, 302, 204].map(code_of_http);
        let unavailable = Code::Unavailable;
        assert_eq!(codes[..4], [Code::Internal, Code::Unimplemented, unavailable, unavailable]);
        assert_eq!(codes[4..], [Code::Unknown; 3]);
    }

    #[test]
    fn the_end_of_a_stream_has_metadata_an_error_or_nothing() {
        let end = |text: &str| EndOfStream::read(text.as_bytes()).map(EndOfStream::into_result);
        assert_eq!(end("{}"), Ok(Ok(Metadata::default())));
        let trailing = end(r#"{"metadata":{"a":["1","2"]}}"#).expect("an end").expect("no error");
        assert_eq!(trailing.iter().collect::<Vec<_>>(), [("a", "1"), ("a", "2")]);
        let failed = end(r#"{"error":{"code":"aborted","message":"m"},"metadata":{"a":["1"]}}"#);
        let failed = failed.expect("an end").expect_err("an error");
        assert_eq!((failed.code(), failed.metadata().get("a")), (Code::Aborted, Some("1")));
        let other = end(r#"{"error":{"code":"nope"}}"#).expect("an end").expect_err("an error");
        assert_eq!(other.code(), Code::Unknown);
        assert!(end("nonsense").is_err());
    }
}
