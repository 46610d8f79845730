//! Address of an upstream: `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`, with a prefix.

use crate::{tls::UpstreamTls, trace::Span};
use hyper::Uri;
use std::{fmt, path::PathBuf, str::FromStr};

/// The address of an HTTP server to which a service is forwarded.
///
/// `http://127.0.0.1:9000`, `https://app.internal:8443`, both with a path of their own behind them
/// if need be (`http://127.0.0.1/api`), or a Unix socket: `unix:/run/app.sock`,
/// `unix:/run/app.sock:/api`. Without a port it is 80 or 443. `h2c://HOST:PORT` and `h2c+unix:/PATH`
/// speak HTTP/2 without TLS, as gRPC servers do; with TLS the upstream chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    pub(super) destination: Destination,
    /// Value of the `host` header.
    pub(in crate::agent::forward) authority: String,
    /// Prefix of `/Service/Method`; empty, or with a leading slash and no trailing one.
    pub(in crate::agent::forward) prefix: String,
    /// The whole path, with the slash at its end if it has one; `/` without a path.
    pub(in crate::agent::forward) path: String,
    /// True for `h2c://` and `h2c+unix:`: HTTP/2 without TLS.
    pub(in crate::agent::forward) is_http2: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    Tcp { host: String, port: u16, is_tls: bool },
    Unix(PathBuf),
}

/// Error of an upstream address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// Invalid address.
    #[error("upstream {text:?} {why}")]
    Address {
        /// The address, as far as it may be shown.
        text: String,
        /// The reason.
        why: &'static str,
    },
    /// An `https` upstream without CA certificates to trust.
    #[error(
        "an https upstream needs a stated trust: name the file of the CAs that vouch for it as `upstream_ca`, or give them to Forward::to_tls"
    )]
    NoTrust,
    /// CA certificates for an upstream without TLS.
    #[error("CAs vouch for an https upstream, and this one is {0}")]
    TrustUnused(UpstreamAddress),
    /// CA certificates or a host name that TLS rejects.
    #[error("{0}")]
    Tls(String),
}

const HOW: &str = "is not written http://HOST:PORT, https://HOST:PORT or unix:/PATH";

impl UpstreamAddress {
    /// Returns `true` if the upstream uses TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.destination, Destination::Tcp { is_tls: true, .. })
    }

    /// Adds the address to the span of a request.
    pub(in crate::agent::forward) fn describe(&self, span: &mut Span) {
        match &self.destination {
            Destination::Tcp { host, port, .. } => {
                span.text("server.address", host);
                span.number("server.port", *port);
            }
            Destination::Unix(path) => span.text("server.address", path.display()),
        }
    }

    /// TLS to it, with these CAs (PEM); `None` for an upstream without.
    pub(in crate::agent::forward) fn tls(
        &self,
        ca_pem: Option<&[u8]>,
        offers_http2: bool,
    ) -> Result<Option<UpstreamTls>, UpstreamError> {
        match (&self.destination, ca_pem) {
            (Destination::Tcp { host, is_tls: true, .. }, Some(pem)) => {
                let tls = UpstreamTls::new(pem, host, offers_http2);
                tls.map(Some).map_err(UpstreamError::Tls)
            }
            (Destination::Tcp { is_tls: true, .. }, None) => Err(UpstreamError::NoTrust),
            (_, Some(_)) => Err(UpstreamError::TrustUnused(self.clone())),
            (_, None) => Ok(None),
        }
    }

    fn of_socket(text: &str) -> Result<Self, &'static str> {
        let (path, prefix) = text.split_once(':').unwrap_or((text, ""));
        if !path.starts_with('/') || path.contains('\0') {
            return Err("names no socket by its whole path, as unix:/run/app.sock");
        }
        if cfg!(not(unix)) {
            return Err("is a Unix socket, and this system has none");
        }
        let destination = Destination::Unix(path.into());
        let (authority, whole) = ("localhost".into(), whole_path(prefix));
        Ok(Self {
            destination,
            authority,
            prefix: prefix_of(prefix)?,
            path: whole,
            is_http2: false,
        })
    }

    fn of_url(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| HOW)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(HOW);
        };
        let (is_tls, port_default) = match scheme {
            "http" | "h2c" => (false, 80),
            "https" => (true, 443),
            _ => return Err(HOW),
        };
        let host = authority.host();
        // The parser's own port is `None` for `a:` and `a:99999`, as for `a`.
        let port = match authority.as_str()[host.len()..].strip_prefix(':') {
            None => port_default,
            Some(port) => port.parse().unwrap_or(0),
        };
        if host.is_empty() || port == 0 {
            return Err("has no host, or a port that is none");
        }
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let destination = Destination::Tcp { host: inner.to_owned(), port, is_tls };
        Ok(Self {
            destination,
            authority: authority.as_str().to_owned(),
            prefix: prefix_of(uri.path())?,
            path: whole_path(uri.path()),
            is_http2: scheme == "h2c",
        })
    }
}

