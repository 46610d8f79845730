//! Heads of HTTP/1 as they pass: whether a request says its length in two ways. hyper takes one of them and forgets the other, and a proxy
//! before us may have taken the other (request smuggling, RFC 9112 section 6.1).

use crate::limits::HTTP_HEAD_BYTES_MAX;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// How a request says where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// In one way, or not at all because it has no body.
    Plain,
    /// In chunks. The connection ends with it, so that nothing after it is taken for a request.
    Chunked,
    /// In more ways than one, or in a way that cannot be read.
    Ambiguous,
}

/// What was found of each request, in their order, until its answer asks for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Found(Arc<Mutex<VecDeque<Framing>>>);

impl Found {
    /// That of the next request.
    pub(super) fn next(&self) -> Framing {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.pop_front().unwrap_or(Framing::Ambiguous)
    }

    fn add(&self, framing: Framing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(framing);
    }
}

/// Follows the bytes of a connection from head to head.
#[derive(Debug, Default)]
pub(super) struct Heads {
    found: Found,
    head: Vec<u8>,
    /// Of the body of the last request, what is still to come.
    body_left: u64,
    /// Where the next request begins is not known any more, and there will be none.
    is_over: bool,
}

impl Heads {
    /// What it finds.
    pub(super) fn found(&self) -> Found {
        self.found.clone()
    }

    /// Looks at what has come.
    pub(super) fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_over {
            if self.body_left > 0 {
                let step = usize::try_from(self.body_left).unwrap_or(usize::MAX).min(bytes.len());
                self.body_left -= step as u64;
                bytes = &bytes[step..];
                continue;
            }
            let (first, rest) = bytes.split_at(1);
            bytes = rest;
            // Empty lines before a request are no part of it.
            if self.head.is_empty() && matches!(first, b"\r" | b"\n") {
                continue;
            }
            self.head.extend_from_slice(first);
            if self.head.ends_with(b"\n\r\n") || self.head.ends_with(b"\n\n") {
                self.judge();
            } else if self.head.len() > HTTP_HEAD_BYTES_MAX {
                self.is_over = true;
            }
        }
    }

    fn judge(&mut self) {
        let head = std::mem::take(&mut self.head);
        let (framing, body_bytes) = framing_of(&head);
        self.found.add(framing);
        self.body_left = body_bytes;
        self.is_over = framing != Framing::Plain;
    }
}

/// How a head says where its request ends, and for a plain one how long its body is.
fn framing_of(head: &[u8]) -> (Framing, u64) {
    let (mut lengths, mut codings) = (0, 0);
    let mut length = Some(0);
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths += 1;
            let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let value = std::str::from_utf8(value).ok().filter(|_| is_number);
            length = value.and_then(|value| value.parse().ok());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings += 1;
        }
    }
    match (lengths, codings, length) {
        (0, 0, _) => (Framing::Plain, 0),
        (1, 0, Some(length)) => (Framing::Plain, length),
        (0, 1, _) => (Framing::Chunked, 0),
        _ => (Framing::Ambiguous, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Framing::{Ambiguous, Chunked, Plain};

    /// What is found when the bytes come in steps of this size.
    fn found(bytes: &str, step: usize) -> Vec<Framing> {
        let mut heads = Heads::default();
        bytes.as_bytes().chunks(step).for_each(|chunk| heads.look(chunk));
        let found = heads.found();
        let found = found.0.lock().expect("whole");
        found.iter().copied().collect()
    }

    #[track_caller]
    fn check(bytes: &str, expected: &[Framing]) {
        for step in [1, 2, 7, 10_000] {
            assert_eq!(found(bytes, step), expected, "{bytes:?} in steps of {step}");
        }
    }

    #[test]
    fn one_way_of_saying_the_length_is_plain_and_two_are_ambiguous() {
        check("GET / HTTP/1.1\r\nhost: a\r\n\r\n", &[Plain]);
        check("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", &[Plain]);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[Chunked]);
        let both = "content-length: 3\r\ntransfer-encoding: chunked\r\n";
        let turned = "Transfer-Encoding: chunked\r\nCONTENT-LENGTH: 3\r\n";
        for two in [both, turned, "content-length: 3\r\ncontent-length: 3\r\n"] {
            check(&format!("POST / HTTP/1.1\r\n{two}\r\nabc"), &[Ambiguous]);
        }
        for bad in ["+3", "0x3", "3, 3", "", "-1", "99999999999999999999999"] {
            check(&format!("POST / HTTP/1.1\r\ncontent-length: {bad}\r\n\r\n"), &[Ambiguous]);
        }
    }

    #[test]
    fn a_body_is_passed_over_and_the_request_after_it_is_looked_at() {
        let inner = "GET /x HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        let first = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{inner}", inner.len());
        check(&format!("{first}\r\n{inner}"), &[Plain, Ambiguous]);
        check(&format!("{first}GET / HTTP/1.1\n\n{first}"), &[Plain, Plain, Plain]);
    }

    #[test]
    fn after_chunks_nothing_is_looked_at_because_nothing_is_answered() {
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        check(&format!("{chunked}GET / HTTP/1.1\r\n\r\n"), &[Chunked]);
    }
}
