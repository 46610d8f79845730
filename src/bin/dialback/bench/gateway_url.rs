//! URL of a gateway.

use hyper::Uri;
use std::{fmt, str::FromStr};

/// URL of a gateway: `http://HOST:PORT` or `https://HOST:PORT`, with a path if a proxy adds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GatewayUrl {
    pub(super) is_tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// Value of the `host` header.
    pub(super) authority: String,
    /// Path before that of the gateway; empty, or without a trailing slash.
    pub(super) prefix: String,
}

impl FromStr for GatewayUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected http://HOST:PORT or https://HOST:PORT".to_owned();
        let uri: Uri = text.parse().map_err(|_| expected())?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(expected()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(expected)?;
        if uri.query().is_some() || text.contains('#') || authority.host().is_empty() {
            return Err(expected());
        }
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            None => Some(if is_tls { 443 } else { 80 }),
            Some(port) => port.parse().ok().filter(|port| *port > 0),
        };
        Ok(Self {
            is_tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: port.ok_or_else(expected)?,
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_a_host_and_no_query() {
        let url = |text: &str| text.parse::<GatewayUrl>();
        let plain = url("http://127.0.0.1:8080").expect("a URL");
        assert_eq!((plain.is_tls, plain.host.as_str(), plain.port), (false, "127.0.0.1", 8080));
        let tls = url("https://[::1]/proxy/").expect("a URL");
        assert_eq!((tls.is_tls, tls.host.as_str(), tls.port), (true, "::1", 443));
        assert_eq!(tls.to_string(), "https://[::1]/proxy");
        for bad in [
            "127.0.0.1:8080",
            "localhost",
            "ftp://a",
            "http://",
            "http://a:0",
            "http://a:x",
            "http://u:p@a",
            "http://a/?q",
            "http://a/#f",
            "",
        ] {
            assert!(url(bad).is_err(), "{bad} was taken");
        }
    }
}
