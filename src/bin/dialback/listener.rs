//! A local port: TCP, or a Unix socket.

use crate::exit::Failure;
use dialback::{Socket, config::parse_listen};
use std::{fmt, io, net::SocketAddr, path::PathBuf};
use tokio::net::TcpListener;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Peer address as the end of a sentence: ` from 127.0.0.1:40000`, or nothing for a Unix socket.
pub(crate) struct From(Option<SocketAddr>);

impl From {
    /// The address as a field of a log line.
    pub(crate) fn address(&self) -> Option<impl tracing::Value> {
        self.0.map(tracing::field::display)
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| write!(f, " from {address}"))
    }
}

/// Remedy for too many open files (EMFILE, ENFILE); empty for other errors.
pub(crate) fn files_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(24) if cfg!(unix) => {
            "; too many open files in this process: raise the limit (ulimit -n, LimitNOFILE in systemd)"
        }
        Some(23) if cfg!(unix) => "; too many open files on this machine: raise fs.file-max",
        _ => "",
    }
}

enum ListenSocket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

/// A local port. Dropping it closes it, and removes a Unix socket's file.
pub(crate) struct Listener {
    socket: ListenSocket,
    /// Its address, with the port that the system chose.
    pub(crate) address: Listen,
}

impl Listener {
    pub(crate) async fn bind(listen: &Listen) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let hint = match (listen, error.kind()) {
                (Listen::Tcp(_), io::ErrorKind::AddrInUse) => {
                    "; address in use by another process: choose another port with --listen"
                }
                (Listen::Tcp(_), io::ErrorKind::AddrNotAvailable) => {
                    "; no interface of this machine has this address"
                }
                (Listen::Tcp(_), io::ErrorKind::PermissionDenied) => {
                    "; ports below 1024 require a privilege (CAP_NET_BIND_SERVICE)"
                }
                (Listen::Unix(_), io::ErrorKind::AddrInUse) => {
                    "; remove the file if no process uses it"
                }
                _ => files_hint(&error),
            };
            Failure::Runtime(vec![format!("cannot listen on {listen}: {error}{hint}")])
        };
        let (socket, address) = match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = Listen::Tcp(listener.local_addr().map_err(failed)?);
                (ListenSocket::Tcp(listener), address)
            }
            #[cfg(unix)]
            Listen::Unix(path) => {
                let listener = tokio::net::UnixListener::bind(path).map_err(failed)?;
                (ListenSocket::Unix(listener), listen.clone())
            }
            #[cfg(not(unix))]
            Listen::Unix(_) => return Err(failed(io::ErrorKind::Unsupported.into())),
        };
        Ok(Self { socket, address })
    }

    pub(crate) async fn accept(&self) -> io::Result<(Socket, From)> {
        match &self.socket {
            ListenSocket::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((stream.into(), From(Some(from))))
            }
            #[cfg(unix)]
            ListenSocket::Unix(listener) => Ok((listener.accept().await?.0.into(), From(None))),
        }
    }

    /// Returns `true` if other machines can connect to it.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.address, Listen::Tcp(address) if !address.ip().is_loopback())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listen::Unix(path) = &self.address {
            drop(std::fs::remove_file(path));
        }
    }
}

pub(crate) fn parse_listen_or_path(text: &str) -> Result<Listen, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("path missing; write unix:/run/db.sock".into()),
        Some(path) => Ok(Listen::Unix(path.into())),
        None => parse_listen(text).map(Listen::Tcp).map_err(|why| why.to_string()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn too_many_open_files_come_with_what_to_raise_and_other_errors_do_not() {
        assert!(files_hint(&io::Error::from_raw_os_error(24)).contains("LimitNOFILE"));
        assert!(files_hint(&io::Error::from_raw_os_error(23)).contains("fs.file-max"));
        assert_eq!(files_hint(&io::ErrorKind::AddrInUse.into()), "");
    }
}
