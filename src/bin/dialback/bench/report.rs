//! Text of a result: figures, a histogram, failures, and the ratios to an earlier result.

use super::result::{BenchResult, Figures, LatencyStep, Settings};
use crate::output::{columns, escape};

/// Width of the longest bar of the histogram.
const BAR_COLUMNS: f64 = 40.0;

/// Characters of a failure's message.
const MESSAGE_CHARS_MAX: usize = 200;

/// The unit of a figure.
#[derive(Clone, Copy)]
enum Unit {
    Number,
    Bytes,
    Micros,
}

pub(super) fn text(now: &BenchResult, earlier: Option<&BenchResult>) -> String {
    let mut parts = vec![headline(&now.settings, &now.figures)];
    if let Some(earlier) = earlier {
        let differences = now.settings.differences(&earlier.settings);
        parts.extend(differences.iter().map(|line| format!("other settings: {}", escape(line))));
    }
    parts.push(table(&now.figures, earlier.map(|earlier| &earlier.figures)));
    if !now.figures.histogram.is_empty() {
        parts.push(histogram(&now.figures.histogram));
    }
    parts.extend(remarks(now));
    parts.join("\n")
}

fn headline(settings: &Settings, figures: &Figures) -> String {
    let Settings { address, agent, method, kind, message_bytes, in_flight, links, .. } = settings;
    let agent = agent.as_deref().unwrap_or("any agent");
    let way = match settings.way.as_str() {
        "gateway" => format!("through the gateway {address}"),
        _ => format!("over {links} link{} to {address}", if *links == 1 { "" } else { "s" }),
    };
    let load = match settings.rate {
        Some(rate) => format!("{rate} calls/s due, at most {in_flight} in flight"),
        None => format!("{in_flight} in flight"),
    };
    let messages = match settings.messages {
        1 => String::new(),
        messages => format!("{messages} messages of "),
    };
    let seconds = figures.seconds;
    escape(&format!(
        "{agent} {method} ({kind}) {way}: {messages}{message_bytes} bytes, {load}, {seconds:.1} s"
    ))
}

