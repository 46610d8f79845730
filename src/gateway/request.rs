//! Parses the head of a request: format, timeout, trace and metadata of its call.

use super::{
    codec::{Codec, PREFIX_BYTES},
    connect_error::METADATA,
    response::Refusal,
};
use crate::{
    metadata::Metadata,
    status::{Code, Status},
    trace::TraceContext,
};
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One message each way, without an envelope.
    Unary(Codec),
    /// Connect's envelopes, for methods that stream their replies.
    Connect(Codec),
    /// A message without an envelope, and server-sent events in JSON.
    Events(Codec),
}

const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const STREAM_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPTED: &str =
    "application/json, application/cbor, application/connect+json, application/connect+cbor";

impl Form {
    /// Reads the format from `Content-Type` and `Accept`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let content_type = one(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
        let (kind, rest) = content_type.split_once(';').unwrap_or((content_type, ""));
        let is_known_charset = match rest.trim() {
            "" => true,
            charset => charset.to_ascii_lowercase().replace([' ', '"'], "") == "charset=utf-8",
        };
        let form = match kind.trim().to_ascii_lowercase().as_str() {
            _ if !is_known_charset => None,
            "application/json" => Some(Self::Unary(Codec::Json)),
            "application/cbor" => Some(Self::Unary(Codec::Cbor)),
            "application/connect+json" => Some(Self::Connect(Codec::Json)),
            "application/connect+cbor" => Some(Self::Connect(Codec::Cbor)),
            _ => None,
        };
        match form {
            Some(Self::Unary(codec)) if wants_events(headers) => Ok(Self::Events(codec)),
            Some(form) => Ok(form),
            None => {
                let text = format!("the content-type is not one of {ACCEPTED}");
                let http = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                let refusal = Refusal::with(http, Code::InvalidArgument, text);
                Err(refusal.header(ACCEPT_POST, HeaderValue::from_static(ACCEPTED)))
            }
        }
    }

    /// Smallest message of a body of at least this size; of JSON, any size.
    pub(super) const fn message_bytes_min(self, body_bytes_min: usize) -> usize {
        match self {
            Self::Unary(Codec::Cbor) | Self::Events(Codec::Cbor) => body_bytes_min,
            Self::Connect(Codec::Cbor) => body_bytes_min.saturating_sub(PREFIX_BYTES),
            Self::Unary(_) | Self::Events(_) | Self::Connect(_) => 0,
        }
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds = accepted.flat_map(|value| value.split(','));
    let mut kinds = kinds.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    kinds.any(|kind| kind.eq_ignore_ascii_case("text/event-stream"))
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CallHeaders {
    pub(super) timeout: Option<Duration>,
    pub(super) traceparent: Option<Box<str>>,
    pub(super) metadata: Metadata,
}

impl CallHeaders {
    /// Reads the headers that the gateway uses. Ignores all others, and identities that they claim.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        if one(headers, &VERSION)?.is_some_and(|version| version != "1") {
            return Err(Refusal::invalid(
                "connect-protocol-version is not 1, the only one there is",
            ));
        }
        for name in [header::CONTENT_ENCODING, STREAM_ENCODING] {
            if one(headers, &name)?.is_some_and(|coding| coding != "identity") {
                let text = format!("{name}: bodies are taken uncompressed only (identity)");
                return Err(Status::not_executed(Code::Unimplemented, text).into());
            }
        }
        let timeout = one(headers, &TIMEOUT)?.map(timeout).transpose()?;
        let traceparent =
            one(headers, &TRACEPARENT)?.filter(|text| TraceContext::parse(text).is_some());
        let mut metadata = Metadata::default();
        if traceparent.is_some() {
            let states = headers.get_all(TRACESTATE).iter().filter_map(|state| state.to_str().ok());
            let states: Vec<_> = states.collect();
            if !states.is_empty() {
                metadata.insert(TRACESTATE.as_str(), states.join(","));
            }
        }
        for (name, value) in headers {
            let Some(key) = name.as_str().strip_prefix(METADATA) else { continue };
            let value = std::str::from_utf8(value.as_bytes());
            let value =
                value.map_err(|_| Refusal::invalid(format!("the header {name} is not UTF-8")))?;
            if key.is_empty() || is_reserved(key) {
                return Err(Refusal::invalid(format!(
                    "the header {name} is not allowed as metadata of a caller"
                )));
            }
            metadata.insert(key, value);
        }
        Ok(Self { timeout, traceparent: traceparent.map(Into::into), metadata })
    }
}

