//! Rejects ambiguous request heads that hyper accepts: two lengths or an ambiguous host allow
//! request smuggling through a proxy. RFC 9112 and RFC 9113 reject them too.

use super::authority::Authority;
use crate::limits::HTTP_HEAD_BYTES_MAX;
use hyper::{header, http::request::Parts};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A content length, or no body.
    Plain,
    /// In chunks. The connection ends with it, so that nothing after it is taken for a request.
    Chunked,
    Bad(&'static str),
}

/// Framing of each request in order, until its response takes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Found(Arc<Mutex<VecDeque<Framing>>>);

impl Found {
    pub(super) fn next(&self) -> Framing {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.pop_front().unwrap_or(Framing::Bad("the head cannot be read"))
    }

    fn add(&self, framing: Framing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(framing);
    }
}

/// Room for the head that a connection keeps for its next request.
const HEAD_BYTES_USUAL: usize = 1 << 10;

/// Follows the bytes of a connection from head to head.
#[derive(Debug, Default)]
pub(super) struct Heads {
    found: Found,
    head: Vec<u8>,
    /// Of the body of the last request, what is still to come.
    body_left: u64,
    /// The start of the next request is unknown; no further request is read.
    is_over: bool,
}

impl Heads {
    pub(super) fn found(&self) -> Found {
        self.found.clone()
    }

    pub(super) fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_over {
            if self.body_left > 0 {
                let step = usize::try_from(self.body_left).unwrap_or(usize::MAX).min(bytes.len());
                self.body_left -= step as u64;
                bytes = &bytes[step..];
                continue;
            }
            // Empty lines before a request are no part of it.
            if self.head.is_empty()
                && let [b'\r' | b'\n', rest @ ..] = bytes
            {
                bytes = rest;
                continue;
            }
            let line =
                bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            let (line, rest) = bytes.split_at(line);
            bytes = rest;
            self.head.extend_from_slice(line);
            if self.head.ends_with(b"\n\r\n") || self.head.ends_with(b"\n\n") {
                self.check_head();
            } else if self.head.len() > HTTP_HEAD_BYTES_MAX {
                self.is_over = true;
            }
        }
    }

    fn check_head(&mut self) {
        let (framing, body_bytes) =
            framing_of(&self.head).unwrap_or_else(|fault| (Framing::Bad(fault), 0));
        self.head.clear();
        self.head.shrink_to(HEAD_BYTES_USUAL);
        self.found.add(framing);
        self.body_left = body_bytes;
        self.is_over = framing != Framing::Plain;
    }
}

/// Two ways of saying where a request ends.
const TWO_ENDS: &str =
    "the request says where it ends in more ways than one (content-length, transfer-encoding)";

/// Headers of an HTTP/1 head that concern framing and host.
#[derive(Default)]
struct FramingHeaders<'h> {
    lengths: Vec<&'h [u8]>,
    codings: Vec<&'h [u8]>,
    hosts: Vec<&'h [u8]>,
}

impl<'h> FramingHeaders<'h> {
    fn of(lines: impl Iterator<Item = &'h [u8]>) -> Self {
        let mut all = Self::default();
        for line in lines {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                all.lengths.push(value);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                all.codings.push(value);
            } else if name.eq_ignore_ascii_case(b"host") {
                all.hosts.push(value);
            }
        }
        all
    }

    /// Framing of the request, and the length of a plain body.
    fn framing(&self, is_http_1_0: bool) -> Result<(Framing, u64), &'static str> {
        match (self.lengths.as_slice(), self.codings.as_slice()) {
            ([], []) => Ok((Framing::Plain, 0)),
            ([length], []) => {
                let is_number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(length).ok().filter(|_| is_number);
                let length = length.and_then(|length| length.parse().ok());
                Ok((Framing::Plain, length.ok_or("content-length is not one number")?))
            }
            ([], [_]) if is_http_1_0 => Err("HTTP/1.0 has no transfer-encoding"),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok((Framing::Chunked, 0)),
            ([], [_]) => Err("transfer-encoding is not `chunked` alone"),
            _ => Err(TWO_ENDS),
        }
    }

    fn host(&self) -> Result<Option<Authority<'h>>, &'static str> {
        match self.hosts.as_slice() {
            [] => Ok(None),
            [host] => {
                Authority::parse(host).map(Some).ok_or("the host header is not HOST or HOST:PORT")
            }
            _ => Err("the host header occurs more than once"),
        }
    }
}

