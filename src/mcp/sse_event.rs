//! Events of a `text/event-stream`.
//!
//! Source: "Interpreting an event stream" in
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use bytes::Bytes;

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
    pub(crate) const fn raw(&self) -> &Bytes {
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

    /// The text of the event with other data: `event`, `id`, `retry` and comments stay.
    pub(crate) fn with_data(&self, data: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(self.raw.len());
        let mut is_written = false;
        for line in self.raw.split_inclusive(|byte| *byte == b'\n') {
            if field(line.strip_suffix(b"\n").unwrap_or(line)).0 != b"data" {
                out.extend_from_slice(line);
            } else if !is_written {
                push_data(&mut out, data);
                is_written = true;
            }
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

/// Writes an event of the type `message`.
pub(crate) fn write_event(data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 64);
    out.extend_from_slice(b"event: message\n");
    push_data(&mut out, data);
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
    fn other_data_takes_the_place_of_the_first() {
        let raw = ": c\nevent: message\ndata: a\nid: 7\ndata: b\nretry: 5\n\n";
        let rewritten = event(raw).with_data(b"x\ny");
        assert_eq!(rewritten, ": c\nevent: message\ndata: x\ndata: y\nid: 7\nretry: 5\n\n");
        assert_eq!(event(raw).with_data(b""), ": c\nevent: message\ndata: \nid: 7\nretry: 5\n\n");
        let rewritten = event("data: a\ndata: b\n\n").with_data(b"c");
        assert_eq!(rewritten, "data: c\n\n");
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
