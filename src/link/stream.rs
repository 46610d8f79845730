//! Frames on the two halves of a stream. Both halves are guarded: dropped before their end, they
//! reset or stop the stream with a code.
//!
//! quinn's own drop sends a clean FIN and a stop with code 0, from which the peer could not tell an
//! abandoned call from a finished one.

use super::{
    fault::LinkFault,
    send_order,
    windows::{ReadWindow, SendWindow, StreamWindows},
};
use crate::{
    limits::{MEMORY_COUNTED_BYTES_MIN, PASSED_ON_BYTES_MIN, STREAM_WINDOW_BYTES},
    memory::{Exhausted, HeldBytes, MemoryAccount},
    wire::{Chunks, Header, Kind, StreamCode, WireError},
};
use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

pub(crate) struct CallStream {
    pub(crate) sender: FrameSender,
    pub(crate) reader: FrameReader,
}

impl CallStream {
    pub(super) fn new(
        (send, recv): (SendStream, RecvStream),
        message_bytes_max: usize,
        windows: Option<&Arc<StreamWindows>>,
    ) -> Self {
        Self {
            sender: FrameSender {
                window: SendWindow::new(send.id().into(), windows.cloned()),
                send,
                priority: 0,
                finished: false,
                code_on_drop: StreamCode::Cancelled,
                answered: None,
            },
            reader: FrameReader::new(recv, message_bytes_max, windows.cloned()),
        }
    }

    /// Counts the reply as awaited, as long as its reader lives.
    pub(super) fn awaited(mut self, token: TaskTrackerToken) -> Self {
        self.reader.awaited = Some(token);
        // A call keeps its sender until it has its reply.
        self.sender.window.is_read_when_dropped();
        self
    }

    /// Counts the call as answered here, as long as its sender lives.
    pub(super) fn answered(mut self, token: TaskTrackerToken) -> Self {
        self.sender.answered = Some(token);
        self
    }

    /// Sets the code of the reset or stop if a half is dropped before its end.
    pub(crate) fn set_code_on_drop(&mut self, code: StreamCode) {
        self.sender.code_on_drop = code;
        self.reader.code_on_drop = code;
    }
}

fn varint(code: StreamCode) -> VarInt {
    VarInt::from_u32(code.number() as u32)
}

#[derive(Debug)]
pub(crate) enum SendFault {
    /// The peer does not want more; its reply has the reason.
    Stopped,
    Lost(LinkFault),
}

/// The sending half. Dropped before [`FrameSender::finish`] it resets the stream.
pub(crate) struct FrameSender {
    send: SendStream,
    priority: i8,
    window: SendWindow,
    finished: bool,
    code_on_drop: StreamCode,
    /// Held by the responder: its link is in use until the reply was handed over.
    answered: Option<TaskTrackerToken>,
}

impl FrameSender {
    /// Hands all chunks to the transport, in one write where the windows allow. The last byte was
    /// handed over if it returns `Ok`, and not if it is dropped; what was not is still in `chunks`.
    pub(crate) async fn write(&mut self, chunks: &mut Chunks) -> Result<(), SendFault> {
        loop {
            let bytes = chunks.bytes_left();
            let room = self.window.room(bytes);
            if bytes == 0 {
                return Ok(());
            } else if room == 0 {
                Box::pin(self.room()).await?;
            } else if room < bytes {
                let mut piece = [chunks.front(room)];
                let written = self.send.write_chunks(&mut piece).await.map_err(send_fault)?.bytes;
                chunks.advance(written);
                self.window.note_sent(written);
            } else {
                let written = self.send.write_chunks(chunks.as_mut()).await.map_err(send_fault)?;
                self.window.note_sent(written.bytes);
            }
        }
    }

    /// Waits until the peer may have granted more.
    async fn room(&self) -> Result<(), SendFault> {
        tokio::select! {
            () = self.window.changed() => Ok(()),
            stopped = self.send.stopped() => Err(match stopped {
                Err(StoppedError::ConnectionLost(error)) => {
                    SendFault::Lost(LinkFault::lost(error))
                }
                Ok(_) | Err(StoppedError::ZeroRttRejected) => SendFault::Stopped,
            }),
        }
    }