/// True if a metadata key is reserved.
fn is_reserved(key: &str) -> bool {
    key.starts_with("dialback") || matches!(key, "tracestate" | "traceparent")
}

fn timeout(text: &str) -> Result<Duration, Refusal> {
    let is_number =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (1..=10).contains(&text.len());
    match text.parse() {
        Ok(0) => Err(Refusal::invalid("connect-timeout-ms is 0; a call needs time")),
        Ok(millis) if is_number => Ok(Duration::from_millis(millis)),
        _ => Err(Refusal::invalid(
            "connect-timeout-ms is not a number of milliseconds of at most ten digits",
        )),
    }
}

/// Value of a header that may occur only once.
pub(super) fn one<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Refusal::invalid(format!("the header {name} occurs more than once")));
    }
    let text = first.map(HeaderValue::to_str).transpose();
    text.map_err(|_| Refusal::invalid(format!("the header {name} is not plain text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[track_caller]
    fn check_form(lines: &[(&'static str, &str)], form: Option<Form>) {
        assert_eq!(Form::of(&headers(lines)).ok(), form, "{lines:?}");
    }

    #[test]
    fn the_format_follows_content_type_and_accept() {
        let json = ("content-type", "application/json");
        check_form(&[json], Some(Form::Unary(Codec::Json)));
        check_form(&[json, ("accept", "text/event-stream")], Some(Form::Events(Codec::Json)));
        check_form(
            &[json, ("accept", "*/*, Text/Event-Stream;q=0.9")],
            Some(Form::Events(Codec::Json)),
        );
        check_form(&[json, ("accept", "*/*")], Some(Form::Unary(Codec::Json)));
        for (text, form) in [
            ("Application/JSON; charset=UTF-8", Some(Form::Unary(Codec::Json))),
            ("application/cbor", Some(Form::Unary(Codec::Cbor))),
            ("application/connect+json", Some(Form::Connect(Codec::Json))),
            ("application/connect+cbor", Some(Form::Connect(Codec::Cbor))),
            ("application/json; charset=latin1", None),
            ("application/proto", None),
            ("text/plain", None),
            ("", None),
        ] {
            check_form(&[("content-type", text)], form);
        }
        check_form(&[], None);
        check_form(&[json, json], None);
    }

    #[test]
    fn a_timeout_is_a_number_of_milliseconds_and_not_zero() {
        for (text, millis) in
            [("1", Some(1)), ("0500", Some(500)), ("9999999999", Some(9_999_999_999))]
        {
            let words = CallHeaders::of(&headers(&[("connect-timeout-ms", text)])).expect("words");
            assert_eq!(words.timeout, millis.map(Duration::from_millis));
        }
        for bad in ["0", "", "-1", "+1", "1.5", "1e3", "12345678901", "5s", " "] {
            assert!(CallHeaders::of(&headers(&[("connect-timeout-ms", bad)])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn metadata_and_trace_are_read_and_identity_headers_are_ignored() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let words = CallHeaders::of(&headers(&[
            ("traceparent", trace),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("dialback-metadata-tenant", "acme"),
            ("x-dialback-caller", "caller/root"),
            ("x-forwarded-user", "root"),
            ("authorization", "Bearer secret"),
        ]))
        .expect("words");
        assert_eq!(words.traceparent.as_deref(), Some(trace));
        let pairs: Vec<_> = words.metadata.iter().collect();
        assert_eq!(pairs, [("tracestate", "a=1,b=2"), ("tenant", "acme")]);
        for bad in [
            ("dialback-metadata-dialback-caller", "x"),
            ("dialback-metadata-tracestate", "x"),
            ("connect-protocol-version", "2"),
            ("content-encoding", "gzip"),
        ] {
            assert!(CallHeaders::of(&headers(&[bad])).is_err(), "{bad:?}");
        }
        for bad in ["00-xyz", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"] {
            let words = CallHeaders::of(&headers(&[("traceparent", bad), ("tracestate", "a=1")]));
            assert_eq!(words.expect("words"), CallHeaders::default(), "{bad}");
        }
    }
}
