//! Progress of a run: a line on standard error, if that is a terminal.

use super::{load::Run, report::time, result::micros, tally::Tally};
use crate::output::eprint_aside;
use std::{
    convert::Infallible,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

const INTERVAL: Duration = Duration::from_secs(1);

/// Shows the progress of a run until it is dropped. Without a terminal it shows nothing.
pub(super) async fn show(run: &Run, phase: &str) -> Infallible {
    if !stderr().is_terminal() {
        return std::future::pending().await;
    }
    let (mut before, mut since) = (0, Duration::ZERO);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let (elapsed, tally) = (run.elapsed(), run.tally());
        let calls = tally.succeeded() - before;
        let line = line(phase, elapsed, calls, elapsed - since, &tally);
        eprint_aside(format!("\r{line}\x1b[K")).await;
        (before, since) = (tally.succeeded(), elapsed);
    }
}

/// Removes the line.
pub(super) async fn clear() {
    if stderr().is_terminal() {
        eprint_aside("\r\x1b[K".into()).await;
    }
}

/// The line: calls of the last interval, latencies and failures of the run so far.
fn line(phase: &str, elapsed: Duration, calls: u64, interval: Duration, tally: &Tally) -> String {
    let rate = calls as f64 / interval.as_secs_f64().max(1e-9);
    let quantile = |part| time(micros(tally.latencies.quantile(part)));
    format!(
        "{phase} {} s: {rate:.0} calls/s, p50 {}, p99 {}, {} failed",
        elapsed.as_secs(),
        quantile(0.5),
        quantile(0.99),
        tally.failed()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_rate_of_the_interval_and_the_latencies_of_the_run() {
        let mut tally = Tally::default();
        (0..900).for_each(|_| tally.latencies.record(Duration::from_micros(150)));
        let (elapsed, interval) = (Duration::from_millis(3_100), Duration::from_millis(500));
        assert_eq!(
            line("measuring", elapsed, 300, interval, &tally),
            "measuring 3 s: 600 calls/s, p50 150 us, p99 150 us, 0 failed"
        );
    }
}