/// Framing of a request, from its HTTP/1 head, and the length of a plain body, or the reason to
/// reject it (RFC 9112 sections 3.2, 6.1 and 6.3).
fn framing_of(head: &[u8]) -> Result<(Framing, u64), &'static str> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default().trim_ascii();
    let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [verb, target, version] = parts.as_slice() else {
        return Err("the request line is not METHOD TARGET VERSION");
    };
    let is_http_1_0 = *version == b"HTTP/1.0";
    let lines = FramingHeaders::of(lines);
    let framing = lines.framing(is_http_1_0)?;
    let host = lines.host()?;
    if host.is_none() && !is_http_1_0 {
        return Err("the request has no host header");
    }
    let has_own_host = check_target(verb, target)?;
    if !has_own_host && !is_http_1_0 && host.is_some_and(|host| host.is_empty()) {
        return Err("the host header is empty");
    }
    Ok(framing)
}

/// Checks a request target, and returns `true` if it names a host or needs none.
fn check_target(verb: &[u8], target: &[u8]) -> Result<bool, &'static str> {
    const NONE: &str =
        "the request target is neither a path nor an absolute http or https URL with a host";
    if target.contains(&b'#') {
        return Err("the request target has a fragment (#...)");
    }
    if verb == b"CONNECT" {
        let authority = Authority::parse(target).filter(|authority| !authority.is_empty());
        return authority.map(|_| true).ok_or("the target of CONNECT is not HOST:PORT");
    }
    match target {
        [b'/', ..] => Ok(false),
        b"*" if verb == b"OPTIONS" => Ok(true),
        _ => {
            let mut parts = target.splitn(3, |byte| *byte == b'/');
            let (scheme, empty, rest) = (parts.next(), parts.next(), parts.next().ok_or(NONE)?);
            let is_http = scheme.is_some_and(|scheme| {
                [&b"http:"[..], b"https:"].iter().any(|one| scheme.eq_ignore_ascii_case(one))
            });
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
            let authority = Authority::parse(&rest[..end.unwrap_or(rest.len())]);
            let is_named = authority.is_some_and(|authority| !authority.is_empty());
            (is_http && empty == Some(b"") && is_named).then_some(true).ok_or(NONE)
        }
    }
}

/// Checks a head of HTTP/2. Malformed ones were reset before: connection fields, capital letters,
/// bad pseudo-header fields, lengths that differ.
pub(super) fn of_http_2(head: &Parts) -> Framing {
    host_of_http_2(head).map_or_else(Framing::Bad, |()| {
        match head.headers.get_all(header::CONTENT_LENGTH).iter().count() {
            0 | 1 => Framing::Plain,
            _ => Framing::Bad("content-length occurs more than once"),
        }
    })
}