    /// Ends the stream: nothing follows.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
        self.window.end_message();
        // It fails only if the peer has stopped the stream, which it may.
        drop(self.send.finish());
    }

    /// Sets the priority among the streams of this link: higher goes first.
    pub(crate) fn set_priority(&mut self, priority: i8) {
        self.priority = priority;
        drop(self.send.set_priority(send_order::priority(priority)));
    }

    /// Begins the only message of this stream, with its frames: large ones go in turn.
    pub(crate) fn begin_message(&mut self, bytes: usize) {
        if let Some(turn) = self.window.begin_message(bytes) {
            drop(self.send.set_priority(send_order::priority(self.priority) - turn));
        }
    }

    /// Breaks the stream off, even after [`FrameSender::finish`] until the peer has received all.
    pub(crate) fn reset(&mut self, code: StreamCode) {
        self.finished = true;
        self.window.is_read_when_dropped();
        drop(self.send.reset(varint(code)));
    }

    /// Resolves when the peer has received everything, has stopped the stream, or is gone.
    pub(crate) async fn delivered(&self) {
        drop(self.send.stopped().await);
    }

    /// Resolves when the peer has stopped this half or the link is gone; never if all was received.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.send.stopped();
        async move {
            if let Ok(None) = stopped.await {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        if !self.finished {
            self.reset(self.code_on_drop);
        }
    }
}

fn send_fault(error: WriteError) -> SendFault {
    match error {
        WriteError::Stopped(_) => SendFault::Stopped,
        WriteError::ConnectionLost(error) => SendFault::Lost(LinkFault::lost(error)),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            SendFault::Lost(LinkFault::Broken("the stream was closed before".into()))
        }
    }
}

#[derive(Debug)]
pub(crate) enum ReadFault {
    /// The peer broke the stream off.
    Reset(Option<StreamCode>),
    /// The stream ended inside a frame.
    Truncated,
    /// The data broke the protocol, or is over its limit.
    Wire(WireError),
    /// The memory for messages is exhausted.
    Exhausted(Exhausted),
    Lost(LinkFault),
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// Bytes of its payload that are read with [`FrameReader::read_part`]; zero unless parts are
    /// allowed.
    pub(crate) missing: u32,
    /// Its payload: a slice of the received buffer where it arrived in one piece.
    pub(crate) payload: Bytes,
}

/// Pieces taken from the transport at once.
const READ_PIECES: usize = 32;

/// The receiving half. Dropped before the stream's end was read, it stops the peer.
pub(crate) struct FrameReader {
    recv: RecvStream,
    /// Received data not yet split into frames. Small frames stay slices of one received buffer.
    received: Received,
    /// For the pieces of a large frame; empty until one comes, so that small calls stay small.
    pieces: Vec<Bytes>,
    received_bytes: usize,
    window: ReadWindow,
    /// The end of the last incomplete frame, counted from the beginning of the stream.
    frame_end: usize,
    message_bytes_max: usize,
    ended: bool,
    is_read_to_end: bool,
    code_on_drop: StreamCode,
    /// True if a large message is returned as soon as its header has come.
    allows_parts: bool,
    /// Counts messages from when their header has come, if they are counted.
    account: Option<MemoryAccount>,
    held: Option<HeldBytes>,
    /// Held by the initiator: its link is in use until the reply was read.
    awaited: Option<TaskTrackerToken>,
}

/// Received bytes: one buffer as it came, or several joined.
enum Received {
    Piece(Bytes),
    Joined(BytesMut),
}

impl Received {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Piece(bytes) => bytes,
            Self::Joined(bytes) => bytes,
        }
    }

    fn push(&mut self, more: Bytes) {
        match self {
            Self::Piece(bytes) if bytes.is_empty() => *self = Self::Piece(more),
            Self::Piece(bytes) => {
                let mut joined = BytesMut::with_capacity(bytes.len() + more.len());
                joined.extend_from_slice(bytes);
                joined.extend_from_slice(&more);
                *self = Self::Joined(joined);
            }
            Self::Joined(joined) if joined.is_empty() => *self = Self::Piece(more),
            Self::Joined(joined) => joined.extend_from_slice(&more),
        }
    }

    fn take(&mut self, header_bytes: usize, payload_bytes: usize) -> Bytes {
        match self {
            Self::Piece(bytes) => {
                bytes.split_to(header_bytes + payload_bytes).slice(header_bytes..)
            }
            Self::Joined(joined) => {
                joined.split_to(header_bytes + payload_bytes).freeze().slice(header_bytes..)
            }
        }
    }
}

