//! Address of an admin listener: a TCP port or a Unix socket.

use super::NameError;
use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// Address of an admin listener: `127.0.0.1:9433`, or `unix:/run/dialback/admin.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket, which its owner and group may use.
    Unix(PathBuf),
}

impl AdminAddress {
    /// True for addresses that other machines cannot reach.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for AdminAddress {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("unix:") {
            None => text.parse().map(Self::Tcp).map_err(|_| NameError::of_listen(text)),
            Some(path) if cfg!(unix) && path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(NameError::new(
                "listen",
                text,
                "is not an absolute path; write unix:/run/dialback/admin.sock",
            )),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_or_an_absolute_path() {
        for good in ["127.0.0.1:9433", "[::1]:0", "unix:/run/dialback/admin.sock"] {
            let address: AdminAddress = good.parse().expect("an address");
            assert_eq!((address.to_string().as_str(), address.is_local()), (good, true));
        }
        for bad in ["localhost:9433", "9433", "unix:admin.sock", "unix:", "/run/admin.sock"] {
            assert!(bad.parse::<AdminAddress>().is_err(), "{bad}");
        }
    }
}
