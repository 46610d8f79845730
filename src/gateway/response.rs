//! Builds HTTP responses: replies, errors in Connect's format, and the headers of every response.

use super::{
    connect_error::{CALL_ID, METADATA, OUTCOME, error_json, http_status},
    proxy::ProxyBody,
    stream::StreamBody,
};
use crate::{
    convert::Text,
    httpd::ResponseBodyError,
    metadata::Metadata,
    name::CallId,
    status::{Code, Outcome, Status},
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

pub(super) enum ResponseBody {
    Whole(Full<Bytes>),
    /// JSON that is produced while it is sent.
    Text(Text),
    Stream(Box<StreamBody>),
    /// Passed on as it comes.
    Proxied(Box<ProxyBody>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx).map_err(Into::into),
            Self::Text(text) => Pin::new(text).poll_frame(cx).map_err(Into::into),
            Self::Stream(stream) => stream.poll_next(cx).map(|piece| Some(Ok(Frame::data(piece?)))),
            Self::Proxied(body) => body.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Text(text) => text.is_end_stream(),
            Self::Stream(stream) => stream.is_over(),
            Self::Proxied(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Text(text) => text.size_hint(),
            Self::Stream(_) | Self::Proxied(_) => SizeHint::default(),
        }
    }
}

pub(super) type GatewayResponse = Response<ResponseBody>;

/// An error response in Connect's format, with an HTTP status.
#[derive(Debug)]
pub(super) struct Refusal {
    http: Option<StatusCode>,
    pub(super) status: Status,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Delay before it is sent to clients that try too often. Their connection is closed then.
    pub(super) held_back: Option<Duration>,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { http: None, status, headers: Vec::new(), held_back: None }
    }
}

impl Refusal {
    /// An error of HTTP itself, with its own status. Not executed.
    pub(super) fn with(http: StatusCode, code: Code, text: impl Into<String>) -> Self {
        Self { http: Some(http), ..Status::not_executed(code, text).into() }
    }

    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Status::not_executed(Code::InvalidArgument, text).into()
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Replaces a header.
    pub(super) fn only_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.header(name, value)
    }

    /// Closes the connection after it: the rest of the request is unparsable or not worth reading.
    pub(super) fn closing(self) -> Self {
        self.header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// Delays it, and closes the connection in every version of HTTP.
    pub(super) fn held_back(self, wait: Duration) -> Self {
        Self { held_back: Some(wait), ..self }.closing()
    }

    pub(super) fn http_status(&self) -> StatusCode {
        self.http.unwrap_or_else(|| match (self.status.code(), self.status.outcome()) {
            // Clients and proxies repeat a 429 by themselves: only where nothing was started.
            (Code::ResourceExhausted, Outcome::Unknown) => StatusCode::INTERNAL_SERVER_ERROR,
            (code, _) => http_status(code),
        })
    }

    /// HTTP status, status and headers, to be written in another format.
    pub(super) fn into_parts(self) -> (StatusCode, Status, HeaderMap) {
        let mut headers = HeaderMap::new();
        let http = self.http_status();
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        (http, self.status, headers)
    }

    pub(super) fn into_response(self) -> GatewayResponse {
        let http = self.http_status();
        let mut answer =
            full_response(http, "application/json", error_json(&self.status).to_string());
        add_metadata(answer.headers_mut(), METADATA, self.status.metadata());
        set_outcome(&mut answer, self.status.outcome());
        answer.headers_mut().extend(self.headers);
        answer
    }
}

pub(super) fn full_response(
    http: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> GatewayResponse {
    let body = ResponseBody::Whole(Full::new(body.into()));
    of_type(http, content_type, body)
}

pub(super) fn of_type(
    http: StatusCode,
    content_type: &'static str,
    body: ResponseBody,
) -> GatewayResponse {
    let mut answer = Response::new(body);
    *answer.status_mut() = http;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

pub(super) fn set_outcome(answer: &mut GatewayResponse, outcome: Outcome) {
    answer.headers_mut().insert(OUTCOME, HeaderValue::from_static(outcome.as_str()));
}

/// Adds metadata as headers. Pairs that HTTP cannot carry are omitted.
pub(super) fn add_metadata(headers: &mut HeaderMap, prefix: &str, metadata: &Metadata) {
    for (key, value) in metadata.iter() {
        let name = HeaderName::from_bytes(format!("{prefix}{key}").as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
}

/// Adds the headers of every response.
pub(super) fn finish(answer: &mut GatewayResponse, call_id: CallId) {
    let headers = answer.headers_mut();
    if let Ok(call_id) = HeaderValue::try_from(call_id.to_string()) {
        headers.insert(CALL_ID, call_id);
    }
    headers.entry(OUTCOME).or_insert(HeaderValue::from_static(Outcome::NotExecuted.as_str()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_may_have_run_is_not_reported_as_429() {
        let http = |outcome| {
            Refusal::from(Status::with_outcome(Code::ResourceExhausted, outcome, "full"))
                .http_status()
                .as_u16()
        };
        assert_eq!((http(Outcome::NotExecuted), http(Outcome::Unknown)), (429, 500));
    }

    #[test]
    fn pairs_that_http_cannot_carry_are_left_out() {
        let mut metadata = Metadata::default();
        for (key, value) in [("good", "1"), ("bad key", "2"), ("split", "a\r\nb: c"), ("good", "ü")]
        {
            metadata.insert(key, value);
        }
        let mut headers = HeaderMap::new();
        add_metadata(&mut headers, METADATA, &metadata);
        let all: Vec<_> = headers.get_all("dialback-metadata-good").iter().collect();
        assert_eq!((headers.len(), all.len()), (2, 2), "{headers:?}");
    }
}
