//! Log on standard error: text, or one JSON object per line.

use crate::args::{Cli, Command, LogForm};
use crate::exit::Failure;
use crate::log_filter::LogFilter;
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
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Starts logging. Fails if the system cannot start a thread.
pub(crate) fn start(cli: &Cli) -> Result<LogWriter, Failure> {
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
    let filter = LogFilter::targets(cli.log_level.as_ref(), default_level(cli));
    tracing_subscriber::registry().with(layer).with(filter).init();
    std::panic::set_hook(Box::new(log_panic));
    Ok(writer)
}

/// The line that reports the number of dropped lines, in the format of the log.
fn dropped_notice(form: LogForm, lines: u64) -> String {
    let time = timestamp(SystemTime::now());
    let message = format!("{lines} log lines dropped: standard error was not read");
    let event_text = EventText { message, ..EventText::default() };
    match form {
        LogForm::Json => format!("{}\n", event_text.as_json(&time, Level::WARN)),
        LogForm::Text => format!("{time} WARN {}\n", event_text.as_text()),
    }
}

/// The time with milliseconds: `2026-11-22T10:15:00.123Z`.
fn timestamp(time: SystemTime) -> String {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = Utc(time).to_string();
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), since_epoch.subsec_millis())
}

/// Logs a panic. A handler that panics only ends its call.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no text");
    match panic.location() {
        Some(location) => {
            tracing::error!(%location, reason = text, "panic at {location}: {text}");
        }
        None => tracing::error!(reason = text, "panic: {text}"),
    }
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn default_level(cli: &Cli) -> LevelFilter {
    match &cli.command {
        Command::Node(_) | Command::Tcp(_) => LevelFilter::INFO,
        Command::Agent(args) if args.command.is_none() => LevelFilter::INFO,
        Command::Enroll(args) if args.command.is_none() => LevelFilter::INFO,
        _ => LevelFilter::WARN,
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
        let (time, level) = (timestamp(SystemTime::now()), *event.metadata().level());
        match self.form {
            LogForm::Json => writeln!(writer, "{}", event_text.as_json(&time, level)),
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
    /// The message, with the fields that it does not tell.
    fn as_text(&self) -> String {
        let mut text = self.message.clone();
        for (key, value) in &self.fields {
            let shown = match value.as_str() {
                Some(value) if self.message.contains(value) => continue,
                Some(value) => value.to_owned(),
                None if self.has_number(&value.to_string()) => continue,
                None => value.to_string(),
            };
            let is_word = !shown.contains([' ', '"', '=']);
            let shown = if is_word { shown } else { format!("{shown:?}") };
            text.push_str(&format!(" {key}={shown}"));
        }
        text
    }

    /// True if the message has this number as a whole.
    fn has_number(&self, number: &str) -> bool {
        let mut words = self.message.split(|c: char| !(c.is_alphanumeric() || c == '.'));
        words.any(|word| word.trim_end_matches('.') == number)
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

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_line_of_text_adds_the_fields_that_its_message_does_not_tell() {
        let fields = [("peer", "caller/ops".into()), ("count", 2.into()), ("why", "a b".into())];
        let fields = fields.map(|(key, value): (&str, serde_json::Value)| (key.to_owned(), value));
        let message = "caller/ops linked".to_owned();
        let event_text = EventText { message, fields: fields.into_iter().collect() };
        assert_eq!(event_text.as_text(), "caller/ops linked count=2 why=\"a b\"");
        let fields = [("count", 2.into()), ("retry_s", 1.5.into()), ("limit", 12.into())];
        let fields = fields.map(|(key, value): (&str, serde_json::Value)| (key.to_owned(), value));
        let message = "ignored 2 of 120; retrying in 1.5 s".to_owned();
        let event_text = EventText { message, fields: fields.into_iter().collect() };
        assert_eq!(event_text.as_text(), "ignored 2 of 120; retrying in 1.5 s limit=12");
    }

    #[test]
    fn times_have_milliseconds() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_007);
        assert_eq!(timestamp(time), "1970-01-01T00:00:01.007Z");
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
