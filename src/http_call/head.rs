//! Heads of HTTP messages as messages of a call.

use super::headers::remove_guarded_trailers;
use crate::{
    limits::HTTP_MESSAGE_BYTES_MAX,
    wire::{HeaderPairs, HttpRequestHead, HttpResponseHead, HttpTrailers, WireError},
};
use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

/// Head of a request without its verb and path, which are in the call's own head.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct HttpRequest {
    /// What follows the `?`; `None` without one.
    pub(crate) query: Option<String>,
    /// Headers without those of a connection.
    pub(crate) headers: HeaderMap,
    /// Host and port that the client named; `None` means those of the upstream.
    pub(crate) authority: Option<String>,
    /// True if a body follows.
    pub(crate) has_body: bool,
    /// The protocol that the client asks to change to.
    pub(crate) upgrade: Option<String>,
}

/// Head of a response. With status 101 bytes of another protocol follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    /// Headers without those of a connection.
    pub(crate) headers: HeaderMap,
    /// With status 101, the protocol that the connection changes to.
    pub(crate) upgrade: Option<String>,
}

/// A head that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MalformedHead {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the head takes {0} bytes, more than {HTTP_MESSAGE_BYTES_MAX}")]
    TooLarge(usize),
    #[error("{0:?} is not the name of a header, or its value is none")]
    Header(String),
    #[error("the header {0} belongs to a connection, and connections end at each hop")]
    OfConnection(HeaderName),
    #[error("content-length is not one number")]
    Length,
    #[error("{0} is not a status of HTTP")]
    Status(u16),
    #[error("the query has bytes that a URL does not have")]
    Query,
}

impl HttpRequest {
    pub(crate) fn encode(&self) -> Result<Bytes, MalformedHead> {
        let head = HttpRequestHead {
            query: self.query.as_deref(),
            headers: pairs(&self.headers),
            authority: self.authority.as_deref(),
            has_body: self.has_body,
            upgrade: self.upgrade.as_deref(),
        };
        expect_size(head.encode()?)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MalformedHead> {
        let HttpRequestHead { query, headers, authority, has_body, upgrade } =
            HttpRequestHead::decode(bytes)?;
        if query.is_some_and(|query| query.bytes().any(|byte| !(0x21..0x7f).contains(&byte))) {
            return Err(MalformedHead::Query);
        }
        let headers = checked_headers(headers)?;
        let [query, authority, upgrade] =
            [query, authority, upgrade].map(|text| text.map(str::to_owned));
        Ok(Self { query, headers, authority, has_body, upgrade })
    }
}

impl HttpResponse {
    pub(crate) fn encode(&self) -> Result<Bytes, MalformedHead> {
        let (status, headers) = (self.status.as_u16(), pairs(&self.headers));
        let upgrade = self.upgrade.as_deref();
        expect_size(HttpResponseHead { status, headers, upgrade }.encode()?)
    }

    /// Reads a final status, or 101.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MalformedHead> {
        let HttpResponseHead { status: number, headers, upgrade } =
            HttpResponseHead::decode(bytes)?;
        let status = StatusCode::from_u16(number).ok();
        let status = status.filter(|status| {
            !status.is_informational() || *status == StatusCode::SWITCHING_PROTOCOLS
        });
        let status = status.ok_or(MalformedHead::Status(number))?;
        let (headers, upgrade) = (checked_headers(headers)?, upgrade.map(str::to_owned));
        Ok(Self { status, headers, upgrade })
    }
}

pub(crate) fn encode_trailers(mut trailers: HeaderMap) -> Result<Bytes, MalformedHead> {
    remove_guarded_trailers(&mut trailers);
    expect_size(HttpTrailers { trailers: pairs(&trailers) }.encode()?)
}

pub(super) fn decode_trailers(bytes: &[u8]) -> Result<HeaderMap, MalformedHead> {
    let mut trailers = checked_headers(HttpTrailers::decode(bytes)?.trailers)?;
    remove_guarded_trailers(&mut trailers);
    Ok(trailers)
}

fn expect_size(bytes: Bytes) -> Result<Bytes, MalformedHead> {
    match bytes.len() {
        size if size > HTTP_MESSAGE_BYTES_MAX => Err(MalformedHead::TooLarge(size)),
        _ => Ok(bytes),
    }
}

fn pairs(headers: &HeaderMap) -> HeaderPairs<'_> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), serde_bytes::Bytes::new(value.as_bytes())))
        .collect()
}

