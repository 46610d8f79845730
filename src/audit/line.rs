//! A line of the audit log: a JSON object, built key by key. Text from peers is escaped and cut.

use crate::{limits::AUDIT_TEXT_CHARS_MAX, tls::Utc};
use std::{
    fmt::{Display, Write},
    time::{Duration, SystemTime},
};

/// A line under construction.
pub(crate) struct AuditLine(String);

impl AuditLine {
    /// Starts a line with the time and the event.
    pub(crate) fn new(time: SystemTime, event: &str) -> Self {
        let line = Self(String::with_capacity(320));
        line.text("time", moment(time)).text("event", event)
    }

    pub(crate) fn text(mut self, key: &str, value: impl Display) -> Self {
        self.key(key);
        self.0.push('"');
        // Writing to a String does not fail.
        let _ = write!(Escaped { out: &mut self.0, left: AUDIT_TEXT_CHARS_MAX }, "{value}");
        self.0.push('"');
        self
    }

    pub(crate) fn text_if(self, key: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    /// Adds a text that may be unknown.
    pub(crate) fn text_or_null(self, key: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self.bare(key, "null"),
        }
    }

    pub(crate) fn number(self, key: &str, value: u64) -> Self {
        self.bare(key, value)
    }

    /// Adds a number that may be unknown.
    pub(crate) fn number_or_null(self, key: &str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.bare(key, value),
            None => self.bare(key, "null"),
        }
    }

    /// Adds a duration in milliseconds, to the microsecond.
    pub(crate) fn millis(self, key: &str, value: Duration) -> Self {
        let micros = value.subsec_micros() % 1_000;
        self.bare(key, format_args!("{}.{micros:03}", value.as_millis()))
    }

    /// Adds a value that has no quotes and needs no escape.
    fn bare(mut self, key: &str, value: impl Display) -> Self {
        self.key(key);
        let _ = write!(self.0, "{value}");
        self
    }

    /// Ends the object. The line has no line feed.
    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }

    /// Keys are constants and need no escape.
    fn key(&mut self, key: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
    }
}

/// Formats a time to the millisecond: `2026-11-22T10:15:00.250Z`.
fn moment(time: SystemTime) -> String {
    let whole = Utc(time).to_string();
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), since.subsec_millis())
}

/// Writer of the content of a JSON string.
struct Escaped<'a> {
    out: &'a mut String,
    left: usize,
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match self.left {
                0 => return Ok(()),
                // The last character shows that the text was truncated.
                1 => self.out.push('…'),
                _ => self.push(c)?,
            }
            self.left -= 1;
        }
        Ok(())
    }
}

impl Escaped<'_> {
    fn push(&mut self, c: char) -> std::fmt::Result {
        match c {
            '"' | '\\' => {
                self.out.push('\\');
                self.out.push(c);
            }
            c if is_hidden(c) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    write!(self.out, "\\u{unit:04x}")?;
                }
            }
            c => self.out.push(c),
        }
        Ok(())
    }
}

/// Control characters and those that change the direction of text: terminals show logs too.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> String {
        let line = AuditLine(String::new()).text("text", value).end();
        let inner = line.strip_prefix("{\"text\":\"").and_then(|line| line.strip_suffix("\"}"));
        inner.expect("an object").to_owned()
    }

    #[test]
    fn a_line_is_an_object_that_begins_with_time_and_event() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_601_746_007);
        let line = AuditLine::new(time, "call")
            .text_or_null("peer", None::<&str>)
            .text_or_null("agent", Some("a"))
            .number("bytes", 12)
            .millis("duration_ms", Duration::from_micros(1_002_003))
            .end();
        assert_eq!(
            line,
            "{\"time\":\"2026-11-25T10:15:46.007Z\",\"event\":\"call\",\"peer\":null,\"agent\":\"a\",\"bytes\":12,\"duration_ms\":1002.003}"
        );
    }

    #[test]
    fn control_characters_and_quotes_are_escaped() {
        for (value, expected) in [
            ("plain, größer", "plain, größer"),
            ("a\"b\\c", "a\\\"b\\\\c"),
            ("one\ntwo\r\t\0", "one\\u000atwo\\u000d\\u0009\\u0000"),
            ("\x1b[2J\x7f\u{9b}31m", "\\u001b[2J\\u007f\\u009b31m"),
            ("\u{202e}desrever\u{2028}\u{feff}", "\\u202edesrever\\u2028\\ufeff"),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    #[test]
    fn a_text_over_the_limit_is_truncated_with_an_ellipsis() {
        let most = AUDIT_TEXT_CHARS_MAX;
        assert_eq!(text(&"x".repeat(most - 1)), "x".repeat(most - 1));
        assert_eq!(text(&"x".repeat(most * 9)), format!("{}…", "x".repeat(most - 1)));
    }
}
