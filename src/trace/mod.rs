//! Traces: a span for each step of a call, exported to an OpenTelemetry collector (OTLP).
//!
//! The context of a call is the text of its `traceparent`: each span reads its parent there and
//! writes itself. Without an exporter nothing is read, written or allocated.

mod context;
#[cfg(feature = "otel")]
mod collector;
#[cfg(feature = "otel")]
mod endpoint;
#[cfg(feature = "otel")]
mod exporter;
#[cfg(feature = "otel")]
mod otlp;
mod queue;
mod sampler;
#[cfg(feature = "otel")]
mod settings;
#[cfg(not(feature = "otel"))]
mod without;
mod span;
mod span_data;
mod tracer;

#[cfg(any(feature = "forward", feature = "gateway"))]
pub(crate) use context::TraceContext;
#[cfg(feature = "otel")]
pub use endpoint::{OtlpEndpoint, OtlpEndpointError};
pub(crate) use sampler::SpanOrigin;
#[cfg(feature = "otel")]
pub use settings::Traces;
pub(crate) use span::{NewSpan, Span};
pub(crate) use span_data::SpanKind;
pub(crate) use tracer::Tracer;
#[cfg(not(feature = "otel"))]
pub(crate) use without::NoTraces as Traces;
