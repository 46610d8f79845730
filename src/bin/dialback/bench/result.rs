//! Result of a run, as its file holds it: settings and figures, and the comparison of two.

use super::{
    load::CutOff,
    tally::{FailureKind, Tally},
};
use crate::exit::Failure;
use serde::{Deserialize, Serialize};
use std::{fs::File, io::Read, path::Path, time::Duration};

/// Version of the file. A change that an earlier reader would misread raises it.
const VERSION: u32 = 1;

/// Files of results have some KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct BenchResult {
    version: u32,
    /// Version of the program.
    dialback: String,
    pub(super) settings: Settings,
    pub(super) figures: Figures,
}

/// What was measured. Two results compare if all of it is the same but the first two, which name
/// the installation and the length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Address of the node, or URL of the gateway.
    pub(super) address: String,
    /// As `10s` or `5000 calls`, after the warm-up.
    pub(super) length: String,
    /// Build of this program: `release`, or `debug`, which is several times slower.
    pub(super) build: String,
    /// `quic` or `gateway`.
    pub(super) way: String,
    /// `None`: any agent.
    pub(super) agent: Option<String>,
    pub(super) method: String,
    pub(super) kind: String,
    /// Bytes of a request message in CBOR.
    pub(super) message_bytes: usize,
    /// Request messages of a call.
    pub(super) messages: u64,
    pub(super) in_flight: usize,
    pub(super) links: usize,
    /// Calls per second of an open loop.
    pub(super) rate: Option<f64>,
    /// `None`, as in the next two: a file of an earlier release, which compares with any.
    #[serde(default)]
    pub(super) timeout_seconds: Option<f64>,
    #[serde(default)]
    pub(super) warm_up_seconds: Option<f64>,
    /// Hash of the request message in CBOR.
    #[serde(default)]
    pub(super) message_hash: Option<String>,
}

impl Settings {
    /// Names each setting that differs in what is measured, with both values.
    pub(super) fn differences(&self, earlier: &Self) -> Vec<String> {
        let seconds = |seconds: Option<f64>| seconds.map(|seconds| format!("{seconds}s"));
        let shown = |settings: &Self| {
            let Self { build, way, agent, method, kind, message_hash, .. } = settings.clone();
            [
                ("the build of dialback", build),
                ("the way", way),
                ("the agent", agent.unwrap_or_else(|| "any".into())),
                ("the method", method),
                ("the kind of the method", kind),
                ("bytes of a message (--size, -d)", settings.message_bytes.to_string()),
                ("--messages", settings.messages.to_string()),
                ("--in-flight", settings.in_flight.to_string()),
                ("--links", settings.links.to_string()),
                ("--rate", settings.rate.map_or_else(|| "none".into(), |rate| rate.to_string())),
                ("--timeout", seconds(settings.timeout_seconds).unwrap_or_default()),
                ("--warm-up", seconds(settings.warm_up_seconds).unwrap_or_default()),
                ("the hash of the message (-d)", message_hash.unwrap_or_default()),
            ]
        };
        let pairs = shown(self).into_iter().zip(shown(earlier));
        pairs
            // A value that a file does not have is empty.
            .filter(|((_, now), (_, then))| now != then && !now.is_empty() && !then.is_empty())
            .map(|((name, now), (_, then))| format!("{name} was {then} and is {now}"))
            .collect()
    }
}

/// FNV-1a of 64 bits. It is the same in every release; the hashes of `std` may change.
pub(super) fn message_hash(message: &[u8]) -> String {
    let hash = message.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Latencies of the calls that succeeded, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Latencies {
    pub(super) min: f64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// Calls whose latency was below this bound and not below that of the step before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LatencyStep {
    pub(super) below_us: f64,
    pub(super) calls: u64,
}

/// Failures of one code and outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FailureFigure {
    pub(super) code: String,
    pub(super) outcome: String,
    pub(super) count: u64,
    pub(super) first_message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) seconds: f64,
    /// Calls that succeeded. The rates below are of those that were not late.
    pub(super) calls: u64,
    /// Calls that succeeded after the planned end of the run.
    #[serde(default)]
    pub(super) late: u64,
    pub(super) calls_per_second: f64,
    pub(super) messages_sent_per_second: f64,
    pub(super) messages_received_per_second: f64,
    pub(super) bytes_sent_per_second: f64,
    pub(super) bytes_received_per_second: f64,
    pub(super) latency_us: Latencies,
    pub(super) histogram: Vec<LatencyStep>,
    pub(super) failed: u64,
    pub(super) failures: Vec<FailureFigure>,
    /// Calls of an open loop that were due, and that no slot was free for.
    pub(super) missed: u64,
    /// True if a signal ended the run.
    pub(super) interrupted: bool,
    /// Calls that the signal cut off, and the time for which the oldest was in flight. They have no
    /// part in the other figures.
    #[serde(default)]
    pub(super) cut_off: u64,
    #[serde(default)]
    pub(super) oldest_cut_off_us: f64,
}

