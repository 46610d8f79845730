//! Writer of one direction of a forwarded connection: messages become bytes of a socket.

use super::Socket;
use crate::{
    call::messages::{Messages, Next},
    status::{Code, Status},
};
use bytes::{Buf, Bytes};
use std::{
    io,
    task::{Context, Poll, ready},
};

/// End of the bytes, as the messages express it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndMark {
    /// The end of the messages: of a request.
    End,
    /// An empty message: of a reply, whose end is that of the whole call. The end follows it.
    Empty,
}

#[derive(Debug)]
pub(crate) struct SocketWriter {
    mark: EndMark,
    /// Bytes that the socket has not accepted yet.
    pending: Bytes,
    state: WriterState,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterState {
    Flows,
    /// The last byte was written; the socket must be shut down for writing.
    Closes,
    Closed,
}

impl SocketWriter {
    pub(crate) const fn new(mark: EndMark) -> Self {
        Self { mark, pending: Bytes::new(), state: WriterState::Flows, bytes: 0 }
    }

    /// Bytes that the socket has accepted.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns `true` if bytes wait for the socket.
    pub(crate) fn is_held_back(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Moves available bytes. Ready once, at the clean end of this direction or with its error.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Messages,
        socket: &mut Socket,
    ) -> Poll<Result<(), Status>> {
        loop {
            while !self.pending.is_empty() {
                let written = ready!(socket.poll_write(cx, &self.pending)).map_err(broken)?;
                self.pending.advance(written);
                self.bytes += written as u64;
            }
            if self.state == WriterState::Closes {
                ready!(socket.poll_shutdown(cx)).map_err(broken)?;
                self.state = WriterState::Closed;
                if self.mark == EndMark::End {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(from.poll_event(cx)) {
                Next::Head(_) => {}
                Next::Message(_) if self.state != WriterState::Flows => {
                    return malformed("continues after its end");
                }
                Next::Message(bytes) if bytes.is_empty() && self.mark == EndMark::Empty => {
                    self.state = WriterState::Closes;
                }
                Next::Message(bytes) => self.pending = bytes,
                Next::End(_) if self.mark == EndMark::End => self.state = WriterState::Closes,
                Next::End(_) if self.state == WriterState::Closed => return Poll::Ready(Ok(())),
                Next::End(_) => {
                    return malformed("ended without saying that its last byte has come");
                }
                Next::Failed(status) => return Poll::Ready(Err(status)),
            }
        }
    }
}

fn malformed(why: &str) -> Poll<Result<(), Status>> {
    Poll::Ready(Err(Status::unknown(Code::Internal, format!("the forwarded connection {why}"))))
}

/// Status of a local connection that was reset: part of the call was carried out.
pub(crate) fn broken(error: io::Error) -> Status {
    Status::new(Code::Aborted, format!("the connection was reset: {error}"))
}
