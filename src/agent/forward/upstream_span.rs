//! Spans of requests to upstreams over HTTP, by OpenTelemetry's conventions for HTTP clients
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>).

use super::http::UpstreamAddress;
use crate::{
    call::CallMeta,
    trace::{Span, TraceContext},
};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The span of a request with this verb. What is sent in the name of the call is below it.
pub(super) fn upstream_span(meta: &mut CallMeta, verb: &str, address: &UpstreamAddress) -> Span {
    let mut span = meta.forward_span(verb);
    if span.is_recorded() {
        span.text("http.request.method", verb);
        address.describe(&mut span);
    }
    span
}

/// Writes the position of a call in its trace in place of the one that its client has sent. What
/// other systems know about that trace (`tracestate`) stays with it.
pub(super) fn set_traceparent(headers: &mut HeaderMap, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent else { return };
    if headers.get(TRACEPARENT).is_some_and(|sent| sent == traceparent) {
        return;
    }
    let Ok(value) = HeaderValue::from_str(traceparent) else { return };
    let sent = headers.insert(TRACEPARENT, value);
    let parsed = |text: &str| TraceContext::parse(text);
    let sent = sent.as_ref().and_then(|value| parsed(value.to_str().ok()?));
    let is_of_trace =
        |sent: TraceContext| parsed(traceparent).is_some_and(|context| context.is_of_trace(sent));
    if !sent.is_some_and(is_of_trace) {
        headers.remove(TRACESTATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_continues_keeps_its_state_and_another_has_none() {
        let trace = |id: char, span: char| {
            format!("00-{}-{}-01", id.to_string().repeat(32), span.to_string().repeat(16))
        };
        for (sent, of_call, has_state) in [
            (Some(trace('a', '1')), Some(trace('a', '2')), true),
            (Some(trace('a', '1')), Some(trace('b', '2')), false),
            (Some("nonsense".into()), Some(trace('b', '2')), false),
            (None, Some(trace('b', '2')), false),
            (Some(trace('a', '1')), Some(trace('a', '1')), true),
            (Some(trace('a', '1')), None, true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
            if let Some(sent) = &sent {
                headers.insert(TRACEPARENT, sent.parse().expect("a value"));
            }
            set_traceparent(&mut headers, of_call.as_deref());
            assert_eq!(headers.contains_key(TRACESTATE), has_state, "{sent:?} {of_call:?}");
            let expected = of_call.or(sent);
            let found = headers.get(TRACEPARENT).map(|value| value.to_str().expect("a text"));
            assert_eq!(found, expected.as_deref());
        }
    }
}
