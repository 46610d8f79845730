//! One direction of a forwarded connection: messages that become bytes of a socket.

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

/// How the messages say that no more bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndMark {
    /// With their end: those of a request.
    End,
    /// With an empty message: those of a reply, whose end is that of the whole call. After it comes
    /// the end.
    Empty,
}

/// The way towards a socket.
#[derive(Debug)]
pub(crate) struct SocketWriter {
    mark: EndMark,
    /// What the socket has not taken yet.
    pending: Bytes,
    state: State,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Flows,
    /// The last byte has been written, and the socket is to know that.
    Closes,
    /// It knows.
    Closed,
}

impl SocketWriter {
    pub(crate) const fn new(mark: EndMark) -> Self {
        Self { mark, pending: Bytes::new(), state: State::Flows, bytes: 0 }
    }

    /// Bytes that the socket has taken.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the socket does not take what waits for it.
    pub(crate) fn is_held_back(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Moves what there is. Ready when this direction has ended well, or with why it cannot; not to
    /// be polled after that.
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
            if self.state == State::Closes {
                ready!(socket.poll_shutdown(cx)).map_err(broken)?;
                self.state = State::Closed;
                if self.mark == EndMark::End {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(from.poll_event(cx)) {
                Next::Head(_) => {}
                Next::Message(_) if self.state != State::Flows => {
                    return malformed("goes on after its end");
                }
                Next::Message(bytes) if bytes.is_empty() && self.mark == EndMark::Empty => {
                    self.state = State::Closes;
                }
                Next::Message(bytes) => self.pending = bytes,
                Next::End(_) if self.mark == EndMark::End => self.state = State::Closes,
                Next::End(_) if self.state == State::Closed => return Poll::Ready(Ok(())),
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

/// The connection at this end was broken off: the call was carried out as far as it went.
pub(crate) fn broken(error: io::Error) -> Status {
    Status::new(Code::Aborted, format!("the connection was broken off: {error}"))
}
