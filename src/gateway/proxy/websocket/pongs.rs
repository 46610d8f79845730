//! Takes out the pongs of a client to pings of the gateway.

use super::{
    PING_BYTES,
    frames::{WebSocketFrames, WebSocketSide},
};
use bytes::Bytes;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, ReadBuf};

/// Reads the frames of a client without its pongs to pings of the gateway.
pub(in super::super) struct WithoutPongs<R> {
    read: R,
    /// None if the connection is not a WebSocket.
    frames: Option<WebSocketFrames>,
    /// Passed on, and not read yet.
    rest: Bytes,
}

impl<R> WithoutPongs<R> {
    pub(in super::super) fn new(read: R, is_websocket: bool) -> Self {
        let frames = is_websocket.then(|| WebSocketFrames::new(WebSocketSide::Client, PING_BYTES));
        Self { read, frames, rest: Bytes::new() }
    }

    pub(in super::super) fn into_inner(self) -> R {
        self.read
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for WithoutPongs<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { read, frames, rest } = &mut *self;
        let Some(frames) = frames else { return Pin::new(read).poll_read(cx, buffer) };
        let before = buffer.filled().len();
        while rest.is_empty() {
            ready!(Pin::new(&mut *read).poll_read(cx, buffer))?;
            let came = Bytes::copy_from_slice(&buffer.filled()[before..]);
            buffer.set_filled(before);
            if came.is_empty() {
                *rest = frames.rest();
                break;
            }
            *rest = frames.pass(came);
        }
        buffer.put_slice(&rest.split_to(rest.len().min(buffer.remaining())));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn reads_everything_but_the_pongs_to_own_pings() {
        let pong = b"\x8a\x88\0\0\0\0dialback";
        let text = b"\x81\x85\0\0\0\0hello";
        // The last frame is not whole.
        let all = [pong, &text[..], pong, text, &text[..3]].concat();
        for size in 1..all.len() {
            let (mut client, near) = duplex(size);
            let (mut read, mut without) = (Vec::new(), WithoutPongs::new(near, true));
            let sent = async {
                client.write_all(&all).await.expect("written");
                drop(client);
            };
            let (_, all_read) = tokio::join!(sent, without.read_to_end(&mut read));
            all_read.expect("read");
            assert_eq!(read, [&text[..], text, &text[..3]].concat(), "{size}");
        }
    }
}
