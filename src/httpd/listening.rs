//! Sockets on which the HTTP server accepts clients: TCP ports and Unix sockets.

use crate::{limits::HTTP_UNSENT_BYTES_MAX, system};
use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// A socket that accepts clients.
pub(crate) trait Listening: Send + Sync + 'static {
    type Stream: ClientSocket;

    /// The next connection and its address.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

/// A connection of a client.
pub(crate) trait ClientSocket: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Sets what HTTP needs of it.
    fn prepare(&self);

    /// The local address to which the client is connected.
    fn local(&self) -> Option<IpAddr>;

    /// Has its end be a reset, if it can be.
    fn reset_on_close(&self);
}

impl Listening for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }
}

impl ClientSocket for TcpStream {
    fn prepare(&self) {
        drop(self.set_nodelay(true));
        // Stalled writes then show a client that reads nothing, and a slow reader is not taken for
        // one.
        system::limit_unsent(self, HTTP_UNSENT_BYTES_MAX);
    }

    fn local(&self) -> Option<IpAddr> {
        self.local_addr().ok().map(|local| local.ip())
    }

    fn reset_on_close(&self) {
        system::reset_on_close(self);
    }
}

/// Clients of a Unix socket are on this machine, and have no address: they are given that of
/// loopback.
#[cfg(all(unix, feature = "admin"))]
mod unix {
    use super::{ClientSocket, IpAddr, Listening, SocketAddr, io};
    use std::net::Ipv4Addr;
    use tokio::net::{UnixListener, UnixStream};

    impl Listening for UnixListener {
        type Stream = UnixStream;

        async fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
            let (stream, _) = Self::accept(self).await?;
            Ok((stream, (Ipv4Addr::LOCALHOST, 0).into()))
        }
    }

    impl ClientSocket for UnixStream {
        fn prepare(&self) {}

        fn local(&self) -> Option<IpAddr> {
            None
        }

        fn reset_on_close(&self) {}
    }
}
