//! I/O wrapper that closes a connection whose writes stall.

use super::{
    answers::UpgradedIo,
    frames::{Allowance, Frames},
    head::{Found, Heads},
    watched::Activity,
};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// First bytes of cleartext HTTP/2. No HTTP/1 method in use starts with them.
const HTTP_2_BEGINS: &[u8] = b"PRI ";

pub(super) struct Guarded<S> {
    stream: S,
    /// Lets the stream end with an error of the client.
    reset: fn(&S),
    is_reset: bool,
    /// Bytes read to detect the protocol.
    first: Vec<u8>,
    heads: Option<Heads>,
    frames: Option<Frames>,
    is_flooded: bool,
    /// The last write went whole, so that a frame can follow it.
    is_between_writes: bool,
    /// Says how long a write may make no progress; `None`: for ever.
    activity: Option<Arc<Activity>>,
    stalled: Option<Stalled>,
    /// The client sends no more.
    is_ended: bool,
}

/// Reads as much as shows whether it is HTTP/2. `None` if nothing comes in time, or nothing more.
pub(super) async fn first_bytes<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    wait_max: Duration,
) -> Option<(Guarded<S>, bool)> {
    let mut first = Vec::with_capacity(HTTP_2_BEGINS.len());
    let read = async {
        while HTTP_2_BEGINS.starts_with(&first) && first.len() < HTTP_2_BEGINS.len() {
            let mut left = (&mut stream).take((HTTP_2_BEGINS.len() - first.len()) as u64);
            if left.read_buf(&mut first).await.ok()? == 0 {
                return None;
            }
        }
        Some(())
    };
    tokio::time::timeout(wait_max, read).await.ok()??;
    let is_h2 = first == HTTP_2_BEGINS;
    Some((Guarded::new(stream, first), is_h2))
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, first: Vec<u8>) -> Self {
        Self {
            stream,
            reset: |_| (),
            is_reset: false,
            first,
            heads: None,
            frames: None,
            is_flooded: false,
            is_between_writes: true,
            activity: None,
            stalled: None,
            is_ended: false,
        }
    }

    pub(super) fn look_at_heads(&mut self) -> Found {
        self.heads.insert(Heads::default()).found()
    }

    /// The bytes that come from now on are no longer HTTP, and no limit of it applies to them.
    pub(super) fn leave_http(&mut self) {
        self.heads = None;
        self.activity = None;
    }

    /// Resets the stream by this when it is dropped before a response whose end is its own.
    pub(super) fn reset_by(&mut self, reset: fn(&S)) {
        self.reset = reset;
    }

    /// Ends writes from now on that stall for longer than the responses may.
    pub(super) fn limit_stalls(&mut self, activity: Arc<Activity>) {
        self.activity = Some(activity);
    }

    /// Starts to count HTTP/2 frames. Reading ends at the limit.
    pub(super) fn count_frames(&mut self, allowance: Arc<Allowance>) {
        self.frames = Some(Frames::new(allowance));
    }

    pub(super) const fn is_flooded(&self) -> bool {
        self.is_flooded
    }

    pub(super) const fn is_between_writes(&self) -> bool {
        self.is_between_writes
    }

    /// The inner stream, unless the client has ended its direction.
    pub(super) const fn unended(&mut self) -> Option<&mut S> {
        if self.is_ended { None } else { Some(&mut self.stream) }
    }

    /// Notes whether a write has moved, and ends one that has not for too long.
    fn moved<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(activity) = &self.activity else { return written };
        if written.is_ready() {
            if self.stalled.take().is_some() {
                activity.set_write_stalled(false);
            }
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| {
            activity.set_write_stalled(true);
            Stalled::new(activity.stall_max())
        });
        ready!(stalled.poll(|| activity.stall_max(), cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> UpgradedIo for Guarded<S> {
    fn reset_on_drop(&mut self, is_reset: bool) {
        self.is_reset = is_reset;
    }
}

impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        let is_truncated = self.activity.as_ref().is_some_and(|activity| activity.is_truncated());
        if is_truncated || self.is_reset {
            (self.reset)(&self.stream);
        }
    }
}

/// A write that makes no progress.
struct Stalled {
    since: Instant,
    until: Pin<Box<Sleep>>,
}

impl Stalled {
    fn new(stall_max: Duration) -> Self {
        let since = Instant::now();
        Self { since, until: Box::pin(tokio::time::sleep_until(since + stall_max)) }
    }

    /// Ready when it has lasted too long. A response may have begun meanwhile that may last longer.
    fn poll(&mut self, stall_max: impl Fn() -> Duration, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.until.as_mut().poll(cx));
            let until = self.since + stall_max();
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            self.until.as_mut().reset(until);
        }
    }
}

const fn is_complete(written: &Poll<io::Result<usize>>, bytes: usize) -> bool {
    matches!(written, Poll::Ready(Ok(written)) if *written == bytes)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.first.is_empty() {
            let room = buffer.remaining();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            self.is_ended |= room > 0 && buffer.filled().len() == before;
        } else {
            let step = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..step]);
            self.first.drain(..step);
        }
        if let Some(heads) = &mut self.heads {
            heads.look(&buffer.filled()[before..]);
        }
        if let Some(frames) = &mut self.frames
            && !frames.look(&buffer.filled()[before..])
        {
            self.is_flooded = true;
            let text = "it sends frames without end that carry no request forward";
            return Poll::Ready(Err(io::Error::other(text)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.is_between_writes = is_complete(&written, bytes.len());
        self.moved(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.moved(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.moved(cx, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.is_between_writes =
            is_complete(&written, slices.iter().map(|slice| slice.len()).sum());
        self.moved(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HTTP_STEP;
    use tokio::io::{AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn reader_stalled_for_ten_seconds_is_disconnected_and_a_slow_one_is_not() {
        let (near, mut far) = duplex(16);
        let mut guarded = Guarded::new(near, Vec::new());
        guarded.limit_stalls(Arc::new(Activity::new(Instant::now())));
        let slow = async {
            let mut taken = [0; 16];
            for _ in 0..3 {
                tokio::time::sleep(HTTP_STEP * 9 / 10).await;
                far.read_exact(&mut taken).await.expect("bytes");
            }
            far
        };
        let (written, _far) = tokio::join!(guarded.write_all(&[7; 64]), slow);
        written.expect("the slow one takes them all");
        let began = Instant::now();
        let fault = guarded.write_all(&[7; 64]).await.expect_err("nobody takes them");
        assert_eq!((fault.kind(), began.elapsed()), (io::ErrorKind::TimedOut, HTTP_STEP));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_select_the_protocol_and_are_read_again() {
        for (bytes, is_h2) in [("PRI * HTTP/2.0\r\n", true), ("PRIX", false), ("POST /", false)] {
            let (near, mut far) = duplex(64);
            far.write_all(bytes.as_bytes()).await.expect("room");
            drop(far);
            let wait_max = Duration::from_secs(5);
            let (mut guarded, found) = first_bytes(near, wait_max).await.expect("bytes");
            let mut all = String::new();
            guarded.read_to_string(&mut all).await.expect("all");
            assert_eq!((found, all.as_str()), (is_h2, bytes));
        }
        let (near, _far) = duplex(64);
        let began = Instant::now();
        assert!(first_bytes(near, Duration::from_secs(5)).await.is_none());
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }
}
