//! Metrics of a node or an agent, collected when they are asked for.

use super::{observed::Observed, process::ProcessStats};
use crate::{
    link::{LinkPath, LinkStats},
    name::Role,
    observe::{CallCounts, DURATION_BOUNDS_US, Durations, ObservedCounts},
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
    observed: Observed,
    counts: Arc<ObservedCounts>,
    started_at: SystemTime,
}

impl MetricsSource {
    pub(super) fn new(observed: Observed, started_at: SystemTime) -> Self {
        let counts = observed.counts();
        Self { observed, counts, started_at }
    }
}

impl fmt::Debug for MetricsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsSource").field("role", &self.observed.role()).finish_non_exhaustive()
    }
}

/// Returns a registry of these metrics, whose names begin with `dialback_`, and of those of the
/// process.
pub(super) fn registry(source: MetricsSource) -> Registry {
    let mut registry = Registry::default();
    registry.sub_registry_with_prefix("dialback").register_collector(Box::new(source));
    registry.sub_registry_with_prefix("process").register_collector(Box::new(OfProcess));
    registry
}

/// Metrics of the process, which have the same names in all programs.
#[derive(Debug)]
struct OfProcess;

impl Collector for OfProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = ProcessStats::read();
        if let Some(seconds) = stats.cpu_seconds {
            let help = "CPU time of the process, in seconds";
            encoder
                .encode_descriptor("cpu_seconds", help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        for (name, help, value) in [
            ("resident_memory_bytes", "Resident memory of the process", stats.resident_bytes),
            ("open_fds", "Open files and sockets of the process", stats.open_fds),
            ("max_fds", "Most files and sockets that it may open", stats.max_fds),
        ] {
            if let Some(value) = value {
                encoder
                    .encode_descriptor(name, help, None, MetricType::Gauge)?
                    .encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

const MICROS_PER_SECOND: f64 = 1e6;

type LinkMeasure = (&'static str, &'static str, Unit, fn(&LinkStats) -> f64);

/// What is measured of every link.
const MEASURES: [LinkMeasure; 4] = [
    ("link_rtt", "Round trips of the links that are up", Unit::Seconds, |stats| {
        stats.rtt.as_secs_f64()
    }),
    (
        "link_loss",
        "Part of the packets sent on links that are up that was lost",
        Unit::Ratios,
        |stats| stats.loss(),
    ),
    (
        "link_congestion_window",
        "Congestion windows of the links that are up",
        Unit::Bytes,
        |stats| stats.window_bytes as f64,
    ),
    ("link_mtu", "Largest UDP payloads of the links that are up", Unit::Bytes, |stats| {
        f64::from(stats.mtu_bytes)
    }),
];

/// What is summed of all links, in the order of their totals.
const TOTALS: [(&str, &str); 4] = [
    ("link_packets_sent", "Packets sent on links"),
    ("link_packets_lost", "Packets sent on links that were lost"),
    ("link_sent_bytes", "Bytes of UDP payloads sent on links"),
    ("link_received_bytes", "Bytes of UDP payloads received on links"),
];

impl Collector for MetricsSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let calls: Vec<CallCounts> = self.counts.calls().collect();
        encode_calls(&calls, &mut encoder)?;
        encode_durations(&calls, &mut encoder)?;
        self.encode_links(&mut encoder)?;
        self.encode_paths(&mut encoder)?;
        self.encode_waits(&mut encoder)?;
        self.encode_peers(&mut encoder)?;
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
    let unit = Some(&Unit::Seconds);
    let name = "call_duration";
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
    for one in calls {
        histogram(metric.encode_family(&[("kind", one.kind.as_str())])?, &one.durations)?;
    }
    let help = "Bytes of the messages of calls that have ended, as this side sees them";
    let mut metric = encoder.encode_descriptor("call_bytes", help, None, MetricType::Counter)?;
    for one in calls {
        for (direction, bytes) in ["in", "out"].into_iter().zip(one.bytes) {
            let labels = [("kind", one.kind.as_str()), ("direction", direction)];
            counter(metric.encode_family(&labels)?, bytes)?;
        }
    }
    Ok(())
}

fn histogram(mut metric: MetricEncoder<'_>, durations: &Durations) -> fmt::Result {
    let bounds = DURATION_BOUNDS_US.iter().map(|us| *us as f64 / MICROS_PER_SECOND);
    let bounds = bounds.chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(durations.buckets.iter().copied()).collect();
    let count = durations.buckets.iter().sum();
    let sum = durations.sum_us as f64 / MICROS_PER_SECOND;
    metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
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

    /// What calls wait for, and how long handlers take.
    fn encode_waits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (waiting, waited) = self.counts.waits();
        let help = "Calls that wait for a permit";
        encoder
            .encode_descriptor("calls_waiting", help, None, MetricType::Gauge)?
            .encode_gauge(&waiting)?;
        let unit = Some(&Unit::Seconds);
        let help = "Time that calls waited for a permit, of those that had to";
        let name = "call_wait_duration";
        histogram(encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?, &waited)?;
        if self.observed.role() == "agent" {
            let help = "Time of handlers until their reply, or the beginning of a streamed one";
            let name = "handler_duration";
            let metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
            histogram(metric, &self.counts.handlers())?;
        }
        let lost = Some(self.observed.audit_lines_lost());
        let spans = |at: usize| self.observed.spans().map(|counts| counts[at]);
        for (name, help, count) in [
            ("calls_retried", "Attempts of calls after the first", self.observed.retried()),
            ("audit_lines_lost", "Lines that the audit log could not take", lost),
            ("spans_exported", "Spans that the collector of traces has taken", spans(0)),
            ("spans_lost", "Spans that were not exported", spans(1)),
        ] {
            if let Some(count) = count {
                counter(encoder.encode_descriptor(name, help, None, MetricType::Counter)?, count)?;
            }
        }
        let help = "Handshakes of clients that failed, or whose first frames did, by reason";
        let name = "handshakes_refused";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (reason, count) in self.counts.handshakes() {
            counter(metric.encode_family(&[("reason", reason)])?, count)?;
        }
        Ok(())
    }

    /// Calls by agent and by caller, if that is asked for.
    fn encode_peers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let peers = &self.counts.peers;
        if !peers.is_on() {
            return Ok(());
        }
        for (name, help, label, of_agents) in [
            ("agent_calls", "Calls that have ended, by their agent", "agent", true),
            ("caller_calls", "Calls that have ended, by who made them", "caller", false),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (peer, counts) in peers.read(of_agents) {
                for (result, count) in ["ok", "failed"].into_iter().zip(counts) {
                    let labels = [(label, peer.as_str()), ("result", result)];
                    counter(metric.encode_family(&labels)?, count)?;
                }
            }
        }
        Ok(())
    }

    /// Measurements of the links that are up, over all links of a role, and totals since the start.
    fn encode_paths(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let trust = self.observed.trust();
        let links: Vec<_> = trust
            .up()
            .into_iter()
            .map(|link| (link.peer().role, link.path(), link.stats()))
            .collect();
        let help = "Links that are up, by the role of the peer and the path of their packets";
        let mut metric =
            encoder.encode_descriptor("links_by_path", help, None, MetricType::Gauge)?;
        for role in Role::ALL {
            for path in [LinkPath::Udp, LinkPath::Tunnel] {
                let is_one = |(of, on, _): &&(Role, LinkPath, _)| (*of, *on) == (role, path);
                let count = links.iter().filter(is_one).count() as u64;
                let path = path.to_string();
                let labels = [("role", role.as_str()), ("path", path.as_str())];
                metric.encode_family(&labels)?.encode_gauge(&count)?;
            }
        }
        for (name, help, unit, measure) in MEASURES {
            let mut metric =
                encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
            for role in Role::ALL {
                let of_role = links.iter().filter(|(of, ..)| *of == role);
                let mut values: Vec<f64> = of_role.map(|(_, _, stats)| measure(stats)).collect();
                values.sort_by(f64::total_cmp);
                let Some(last) = values.len().checked_sub(1) else { continue };
                for (stat, value) in
                    [("min", values[0]), ("median", values[last / 2]), ("max", values[last])]
                {
                    let labels = [("role", role.as_str()), ("stat", stat)];
                    metric.encode_family(&labels)?.encode_gauge(&value)?;
                }
            }
        }
        for ((name, help), total) in TOTALS.into_iter().zip(trust.totals()) {
            counter(encoder.encode_descriptor(name, help, None, MetricType::Counter)?, total)?;
        }
        Ok(())
    }

    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let credentials = self.observed.credentials();
        let crl = credentials.crl_next_update().map(|end| {
            let help = "End of the revocation list, in seconds since 1970";
            ("crl_expiry_timestamp", help, end)
        });
        let ends = [
            (
                "certificate_expiry_timestamp",
                "End of the certificate, in seconds since 1970",
                credentials.validity().ends.at(),
            ),
            ("start_timestamp", "Start, in seconds since 1970", self.started_at),
        ];
        for (name, help, time) in ends.into_iter().chain(crl) {
            let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let unit = Some(&Unit::Seconds);
            encoder
                .encode_descriptor(name, help, unit, MetricType::Gauge)?
                .encode_gauge(&seconds)?;
        }
        let help = "Version and role, with the value 1";
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("role", self.observed.role())];
        let mut metric = encoder.encode_descriptor("build_info", help, None, MetricType::Gauge)?;
        metric.encode_family(&labels)?.encode_gauge(&1_u64)
    }
}