impl FrameReader {
    pub(super) fn new(
        recv: RecvStream,
        message_bytes_max: usize,
        windows: Option<Arc<StreamWindows>>,
    ) -> Self {
        Self {
            window: ReadWindow::new(recv.id().into(), windows),
            frame_end: 0,
            recv,
            received: Received::Piece(Bytes::new()),
            pieces: Vec::new(),
            received_bytes: 0,
            message_bytes_max,
            ended: false,
            is_read_to_end: false,
            code_on_drop: StreamCode::Cancelled,
            allows_parts: false,
            account: None,
            held: None,
            awaited: None,
        }
    }

    /// Returns the number of the stream on its link, by which a DRAIN names it.
    pub(crate) fn stream_id(&self) -> u64 {
        self.recv.id().into()
    }

    /// Returns the next frame; `None` at the end. Skips optional frames of newer peers. Cancel
    /// safe: received data is kept.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadFault> {
        loop {
            match self.next_frame()? {
                Some(frame) if frame.kind == Kind::Optional => {}
                Some(frame) => {
                    self.note_read();
                    return Ok(Some(frame));
                }
                None if self.fill().await? => {}
                None if self.received.as_slice().is_empty() => return Ok(None),
                None => return Err(ReadFault::Truncated),
            }
        }
    }

    /// Returns the bytes received so far, frames that were taken out included.
    pub(crate) fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    /// Returns true if a part of a frame has come, and the rest has not.
    pub(crate) fn is_inside_a_frame(&self) -> bool {
        !self.received.as_slice().is_empty()
    }

    /// Sets the largest message that is accepted from now on.
    pub(crate) fn allow_messages(&mut self, bytes_max: usize) {
        self.message_bytes_max = bytes_max;
    }

    /// Counts messages that come from now on.
    pub(crate) fn count_in(&mut self, account: MemoryAccount) {
        self.account = Some(account);
    }

    /// Returns a large message from now on as soon as its header has come, with what has come of
    /// it.
    pub(crate) fn allow_parts(&mut self) {
        self.allows_parts = true;
    }

    /// The count of the message whose parts are read.
    pub(crate) fn take_held(&mut self) -> Option<HeldBytes> {
        self.held.take()
    }

    /// Sets the code that stops the peer if this is dropped before the end of the stream.
    pub(crate) fn set_code_on_drop(&mut self, code: StreamCode) {
        self.code_on_drop = code;
    }

    /// Takes the next complete frame out of the received data.
    fn next_frame(&mut self) -> Result<Option<Frame>, ReadFault> {
        let header = Header::parse(self.received.as_slice(), self.message_bytes_max)
            .map_err(ReadFault::Wire)?;
        let Some(Header { kind, payload_bytes, header_bytes }) = header else { return Ok(None) };
        // Small messages are not counted, and are most of them: nothing is made for them.
        if let (Kind::Message, None, Some(account)) = (kind, &self.held, &self.account)
            && payload_bytes >= MEMORY_COUNTED_BYTES_MIN
        {
            self.held = Some(account.take(payload_bytes).map_err(ReadFault::Exhausted)?);
        }
        let (come, whole) = (self.received.as_slice().len() - header_bytes, payload_bytes);
        if come < whole {
            self.frame_end = self.received_bytes - come + whole;
            return Ok(self.start_of(kind, header_bytes, whole - come));
        }
        let payload = self.received.take(header_bytes, payload_bytes);
        let held = self.held.take_if(|_| kind == Kind::Message);
        Ok(Some(Frame {
            kind,
            missing: 0,
            payload: match held {
                Some(held) => held.around(payload),
                None => payload,
            },
        }))
    }

    /// Takes out what has come of a message, if it is one that is read in parts.
    fn start_of(&mut self, kind: Kind, header_bytes: usize, missing: usize) -> Option<Frame> {
        let come = self.received.as_slice().len() - header_bytes;
        let is_large = kind == Kind::Message && come + missing >= PASSED_ON_BYTES_MIN;
        let missing = u32::try_from(missing).ok().filter(|_| self.allows_parts && is_large)?;
        Some(Frame { kind, missing, payload: self.received.take(header_bytes, come) })
    }

    /// Reads more of a message whose start was returned: at most `bytes_max`, which must be
    /// missing. Copies them, because few bytes may occupy a large buffer of the transport. Cancel
    /// safe.
    pub(crate) async fn read_part(
        &mut self,
        bytes_max: usize,
        part: &mut BytesMut,
    ) -> Result<usize, ReadFault> {
        self.pieces.resize(READ_PIECES, Bytes::new());
        let noted = (&mut self.window, self.received_bytes);
        let read = read_chunks(&mut self.recv, &mut self.pieces, noted).await;
        let count = read.map_err(read_fault).and_then(|count| count.ok_or(ReadFault::Truncated));
        let count = count.inspect_err(|_| self.ended = true)?;
        part.reserve(self.pieces[..count].iter().map(Bytes::len).sum::<usize>().min(bytes_max));
        let mut left = bytes_max;
        for at in 0..count {
            let mut piece = std::mem::take(&mut self.pieces[at]);
            self.received_bytes += piece.len();
            let of_part = piece.split_to(piece.len().min(left));
            left -= of_part.len();
            part.extend_from_slice(&of_part);
            if !piece.is_empty() {
                self.received.push(piece);
            }
        }
        self.note_read();
        Ok(bytes_max - left)
    }

    /// Frames that have come and were not taken out are not read.
    fn note_read(&mut self) {
        let read = self.received_bytes - self.received.as_slice().len();
        self.window.note_read(read, self.frame_end);
    }

    /// Reads from the transport; `false` at the end of the stream.
    async fn fill(&mut self) -> Result<bool, ReadFault> {
        if self.ended {
            return Ok(false);
        }
        // All that has come is of a frame that is being read.
        self.window.note_read(self.received_bytes, self.frame_end);
        let filled = if self.received.as_slice().is_empty() {
            self.fill_one().await
        } else {
            self.fill_many().await
        };
        if !matches!(filled, Ok(true)) {
            self.ended = true;
            self.is_read_to_end = filled.is_ok();
        }
        filled.map_err(read_fault)
    }

    /// The usual case: a small request or reply comes as one piece and stays that piece. The second
    /// place shows the end of the stream under the same lock of the connection.
    async fn fill_one(&mut self) -> Result<bool, ReadError> {
        let mut pieces = [const { Bytes::new() }; 2];
        let noted = (&mut self.window, self.received_bytes);
        let read = read_chunks(&mut self.recv, &mut pieces, noted).await?;
        let Some(count) = read else { return Ok(false) };
        pieces.into_iter().take(count).for_each(|piece| self.push(piece));
        Ok(true)
    }

    /// Inside a frame: many pieces at a time, because each read takes the connection's lock.
    async fn fill_many(&mut self) -> Result<bool, ReadError> {
        self.pieces.resize(READ_PIECES, Bytes::new());
        let noted = (&mut self.window, self.received_bytes);
        let read = read_chunks(&mut self.recv, &mut self.pieces, noted).await?;
        let Some(count) = read else { return Ok(false) };
        for at in 0..count {
            let piece = std::mem::take(&mut self.pieces[at]);
            self.push(piece);
        }
        Ok(true)
    }

    fn push(&mut self, piece: Bytes) {
        self.received_bytes += piece.len();
        self.received.push(piece);
    }

    pub(crate) fn stop(&mut self, code: StreamCode) {
        if !self.ended {
            self.ended = true;
            drop(self.recv.stop(varint(code)));
        }
    }
}

/// Reads pieces from the transport, and notes at how many bytes it had to wait for them.
async fn read_chunks(
    recv: &mut RecvStream,
    pieces: &mut [Bytes],
    (window, received_bytes): (&mut ReadWindow, usize),
) -> Result<Option<usize>, ReadError> {
    let mut read = pin!(recv.read_chunks(pieces));
    poll_fn(|cx| {
        let polled = read.as_mut().poll(cx);
        if polled.is_pending() {
            window.note_empty(received_bytes);
        }
        polled
    })
    .await
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        // The peer's sender of a long reply is gone by now.
        let is_long = self.received_bytes > STREAM_WINDOW_BYTES as usize;
        if self.awaited.is_some() && (is_long || !self.is_read_to_end) {
            self.window.release();
        }
        self.stop(self.code_on_drop);
    }
}

fn read_fault(error: ReadError) -> ReadFault {
    match error {
        ReadError::Reset(code) => ReadFault::Reset(StreamCode::from_number(code.into_inner())),
        ReadError::ConnectionLost(error) => ReadFault::Lost(LinkFault::lost(error)),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            ReadFault::Truncated
        }
    }
}
