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

/// The file of a Unix socket. Dropping it removes the file, unless another one has its place.
#[cfg(unix)]
struct SocketFile {
    path: std::path::PathBuf,
    /// Device and number of the file.
    id: Option<[u64; 2]>,
}

#[cfg(unix)]
impl SocketFile {
    fn of(path: &std::path::Path) -> Self {
        Self { path: path.to_owned(), id: socket_id(path) }
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && socket_id(&self.path) == self.id {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Device and number of a socket's file; `None` if there is none, or something else.
#[cfg(unix)]
fn socket_id(path: &std::path::Path) -> Option<[u64; 2]> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let found = std::fs::symlink_metadata(path).ok()?;
    found.file_type().is_socket().then(|| [found.dev(), found.ino()])
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
                let listener = Bound::Unix(listener, SocketFile::of(path));
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
            // Connecting to other kinds of files is refused too.
            if socket_id(path).is_none() {
                let text = "the file is there and not a socket; remove it, or choose another path";
                return Err(io::Error::other(text));
            }
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_its_own_socket_and_one_that_nobody_listens_on_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.sock");
        let address = AdminAddress::Unix(path.clone());
        std::fs::write(&path, "data").expect("written");
        assert!(AdminSocket::bind(&address).await.is_err(), "a file was taken for a socket");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "data");
        std::fs::remove_file(&path).expect("removed");
        let first = AdminSocket::bind(&address).await.expect("a socket");
        assert!(AdminSocket::bind(&address).await.is_err(), "it is in use");
        std::fs::remove_file(&path).expect("removed");
        let second = AdminSocket::bind(&address).await.expect("a socket");
        drop(first);
        assert!(path.exists(), "it is that of the second");
        drop(second);
        assert!(!path.exists());
    }
}
