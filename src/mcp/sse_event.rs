//! Events of a `text/event-stream`.
//!
//! Source: "Interpreting an event stream" in
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use bytes::Bytes;
use std::borrow::Cow;

/// One event, or a comment or an empty line between events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its lines, each with LF.
    raw: Bytes,
}

impl SseEvent {
    pub(super) fn new(raw: impl Into<Bytes>) -> Self {
        Self { raw: raw.into() }
    }

    /// The text of the event as it was received, except that every line ends with LF.
    #[cfg(test)]
    pub(super) const fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The joined data; `None` if there is none, and readers get no event.
    pub(crate) fn data(&self) -> Option<Bytes> {
        let mut data = self.fields().filter(|(name, _)| *name == b"data").map(|(_, value)| value);
        let first = data.next()?;
        let Some(second) = data.next() else { return Some(self.raw.slice_ref(first)) };
        let mut joined = [first, second].join(&b'\n');
        for value in data {
            joined.push(b'\n');
            joined.extend_from_slice(value);
        }
        Some(joined.into())
    }

    /// The type of the event, if it is not the default, `message`.
    pub(crate) fn event_type(&self) -> Option<&[u8]> {
        self.last(b"event").filter(|name| !name.is_empty() && *name != b"message")
    }

    /// The id to which a reader may return.
    pub(crate) fn id(&self) -> Option<&[u8]> {
        let ids = self.fields().filter(|(name, value)| *name == b"id" && !value.contains(&0));
        ids.last().map(|(_, value)| value)
    }

    /// The event for a reader, with this data: the fields that readers know, and nothing else.
    /// Some readers end lines at other characters than the specification does, and would find more
    /// in a comment or in a field of another name.
    pub(crate) fn with_data(&self, data: Option<&[u8]>) -> Bytes {
        let mut out = Vec::with_capacity(self.raw.len() + 16);
        if let Some(id) = self.id().filter(|id| is_one_line(id)) {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(id);
            out.push(b'\n');
        }
        if let Some(retry) = self.last(b"retry").filter(|text| text.iter().all(u8::is_ascii_digit))
        {
            out.extend_from_slice(b"retry: ");
            out.extend_from_slice(retry);
            out.push(b'\n');
        }
        if let Some(data) = data {
            push_data(&mut out, &escaped(data));
        }
        if !out.is_empty() {
            out.push(b'\n');
        } else if self.raw.starts_with(b":") {
            // It keeps the connection alive.
            out.extend_from_slice(b":\n\n");
        }
        out.into()
    }

    fn last(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields().filter(|(name, _)| *name == field).last().map(|(_, value)| value)
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.raw.split(|byte| *byte == b'\n').map(field)
    }
}

/// Name and value of a line. A comment has no name.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b':') {
        None => (line, &[]),
        Some(colon) => {
            let value = &line[colon + 1..];
            (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
        }
    }
}

/// True for a text that every reader takes for one line.
fn is_one_line(text: &[u8]) -> bool {
    let text = std::str::from_utf8(text);
    text.is_ok_and(|text| !text.chars().any(|c| c.is_control() || ends_line(c)))
}

/// Characters within texts of JSON at which some readers end lines.
const fn ends_line(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// JSON with those characters as escapes, which mean the same: they only occur within texts.
fn escaped(json: &[u8]) -> Cow<'_, [u8]> {
    let text = std::str::from_utf8(json).unwrap_or_default();
    if !text.contains(ends_line) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match ends_line(c) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
    }
    Cow::Owned(out.into_bytes())
}

/// Writes an event of the type `message`.
pub(crate) fn write_event(data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 64);
    out.extend_from_slice(b"event: message\n");
    push_data(&mut out, &escaped(data));
    out.push(b'\n');
    out.into()
}

/// Writes one `data` line for each line of the data.
fn push_data(out: &mut Vec<u8>, data: &[u8]) {
    let mut rest = Some(data);
    while let Some(lines) = rest {
        let end = lines.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let line = end.map_or(lines, |end| &lines[..end]);
        rest = end.map(|end| {
            let after = &lines[end..];
            &after[if after.starts_with(b"\r\n") { 2 } else { 1 }..]
        });
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(raw: &str) -> SseEvent {
        SseEvent::new(raw.to_owned())
    }

    #[track_caller]
    fn check_data(raw: &str, expected: Option<&str>) {
        let data = event(raw).data();
        assert_eq!(data.as_deref(), expected.map(str::as_bytes), "{raw:?}");
    }

    #[test]
    fn data_is_joined_without_one_leading_space() {
        check_data("data: a\n\n", Some("a"));
        check_data("data:a\n\n", Some("a"));
        check_data("data:  a \n\n", Some(" a "));
        check_data("data: a\ndata\ndata:b\ndata: c:d\n\n", Some("a\n\nb\nc:d"));
        check_data("id: 1\ndata\n\n", Some(""));
        for none in
            [": data: a\n", "\n", "id: 1\n\n", " data: a\n\n", "Data: a\n\n", "data2: a\n\n"]
        {
            check_data(none, None);
        }
    }

    #[test]
    fn type_and_id_are_the_last_that_are_valid() {
        let read = |raw: &str| {
            let event = event(raw);
            let text =
                |bytes: Option<&[u8]>| bytes.map(|it| String::from_utf8_lossy(it).into_owned());
            (text(event.event_type()), text(event.id()))
        };
        assert_eq!(read("data: a\n\n"), (None, None));
        assert_eq!(read("event: message\nid: 7\ndata: a\n\n"), (None, Some("7".into())));
        assert_eq!(
            read("event: a\nevent: b\nid: 7\nid\n\n"),
            (Some("b".into()), Some(String::new()))
        );
        assert_eq!(read("event:\nid: 7\nid: 8\0\n\n"), (None, Some("7".into())));
    }

    #[test]
    fn an_event_is_written_again_with_the_fields_that_readers_know() {
        let raw = ": c\nevent: message\ndata: a\nid: 7\ndata: b\nretry: 5\nx: data: c\n\n";
        let written = event(raw).with_data(Some(b"x\ny"));
        assert_eq!(written, "id: 7\nretry: 5\ndata: x\ndata: y\n\n");
        assert_eq!(event(raw).with_data(Some(b"")), "id: 7\nretry: 5\ndata: \n\n");
        assert_eq!(event("data: a\ndata: b\n\n").with_data(None), "");
        for comment in [": c\n", ":\n", ": c\u{2028}data: {}\n", ": c\u{b}data: {}\n"] {
            assert_eq!(event(comment).with_data(None), ":\n\n");
        }
        assert_eq!(event("\n").with_data(None), "");
        let bad = "id: a\u{2028}data: {}\nretry: 5x\ndata: a\n\n";
        assert_eq!(event(bad).with_data(Some(b"a")), "data: a\n\n");
    }

    #[test]
    fn characters_at_which_some_readers_end_lines_are_escaped() {
        let text = "{\"a\":\"\u{2028}\u{2029}\u{85}\u{e9}\"}";
        let written = write_event(text.as_bytes());
        let expected = "event: message\ndata: {\"a\":\"\\u2028\\u2029\\u0085\u{e9}\"}\n\n";
        assert_eq!(written, expected);
    }

    #[test]
    fn every_line_of_the_data_of_an_event_is_written_as_one() {
        assert_eq!(write_event(b"{}"), "event: message\ndata: {}\n\n");
        assert_eq!(
            write_event(b"a\r\nb\rc\n"),
            "event: message\ndata: a\ndata: b\ndata: c\ndata: \n\n"
        );
    }
}