/// Headers of a peer. Those that would change where a message ends are refused: the other side of
/// the link is authenticated, and its clients are not.
fn checked_headers(pairs: HeaderPairs<'_>) -> Result<HeaderMap, MalformedHead> {
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        let fault = || MalformedHead::Header(name.chars().take(80).collect());
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| fault())?;
        let value = HeaderValue::from_bytes(value).map_err(|_| fault())?;
        if [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::HOST]
            .contains(&parsed)
        {
            return Err(MalformedHead::OfConnection(parsed));
        }
        if parsed == header::CONTENT_LENGTH {
            // Written again: some servers read `010` as 8.
            let length = only_length(&headers, &value).ok_or(MalformedHead::Length)?;
            headers.insert(parsed, HeaderValue::from(length));
            continue;
        }
        headers.append(parsed, value);
    }
    Ok(headers)
}

fn only_length(headers: &HeaderMap, value: &HeaderValue) -> Option<u64> {
    let is_number = value.as_bytes().iter().all(u8::is_ascii_digit);
    let is_only = is_number && !headers.contains_key(header::CONTENT_LENGTH);
    value.to_str().ok().filter(|_| is_only)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn heads_come_back_as_they_were() {
        let request = HttpRequest {
            query: Some("a=%20&b".into()),
            headers: headers(&[("accept", "a"), ("accept", "b"), ("content-length", "3")]),
            authority: Some("web.example".into()),
            has_body: true,
            upgrade: None,
        };
        let bytes = request.encode().expect("encodes");
        assert_eq!(HttpRequest::decode(&bytes).expect("decodes"), request);
        for status in [101, 200, 204, 404, 599] {
            let status = StatusCode::from_u16(status).expect("a status");
            let response = HttpResponse { status, headers: headers(&[("x", "\t")]), upgrade: None };
            let bytes = response.encode().expect("encodes");
            assert_eq!(HttpResponse::decode(&bytes).expect("decodes"), response);
        }
    }

    #[test]
    fn a_head_that_changes_where_a_message_ends_is_refused() {
        for (name, value) in [
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
            ("upgrade", "h2c"),
            ("host", "a"),
            ("content-length", "3, 3"),
            ("content-length", "+3"),
            ("content-length", ""),
            ("content-length", "99999999999999999999"),
        ] {
            let request = HttpRequest { headers: headers(&[(name, value)]), ..Default::default() };
            let bytes = request.encode().expect("encodes");
            assert!(HttpRequest::decode(&bytes).is_err(), "{name}: {value}");
        }
        let twice = headers(&[("content-length", "3"), ("content-length", "3")]);
        let bytes = HttpRequest { headers: twice, ..Default::default() }.encode().expect("encodes");
        assert!(matches!(HttpRequest::decode(&bytes), Err(MalformedHead::Length)));
    }

    #[test]
    fn names_values_queries_and_status_that_http_does_not_have_are_refused() {
        let with = |name, value| {
            let headers = vec![(name, serde_bytes::Bytes::new(value))];
            HttpRequestHead { headers, ..Default::default() }.encode().expect("encodes")
        };
        assert!(HttpRequest::decode(&with("x", b"1")).is_ok());
        for (name, value) in [("", &b"1"[..]), ("a b", b"1"), ("x", b"1\r\ny: 2"), ("x", b"\0")] {
            assert!(HttpRequest::decode(&with(name, value)).is_err(), "{name:?} {value:?}");
        }
        for query in ["a b", "a\r\nx", "\u{e9}"] {
            let query = Some(query);
            let bytes = HttpRequestHead { query, ..Default::default() }.encode().expect("encodes");
            assert!(matches!(HttpRequest::decode(&bytes), Err(MalformedHead::Query)));
        }
        for status in [0, 99, 100, 103, 1000] {
            let head = HttpResponseHead { status, headers: Vec::new(), upgrade: None };
            let bytes = head.encode().expect("encodes");
            assert!(HttpResponse::decode(&bytes).is_err(), "{status}");
        }
    }

    #[test]
    fn a_head_over_the_size_of_a_message_is_not_written() {
        let query = Some("x".repeat(HTTP_MESSAGE_BYTES_MAX));
        let request = HttpRequest { query, ..Default::default() };
        assert!(matches!(request.encode(), Err(MalformedHead::TooLarge(_))));
    }
}