fn whole_path(path: &str) -> String {
    if path.is_empty() { "/".into() } else { path.into() }
}

fn prefix_of(path: &str) -> Result<String, &'static str> {
    let prefix = path.trim_end_matches('/');
    let is_path = prefix.is_empty()
        || (prefix.starts_with('/') && prefix.parse::<Uri>().is_ok_and(|uri| uri.path() == prefix));
    let has_dots = prefix.split('/').any(|part| part == "." || part == "..");
    match (is_path, has_dots) {
        (true, false) => Ok(prefix.to_owned()),
        (true, true) => Err("has . or .. in its path, which servers read in different ways"),
        (false, _) => Err("has a path that is none; it starts with / and has no spaces in it"),
    }
}

impl FromStr for UpstreamAddress {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        // An error message must not contain a password.
        let shown = if text.contains('@') { "..." } else { text };
        let shown: String = shown.chars().take(80).collect();
        let read = if text.contains('@') {
            Err("has a user's name in it, which is not sent; leave it out")
        } else if text.contains(['?', '#']) {
            Err("has a query or a fragment, and a method has no place for one")
        } else if let Some(socket) = text.strip_prefix("unix:") {
            Self::of_socket(socket)
        } else if let Some(socket) = text.strip_prefix("h2c+unix:") {
            Self::of_socket(socket).map(|address| Self { is_http2: true, ..address })
        } else {
            Self::of_url(text)
        };
        read.map_err(|why| UpstreamError::Address { text: shown, why })
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { destination, authority, path: whole, is_http2, .. } = self;
        let whole = if whole == "/" { "" } else { whole };
        let separator = if whole.is_empty() { "" } else { ":" };
        match (destination, is_http2) {
            (Destination::Tcp { is_tls: true, .. }, _) => write!(f, "https://{authority}{whole}"),
            (Destination::Tcp { .. }, false) => write!(f, "http://{authority}{whole}"),
            (Destination::Tcp { .. }, true) => write!(f, "h2c://{authority}{whole}"),
            (Destination::Unix(path), _) => {
                let scheme = if *is_http2 { "h2c+unix" } else { "unix" };
                write!(f, "{scheme}:{}{separator}{whole}", path.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, shown: &str, authority: &str, prefix: &str) {
        let address: UpstreamAddress = text.parse().expect("an address");
        assert_eq!(address.to_string(), shown);
        assert_eq!((address.authority.as_str(), address.prefix.as_str()), (authority, prefix));
        assert_eq!(address.is_tls(), text.starts_with("https:"));
    }

    #[test]
    fn addresses_keep_their_path_and_have_ports_by_default() {
        check("http://127.0.0.1:9000", "http://127.0.0.1:9000", "127.0.0.1:9000", "");
        check("http://127.0.0.1:9000/", "http://127.0.0.1:9000", "127.0.0.1:9000", "");
        check("http://app/api/v1/", "http://app/api/v1/", "app", "/api/v1");
        check("https://[::1]:8443/x", "https://[::1]:8443/x", "[::1]:8443", "/x");
        check("h2c://app:50051", "h2c://app:50051", "app:50051", "");
        let address: UpstreamAddress = "https://[::1]".parse().expect("an address");
        let destination = Destination::Tcp { host: "::1".into(), port: 443, is_tls: true };
        assert_eq!(address.destination, destination);
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_is_named_by_its_path_and_may_have_a_path_of_its_own() {
        check("unix:/run/app.sock", "unix:/run/app.sock", "localhost", "");
        check("unix:/run/app.sock:/api/", "unix:/run/app.sock:/api/", "localhost", "/api");
        check("h2c+unix:/run/a", "h2c+unix:/run/a", "localhost", "");
    }

    #[test]
    fn invalid_addresses_are_refused_and_passwords_are_not_repeated() {
        for bad in [
            "",
            "127.0.0.1:9000",
            "localhost",
            "/api",
            "ftp://a",
            "http://",
            "http:///x",
            "http://:9000",
            "http://a:",
            "http://a:0",
            "http://a:99999",
            "http://a:x",
            "http://a b",
            "http://a/b c",
            "http://a/../b",
            "http://a/?q",
            "http://a/#f",
            "http://a\n/",
            "unix:app.sock",
            "unix:",
            "unix:/run/app.sock:api",
            "unix:/a\0b",
        ] {
            assert!(bad.parse::<UpstreamAddress>().is_err(), "{bad:?} was taken");
        }
        let error = "http://u:secret@a".parse::<UpstreamAddress>().expect_err("a user");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
