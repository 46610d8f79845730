//! W3C Trace Context: the text of `traceparent` (<https://www.w3.org/TR/trace-context/>).

/// Flags that are passed on: sampled, and random trace id.
const KNOWN_FLAGS: u8 = 0x03;
const SAMPLED: u8 = 0x01;

/// Bytes of a `traceparent` of version 00.
const TEXT_BYTES: usize = 55;

/// A position in a trace: the span that comes next is its child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    pub(super) const fn new(trace_id: [u8; 16], span_id: [u8; 8], is_sampled: bool) -> Self {
        Self { trace_id, span_id, flags: if is_sampled { SAMPLED } else { 0 } }
    }

    /// Reads a `traceparent`. A higher version is read as version 00, and may have more after it.
    /// `None` for anything else: the text starts no trace and continues none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (known, rest) = text.as_bytes().split_at_checked(TEXT_BYTES)?;
        let mut digits = Digits(known);
        let [version] = digits.take()?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        let (trace_id, span_id): ([u8; 16], [u8; 8]) = (digits.next()?, digits.next()?);
        let [flags] = digits.next()?;
        let flags = if version == 0 { flags & KNOWN_FLAGS } else { flags & SAMPLED };
        let is_valid = is_whole && trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self { trace_id, span_id, flags })
    }

    pub(crate) const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same position with another decision.
    pub(super) const fn unsampled(self) -> Self {
        Self { flags: self.flags & !SAMPLED, ..self }
    }

    /// A span below this position.
    pub(super) const fn child(self, span_id: [u8; 8]) -> Self {
        Self { span_id, flags: self.flags | SAMPLED, ..self }
    }

    /// True for a position in the same trace.
    #[cfg_attr(not(feature = "forward"), allow(dead_code, reason = "for forwards over HTTP"))]
    pub(crate) fn is_of_trace(self, other: Self) -> bool {
        self.trace_id == other.trace_id
    }

    /// The `traceparent` for what comes next, in version 00.
    pub(crate) fn to_text(self) -> Box<str> {
        let mut text = String::with_capacity(TEXT_BYTES);
        text.push_str("00");
        for bytes in [&self.trace_id[..], &self.span_id, &[self.flags]] {
            text.push('-');
            text.extend(bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit));
        }
        text.into()
    }
}

fn digit(value: u8) -> char {
    char::from_digit(value.into(), 16).unwrap_or_default()
}

/// Fields of lower-case hexadecimal digits, with a hyphen between them.
struct Digits<'t>(&'t [u8]);

impl Digits<'_> {
    fn next<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.0 = self.0.strip_prefix(b"-")?;
        self.take()
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_at_checked(2 * N)?;
        self.0 = rest;
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(field.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(bytes)
    }
}

const fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_is_read_and_written_as_it_is() {
        for flags in ["00", "01", "03"] {
            let text = format!("00-{TRACE}-{SPAN}-{flags}");
            let context = TraceContext::parse(&text).expect("a context");
            assert_eq!(&*context.to_text(), text);
            assert_eq!(context.is_sampled(), flags != "00");
        }
    }

    #[test]
    fn a_higher_version_is_read_as_this_one_and_written_in_it() {
        for text in
            [format!("01-{TRACE}-{SPAN}-01"), format!("cc-{TRACE}-{SPAN}-ff-what-comes-later")]
        {
            let context = TraceContext::parse(&text).expect("a context");
            assert_eq!(&*context.to_text(), format!("00-{TRACE}-{SPAN}-01"));
        }
    }

    #[test]
    fn flags_of_which_nothing_is_known_are_not_passed_on() {
        let context = TraceContext::parse(&format!("00-{TRACE}-{SPAN}-fe")).expect("a context");
        assert_eq!(&*context.to_text(), format!("00-{TRACE}-{SPAN}-02"));
    }

    #[test]
    fn other_texts_are_no_context() {
        let zeros = |count| "0".repeat(count);
        for bad in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", zeros(32)),
            format!("00-{TRACE}-{}-01", zeros(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("01-{TRACE}-{SPAN}-01x"),
            format!("00-{TRACE}{SPAN}--01-"),
            format!("00_{TRACE}-{SPAN}-01"),
            "é".repeat(40),
        ] {
            assert_eq!(TraceContext::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_child_is_in_the_same_trace_and_sampled() {
        let parent = TraceContext::parse(&format!("00-{TRACE}-{SPAN}-02")).expect("a context");
        let child = parent.child([7; 8]);
        assert!(child.is_of_trace(parent) && child.is_sampled() && !parent.is_sampled());
        assert_eq!(child.unsampled().to_text().split('-').nth(3), Some("02"));
    }
}
