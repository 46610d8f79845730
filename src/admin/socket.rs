//! The bound socket of an admin listener.

use super::{error::AdminError, server::AdminServer};
use crate::{drain::Tasks, httpd, name::AdminAddress};
use std::{io, sync::Arc};
use tokio::net::TcpListener;

pub(super) struct AdminSocket {
    listener: Bound,
    address: AdminAddress,
}

enum Bound {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, SocketFile),
}

/// The file of a Unix socket. Dropping it removes the file.
#[cfg(unix)]
struct SocketFile(std::path::PathBuf);

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

impl AdminSocket {
    pub(super) async fn bind(address: &AdminAddress) -> Result<Self, AdminError> {
        let bound = match address {
            AdminAddress::Tcp(at) => TcpListener::bind(at).await.and_then(|listener| {
                let address = AdminAddress::Tcp(listener.local_addr()?);
                Ok(Self { listener: Bound::Tcp(listener), address })
            }),
            #[cfg(unix)]
            AdminAddress::Unix(path) => bind_unix(path).await.map(|listener| {
                let listener = Bound::Unix(listener, SocketFile(path.clone()));
                Self { listener, address: address.clone() }
            }),
            #[cfg(not(unix))]
            AdminAddress::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        bound.map_err(|source| AdminError::Socket { address: address.clone(), source })
    }

    /// The address, with the actual port.
    pub(super) const fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Accepts until it is dropped.
    pub(super) async fn serve(self, server: Arc<AdminServer>, tasks: Tasks) {
        match self.listener {
            Bound::Tcp(listener) => httpd::serve(listener, server, tasks).await,
            #[cfg(unix)]
            Bound::Unix(listener, _file) => httpd::serve(listener, server, tasks).await,
        }
    }
}

/// Binds a Unix socket for owner and group, in place of one that nobody listens on any more.
#[cfg(unix)]
async fn bind_unix(path: &std::path::Path) -> io::Result<tokio::net::UnixListener> {
    use std::{fs, os::unix::fs::PermissionsExt};
    use tokio::net::{UnixListener, UnixStream};
    let listener = match UnixListener::bind(path) {
        Err(fault) if fault.kind() == io::ErrorKind::AddrInUse => {
            let answer = UnixStream::connect(path).await;
            if answer.is_err_and(|fault| fault.kind() == io::ErrorKind::ConnectionRefused) {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            } else {
                return Err(fault);
            }
        }
        bound => bound?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}
