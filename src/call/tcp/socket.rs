//! OS socket that is reset on drop unless both directions have ended.

use crate::limits::{TCP_CHECK_EVERY, TCP_READ_BYTES_MAX, TCP_READ_BYTES_MIN};
use bytes::{BufMut, Bytes, BytesMut};
use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// Local TCP or Unix socket. Created with `From`.
///
/// Closed before both directions have ended, a TCP connection is reset, also when the process is
/// killed, so that its peer gets an error. Unix sockets have no reset: an abort looks like an end.
pub struct Socket {
    stream: SocketStream,
    /// Read buffer, allocated when there is something to read: an idle connection holds none.
    buffer: BytesMut,
    /// Timer of the next check for a reset; created by the first check.
    look: Option<Pin<Box<Sleep>>>,
}

enum SocketStream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        // Both fail only on a broken connection, which the first read reports.
        drop(stream.set_zero_linger());
        drop(stream.set_nodelay(true));
        Self { stream: SocketStream::Tcp(stream), buffer: BytesMut::new(), look: None }
    }
}

#[cfg(unix)]
impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { stream: SocketStream::Unix(stream), buffer: BytesMut::new(), look: None }
    }
}

impl Socket {
    /// Available bytes; empty after the last byte of the peer.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        ready!(match &self.stream {
            SocketStream::Tcp(stream) => stream.poll_read_ready(cx),
            #[cfg(unix)]
            SocketStream::Unix(stream) => stream.poll_read_ready(cx),
        })?;
        let buffer = &mut self.buffer;
        if buffer.capacity() < TCP_READ_BYTES_MIN {
            buffer.reserve(TCP_READ_BYTES_MAX);
        }
        let read = match &mut self.stream {
            SocketStream::Tcp(stream) => read_into(stream, cx, buffer),
            #[cfg(unix)]
            SocketStream::Unix(stream) => read_into(stream, cx, buffer),
        };
        ready!(read)?;
        Poll::Ready(Ok(buffer.split().freeze()))
    }

    /// Writes as much as the operating system accepts.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            SocketStream::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            #[cfg(unix)]
            SocketStream::Unix(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    /// Shuts down writing, and keeps the other direction open.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            SocketStream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            SocketStream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Ready when the peer has reset the connection, if no read or write would report it.
    pub(crate) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(TCP_CHECK_EVERY)));
        loop {
            ready!(look.as_mut().poll(cx));
            look.as_mut().reset(Instant::now() + TCP_CHECK_EVERY);
            let fault = match &self.stream {
                SocketStream::Tcp(stream) => stream.take_error(),
                #[cfg(unix)]
                SocketStream::Unix(stream) => stream.take_error(),
            };
            if let Ok(Some(error)) | Err(error) = fault {
                return Poll::Ready(error);
            }
        }
    }

    /// Both directions have ended: what was written is still delivered, and nothing is reset.
    pub(crate) fn end_well(self) {
        if let SocketStream::Tcp(stream) = &self.stream {
            #[expect(
                deprecated,
                reason = "what blocks the thread is a time to linger, and this takes it away"
            )]
            drop(stream.set_linger(None));
        }
    }
}

fn read_into(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    // There may be more room than was asked for.
    tokio_util::io::poll_read_buf(Pin::new(stream), cx, &mut buffer.limit(TCP_READ_BYTES_MAX))
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stream {
            SocketStream::Tcp(stream) => stream.fmt(f),
            #[cfg(unix)]
            SocketStream::Unix(stream) => stream.fmt(f),
        }
    }
}