/// Checks the host by RFC 9113 section 8.3.1.
fn host_of_http_2(head: &Parts) -> Result<(), &'static str> {
    let default_port = match head.uri.scheme_str() {
        None | Some("http") => 80,
        Some("https") => 443,
        Some(_) => return Err(":scheme is neither http nor https"),
    };
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err("the host header occurs more than once");
    }
    let named = |text| Authority::parse(text).filter(|authority| !authority.is_empty());
    let authority = head.uri.authority().map(|authority| {
        named(authority.as_str().as_bytes()).ok_or(":authority is not HOST or HOST:PORT")
    });
    let host =
        host.map(|host| named(host.as_bytes()).ok_or("the host header is not HOST or HOST:PORT"));
    match (authority.transpose()?, host.transpose()?) {
        (None, None) => Err("the request names no host (:authority)"),
        (Some(authority), Some(host)) if !authority.is_same(&host, default_port) => {
            Err("host and :authority differ")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Framing::{Chunked, Plain};

    /// Framings found when the bytes arrive in steps of this size.
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

    #[track_caller]
    fn check_bad(bytes: &str) {
        let found = found(bytes, 10_000);
        assert!(matches!(found.as_slice(), [Framing::Bad(_)]), "{bytes:?}: {found:?}");
    }

    /// A request with a host and these lines.
    fn post(lines: &str) -> String {
        format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n")
    }

    #[test]
    fn one_declared_length_is_accepted_and_two_are_refused() {
        check("GET / HTTP/1.1\r\nhost: a\r\n\r\n", &[Plain]);
        check(&(post("content-length: 3\r\n") + "abc"), &[Plain]);
        check(&(post("Transfer-Encoding: Chunked\r\n") + "0\r\n\r\n"), &[Chunked]);
        check(&(post("transfer-encoding:\tchunked \r\n") + "0\r\n\r\n"), &[Chunked]);
        let both = "content-length: 3\r\ntransfer-encoding: chunked\r\n";
        let turned = "Transfer-Encoding: chunked\r\nCONTENT-LENGTH: 3\r\n";
        for two in [both, turned, "content-length: 3\r\ncontent-length: 3\r\n"] {
            check(&(post(two) + "abc"), &[Framing::Bad(TWO_ENDS)]);
        }
        for bad in ["+3", "0x3", "3, 3", "3,3", "", "-1", "3 3", "99999999999999999999999"] {
            check_bad(&post(&format!("content-length: {bad}\r\n")));
        }
    }

    #[test]
    fn chunked_is_the_only_transfer_coding() {
        for bad in [
            "x, chunked",
            "gzip, chunked",
            "chunked, gzip",
            "chunked, chunked",
            "chunked,",
            ", chunked",
            "chunked;x=1",
            "identity",
            "xchunked",
            "\"chunked\"",
            "",
        ] {
            check_bad(&post(&format!("transfer-encoding: {bad}\r\n")));
        }
        check_bad(&post("transfer-encoding: x\r\ntransfer-encoding: chunked\r\n"));
        check_bad(&post("transfer-encoding : chunked\r\ntransfer-encoding: chunked\r\n"));
        check_bad("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n");
    }

    #[test]
    fn host_is_required_once_except_in_http_1_0() {
        let get = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n");
        for good in ["host: a\r\n", "HOST:a:80\r\n", "Host: \t[::1]:1 \r\n", "host: a:\r\n"] {
            check(&get(good), &[Plain]);
        }
        for bad in [
            "",
            "x-host: a\r\n",
            "host: a\r\nhost: a\r\n",
            "host: a\r\nHost: b\r\n",
            "host: a\r\nhost:\r\n",
            "host:\r\n",
            "host: :80\r\n",
            "host: u@a\r\n",
            "host: a:x\r\n",
            "host: a, b\r\n",
            "host: a/b\r\n",
            "host: http://a\r\n",
        ] {
            check_bad(&get(bad));
        }
        check("GET / HTTP/1.0\r\n\r\n", &[Plain]);
        check("GET / HTTP/1.0\r\nhost:\r\n\r\n", &[Plain]);
        check("GET / HTTP/1.0\r\nhost: a\r\n\r\n", &[Plain]);
        check_bad("GET / HTTP/1.0\r\nhost: a\r\nhost: a\r\n\r\n");
        check_bad("GET / HTTP/1.0\r\nhost: u@a\r\n\r\n");
    }

    #[test]
    fn a_target_is_a_path_or_names_its_host() {
        let with = |verb: &str, target: &str, host: &str| {
            format!("{verb} {target} HTTP/1.1\r\nhost:{host}\r\n\r\n")
        };
        for target in
            ["/", "/a?b", "//b/c", "http://b", "HTTP://b:1/c", "https://b?c", "http://[::1]/"]
        {
            check(&with("GET", target, "a"), &[Plain]);
        }
        for (verb, target) in
            [("OPTIONS", "*"), ("GET", "http://b/c"), ("CONNECT", "b:80"), ("OPTIONS", "http://b")]
        {
            check(&with(verb, target, "a"), &[Plain]);
            check(&with(verb, target, ""), &[Plain]);
            check_bad(&with(verb, target, "u@a"));
            check_bad(&format!("{verb} {target} HTTP/1.1\r\n\r\n"));
        }
        for target in [
            "/a#b",
            "/#",
            "#",
            "/a?b#c",
            "http://b/#c",
            "*",
            "a",
            "a:80",
            "a/b",
            "?a",
            "http://",
            "http:///a",
            "http://:80/",
            "http://u@b/",
            "http://u:p@b/",
            "http://b:x/",
            "http:/b/",
            "http:b",
            "ftp://b/",
            "javascript://b/",
            "://b/",
        ] {
            check_bad(&with("GET", target, "a"));
        }
        check_bad(&with("OPTIONS", "*#", "a"));
        check_bad(&with("CONNECT", "/", "a"));
        check_bad(&with("CONNECT", "u@b:80", "a"));
        check_bad("GET / x HTTP/1.1\r\nhost: a\r\n\r\n");
        check_bad("GET /\r\nhost: a\r\n\r\n");
    }

    #[test]
    fn the_request_after_a_body_is_checked() {
        let inner = post("content-length: 1\r\ntransfer-encoding: chunked\r\n");
        let first = post(&format!("content-length: {}\r\n", inner.len())) + &inner;
        check(&format!("{first}\r\n{inner}"), &[Plain, Framing::Bad(TWO_ENDS)]);
        check(&format!("{first}GET / HTTP/1.1\nhost: a\n\n{first}"), &[Plain, Plain, Plain]);
    }

    #[test]
    fn heads_after_a_chunked_body_are_not_checked() {
        let chunked = post("transfer-encoding: chunked\r\n") + "0\r\n\r\n";
        check(&(chunked + &post("")), &[Chunked]);
    }

    #[test]
    fn http_2_names_one_host() {
        let framing = |uri: &str, lines: &[(&str, &str)]| {
            let mut request = hyper::Request::get(uri);
            for (name, value) in lines {
                request = request.header(*name, *value);
            }
            of_http_2(&request.body(()).expect("a request").into_parts().0)
        };
        for (uri, host) in [
            ("http://a/b", None),
            ("http://a:80/b", Some("A")),
            ("https://a/b", Some("a:443")),
            ("http://a:8080/b", Some("a:8080")),
            ("/b", Some("a:1")),
        ] {
            let host: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
            assert_eq!(framing(uri, &host), Plain, "{uri} {host:?}");
        }
        for (uri, lines) in [
            ("/b", &[][..]),
            ("/b", &[("host", "")]),
            ("/b", &[("host", "u@a")]),
            ("http://a/b", &[("host", "b")]),
            ("http://a/b", &[("host", "")]),
            ("http://a/b", &[("host", "a:443")]),
            ("https://a/b", &[("host", "a:80")]),
            ("http://a/b", &[("host", "a"), ("host", "a")]),
            ("http://u@a/b", &[]),
            ("http://u@a/b", &[("host", "a")]),
            ("ftp://a/b", &[]),
            ("http://a/b", &[("content-length", "3"), ("content-length", "3")]),
        ] {
            assert!(matches!(framing(uri, lines), Framing::Bad(_)), "{uri} {lines:?}");
        }
    }
}
