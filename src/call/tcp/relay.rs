//! Copies bytes between a socket and a forwarded connection, with half-close and reset.

use super::{
    ByteStream, EndMark, Socket, SocketWriter, broken,
    stream::{Gone, Outgoing},
};
use crate::status::{Code, Status};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
};

impl ByteStream {
    /// Relays it to a socket until both directions have ended; returns the bytes sent and received.
    ///
    /// A half-close is forwarded in either direction. Any other end of one side resets the other.
    /// Dropping the future resets both.
    ///
    /// # Errors
    /// The reason of the reset, with code and outcome: `ABORTED` for a reset of either connection.
    pub async fn relay(mut self, socket: impl Into<Socket>) -> Result<[u64; 2], Status> {
        let mut socket = socket.into();
        let mut failure = pin!(self.failure());
        let (outgoing, replies) = self.parts();
        let mut away = Away { outgoing, has_ended: false, bytes: 0 };
        let mut writer = Some(SocketWriter::new(EndMark::Empty));
        let mut bytes_in = 0;
        poll_fn(|cx| {
            if let Some(way) = &mut writer
                && let Poll::Ready(ended) = way.poll(cx, replies, &mut socket)
            {
                ended?;
                bytes_in = way.bytes();
                writer = None;
            }
            // Bytes received before the reset are still delivered, unless the socket refuses them.
            if let Some(way) = &writer
                && way.is_held_back()
                && let Poll::Ready(status) = failure.as_mut().poll(cx)
            {
                return Poll::Ready(Err(status));
            }
            match away.poll(cx, &mut socket) {
                Poll::Ready(Err(status)) => Poll::Ready(Err(status)),
                Poll::Ready(Ok(())) if writer.is_none() => Poll::Ready(Ok(())),
                Poll::Pending if writer.is_none() => {
                    let text = "the other side has ended and takes no more bytes";
                    Poll::Ready(Err(Status::unknown(Code::Aborted, text)))
                }
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        let bytes_out = away.bytes;
        socket.end_well();
        Ok([bytes_out, bytes_in])
    }
}

/// Direction from the socket into the call.
struct Away<'a> {
    outgoing: &'a mut Outgoing,
    has_ended: bool,
    bytes: u64,
}

impl Away<'_> {
    /// Moves available bytes. Ready, repeatedly, when this direction has ended cleanly.
    fn poll(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<Result<(), Status>> {
        while !self.has_ended {
            match self.outgoing.poll_room(cx) {
                Poll::Ready(Ok(())) => {}
                // The end of the call has the reason.
                Poll::Ready(Err(Gone)) => return Poll::Pending,
                Poll::Pending => return socket.poll_broken(cx).map(|error| Err(broken(error))),
            }
            let bytes = std::task::ready!(socket.poll_read(cx)).map_err(broken)?;
            if bytes.is_empty() {
                self.outgoing.finish();
                self.has_ended = true;
            } else {
                self.bytes += bytes.len() as u64;
                self.outgoing.send(bytes);
            }
        }
        Poll::Ready(Ok(()))
    }
}
