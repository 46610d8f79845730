//! Metrics of a node or an agent, collected when they are asked for.

use crate::{
    link::TrustedLinks,
    name::Role,
    observe::{CallCounts, DURATION_BOUNDS_US, ObservedCounts},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::{Registry, Unit},
};
use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// What the metrics of one node or agent are read from.
pub(super) struct MetricsSource {
    role: &'static str,
    counts: Arc<ObservedCounts>,
    trust: Arc<TrustedLinks>,
    started_at: SystemTime,
}

impl MetricsSource {
    pub(super) fn new(
        role: &'static str,
        counts: Arc<ObservedCounts>,
        trust: Arc<TrustedLinks>,
    ) -> Self {
        Self { role, counts, trust, started_at: SystemTime::now() }
    }
}

impl fmt::Debug for MetricsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsSource").field("role", &self.role).finish_non_exhaustive()
    }
}

/// Returns a registry of these metrics, whose names begin with `dialback_`.
pub(super) fn registry(source: MetricsSource) -> Registry {
    let mut registry = Registry::with_prefix("dialback");
    registry.register_collector(Box::new(source));
    registry
}

const MICROS_PER_SECOND: f64 = 1e6;

impl Collector for MetricsSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let calls: Vec<CallCounts> = self.counts.calls().collect();
        encode_calls(&calls, &mut encoder)?;
        encode_durations(&calls, &mut encoder)?;
        self.encode_links(&mut encoder)?;
        for (name, help, count) in self.counts.events() {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter(metric, count)?;
        }
        self.encode_process(&mut encoder)
    }
}

fn counter(mut encoder: MetricEncoder<'_>, count: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, u64, f64>(&count, None)
}

fn encode_calls(calls: &[CallCounts], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Calls that have begun";
    let mut metric = encoder.encode_descriptor("calls_started", help, None, MetricType::Counter)?;
    for one in calls {
        counter(metric.encode_family(&[("kind", one.kind.as_str())])?, one.started)?;
    }
    let help = "Calls that have ended, by how";
    let mut metric = encoder.encode_descriptor("calls", help, None, MetricType::Counter)?;
    for one in calls {
        for (code, outcome, count) in &one.ended {
            let labels = [
                ("kind", one.kind.as_str()),
                ("code", code.as_str()),
                ("outcome", outcome.as_str()),
            ];
            counter(metric.encode_family(&labels)?, *count)?;
        }
    }
    let help = "Calls that have begun and not ended";
    let mut metric = encoder.encode_descriptor("calls_in_flight", help, None, MetricType::Gauge)?;
    for one in calls {
        metric.encode_family(&[("kind", one.kind.as_str())])?.encode_gauge(&one.in_flight)?;
    }
    Ok(())
}

fn encode_durations(calls: &[CallCounts], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Time from the beginning of a call to its end";
    let name = "call_duration";
    let unit = Some(&Unit::Seconds);
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
    let bounds = DURATION_BOUNDS_US.iter().map(|us| *us as f64 / MICROS_PER_SECOND);
    let bounds: Vec<f64> = bounds.chain([f64::INFINITY]).collect();
    for one in calls {
        let buckets: Vec<_> = bounds.iter().copied().zip(one.durations.iter().copied()).collect();
        let count = one.durations.iter().sum();
        let sum = one.duration_us as f64 / MICROS_PER_SECOND;
        let labels = [("kind", one.kind.as_str())];
        let mut metric = metric.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

impl MetricsSource {
    fn encode_links(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let links = Role::ALL.map(|role| (role.as_str(), self.counts.links(role)));
        let help = "Links that came up, by the role of the peer";
        let mut metric =
            encoder.encode_descriptor("links_opened", help, None, MetricType::Counter)?;
        for (role, [opened, _]) in links {
            counter(metric.encode_family(&[("role", role)])?, opened)?;
        }
        let help = "Links that are up, by the role of the peer";
        let mut metric = encoder.encode_descriptor("links", help, None, MetricType::Gauge)?;
        for (role, [_, up]) in links {
            metric.encode_family(&[("role", role)])?.encode_gauge(&up)?;
        }
        Ok(())
    }

    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ends = [
            (
                "certificate_expiry_timestamp",
                "End of the certificate, in seconds since 1970",
                self.trust.credentials().validity().ends.at(),
            ),
            ("start_timestamp", "Start, in seconds since 1970", self.started_at),
        ];
        for (name, help, time) in ends {
            let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let unit = Some(&Unit::Seconds);
            encoder
                .encode_descriptor(name, help, unit, MetricType::Gauge)?
                .encode_gauge(&seconds)?;
        }
        let help = "Version and role, with the value 1";
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("role", self.role)];
        let mut metric = encoder.encode_descriptor("build_info", help, None, MetricType::Gauge)?;
        metric.encode_family(&labels)?.encode_gauge(&1_u64)
    }
}
