//! Socket to an upstream that counts written bytes, and is checked before each request is written.

use socket2::SockRef;
use std::{
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

#[derive(Debug, Default)]
pub(in crate::agent::forward) struct Exchange {
    /// Bytes accepted by the operating system.
    written: AtomicU64,
    /// True if the next write starts a request.
    is_first: AtomicBool,
}

impl Exchange {
    /// Checks the socket before the next write, which fails after a close or unexpected bytes.
    pub(super) fn look_first(&self) {
        self.is_first.store(true, Ordering::Release);
    }

    pub(super) fn count(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Release);
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }
}

/// Checks a socket without waiting.
pub(super) trait Look {
    /// Returns `true` if there is nothing to read: neither an end, nor a reset, nor a byte. Asks
    /// the operating system, because the runtime learns of events later.
    fn is_silent(&self) -> bool;
}

impl Look for TcpStream {
    fn is_silent(&self) -> bool {
        is_silent(&SockRef::from(self))
    }
}

#[cfg(unix)]
impl Look for UnixStream {
    fn is_silent(&self) -> bool {
        is_silent(&SockRef::from(self))
    }
}

fn is_silent(socket: &SockRef<'_>) -> bool {
    let peeked = socket.peek(&mut [MaybeUninit::uninit()]);
    matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// The socket, below TLS if used.
pub(super) struct WatchedSocket<S> {
    stream: S,
    exchange: Arc<Exchange>,
    /// A byte of the request was written.
    has_begun: bool,
    /// The upstream takes no more of the request. Its response may be here all the same.
    takes_no_more: bool,
}

impl<S: Look> WatchedSocket<S> {
    pub(super) fn new(stream: S, exchange: Arc<Exchange>) -> Self {
        Self { stream, exchange, has_begun: false, takes_no_more: false }
    }

    fn look(&mut self) -> io::Result<()> {
        let is_first = self.exchange.is_first.swap(false, Ordering::AcqRel);
        self.has_begun &= !is_first;
        if is_first && !self.stream.is_silent() {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl<S> WatchedSocket<S> {
    /// Counts what was written of `bytes`. Servers that refuse a body close the connection behind
    /// their response, and a failed write must not hide that: it counts as written, and no other
    /// ends. The read has the response, or the error.
    fn count(&mut self, written: Poll<io::Result<usize>>, bytes: usize) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                self.has_begun |= *bytes > 0;
                self.exchange.count(*bytes as u64);
            }
            Poll::Ready(Err(fault)) if self.has_begun && is_closed(fault) => {
                self.takes_no_more = true;
                return Poll::Ready(Ok(bytes));
            }
            _ => {}
        }
        written
    }
}

fn is_closed(fault: &io::Error) -> bool {
    matches!(fault.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Look + Unpin> AsyncWrite for WatchedSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.look()?;
        if self.takes_no_more {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.count(written, data.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.look()?;
        if self.takes_no_more {
            return Poll::Pending;
        }
        let bytes = data.iter().map(|slice| slice.len()).sum();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.count(written, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    /// A watched connection and its other end.
    async fn pair() -> (WatchedSocket<TcpStream>, TcpStream, Arc<Exchange>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("bound");
        let (ours, theirs) = tokio::join!(TcpStream::connect(to), listener.accept());
        let exchange = Arc::<Exchange>::default();
        let watched = WatchedSocket::new(ours.expect("connected"), exchange.clone());
        (watched, theirs.expect("accepted").0, exchange)
    }

    #[tokio::test]
    async fn a_silent_connection_is_written_to_and_its_bytes_are_counted() {
        let (mut ours, mut theirs, exchange) = pair().await;
        exchange.look_first();
        ours.write_all(b"request").await.expect("written");
        assert_eq!(exchange.written(), 7);
        theirs.read_exact(&mut [0; 7]).await.expect("read");
    }

    #[tokio::test]
    async fn nothing_is_written_after_an_end_a_reset_or_an_unsolicited_byte() {
        for way in 0..3 {
            let (mut ours, mut theirs, exchange) = pair().await;
            match way {
                0 => drop(theirs),
                1 => {
                    theirs.set_zero_linger().expect("a socket");
                    drop(theirs);
                }
                _ => theirs.write_all(b"x").await.expect("written"),
            }
            // The system delivers on loopback before the call returns; the runtime has not been
            // notified yet.
            exchange.look_first();
            let error = ours.write(b"request").await.expect_err("it is not silent");
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
            assert_eq!(exchange.written(), 0);
        }
    }

    #[tokio::test]
    async fn an_early_response_is_read_though_the_request_is_not_taken_any_more() {
        let (mut ours, mut theirs, exchange) = pair().await;
        exchange.look_first();
        ours.write_all(b"head").await.expect("written");
        theirs.read_exact(&mut [0; 4]).await.expect("read");
        theirs.write_all(b"refused").await.expect("written");
        // Unread bytes make the close a reset.
        ours.write_all(b"body").await.expect("written");
        drop(theirs);
        while ours.write(b"more").await.is_ok() && !ours.takes_no_more {}
        assert!(ours.takes_no_more, "the write did not fail");
        let more = crate::lazy_timeout::poll_once(std::pin::pin!(ours.write(b"more"))).await;
        assert!(more.is_pending(), "hyper reads meanwhile");
    }

    #[tokio::test]
    async fn only_the_first_write_of_a_request_looks() {
        let (mut ours, mut theirs, exchange) = pair().await;
        exchange.look_first();
        ours.write_all(b"head").await.expect("written");
        // An answer that comes early does not end the request.
        theirs.write_all(b"early").await.expect("written");
        ours.write_all(b"body").await.expect("written");
        assert_eq!(exchange.written(), 8);
    }
}
