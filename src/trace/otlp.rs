//! Spans as OTLP has them: Protobuf of `ExportTraceServiceRequest`
//! (<https://github.com/open-telemetry/opentelemetry-proto>, version 1, which is stable).

use super::span_data::{AttributeValue, SpanData};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bits of `flags`, besides those of the context: the next one is known, and the parent is remote.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
const SAMPLED: u32 = 0x01;

const STATUS_ERROR: u64 = 2;

/// A Protobuf message that is being written.
#[derive(Default)]
struct ProtoMessage(Vec<u8>);

impl ProtoMessage {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u8, wire_type: u8) {
        self.varint(u64::from(field) << 3 | u64::from(wire_type));
    }

    fn number(&mut self, field: u8, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn fixed64(&mut self, field: u8, value: u64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u8, value: u32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn text(&mut self, field: u8, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u8, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// A `KeyValue`.
    fn attribute(&mut self, field: u8, key: &str, value: &AttributeValue) {
        self.message(field, |pair| {
            pair.text(1, key);
            pair.message(2, |any| match value {
                AttributeValue::Text(text) => any.text(1, text),
                AttributeValue::Number(number) => any.number(3, number.cast_unsigned()),
            });
        });
    }
}

/// The body of a request: spans of one resource, with its attributes.
pub(super) fn request(resource: &[(&str, AttributeValue)], spans: &[SpanData]) -> Vec<u8> {
    let mut request = ProtoMessage::default();
    request.message(1, |resource_spans| {
        resource_spans.message(1, |message| {
            resource.iter().for_each(|(key, value)| message.attribute(1, key, value));
        });
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| {
                scope.text(1, env!("CARGO_PKG_NAME"));
                scope.text(2, env!("CARGO_PKG_VERSION"));
            });
            spans.iter().for_each(|data| scope_spans.message(2, |message| span(message, data)));
        });
    });
    request.0
}

fn span(message: &mut ProtoMessage, span: &SpanData) {
    let SpanData { context, parent, kind, name, start, took, attributes, failure } = span;
    message.bytes(1, &context.trace_id);
    message.bytes(2, &context.span_id);
    if let Some(parent) = parent {
        message.bytes(4, &parent.span_id);
    }
    message.text(5, name);
    message.number(6, *kind as u64);
    let start = nanos(*start);
    message.fixed64(7, start);
    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    message.fixed64(8, start.saturating_add(took));
    attributes.iter().for_each(|(key, value)| message.attribute(9, key, value));
    if let Some(reason) = failure {
        message.message(15, |status| {
            status.text(2, reason);
            status.number(3, STATUS_ERROR);
        });
    }
    let is_remote = parent.is_some_and(|parent| parent.is_remote);
    message.fixed32(16, SAMPLED | HAS_IS_REMOTE | if is_remote { IS_REMOTE } else { 0 });
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            context::TraceContext,
            span_data::{SpanKind, SpanParent},
        },
        *,
    };
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{KeyValue, any_value::Value},
    };
    use prost::Message as _;
    use std::time::Duration;

    fn texts(attributes: &[KeyValue]) -> Vec<(String, Value)> {
        let value = |pair: &KeyValue| pair.value.clone().and_then(|value| value.value);
        attributes.iter().map(|pair| (pair.key.clone(), value(pair).expect("a value"))).collect()
    }

    #[test]
    fn a_span_is_read_by_another_implementation_as_it_was_written() {
        let text = |text: &str| AttributeValue::Text(text.into());
        let data = SpanData {
            context: TraceContext::new([1; 16], [2; 8], true),
            parent: Some(SpanParent { span_id: [3; 8], is_remote: true }),
            kind: SpanKind::Server,
            name: "S/M".into(),
            start: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001),
            took: Duration::from_millis(300),
            attributes: vec![("a", text("é")), ("n", AttributeValue::Number(-300))],
            failure: Some("it was late".into()),
        };
        let root = SpanData {
            context: TraceContext::new([1; 16], [3; 8], true),
            parent: None,
            kind: SpanKind::Client,
            name: "x".repeat(300).into(),
            start: UNIX_EPOCH,
            took: Duration::ZERO,
            attributes: Vec::new(),
            failure: None,
        };
        let resource = [("service.name", text("dialback-node"))];
        let bytes = request(&resource, &[data, root]);
        let request = ExportTraceServiceRequest::decode(&bytes[..]).expect("a request");
        let [of_resource] = &request.resource_spans[..] else { panic!("{request:?}") };
        let attributes = &of_resource.resource.as_ref().expect("a resource").attributes;
        let name = Value::StringValue("dialback-node".into());
        assert_eq!(texts(attributes), [("service.name".to_owned(), name)]);
        let scope = of_resource.scope_spans[0].scope.as_ref().expect("a scope");
        assert_eq!(scope.name, "dialback");
        let [span, root] = &of_resource.scope_spans[0].spans[..] else { panic!("{request:?}") };
        assert_eq!((&span.trace_id[..], &span.span_id[..]), (&[1; 16][..], &[2; 8][..]));
        assert_eq!((&span.parent_span_id[..], span.flags), (&[3; 8][..], 0x301));
        assert_eq!((span.name.as_str(), span.kind), ("S/M", 2));
        assert_eq!(span.start_time_unix_nano, 1_700_000_000_000_000_001);
        assert_eq!(span.end_time_unix_nano, 1_700_000_000_300_000_001);
        let expected = [
            ("a".to_owned(), Value::StringValue("é".into())),
            ("n".to_owned(), Value::IntValue(-300)),
        ];
        assert_eq!(texts(&span.attributes), expected);
        let status = span.status.as_ref().expect("a status");
        assert_eq!((status.code, status.message.as_str()), (2, "it was late"));
        assert_eq!((root.name.len(), root.kind, root.flags), (300, 3, 0x101));
        assert!(root.parent_span_id.is_empty() && root.status.is_none());
    }
}