impl Figures {
    pub(super) fn new(tally: &Tally, span: Duration, missed: u64, interrupted: bool) -> Self {
        let seconds = span.as_secs_f64();
        let per_second = |count: u64| rounded(count as f64 / seconds.max(1e-9));
        let (latencies, traffic) = (&tally.latencies, tally.traffic);
        Self {
            seconds: rounded(seconds),
            calls: tally.succeeded(),
            late: tally.late,
            calls_per_second: per_second(tally.succeeded() - tally.late),
            messages_sent_per_second: per_second(traffic.messages_sent),
            messages_received_per_second: per_second(traffic.messages_received),
            bytes_sent_per_second: per_second(traffic.bytes_sent),
            bytes_received_per_second: per_second(traffic.bytes_received),
            latency_us: Latencies {
                min: micros(latencies.min()),
                mean: micros(latencies.mean()),
                p50: micros(latencies.quantile(0.5)),
                p90: micros(latencies.quantile(0.9)),
                p99: micros(latencies.quantile(0.99)),
                p999: micros(latencies.quantile(0.999)),
                max: micros(latencies.max()),
            },
            histogram: latencies
                .steps()
                .into_iter()
                .map(|(below, calls)| LatencyStep { below_us: micros(below), calls })
                .collect(),
            failed: tally.failed(),
            failures: tally.failures.iter().map(FailureFigure::new).collect(),
            missed,
            interrupted,
            cut_off: 0,
            oldest_cut_off_us: 0.0,
        }
    }

    /// Adds the calls that a signal cut off.
    pub(super) fn with_cut_off(self, CutOff { calls, oldest }: CutOff) -> Self {
        Self { cut_off: calls, oldest_cut_off_us: micros(oldest), ..self }
    }
}

impl FailureFigure {
    fn new(kind: &FailureKind) -> Self {
        Self {
            code: kind.code.as_str().to_owned(),
            outcome: kind.outcome.as_str().to_owned(),
            count: kind.count,
            first_message: kind.message.clone(),
        }
    }
}

pub(super) fn micros(latency: Duration) -> f64 {
    latency.as_nanos() as f64 / 1e3
}

/// Three decimals are more than a run is exact to.
fn rounded(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

impl BenchResult {
    pub(super) fn new(settings: Settings, figures: Figures) -> Self {
        let dialback = env!("CARGO_PKG_VERSION").to_owned();
        Self { version: VERSION, dialback, settings, figures }
    }

    /// Reads the file of an earlier run.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let fault = |why: &dyn std::fmt::Display| {
            Failure::usage(format!(
                "cannot read the earlier result {} (--compare): {why}",
                path.display()
            ))
        };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(|why| fault(&why))?;
        Self::parse(&text).map_err(|why| fault(&why))
    }

    fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        const HINT: &str = "it is not a file that `dialback bench --json FILE` wrote";
        let Versioned { version } =
            serde_json::from_str(text).map_err(|why| format!("{HINT}: {why}"))?;
        if version != VERSION {
            return Err(format!(
                "it has version {version}, and this dialback reads version {VERSION}: measure again"
            ));
        }
        serde_json::from_str(text).map_err(|why| format!("{HINT}: {why}"))
    }

    /// The text of its file: one object, indented.
    pub(super) fn to_json(&self) -> Result<String, Failure> {
        serde_json::to_string_pretty(self).map_err(|error| Failure::runtime(&error))
    }
}

