//! Traces: the collector of flag, file or environment.

use clap::Args;
use dialback::{OtlpEndpoint, Traces, config::TraceFile};

/// The variable that programs with OpenTelemetry share.
pub(crate) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Flags of traces.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TraceArgs {
    /// OpenTelemetry collector to export spans of calls to, as http://127.0.0.1:4318 (OTLP over
    /// HTTP); also read from OTEL_EXPORTER_OTLP_ENDPOINT
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<OtlpEndpoint>,
}

impl TraceArgs {
    /// The settings of flag and file. The flag has the address, the file the rest.
    pub(crate) fn merge(&self, file: Option<TraceFile>) -> Option<TraceFile> {
        let Some(otlp) = self.otlp.clone() else { return file };
        let mut trace = file.unwrap_or_default();
        trace.otlp = Some(otlp);
        Some(trace)
    }
}

/// The collector that [`ENDPOINT`] names, if `trace` has none.
pub(crate) fn otlp_of_environment(trace: Option<&TraceFile>) -> Option<OtlpEndpoint> {
    match trace.and_then(|trace| trace.otlp.as_ref()) {
        Some(_) => None,
        None => shared()?.parse().ok(),
    }
}

fn shared() -> Option<String> {
    std::env::var(ENDPOINT).ok().filter(|text| !text.is_empty())
}

/// Settings of all sources, and what is left out of them.
#[derive(Debug, PartialEq)]
pub(crate) struct TraceSettings {
    traces: Option<Traces>,
    warning: Option<String>,
}

impl TraceSettings {
    /// The settings, if spans are to be exported.
    pub(crate) fn new(merged: Option<TraceFile>) -> Self {
        let (traces, warning) = choose(merged, shared().as_deref());
        Self { traces, warning }
    }

    /// The settings to start with. Logs what is left out.
    pub(crate) fn announced(&self) -> Option<Traces> {
        if let Some(warning) = &self.warning {
            tracing::warn!("{warning}");
        }
        self.traces.clone()
    }
}

/// Chooses among the sources, and tells what is left out.
fn choose(merged: Option<TraceFile>, shared: Option<&str>) -> (Option<Traces>, Option<String>) {
    let has_file = merged.is_some();
    let TraceFile { otlp, sample, peer_sampled_max, .. } = merged.unwrap_or_default();
    let endpoint = match (otlp, shared.map(str::parse::<OtlpEndpoint>)) {
        (Some(endpoint), _) | (None, Some(Ok(endpoint))) => endpoint,
        (None, Some(Err(error))) => {
            let text = format!("{ENDPOINT} is not used, and no spans are exported: {error}");
            return (None, Some(text));
        }
        (None, None) => {
            let text =
                "[trace] names no collector, so no spans are exported; add `otlp`, or --otlp";
            return (None, has_file.then(|| text.into()));
        }
    };
    let traces = Traces::to(endpoint);
    let traces = sample.into_iter().fold(traces, Traces::sample);
    (Some(peer_sampled_max.into_iter().fold(traces, Traces::peer_sampled_max)), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAG: &str = "http://flag:1";
    const FILE: &str = "http://file:2";
    const SHARED: &str = "http://shared:3";

    fn endpoint(text: &str) -> OtlpEndpoint {
        text.parse().expect("an address")
    }

    fn file(otlp: Option<&str>) -> TraceFile {
        let mut file = TraceFile::default();
        file.otlp = otlp.map(endpoint);
        file.sample = Some(0.5);
        file
    }

    #[test]
    fn the_flag_comes_before_the_file_and_the_file_before_the_environment() {
        let flag = || Some(endpoint(FLAG));
        let of = |text| Some(Traces::to(endpoint(text)));
        let half = |text| of(text).map(|traces| traces.sample(0.5));
        for (flag, file, shared, expected) in [
            (flag(), Some(file(Some(FILE))), Some(SHARED), half(FLAG)),
            (None, Some(file(Some(FILE))), Some(SHARED), half(FILE)),
            (None, Some(file(None)), Some(SHARED), half(SHARED)),
            (None, None, Some(SHARED), of(SHARED)),
            (flag(), None, None, of(FLAG)),
            (None, None, None, None),
        ] {
            assert_eq!(choose(TraceArgs { otlp: flag }.merge(file), shared), (expected, None));
        }
    }

    #[test]
    fn what_is_left_out_is_told() {
        let (traces, warning) = choose(Some(file(None)), None);
        assert!(traces.is_none() && warning.expect("a warning").contains("add `otlp`"));
        let (traces, warning) = choose(None, Some("https://c:4318"));
        let warning = warning.expect("a warning");
        assert!(traces.is_none() && warning.starts_with(ENDPOINT), "{warning}");
        assert!(choose(Some(file(Some(FILE))), Some("https://c:4318")).1.is_none());
    }
}
