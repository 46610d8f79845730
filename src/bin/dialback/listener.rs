//! A local port: TCP, or a Unix socket.

use crate::{args::Listen, exit::Failure};
use dialback::Socket;
use std::{fmt, io, net::SocketAddr};
use tokio::net::TcpListener;

/// Who connected, as the end of a sentence: ` from 127.0.0.1:40000`, or nothing for a Unix socket.
pub(crate) struct From(Option<SocketAddr>);

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| write!(f, " from {address}"))
    }
}

/// A local port. Dropping it closes it, and removes a Unix socket's file.
pub(crate) enum Listener {
    Tcp(TcpListener, SocketAddr),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, std::path::PathBuf),
}

impl Listener {
    /// Takes the port.
    pub(crate) async fn bind(listen: &Listen) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "; another process listens there, choose another port with --listen"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "; no interface of this machine has that address"
                }
                io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
                _ => "",
            };
            Failure::Runtime(vec![format!("cannot listen on {listen}: {error}{hint}")])
        };
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Ok(Self::Tcp(listener, address))
            }
            #[cfg(unix)]
            Listen::Unix(path) => {
                let listener = tokio::net::UnixListener::bind(path).map_err(|error| {
                    let hint = match error.kind() {
                        io::ErrorKind::AddrInUse => "; remove the file if no process uses it",
                        _ => "",
                    };
                    Failure::Runtime(vec![format!("cannot listen on {listen}: {error}{hint}")])
                })?;
                Ok(Self::Unix(listener, path.clone()))
            }
            #[cfg(not(unix))]
            Listen::Unix(_) => Err(failed(io::ErrorKind::Unsupported.into())),
        }
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, From)> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, from) = listener.accept().await?;
                Ok((stream.into(), From(Some(from))))
            }
            #[cfg(unix)]
            Self::Unix(listener, _) => Ok((listener.accept().await?.0.into(), From(None))),
        }
    }

    /// Whether others than this machine reach it.
    pub(crate) fn is_open_to_strangers(&self) -> bool {
        match self {
            Self::Tcp(_, address) => !address.ip().is_loopback(),
            #[cfg(unix)]
            Self::Unix(..) => false,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => address.fmt(f),
            #[cfg(unix)]
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Self::Unix(_, path) = self {
            drop(std::fs::remove_file(path));
        }
    }
}
