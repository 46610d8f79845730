//! Address of the upstream of a forward: a host and a port, or a Unix socket.

use crate::{
    call::Socket,
    name::{NameError, NodeAddress},
    race,
    trace::Span,
};
use std::{fmt, io, path::PathBuf, str::FromStr};

/// The address of something that an agent forwards to: `127.0.0.1:5432`, `db.internal:5432`,
/// `[::1]:5432`, `unix:/run/db.sock`.
///
/// A host's name is looked up for each connection, and its addresses are raced (RFC 8305): a silent
/// one delays the next by 250 ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream(Address);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Tcp(NodeAddress),
    Unix(PathBuf),
}

impl Upstream {
    /// Adds the address to the span of a connection.
    pub(super) fn describe(&self, span: &mut Span) {
        match &self.0 {
            Address::Tcp(address) => {
                span.text("server.address", address.host());
                span.number("server.port", address.port());
                span.text("network.transport", "tcp");
            }
            Address::Unix(path) => {
                span.text("server.address", path.display());
                span.text("network.transport", "unix");
            }
        }
    }

    pub(super) async fn connect(&self) -> io::Result<Socket> {
        match &self.0 {
            Address::Tcp(address) => {
                Ok(race::connect_tcp(address.host(), address.port()).await?.into())
            }
            #[cfg(unix)]
            Address::Unix(path) => Ok(tokio::net::UnixStream::connect(path).await?.into()),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl FromStr for Upstream {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fault = |why| {
            let port = text.trim_start_matches(':');
            let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let local = is_port.then(|| format!("127.0.0.1:{port}"));
            let bare =
                text.split_once("://").map(|(_, rest)| rest.trim_end_matches('/').to_owned());
            NameError::new("upstream", text, why)
                .or_write::<Self>(text, bare.into_iter().chain(local))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                _ if !cfg!(unix) => Err(fault("is a Unix socket, which this system does not have")),
                _ if path.contains('\0') => Err(fault("has a zero byte, which no path has")),
                _ if path.starts_with('/') => Ok(Self(Address::Unix(path.into()))),
                _ => Err(fault("has no absolute path; write unix:/run/db.sock")),
            };
        }
        // No address has the port 0, so it marks a missing port.
        let address = NodeAddress::parse_with_port(text, 0).map_err(|error| fault(error.why()))?;
        if address.port() == 0 {
            return Err(fault("names no port; write HOST:PORT, as 127.0.0.1:5432, or unix:/PATH"));
        }
        Ok(Self(Address::Tcp(address)))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_host_with_its_port_or_an_absolute_path() {
        for good in ["127.0.0.1:5432", "db.internal:1", "[::1]:5432"] {
            let upstream: Upstream = good.parse().expect("an upstream");
            assert_eq!(upstream.to_string(), good);
        }
        let socket = "unix:/run/db.sock".parse::<Upstream>();
        assert_eq!(socket.is_ok(), cfg!(unix));
        for bad in [
            "",
            "127.0.0.1",
            "5432",
            ":5432",
            "db:0",
            "db:65536",
            "::1:5432",
            "tcp://db:1",
            "unix:db.sock",
            "unix:",
            "unix:/a\0b",
        ] {
            let refused = bad.parse::<Upstream>();
            assert!(refused.is_err(), "{bad:?} was taken for an upstream");
        }
        for (bad, right) in [
            ("5432", Some("127.0.0.1:5432")),
            (":5432", Some("127.0.0.1:5432")),
            ("tcp://db:1", Some("db:1")),
            ("db", None),
            ("unix:db.sock", None),
        ] {
            let text = bad.parse::<Upstream>().expect_err(bad).to_string();
            let spelling = text.rsplit_once("; write ").map(|(_, right)| right);
            assert!(right.is_none_or(|right| spelling == Some(right)), "{text}");
        }
    }
}
