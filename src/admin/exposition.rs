//! The two text formats of metrics: OpenMetrics 1.0, and Prometheus 0.0.4, which is made from it.

use prometheus_client::{encoding::text, registry::Registry};
use std::fmt;

pub(super) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn openmetrics(registry: &Registry) -> Result<String, fmt::Error> {
    let mut all = String::new();
    text::encode(&mut all, registry)?;
    Ok(all)
}

/// In 0.0.4 the description of a counter has the name of its samples, which ends in `_total`, and
/// it has neither units nor a mark of the end.
pub(super) fn prometheus(registry: &Registry) -> Result<String, fmt::Error> {
    let all = openmetrics(registry)?;
    let mut lines = all.lines().peekable();
    let mut converted = String::with_capacity(all.len());
    while let Some(line) = lines.next() {
        let of_counter = |line: &str| {
            let name = line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?;
            Some(name.to_owned())
        };
        let described = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '));
        match (described, of_counter(line)) {
            (Some((name, help)), _) => {
                let is_counter = lines.peek().and_then(|next| of_counter(next)).is_some();
                let total = if is_counter { "_total" } else { "" };
                converted += &format!("# HELP {name}{total} {help}\n");
            }
            (None, Some(name)) => converted += &format!("# TYPE {name}_total counter\n"),
            _ if line.starts_with("# UNIT ") || line == "# EOF" => {}
            _ => {
                converted += line;
                converted.push('\n');
            }
        }
    }
    Ok(converted)
}
