//! Settings of traces: where spans go, and which calls are sampled.

use super::{
    endpoint::{OtlpEndpoint, OtlpEndpointError},
    exporter::Exporter,
    queue::{SpanCounts, SpanQueue},
    sampler::Sampler,
    span_data::AttributeValue,
    tracer::{Tracer, TracerState},
};
use crate::{
    drain::Tasks,
    limits::{PEER_SAMPLED_MAX, SAMPLE_DEFAULT, SPANS_WAITING_MAX},
    name::PeerName,
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Traces of a node, an agent or a caller: spans of its calls, exported to an OpenTelemetry
/// collector (OTLP in Protobuf over HTTP).
///
/// Exporting never delays a call. Up to 4,096 spans wait in memory, at most a second; what does not
/// fit, or is not taken, is lost and counted.
///
/// ```no_run
/// use dialback::{Agent, Credentials, Traces};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let agent = Agent::builder(Credentials::from_dir("certs", "agent-warehouse")?)
///     .node("edge-1.example.com:4433")
///     .traces(Traces::otlp("http://127.0.0.1:4318")?.sample(0.01))
///     .start()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "calls are traced once a node, an agent or a caller has the settings"]
pub struct Traces {
    endpoint: OtlpEndpoint,
    sample: f64,
    peer_sampled_max: u32,
}

impl Traces {
    /// Exports to a collector at this address, as `http://127.0.0.1:4318`.
    ///
    /// # Errors
    /// The text is not such an address, or needs TLS.
    pub fn otlp(address: impl AsRef<str>) -> Result<Self, OtlpEndpointError> {
        Ok(Self::to(address.as_ref().parse()?))
    }

    /// The same with a parsed address.
    pub const fn to(endpoint: OtlpEndpoint) -> Self {
        Self { endpoint, sample: SAMPLE_DEFAULT, peer_sampled_max: PEER_SAMPLED_MAX }
    }

    /// Sets which part of the calls without a trace context is sampled, from 0 to 1. Default: 1,
    /// all of them. Calls with one follow the decision in it.
    pub const fn sample(mut self, sample: f64) -> Self {
        self.sample = sample.clamp(0.0, 1.0);
        self
    }

    /// Sets how many calls a second are sampled because a peer has sampled them. Those beyond are
    /// decided upon like calls without a context. Default: 100.
    pub const fn peer_sampled_max(mut self, calls_per_second: u32) -> Self {
        self.peer_sampled_max = calls_per_second;
        self
    }

    /// Starts the exporter of a peer. Needs a tokio runtime.
    pub(crate) fn start(self, own: &PeerName) -> Tracer {
        let (sender, queue) = mpsc::channel(SPANS_WAITING_MAX);
        let (counts, tasks) = (Arc::<SpanCounts>::default(), Tasks::default());
        let text = |text: String| AttributeValue::Text(text.into());
        let resource = vec![
            ("service.name", text(format!("dialback-{}", own.role))),
            ("service.instance.id", text(own.to_string())),
            ("service.version", text(env!("CARGO_PKG_VERSION").into())),
        ];
        let Self { endpoint, sample, peer_sampled_max } = self;
        tracing::info!(
            peer = %own,
            address = %endpoint,
            sample,
            peer_sampled_max,
            "spans of {own} are exported to {endpoint}: sample {sample} of the calls without a trace context, and at most {peer_sampled_max} calls a second that peers have sampled"
        );
        let exporter = Exporter { endpoint, resource, queue, counts: counts.clone() };
        tasks.spawn_until_stopped(exporter.run());
        let sampler = Sampler::new(sample, peer_sampled_max);
        let queue = Arc::new(SpanQueue { sender, counts, tasks });
        Tracer::new(TracerState { sampler, queue })
    }
}
