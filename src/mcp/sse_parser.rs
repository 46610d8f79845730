//! Parser of a `text/event-stream`, fed piece by piece.
//!
//! Source: "Parsing an event stream" in
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use super::SseEvent;
use bytes::{Buf as _, Bytes};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event is larger than its limit. The stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {bytes_max} bytes")]
pub(crate) struct SseError {
    bytes_max: usize,
}

/// Splits a stream into events. Comments and empty lines between events come at once and by
/// themselves, because they keep connections alive.
///
/// Byte order marks are dropped before every event, not only at the start of the stream: any event
/// may be the first that is passed on, and its reader would drop the mark there and read a line
/// that was not one of an event here.
#[derive(Debug)]
pub(crate) struct SseParser {
    /// The event so far: its lines, each with LF.
    raw: Vec<u8>,
    /// Position of the line that is not complete.
    line_start: usize,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    bytes_max: usize,
    is_failed: bool,
}

impl SseParser {
    /// Starts at the beginning of a stream. Memory: an event is held until it is complete.
    pub(crate) const fn new(event_bytes_max: usize) -> Self {
        Self {
            raw: Vec::new(),
            line_start: 0,
            after_cr: false,
            bytes_max: event_bytes_max,
            is_failed: false,
        }
    }

    /// Takes bytes from the piece until an event is complete. `None`: the piece is used up. At the
    /// end of the stream an event that is not complete is dropped, as readers do.
    ///
    /// # Errors
    /// The event is too large, now and in all later calls.
    pub(crate) fn next_event(&mut self, piece: &mut Bytes) -> Result<Option<SseEvent>, SseError> {
        while !self.is_failed && !piece.is_empty() {
            if std::mem::take(&mut self.after_cr) && piece[0] == b'\n' {
                piece.advance(1);
                continue;
            }
            let end = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let line = piece.split_to(end.unwrap_or(piece.len()));
            self.push(&line)?;
            if end.is_some() {
                self.after_cr = piece.get_u8() == b'\r';
                if let Some(event) = self.end_line()? {
                    return Ok(Some(event));
                }
            }
        }
        if self.is_failed { Err(SseError { bytes_max: self.bytes_max }) } else { Ok(None) }
    }

