//! What is exported of a span.

use super::context::TraceContext;
use std::time::{Duration, SystemTime};

/// Role of a span in its trace, with the number that OTLP has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// Within this process.
    Internal = 1,
    /// Answers a peer.
    Server = 2,
    /// Waits for a peer.
    Client = 3,
}

/// What is exported of a span.
#[derive(Debug)]
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "read by the exporter"))]
pub(super) struct SpanData {
    pub(super) context: TraceContext,
    pub(super) parent: Option<SpanParent>,
    pub(super) kind: SpanKind,
    pub(super) name: Box<str>,
    pub(super) start: SystemTime,
    pub(super) took: Duration,
    pub(super) attributes: Vec<(&'static str, AttributeValue)>,
    /// The reason of a failure; may be empty.
    pub(super) failure: Option<Box<str>>,
}

/// The span above another.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "read by the exporter"))]
pub(super) struct SpanParent {
    pub(super) span_id: [u8; 8],
    pub(super) is_remote: bool,
}

#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "read by the exporter"))]
pub(super) enum AttributeValue {
    Text(Box<str>),
    Number(i64),
}
