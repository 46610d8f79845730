//! Log on standard error: text, or one JSON object per line.

use crate::args::{Cli, Command, LogForm};
use crate::exit::Failure;
use crate::log_writer::LogWriter;
use crate::output::{escape, escape_json};
use dialback::Utc;
use serde::Serialize;
use std::{
    fmt,
    io::{self, IsTerminal},
    time::SystemTime,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Starts logging. Events of dependencies are shown at `warn` and above, or all with `trace`. Fails
/// if the system cannot start a thread.
pub(crate) fn start(cli: &Cli) -> Result<LogWriter, Failure> {
    let level = level(cli);
    let others = others_at(level);
    let is_colored = io::stderr().is_terminal() && !is_set("NO_COLOR");
    let lines = LineFormat { form: cli.log, is_colored };
    let form = cli.log;
    let writer = LogWriter::start(io::stderr(), move |lines| dropped_notice(form, lines))
        .map_err(|error| Failure::runtime(&error))?;
    let lines_to = writer.clone();
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || lines_to.clone())
        .log_internal_errors(false)
        .event_format(lines);
    let filter = Targets::new()
        .with_target("dialback", level)
        .with_target("quinn", quinn_at(level))
        .with_default(others);
    tracing_subscriber::registry().with(layer).with(filter).init();
    std::panic::set_hook(Box::new(log_panic));
    Ok(writer)
}

fn others_at(level: LevelFilter) -> LevelFilter {
    if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) }
}

/// quinn's warnings repeat our lines without cause and remedy: shown at `debug` and below only.
fn quinn_at(level: LevelFilter) -> LevelFilter {
    if level >= LevelFilter::DEBUG { others_at(level) } else { LevelFilter::OFF }
}

/// The line that reports the number of dropped lines, in the format of the log.
fn dropped_notice(form: LogForm, lines: u64) -> String {
    let time = Utc(SystemTime::now()).to_string();
    let message = format!("{lines} log lines dropped: standard error was not read");
    let event_text = EventText { message, ..EventText::default() };
    match form {
        LogForm::Json => format!("{}\n", event_text.as_json(&time, Level::WARN)),
        LogForm::Text => format!("{time} WARN {}\n", event_text.as_text()),
    }
}

/// Logs a panic. A handler that panics only ends its call.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no text");
    match panic.location() {
        Some(location) => tracing::error!("panic at {location}: {text}"),
        None => tracing::error!("panic: {text}"),
    }
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn level(cli: &Cli) -> LevelFilter {
    match (cli.log_level, &cli.command) {
        (Some(level), _) => level,
        (None, Command::Node(_) | Command::Tcp(_)) => LevelFilter::INFO,
        (None, Command::Agent(args)) if args.command.is_none() => LevelFilter::INFO,
        (None, Command::Enroll(args)) if args.command.is_none() => LevelFilter::INFO,
        (None, _) => LevelFilter::WARN,
    }
}

struct LineFormat {
    form: LogForm,
    is_colored: bool,
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut event_text = EventText::default();
        event.record(&mut event_text);
        let (time, level) = (Utc(SystemTime::now()), *event.metadata().level());
        match self.form {
            LogForm::Json => writeln!(writer, "{}", event_text.as_json(&time.to_string(), level)),
            LogForm::Text => {
                writeln!(writer, "{time} {} {}", self.show(level), escape(&event_text.as_text()))
            }
        }
    }
}

impl LineFormat {
    fn show(&self, level: Level) -> String {
        let color = match level {
            Level::ERROR => 31,
            Level::WARN => 33,
            Level::INFO => 32,
            _ => 34,
        };
        if self.is_colored { format!("\x1b[{color}m{level}\x1b[0m") } else { level.to_string() }
    }
}

#[derive(Default)]
struct EventText {
    message: String,
    fields: serde_json::Map<String, serde_json::Value>,
}

impl EventText {
    fn as_text(&self) -> String {
        let mut text = self.message.clone();
        for (key, value) in &self.fields {
            text.push_str(&format!(" {key}={value}"));
        }
        text
    }

    fn as_json(&self, timestamp: &str, level: Level) -> String {
        let (level, message) = (level.as_str(), self.message.as_str());
        let line = JsonLine { timestamp, level, message, fields: &self.fields };
        // Text and numbers always serialise.
        escape_json(serde_json::to_string(&line).unwrap_or_default())
    }
}

/// A JSON line with its keys in order.
#[derive(Serialize)]
struct JsonLine<'a> {
    timestamp: &'a str,
    level: &'a str,
    message: &'a str,
    #[serde(flatten)]
    fields: &'a serde_json::Map<String, serde_json::Value>,
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.into(),
            name => drop(self.fields.insert(name.into(), value.into())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_quinn_are_shown_from_debug_on() {
        for quiet in [LevelFilter::OFF, LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO] {
            assert_eq!(quinn_at(quiet), LevelFilter::OFF, "{quiet}");
        }
        assert_eq!(quinn_at(LevelFilter::DEBUG), LevelFilter::WARN);
        assert_eq!(quinn_at(LevelFilter::TRACE), LevelFilter::TRACE);
    }

    fn event_text() -> EventText {
        let mut event_text = EventText { message: "linked\x1b[2J".into(), ..EventText::default() };
        event_text.fields.insert("count".into(), 2.into());
        event_text
    }

    #[test]
    fn a_line_of_json_has_time_level_and_message() {
        let line = event_text().as_json("2026-11-22T12:00:00Z", Level::INFO);
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["timestamp"], "2026-11-22T12:00:00Z");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "linked\x1b[2J");
        assert_eq!(line["count"], 2);
    }

    #[test]
    fn a_line_of_text_shows_control_characters_as_escapes() {
        assert_eq!(escape(&event_text().as_text()), "linked\\u{1b}[2J count=2");
    }

    #[test]
    fn only_a_terminal_gets_colors() {
        let plain = LineFormat { form: LogForm::Text, is_colored: false };
        let colored = LineFormat { form: LogForm::Text, is_colored: true };
        assert_eq!(plain.show(Level::WARN), "WARN");
        assert_eq!(colored.show(Level::WARN), "\x1b[33mWARN\x1b[0m");
    }
}
