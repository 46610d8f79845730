//! The URL of a node's tunnel.

use super::TUNNEL_PATH;
use std::{fmt, str::FromStr};

/// The URL of a node's tunnel: `wss://HOST[:PORT][/PATH]`, or `ws://` without TLS. Default port 443
/// (or 80), default path `/dialback/tunnel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelUrl {
    has_tls: bool,
    host: String,
    port: u16,
    path: String,
}

/// A text that is not the URL of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the URL of a tunnel; write it as \"wss://edge-1.example.com/dialback/tunnel\""
)]
pub struct TunnelUrlError(String);

impl TunnelUrl {
    /// The URL at a node that has not configured another: its host, port 443.
    pub(crate) fn of_node(host: &str) -> Self {
        Self { has_tls: true, host: host.into(), port: 443, path: TUNNEL_PATH.into() }
    }

    pub(crate) const fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// The host, an IPv6 address without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The host and the port as HTTP writes them.
    pub(crate) fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }
}

impl fmt::Display for TunnelUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.has_tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromStr for TunnelUrl {
    type Err = TunnelUrlError;

    fn from_str(text: &str) -> Result<Self, TunnelUrlError> {
        parse(text).ok_or_else(|| TunnelUrlError(text.chars().take(200).collect()))
    }
}

fn parse(text: &str) -> Option<TunnelUrl> {
    let (has_tls, rest) = match text.split_once("://")? {
        ("wss", rest) => (true, rest),
        ("ws", rest) => (false, rest),
        _ => return None,
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, TUNNEL_PATH),
    };
    let (host, port) = host_and_port(authority, if has_tls { 443 } else { 80 })?;
    let is_path = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    path.bytes().all(is_path).then(|| TunnelUrl { has_tls, host, port, path: path.into() })
}

/// Splits `HOST[:PORT]`; an IPv6 address is in brackets.
pub(super) fn host_and_port(authority: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest.is_empty().then_some("").or_else(|| rest.strip_prefix(':'))?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) {
        return None;
    }
    let port =
        if port.is_empty() { default_port } else { port.parse().ok().filter(|port| *port > 0)? };
    Some((host.into(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_and_path_have_defaults() {
        for (text, whole) in [
            ("wss://edge.example.com", "wss://edge.example.com:443/dialback/tunnel"),
            ("wss://edge.example.com:8443/t", "wss://edge.example.com:8443/t"),
            ("ws://127.0.0.1/a?b=c", "ws://127.0.0.1:80/a?b=c"),
            ("wss://[2001:db8::1]/x", "wss://[2001:db8::1]:443/x"),
            ("wss://[2001:db8::1]:9", "wss://[2001:db8::1]:9/dialback/tunnel"),
        ] {
            assert_eq!(text.parse::<TunnelUrl>().expect(text).to_string(), whole);
        }
        let of_node = TunnelUrl::of_node("edge.example.com");
        assert_eq!("wss://edge.example.com".parse(), Ok(of_node));
    }

    #[test]
    fn other_texts_are_refused_with_an_example() {
        for text in [
            "",
            "edge.example.com",
            "https://edge.example.com",
            "wss://",
            "wss://:443",
            "wss://e:0",
            "wss://e:99999",
            "wss://u@e",
            "wss://e /x",
            "wss://e/a b",
            "wss://e/#x",
            "wss://[::1",
            "wss://[e]",
            "wss://[::1]x",
        ] {
            let error = text.parse::<TunnelUrl>().expect_err(text).to_string();
            assert!(error.contains("wss://edge-1.example.com"), "{error}");
        }
    }
}
