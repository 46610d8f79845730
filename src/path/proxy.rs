//! HTTP proxies in front of the network: CONNECT (RFC 9110 section 9.3.6).

use super::{
    fault::TunnelFault,
    proxy_password::{ProxyPasswordError, read_password},
    url::host_and_port,
};
use crate::printable::printable;
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{fmt, io, path::Path, str::FromStr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of the largest head of a proxy's answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// An HTTP proxy that connects to other hosts. `Debug` and errors do not show its password.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpProxy {
    host: String,
    port: u16,
    user: Option<String>,
    password: String,
}

/// A text that is not the URL of an HTTP proxy. It may have a password, so it is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the proxy is not written as \"http://[USER@]HOST:PORT\"; other kinds of proxies are not supported"
)]
pub struct HttpProxyError;

impl HttpProxy {
    /// Sets the password of Basic authentication.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<String>) -> Self {
        self.password = password.into();
        self
    }

    /// Sets the password from a file, without the line ends after it.
    ///
    /// # Errors
    /// The proxy has no user; the file is missing, unreadable, exposed to other users, or larger
    /// than 4 KiB.
    pub fn with_password_file(self, path: impl AsRef<Path>) -> Result<Self, ProxyPasswordError> {
        if self.user.is_none() {
            return Err(ProxyPasswordError::NoUser { path: path.as_ref().into() });
        }
        Ok(self.with_password(read_password(path.as_ref())?))
    }

    /// The URL, with a text in place of the password that it has.
    #[cfg(feature = "config")]
    pub(crate) fn url(&self, mask: Option<&str>) -> String {
        let Self { host, port, user, password } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let encoded = |text: &str| text.bytes().map(encode_byte).collect::<String>();
        let password = match mask {
            _ if password.is_empty() => String::new(),
            Some(mask) => format!(":{mask}"),
            None => format!(":{}", encoded(password)),
        };
        let user = user.as_ref().map(|user| format!("{}{password}@", encoded(user)));
        format!("http://{}{host}:{port}", user.unwrap_or_default())
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Asks the proxy for a connection to `to`, a host with its port.
    pub(super) async fn connect<S>(&self, stream: &mut S, to: &str) -> Result<(), TunnelFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let broken = |error: &io::Error| TunnelFault::tcp(self.to_string(), error, true);
        let request = self.request(to);
        stream.write_all(request.as_bytes()).await.map_err(|error| broken(&error))?;
        let status = status_line(stream).await.map_err(|error| broken(&error))?;
        match status.split(' ').nth(1) {
            Some(code) if code.len() == 3 && code.starts_with('2') => Ok(()),
            Some(code @ ("401" | "407")) => Err(TunnelFault::ProxyAuthentication {
                proxy: self.to_string(),
                has_sent: self.user.is_some(),
                status: if code == "407" { 407 } else { 401 },
            }),
            _ => Err(TunnelFault::ProxyRefused {
                proxy: self.to_string(),
                to: to.into(),
                status: printable(&status),
            }),
        }
    }

    fn request(&self, to: &str) -> String {
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(user) = &self.user {
            let credentials = BASE64_STANDARD.encode(format!("{user}:{}", self.password));
            request += &format!("Proxy-Authorization: Basic {credentials}\r\n");
        }
        request + "\r\n"
    }
}

/// Reads the head of an answer, and returns its first line. Nothing follows it: the dialling side
/// of TLS speaks first.
async fn status_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX {
            return Err(io::Error::other("its answer does not end"));
        }
        head.push(stream.read_u8().await?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

impl FromStr for HttpProxy {
    type Err = HttpProxyError;

    fn from_str(text: &str) -> Result<Self, HttpProxyError> {
        let rest = text.strip_prefix("http://").ok_or(HttpProxyError)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials), authority),
            None => (None, rest),
        };
        let (host, port) = host_and_port(authority, 80).ok_or(HttpProxyError)?;
        let (user, password) =
            match credentials.map(|text| text.split_once(':').unwrap_or((text, ""))) {
                Some((user, password)) => (Some(decoded(user)?), decoded(password)?),
                None => (None, String::new()),
            };
        Ok(Self { host, port, user, password })
    }
}

/// A byte of user information as a URL has it (RFC 3986 sections 2.1 and 2.3).
#[cfg(feature = "config")]
fn encode_byte(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}

/// Decodes `%XX` in the user information of a URL (RFC 3986 section 3.2.1).
fn decoded(text: &str) -> Result<String, HttpProxyError> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let hex = part.get(..2).ok_or(HttpProxyError)?;
        bytes.push(u8::from_str_radix(hex, 16).map_err(|_| HttpProxyError)?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| HttpProxyError)
}

impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProxy").field("at", &self.to_string()).finish_non_exhaustive()
    }
}

/// Returns true if `NO_PROXY` names this host: itself, a domain above it, or `*`.
pub(super) fn is_excluded(no_proxy: &str, host: &str) -> bool {
    no_proxy.split(',').map(str::trim).any(|entry| {
        let domain = entry.trim_start_matches('.');
        let is_below = || {
            let rest = host.len().checked_sub(domain.len()).filter(|rest| *rest > 0);
            rest.is_some_and(|rest| {
                host.is_char_boundary(rest)
                    && host[..rest].ends_with('.')
                    && host[rest..].eq_ignore_ascii_case(domain)
            })
        };
        entry == "*" || !domain.is_empty() && (host.eq_ignore_ascii_case(domain) || is_below())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(text: &str) -> HttpProxy {
        text.parse().expect(text)
    }

    #[test]
    fn a_proxy_has_a_host_a_port_and_maybe_a_user() {
        let plain = proxy("http://proxy.corp:3128");
        assert_eq!((plain.host(), plain.port(), &plain.user), ("proxy.corp", 3128, &None));
        let whole = proxy("http://jo%40corp:p%3Aw@10.0.0.1/");
        assert_eq!(
            (whole.port(), whole.user.as_deref(), &*whole.password),
            (80, Some("jo@corp"), "p:w")
        );
        assert!(!format!("{whole:?} {whole}").contains("p:w"), "{whole:?}");
        for text in
            ["proxy:3128", "https://proxy:3128", "socks5://p:1", "http://", "http://u:%zz@p:1"]
        {
            let error = text.parse::<HttpProxy>().expect_err(text).to_string();
            assert!(error.contains("http://[USER@]HOST:PORT"), "{error}");
        }
    }

    /// Returns the request that a proxy with this answer got, and the result.
    async fn asked(proxy: HttpProxy, answer: &str) -> (String, Result<(), TunnelFault>) {
        let (mut near, mut far) = tokio::io::duplex(4_096);
        far.write_all(answer.as_bytes()).await.expect("room");
        far.shutdown().await.expect("the end");
        let result = proxy.connect(&mut near, "edge-1:443").await;
        drop(near);
        let mut request = String::new();
        far.read_to_string(&mut request).await.expect("a request");
        (request, result)
    }

    #[tokio::test]
    async fn credentials_are_sent_only_where_they_are_set() {
        let answer = "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n";
        let (request, result) = asked(proxy("http://p:1"), answer).await;
        assert_eq!(request, "CONNECT edge-1:443 HTTP/1.1\r\nHost: edge-1:443\r\n\r\n");
        assert!(result.is_ok(), "{result:?}");
        let (request, _) = asked(proxy("http://jo@p:1").with_password("pw"), answer).await;
        assert!(request.contains("\r\nProxy-Authorization: Basic am86cHc=\r\n"), "{request}");
    }

    #[tokio::test]
    async fn refusals_are_told_apart_and_show_no_password() {
        let with_user = || proxy("http://jo:secret@p:1");
        for (proxy, answer, expected) in [
            (proxy("http://p:1"), "HTTP/1.1 407 Auth\r\n\r\n", "set proxy ="),
            (with_user(), "HTTP/1.1 407 Auth\r\n\r\n", "are wrong"),
            (with_user(), "HTTP/1.0 401 Unauthorized\r\n\r\n", "password (401): those"),
            (with_user(), "HTTP/1.0 403 Filtered\r\n\r\n", "403 Filtered; ask its administrator"),
            (with_user(), "SSH-2.0-x\r\n\r\n", "SSH-2.0-x"),
            (with_user(), "", "no answer of p:1 over TCP"),
        ] {
            let error = asked(proxy, answer).await.1.expect_err(answer);
            let text = error.to_string();
            assert!(text.contains(expected) && !text.contains("secret"), "{text}");
            assert_eq!(error.is_refusal(), answer.contains("40") && !answer.contains("403"));
        }
        let endless = asked(with_user(), &"x".repeat(4_096)).await.1;
        assert!(endless.is_err());
    }

    #[test]
    fn no_proxy_names_hosts_and_domains() {
        for (list, host, expected) in [
            ("edge.example.com", "edge.example.com", true),
            ("localhost, .example.com", "edge.EXAMPLE.com", true),
            ("example.com", "edge.example.com", true),
            ("*", "edge", true),
            ("ample.com", "example.com", false),
            ("", "edge", false),
            (".", "edge", false),
        ] {
            assert_eq!(is_excluded(list, host), expected, "{list} {host}");
        }
    }
}
