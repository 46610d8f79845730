//! An OpenTelemetry collector for tests: decodes what it receives, and draws the trees of it.

use crate::forward::upstream::{HttpUpstream, Seen, reply};
use dialback::Traces;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, status::StatusCode},
};
use prost::Message as _;
use std::fmt::Write as _;

pub(super) struct TraceCollector(HttpUpstream);

/// A span that was exported, and the process that it is of.
#[derive(Debug, Clone)]
pub(super) struct Exported {
    pub(super) service: String,
    pub(super) span: Span,
}

impl Exported {
    /// The text of an attribute, of the span.
    pub(super) fn attribute(&self, key: &str) -> Option<String> {
        let values = self.span.attributes.iter().filter(|pair| pair.key == key);
        let values: Vec<_> = values.map(|pair| text(pair.value.as_ref())).collect();
        assert!(values.len() <= 1, "{key} occurs twice in {:?}", self.span);
        values.into_iter().next()
    }

    pub(super) fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(super) fn is_error(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
    }

    /// The header that what comes below it has.
    pub(super) fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id(), hex(&self.span.span_id))
    }

    /// Process, kind, name and code in one line.
    pub(super) fn line(&self) -> String {
        let kind = ["unspecified", "internal", "server", "client"][self.span.kind as usize];
        let code = self.attribute("rpc.response.status_code").unwrap_or_default();
        let error = if self.is_error() { " error" } else { "" };
        format!("{} {kind} {} {code}{error}", self.service, self.span.name)
    }
}

fn text(value: Option<&opentelemetry_proto::tonic::common::v1::AnyValue>) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl TraceCollector {
    pub(super) async fn start() -> Self {
        let media_type = [("content-type", "application/x-protobuf")];
        Self(HttpUpstream::answering(reply("200 OK", &media_type, "")).await)
    }

    pub(super) fn traces(&self) -> Traces {
        Traces::otlp(self.0.url()).expect("an address")
    }

    pub(super) fn url(&self) -> String {
        self.0.url()
    }

    /// What was exported so far.
    pub(super) fn spans(&self) -> Vec<Exported> {
        spans_of(&self.0.seen())
    }

    /// Waits for this many spans.
    #[track_caller]
    pub(super) fn until(&self, count: usize) -> impl Future<Output = ()> {
        self.0.until("spans are exported", move |log| spans_of(&log.seen).len() >= count)
    }
}

fn spans_of(requests: &[Seen]) -> Vec<Exported> {
    let decoded = requests.iter().flat_map(|seen| {
        assert!(seen.head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!(seen.header("content-type"), Some("application/x-protobuf"));
        ExportTraceServiceRequest::decode(&seen.body[..]).expect("OTLP").resource_spans
    });
    let mut spans = Vec::new();
    for of_resource in decoded {
        let resource = of_resource.resource.expect("a resource");
        let name = resource.attributes.iter().find(|pair| pair.key == "service.name");
        let service = text(name.and_then(|pair| pair.value.as_ref()));
        let exported = |span| Exported { service: service.clone(), span };
        spans.extend(of_resource.scope_spans.into_iter().flat_map(|it| it.spans).map(exported));
    }
    spans
}

/// The trees of these spans, one line a span, each below its parent. A parent that is not among
/// them is a root by its id.
pub(super) fn trees(spans: &[Exported]) -> String {
    let is_here = |id: &[u8]| spans.iter().any(|other| other.span.span_id == id);
    let roots = spans.iter().filter(|one| !is_here(&one.span.parent_span_id));
    let mut drawn = String::new();
    for root in roots {
        draw(root, spans, 0, &mut drawn);
    }
    drawn
}

fn draw(one: &Exported, spans: &[Exported], depth: usize, drawn: &mut String) {
    writeln!(drawn, "{}{}", "  ".repeat(depth), one.line().trim_end()).expect("a text");
    let mut below: Vec<_> =
        spans.iter().filter(|other| other.span.parent_span_id == one.span.span_id).collect();
    below.sort_by_key(|other| other.span.start_time_unix_nano);
    for other in below {
        assert_eq!(other.span.trace_id, one.span.trace_id, "a child in another trace");
        draw(other, spans, depth + 1, drawn);
    }
}