    /// Bytes of the event that is not complete.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.raw.len()
    }

    /// Ends a line, and perhaps the event.
    fn end_line(&mut self) -> Result<Option<SseEvent>, SseError> {
        if self.line_start == 0 {
            let marks = self.raw.chunks(BYTE_ORDER_MARK.len());
            let count = marks.take_while(|mark| *mark == BYTE_ORDER_MARK).count();
            self.raw.drain(..count * BYTE_ORDER_MARK.len());
        }
        let is_empty = self.raw.len() == self.line_start;
        let is_comment_between_events = self.line_start == 0 && self.raw.starts_with(b":");
        self.push(b"\n")?;
        self.line_start = self.raw.len();
        if !is_empty && !is_comment_between_events {
            return Ok(None);
        }
        self.line_start = 0;
        Ok(Some(SseEvent::new(std::mem::take(&mut self.raw))))
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        if self.raw.len() + bytes.len() > self.bytes_max {
            self.is_failed = true;
            self.raw = Vec::new();
            return Err(SseError { bytes_max: self.bytes_max });
        }
        self.raw.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Events of a stream that arrives in these pieces.
    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<SseEvent> {
        let (mut parser, mut events) = (SseParser::new(1_000), Vec::new());
        for piece in pieces {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(event) = parser.next_event(&mut piece).expect("within limits") {
                events.push(event);
            }
            assert!(piece.is_empty());
        }
        events
    }

    #[track_caller]
    fn check(stream: &str, expected: &[&str]) {
        let raw: Vec<_> =
            events([stream.as_bytes()]).iter().map(|event| event.raw().clone()).collect();
        assert_eq!(raw, expected, "{stream:?}");
    }

    #[test]
    fn an_empty_line_ends_an_event_whatever_ends_lines() {
        let expected = ["id: 1\ndata: a\n\n", "data: b\n\n"];
        for end in ["\n", "\r\n", "\r"] {
            let stream = expected.concat().replace('\n', end);
            check(&stream, &expected);
            check(&format!("\u{feff}{stream}"), &expected);
        }
        check("data: a\r\n\ndata: b\n\r\r\n", &["data: a\n\n", "data: b\n\n", "\n"]);
        check("data: a\n", &[]);
        check("data: a\n\ndata: b", &["data: a\n\n"]);
    }

    #[test]
    fn comments_between_events_come_at_once_and_others_stay_in_their_event() {
        check(": ping\n", &[": ping\n"]);
        check(":\r\n: b\r\n\r\n", &[":\n", ": b\n", "\n"]);
        check("data: a\n: c\ndata: b\n\n", &["data: a\n: c\ndata: b\n\n"]);
        check(": c\ndata: a\n\n", &[": c\n", "data: a\n\n"]);
    }

    #[test]
    fn byte_order_marks_before_events_are_dropped() {
        check("\u{feff}\n\u{feff}\u{feff}data: a\n\n", &["\n", "data: a\n\n"]);
        check("\u{feff}: ping\n", &[": ping\n"]);
        let within = "id: 1\n\u{feff}data: \u{feff}\n\n";
        check(within, &[within]);
    }

    #[test]
    fn an_event_at_its_limit_passes_and_one_byte_more_fails_the_stream() {
        let mut piece = Bytes::from("data: 4567\n\n");
        assert!(matches!(SseParser::new(12).next_event(&mut piece), Ok(Some(_))));
        let mut parser = SseParser::new(12);
        for _ in 0..3 {
            let mut piece = Bytes::from(": 3456789a\n");
            assert!(matches!(parser.next_event(&mut piece), Ok(Some(_))), "the limit is for each");
        }
        let mut piece = Bytes::from("data: 45678\n\n");
        let fault = parser.next_event(&mut piece).expect_err("too large");
        assert_eq!(fault.to_string(), "an event of the stream is larger than 12 bytes");
        assert_eq!(parser.next_event(&mut Bytes::from("data: a\n\n")), Err(fault));
        let mut parser = SseParser::new(12);
        assert_eq!(parser.next_event(&mut Bytes::from("0123456789ab")), Ok(None));
        assert!(parser.next_event(&mut Bytes::from("c")).is_err(), "before the line ends");
    }

    fn streams() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "data: a", "data:", ": c", ":", "id: 7", "event: x", "x", "", "\n", "\r", "\r\n",
            "\n\n", "\r\n\r\n", "\u{feff}", "é",
        ]);
        prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_events(
            stream in streams(), cuts in prop::collection::vec(0..80_usize, 0..6),
        ) {
            let bytes = stream.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]);
            let whole = events([bytes]);
            prop_assert_eq!(&events(pieces), &whole);
            prop_assert_eq!(&events(bytes.chunks(1)), &whole);
        }

        #[test]
        fn events_pass_unchanged_but_for_the_ends_of_lines(
            stream in streams(), marks in 0..3_usize,
        ) {
            let stream = stream.replace('\u{feff}', "");
            let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
            let stream = "\u{feff}".repeat(marks) + &stream;
            let passed: Vec<u8> =
                events([stream.as_bytes()]).iter().flat_map(|event| event.raw().to_vec()).collect();
            prop_assert!(lines.as_bytes().starts_with(&passed));
            let passed_lines = String::from_utf8(passed).expect("UTF-8");
            // What is left is an event that is not complete.
            prop_assert!(!lines[passed_lines.len()..].contains("\n\n"));
            let again: Vec<_> = events([passed_lines.as_bytes()]);
            prop_assert_eq!(again, events([lines.as_bytes()]));
        }

        #[test]
        fn written_data_is_read_again(data in "[ab:\n]{0,12}") {
            let written = super::super::write_event(data.as_bytes());
            let read = events([&written[..]]);
            prop_assert_eq!(read.len(), 1);
            let read_data = read[0].data();
            prop_assert_eq!(read_data.as_deref(), Some(data.as_bytes()));
        }
    }
}
