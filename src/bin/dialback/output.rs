//! Standard output, and escaping of untrusted text for a terminal.

use crate::exit::Failure;
use dialback::config::read_aside;
use serde::Serialize;
use std::{
    io::{self, Write},
    path::Path,
};

/// Prints lines. A reader that has closed the pipe is not an error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write_line(text).map(drop)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Printed {
    Written,
    /// The reader of the pipe has closed it (EPIPE).
    ReaderGone,
}

/// Prints lines on a thread that may block, so that a pipe without a reader holds up neither
/// signals nor timers. Dropped, the line may still be written.
pub(crate) async fn print_aside(text: String) -> Result<Printed, Failure> {
    let written = read_aside(move || write_line(&text)).await;
    written.unwrap_or_else(|| Err(Failure::Runtime(vec!["printing was interrupted".into()])))
}

pub(crate) async fn print_json_aside(value: &impl Serialize) -> Result<Printed, Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::runtime(&error))?;
    print_aside(escape_json(text)).await
}

/// Writes lines to standard error in the same way. Nobody may be there to read them.
pub(crate) async fn eprint_aside(lines: String) {
    if !lines.is_empty() {
        read_aside(move || drop(io::stderr().write_all(lines.as_bytes()))).await;
    }
}

fn write_line(text: &str) -> Result<Printed, Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Printed::Written),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::ReaderGone),
        Err(error) => {
            Err(Failure::Runtime(vec![format!("cannot write to standard output: {error}")]))
        }
    }
}

/// Prints a line that must reach a reader, such as a secret that is printed once.
pub(crate) fn print_all(text: &str) -> Result<(), Failure> {
    match write_line(text)? {
        Printed::Written => Ok(()),
        Printed::ReaderGone => Err(Failure::Runtime(vec![
            "cannot write to standard output: its reader has closed the pipe".into(),
        ])),
    }
}

pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::runtime(&error))?;
    print(&escape_json(text))
}

/// Escapes control and other invisible characters, so that no text of a peer steers a terminal.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// The same for JSON, where they stand only in strings and have an escape of the same value.
pub(crate) fn escape_json(text: String) -> String {
    if !text.contains(is_hidden) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if is_hidden(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Characters that JSON lets through and terminals act on: DEL, C1 controls, text direction.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Rows in columns, two spaces apart, without spaces at the ends of lines.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

pub(crate) fn table<T: ToString>(titles: &[T], rows: impl Iterator<Item = Vec<String>>) -> String {
    let titles = titles.iter().map(T::to_string).collect();
    columns(&std::iter::once(titles).chain(rows).collect::<Vec<_>>())
}

/// `1 rule`, `2 rules`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

pub(crate) fn show_path(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_peer_cannot_steer_a_terminal() {
        assert_eq!(escape("plain \"text\" \\ 'é'"), "plain \"text\" \\ 'é'");
        assert_eq!(escape("a\x1b[2Jb\r\n"), "a\\u{1b}[2Jb\\r\\n");
        assert_eq!(escape("\u{9b}31m\u{202e}"), "\\u{9b}31m\\u{202e}");
    }

    #[test]
    fn escaped_json_means_the_same_value() {
        let value = serde_json::json!({"a\u{9b}": "\x1b[2J\u{7f}\u{202e} é"});
        let shown = escape_json(value.to_string());
        assert!(!shown.contains(|c: char| c.is_control() || is_hidden(c)), "{shown}");
        let back: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(back, value);
        assert_eq!(escape_json("\"plain\"".into()), "\"plain\"");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bb", ""], ["ccc", "d", "e"]];
        let rows = rows.map(|row| row.map(String::from).to_vec());
        assert_eq!(columns(&rows), "a    bb\nccc  d   e");
    }
}