#[cfg(test)]
impl Settings {
    /// Settings for tests.
    pub(super) fn example() -> Self {
        Self {
            address: "localhost:4433".into(),
            length: "10s".into(),
            build: "release".into(),
            way: "quic".into(),
            agent: Some("warehouse".into()),
            method: "Demo/Echo".into(),
            kind: "unary".into(),
            message_bytes: 34,
            messages: 1,
            in_flight: 16,
            links: 1,
            rate: None,
            timeout_seconds: Some(30.0),
            warm_up_seconds: Some(1.0),
            message_hash: Some(message_hash(b"x")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::example()
    }

    fn result() -> BenchResult {
        let figures = Figures::new(&Tally::default(), Duration::from_secs(1), 0, false);
        BenchResult::new(settings(), figures)
    }

    #[test]
    fn results_of_another_node_or_length_compare_and_others_are_named() {
        let now = settings();
        let other = Settings { address: "b:1".into(), length: "5000 calls".into(), ..settings() };
        assert_eq!(now.differences(&other), [""; 0]);
        let other = Settings { in_flight: 64, rate: Some(50.0), agent: None, ..settings() };
        assert_eq!(
            now.differences(&other),
            [
                "the agent was any and is warehouse",
                "--in-flight was 64 and is 16",
                "--rate was 50 and is none"
            ]
        );
    }

    #[test]
    fn every_setting_that_changes_what_is_measured_is_compared() {
        let now = settings();
        for other in [
            Settings { build: "debug".into(), ..settings() },
            Settings { way: "gateway".into(), ..settings() },
            Settings { method: "Demo/Chat".into(), ..settings() },
            Settings { kind: "bidirectional".into(), ..settings() },
            Settings { message_bytes: 35, ..settings() },
            Settings { messages: 2, ..settings() },
            Settings { links: 2, ..settings() },
            Settings { timeout_seconds: Some(0.5), ..settings() },
            Settings { warm_up_seconds: Some(0.0), ..settings() },
            Settings { message_hash: Some(message_hash(b"y")), ..settings() },
        ] {
            assert_eq!(now.differences(&other).len(), 1, "{other:?}");
        }
    }

    #[test]
    fn a_setting_that_an_earlier_file_does_not_have_compares_with_any() {
        let text = result().to_json().expect("JSON");
        let mut file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let earlier = file["settings"].as_object_mut().expect("an object");
        for key in ["timeout_seconds", "warm_up_seconds", "message_hash"] {
            assert!(earlier.remove(key).is_some(), "{key}");
        }
        let earlier = BenchResult::parse(&file.to_string()).expect("a result").settings;
        assert_eq!(settings().differences(&earlier), [""; 0]);
    }

    #[test]
    fn the_hash_of_a_message_is_fnv_1a() {
        assert_eq!(
            [message_hash(b""), message_hash(b"a")],
            ["cbf29ce484222325", "af63dc4c8601ec8c"]
        );
    }

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let result = result();
        let text = result.to_json().expect("JSON");
        assert_eq!(BenchResult::parse(&text), Ok(result));
    }

    #[test]
    fn another_file_and_another_version_are_refused_with_the_remedy() {
        let refused = |text: &str| BenchResult::parse(text).expect_err("refused");
        let next = result().to_json().expect("JSON").replace("\"version\": 1", "\"version\": 2");
        assert!(refused(&next).contains("it has version 2"), "{}", refused(&next));
        for other in ["", "{}", "[1]", "{\"version\":1}"] {
            assert!(refused(other).contains("dialback bench --json"), "{other}");
        }
    }

    #[test]
    fn rates_are_of_the_span_and_nothing_divides_by_zero() {
        let mut tally = Tally::default();
        tally.latencies.record(Duration::from_millis(2));
        tally.traffic.bytes_received = 1_000;
        let figures = Figures::new(&tally, Duration::from_millis(500), 3, true);
        assert_eq!((figures.calls_per_second, figures.bytes_received_per_second), (2.0, 2_000.0));
        assert_eq!(
            (figures.latency_us.max, figures.missed, figures.interrupted),
            (2_000.0, 3, true)
        );
        let late = Tally { late: 1, ..tally };
        let figures = Figures::new(&late, Duration::from_secs(1), 0, false);
        assert_eq!((figures.calls, figures.late, figures.calls_per_second), (1, 1, 0.0));
        let empty = Figures::new(&Tally::default(), Duration::ZERO, 0, false);
        assert_eq!((empty.calls_per_second, empty.latency_us.min), (0.0, 0.0));
    }
}
