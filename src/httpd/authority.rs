//! Host of a request: `Host`, `:authority` or absolute target (RFC 3986 3.2, RFC 9110 7.2).

use hyper::{HeaderMap, Uri, header};
use std::net::{IpAddr, Ipv6Addr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `uri-host [ ":" port ]`. `None` if it is not one: userinfo, a bad port, spaces, a
    /// path, text that is not ASCII. The host may be empty.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let host_bytes = match text.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at(host_bytes);
        if !is_host(host) {
            return None;
        }
        let port = match rest {
            "" | ":" => None,
            _ => {
                let digits = rest.strip_prefix(':')?;
                let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
                Some(digits.parse().ok().filter(|_| is_number)?)
            }
        };
        Some(Self { host, port })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.host.is_empty()
    }

    /// Returns `true` if both name the same host and port, with this default port.
    pub(super) fn is_same(&self, other: &Self, default_port: u16) -> bool {
        let port = |one: &Self| one.port.unwrap_or(default_port);
        self.host.eq_ignore_ascii_case(other.host) && port(self) == port(other)
    }
}

/// True if a request names this machine (`localhost` or a loopback address). A page of another site
/// can let its own name resolve to this machine, but cannot name it localhost.
pub(crate) fn names_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = uri.authority().map(|authority| authority.as_str()).or(host) else {
        return false;
    };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    }
    let mut rest = host.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match (*first, after) {
            (b'%', [high, low, after @ ..])
                if [high, low].iter().all(|b| b.is_ascii_hexdigit()) =>
            {
                after
            }
            (byte, after) if is_name_byte(byte) => after,
            _ => return false,
        };
    }
    true
}

/// `unreserved` and `sub-delims` of RFC 3986.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Authority<'_>> {
        Authority::parse(text.as_bytes())
    }

    #[test]
    fn a_host_has_an_optional_port_and_nothing_else() {
        for (text, host, port) in [
            ("localhost", "localhost", None),
            ("localhost:8080", "localhost", Some(8080)),
            ("localhost:", "localhost", None),
            ("localhost:65535", "localhost", Some(65_535)),
            ("LOCALHOST:080", "LOCALHOST", Some(80)),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[::1]:8080", "[::1]", Some(8080)),
            ("a_b-c.example.", "a_b-c.example.", None),
            ("caf%C3%A9.example", "caf%C3%A9.example", None),
            ("", "", None),
            (":80", "", Some(80)),
        ] {
            assert_eq!(parse(text), Some(Authority { host, port }), "{text}");
        }
        for bad in [
            "user@localhost",
            "user:secret@localhost",
            "localhost:80@evil.example",
            "@localhost",
            "localhost:65536",
            "localhost:-1",
            "localhost:+80",
            "localhost:http",
            "localhost:80:80",
            "localhost/",
            "localhost?x",
            "localhost#x",
            "local host",
            "localhost\\x",
            "a b",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]]",
            "[]",
            "[127.0.0.1]",
            "[fe80::1%25eth0]",
            "caf%C.example",
            "caf%zz",
            "%",
            "café.example",
            "http://localhost",
            "\"localhost\"",
            "<localhost>",
            "localhost\0",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn one_host_is_written_in_different_ways() {
        let is_same =
            |one, other| parse(one).expect("one").is_same(&parse(other).expect("one"), 80);
        for (one, other) in
            [("localhost", "LocalHost:80"), ("localhost:", "localhost"), ("[::1]:1", "[::1]:1")]
        {
            assert!(is_same(one, other) && is_same(other, one), "{one} {other}");
        }
        for (one, other) in
            [("localhost", "localhost:8080"), ("localhost", "localhost."), ("a", "")]
        {
            assert!(!is_same(one, other) && !is_same(other, one), "{one} {other}");
        }
    }

    #[test]
    fn only_loopback_names_name_this_machine() {
        let names = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, header::HeaderValue::from_str(host).expect("a value"));
            names_loopback(&"/v1/agents".parse().expect("a path"), &headers)
        };
        for own in
            ["localhost", "localhost:8080", "127.0.0.1:8080", "127.8.0.1", "[::1]:8080", "[::1]"]
        {
            assert!(names(own), "{own}");
        }
        for foreign in ["evil.example", "localhost.evil.example:8080", "192.0.2.1", "", "[::2]:1"] {
            assert!(!names(foreign), "{foreign}");
        }
    }
}