type Row = (&'static str, Unit, fn(&Figures) -> f64);

const ROWS: &[Row] = &[
    ("calls", Unit::Number, |figures| figures.calls as f64),
    ("failed", Unit::Number, |figures| figures.failed as f64),
    ("calls/s", Unit::Number, |figures| figures.calls_per_second),
    ("messages sent/s", Unit::Number, |figures| figures.messages_sent_per_second),
    ("messages received/s", Unit::Number, |figures| figures.messages_received_per_second),
    ("bytes sent/s", Unit::Bytes, |figures| figures.bytes_sent_per_second),
    ("bytes received/s", Unit::Bytes, |figures| figures.bytes_received_per_second),
    ("latency min", Unit::Micros, |figures| figures.latency_us.min),
    ("latency mean", Unit::Micros, |figures| figures.latency_us.mean),
    ("latency p50", Unit::Micros, |figures| figures.latency_us.p50),
    ("latency p90", Unit::Micros, |figures| figures.latency_us.p90),
    ("latency p99", Unit::Micros, |figures| figures.latency_us.p99),
    ("latency p99.9", Unit::Micros, |figures| figures.latency_us.p999),
    ("latency max", Unit::Micros, |figures| figures.latency_us.max),
];

fn table(now: &Figures, earlier: Option<&Figures>) -> String {
    let is_unary = |figures: &Figures| {
        let Figures { calls_per_second, messages_sent_per_second, .. } = figures;
        [*messages_sent_per_second, figures.messages_received_per_second] == [*calls_per_second; 2]
    };
    let without_messages = is_unary(now) && earlier.is_none_or(is_unary);
    let rows = ROWS.iter().filter(|(label, ..)| !(without_messages && label.starts_with("mess")));
    let row = |(label, unit, figure): &Row| {
        let now = figure(now);
        let mut row = vec![(*label).to_owned(), show(now, *unit)];
        if let Some(then) = earlier.map(figure) {
            row.extend([show(then, *unit), ratio(now, then)]);
        }
        row
    };
    let titles = earlier.map(|_| ["", "now", "earlier", "now / earlier"].map(String::from).into());
    columns(&titles.into_iter().chain(rows.map(row)).collect::<Vec<Vec<_>>>())
}

fn ratio(now: f64, then: f64) -> String {
    if then > 0.0 { format!("{:.2}", now / then) } else { "-".into() }
}

fn show(figure: f64, unit: Unit) -> String {
    match unit {
        Unit::Number if figure.fract() == 0.0 || figure >= 1_000.0 => format!("{figure:.0}"),
        Unit::Number => significant(figure),
        Unit::Bytes => match figure {
            mega if mega >= 1e6 => format!("{} MB", significant(mega / 1e6)),
            kilo if kilo >= 1e3 => format!("{} kB", significant(kilo / 1e3)),
            bytes => format!("{} B", significant(bytes)),
        },
        Unit::Micros => time(figure),
    }
}

/// A latency in the unit that suits it.
pub(super) fn time(micros: f64) -> String {
    match micros {
        seconds if seconds >= 1e6 => format!("{} s", significant(seconds / 1e6)),
        millis if millis >= 1e3 => format!("{} ms", significant(millis / 1e3)),
        micros => format!("{} us", significant(micros)),
    }
}

/// Three digits, or as many as stand before the point.
fn significant(figure: f64) -> String {
    match figure {
        0.0 => "0".into(),
        small if small < 9.995 => format!("{small:.2}"),
        tens if tens < 99.95 => format!("{tens:.1}"),
        large => format!("{large:.0}"),
    }
}

/// A line for each step: its bounds, calls, part of all, and a bar.
fn histogram(steps: &[LatencyStep]) -> String {
    let total = steps.iter().map(|step| step.calls).sum::<u64>().max(1) as f64;
    let most = steps.iter().map(|step| step.calls).max().unwrap_or(0).max(1) as f64;
    let rows: Vec<_> = steps
        .iter()
        .map(|LatencyStep { below_us, calls }| {
            let part = format!("{:.2} %", *calls as f64 * 100.0 / total);
            let bar = (*calls as f64 * BAR_COLUMNS / most).ceil() as usize;
            vec![format!("below {}", bound(*below_us)), calls.to_string(), part, "#".repeat(bar)]
        })
        .collect();
    format!("\n{}", columns(&rows))
}

/// A bound of the scale, which has one digit.
fn bound(micros: f64) -> String {
    match micros {
        seconds if seconds >= 1e6 => format!("{} s", seconds / 1e6),
        millis if millis >= 1e3 => format!("{} ms", millis / 1e3),
        micros => format!("{micros} us"),
    }
}

/// What a reader of the figures has to know besides.
fn remarks(now: &BenchResult) -> Vec<String> {
    let Figures { failures, late, missed, interrupted, cut_off, .. } = &now.figures;
    let mut lines = Vec::new();
    for failure in failures {
        let message: String = failure.first_message.chars().take(MESSAGE_CHARS_MAX).collect();
        let (code, outcome) = (&failure.code, &failure.outcome);
        let line = format!("failed: {} {code} ({outcome}), the first: {message}", failure.count);
        lines.push(escape(&line));
    }
    if *late > 0 {
        lines.push(format!(
            "late: {late} calls ended after the planned time; the latencies are with them, the rates without"
        ));
    }
    if *missed > 0 {
        lines.push(format!(
            "missed: {missed} calls were due and all {} slots were busy; the latencies are too low by that: lower --rate or raise --in-flight",
            now.settings.in_flight
        ));
    }
    if now.settings.build == "debug" {
        lines.push(
            "debug build: this program is slow; `make build` builds the one to measure with".into(),
        );
    }
    if *interrupted {
        lines.push("interrupted: the figures are those up to the signal".into());
    }
    if *cut_off > 0 {
        lines.push(format!(
            "cut off: {cut_off} calls were in flight at the signal, the oldest for {}; they are not in the figures",
            time(now.figures.oldest_cut_off_us)
        ));
    }
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{
        super::{result::FailureFigure, tally::Tally},
        *,
    };
    use std::time::Duration;

    fn with(calls: u64, micros: u64) -> BenchResult {
        let mut tally = Tally::default();
        (0..calls).for_each(|_| tally.latencies.record(Duration::from_micros(micros)));
        tally.traffic.messages_sent = calls;
        tally.traffic.messages_received = calls;
        tally.traffic.bytes_sent = calls * 34;
        let figures = Figures::new(&tally, Duration::from_secs(2), 0, false);
        BenchResult::new(Settings::example(), figures)
    }

    #[test]
    fn a_result_has_its_figures_and_a_histogram() {
        let expected = "\
warehouse Demo/Echo (unary) over 1 link to localhost:4433: 34 bytes, 16 in flight, 2.0 s
calls             10
failed            0
calls/s           5
bytes sent/s      170 B
bytes received/s  0 B
latency min       150 us
latency mean      150 us
latency p50       150 us
latency p90       150 us
latency p99       150 us
latency p99.9     150 us
latency max       150 us

below 200 us  10  100.00 %  ########################################";
        assert_eq!(text(&with(10, 150), None), expected);
    }

    #[test]
    fn an_earlier_result_stands_next_to_each_figure_with_the_ratio() {
        let shown = text(&with(30, 300), Some(&with(10, 150)));
        for line in [
            "                  now     earlier  now / earlier",
            "calls/s           15      5        3.00",
            "failed            0       0        -",
            "latency p50       300 us  150 us   2.00",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line:?} is not in\n{shown}");
        }
        assert!(!shown.contains("other settings"));
    }

    #[test]
    fn other_settings_of_the_earlier_result_are_named() {
        let mut earlier = with(10, 150);
        earlier.settings.in_flight = 1;
        let shown = text(&with(10, 150), Some(&earlier));
        assert!(shown.contains("\nother settings: --in-flight was 1 and is 16\n"), "{shown}");
    }

    #[test]
    fn failures_late_and_missed_calls_and_an_interruption_are_told() {
        let mut result = with(0, 0);
        result.figures.failures = vec![FailureFigure {
            code: "UNAVAILABLE".into(),
            outcome: "not_executed".into(),
            count: 7,
            first_message: format!("agent x\x1b[2J {}", "y".repeat(300)),
        }];
        (result.figures.missed, result.figures.interrupted) = (5, true);
        (result.figures.late, result.figures.cut_off) = (3, 2);
        result.figures.oldest_cut_off_us = 12.3e6;
        result.settings.build = "debug".into();
        let shown = text(&result, None);
        let expected = "\n\nfailed: 7 UNAVAILABLE (not_executed), the first: agent x\\u{1b}[2J yyy";
        assert!(shown.contains(expected), "{shown}");
        assert!(shown.contains("\nlate: 3 calls ended after"), "{shown}");
        assert!(shown.contains("\nmissed: 5 calls were due and all 16 slots"), "{shown}");
        assert!(shown.contains("\ndebug build: "), "{shown}");
        assert!(shown.contains("\ninterrupted: "), "{shown}");
        let cut_off = "\ncut off: 2 calls were in flight at the signal, the oldest for 12.3 s; ";
        assert!(shown.contains(cut_off), "{shown}");
        assert_eq!(shown.matches("\n\n").count(), 1, "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() < 300), "{shown}");
    }

    #[test]
    fn a_stream_shows_messages_and_a_rate_is_named() {
        let mut result = with(10, 150);
        result.figures.messages_received_per_second = 500.0;
        (result.settings.rate, result.settings.messages) = (Some(50.0), 100);
        let shown = text(&result, None);
        assert!(shown.contains("100 messages of 34 bytes, 50 calls/s due, at most 16"), "{shown}");
        assert!(shown.contains("messages received/s  500\n"), "{shown}");
    }

    #[test]
    fn a_histogram_has_a_line_for_each_step_and_the_longest_bar_for_the_most() {
        let step = |below_us, calls| LatencyStep { below_us, calls };
        let shown = histogram(&[step(500.0, 1), step(1_000.0, 0), step(2e6, 199)]);
        let lines: Vec<_> = shown.trim_start().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "below 500 us  1    0.50 %   #");
        assert_eq!(lines[1], "below 1 ms    0    0.00 %");
        assert_eq!(lines[2], format!("below 2 s     199  99.50 %  {}", "#".repeat(40)));
    }

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        let shown = [0.0, 9.994, 9.996, 99.94, 999.4, 1_234.0, 56_789.0, 2.5e6].map(time);
        let expected =
            ["0 us", "9.99 us", "10.0 us", "99.9 us", "999 us", "1.23 ms", "56.8 ms", "2.50 s"];
        assert_eq!(shown, expected);
        assert_eq!([12.0, 12.5, 12_345.6].map(|n| show(n, Unit::Number)), ["12", "12.5", "12346"]);
        assert_eq!(
            [999.0, 1e3, 2e9].map(|n| show(n, Unit::Bytes)),
            ["999 B", "1.00 kB", "2000 MB"]
        );
    }
}
