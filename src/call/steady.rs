//! Reading from and writing to a peer that keeps going: whoever stalls is cut off long before the
//! deadline.

use crate::{
    lazy_timeout::{poll_once, ready_by},
    limits::STALL_WAIT_MAX,
    link::{FrameReader, FrameSender, ReadFault, SendFault},
    wire::{CallKind, Chunks, Kind},
};
use bytes::Bytes;
use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// Bytes per wait that a peer has to send inside an unfinished frame, and to take of what waits for
/// it: 1 KiB a second.
const STEADY_BYTES_MIN: usize = 1024 * STALL_WAIT_MAX.as_secs() as usize;

/// What is asked of a peer that does not take what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// It has to keep going.
    Steady,
    /// It may stand still for so long, as readers of TCP do.
    Still(Duration),
}

impl Pace {
    /// Of a call of this kind.
    pub(super) const fn of(kind: CallKind, stream_idle_max: Duration) -> Self {
        match kind {
            CallKind::Tcp => Self::Still(stream_idle_max),
            _ => Self::Steady,
        }
    }
}

/// Why there is no frame, or why not all was written.
#[derive(Debug)]
pub(super) enum Stall<F> {
    /// The peer is too slow.
    Slow,
    /// Something else.
    Fault(F),
}

fn stall_end() -> Instant {
    Instant::now() + STALL_WAIT_MAX
}

/// The next frame from a peer that keeps sending.
pub(super) async fn read_steadily(
    reader: &mut FrameReader,
) -> Result<Option<(Kind, Bytes)>, Stall<ReadFault>> {
    let mut received = reader.received_bytes();
    loop {
        let read = ready_by(stall_end, pin!(reader.next())).await;
        match read {
            Ok(Ok(frame)) => return Ok(frame.map(|frame| (frame.kind, frame.payload))),
            Ok(Err(fault)) => return Err(Stall::Fault(fault)),
            Err(_elapsed) if reader.received_bytes() >= received + STEADY_BYTES_MIN => {
                received = reader.received_bytes();
            }
            Err(_elapsed) => return Err(Stall::Slow),
        }
    }
}

/// A frame, the end of the stream, or why there is neither.
type SteadyRead = Result<Option<(Kind, Bytes)>, Stall<ReadFault>>;

/// The pace of a stream of messages: between two messages a peer may take its time, inside one it
/// has to keep sending.
#[derive(Debug, Default)]
pub(super) struct Steady {
    /// Running while a frame is incomplete, with the bytes that had come when it was set.
    stall: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Steady {
    /// The next frame. Nothing is lost when it is dropped and called again.
    pub(super) async fn next(&mut self, reader: &mut FrameReader) -> SteadyRead {
        std::future::poll_fn(|cx| self.poll(reader, cx)).await
    }

    fn poll(&mut self, reader: &mut FrameReader, cx: &mut Context<'_>) -> Poll<SteadyRead> {
        // The reader keeps what it has received when its future is dropped.
        if let Poll::Ready(read) = pin!(reader.next()).poll(cx) {
            self.stall = None;
            let frame = read.map_err(Stall::Fault);
            return Poll::Ready(frame.map(|frame| frame.map(|frame| (frame.kind, frame.payload))));
        }
        if !reader.is_inside_a_frame() {
            return Poll::Pending;
        }
        let now_received = reader.received_bytes();
        let (stall, received) = self
            .stall
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(STALL_WAIT_MAX)), now_received));
        while stall.as_mut().poll(cx).is_ready() {
            if now_received < *received + STEADY_BYTES_MIN {
                return Poll::Ready(Err(Stall::Slow));
            }
            *received = now_received;
            stall.as_mut().reset(stall_end());
        }
        Poll::Pending
    }
}

/// Hands all chunks to the transport, to a peer of which so much is asked. As [`write_steadily`].
pub(super) async fn write_at(
    pace: Pace,
    sender: &mut FrameSender,
    chunks: &mut Chunks,
) -> Result<(), Stall<SendFault>> {
    match pace {
        Pace::Steady => write_steadily(sender, chunks).await,
        Pace::Still(wait_max) => write_within(wait_max, 1, sender, chunks).await,
    }
}

/// Hands all chunks to the transport, to a peer that keeps taking them. The last byte was handed
/// over if and only if it gives `Ok`.
pub(super) async fn write_steadily(
    sender: &mut FrameSender,
    chunks: &mut Chunks,
) -> Result<(), Stall<SendFault>> {
    write_within(STALL_WAIT_MAX, STEADY_BYTES_MIN, sender, chunks).await
}

/// The same, to a peer that takes so many bytes in each such time.
async fn write_within(
    wait_max: Duration,
    bytes_min: usize,
    sender: &mut FrameSender,
    chunks: &mut Chunks,
) -> Result<(), Stall<SendFault>> {
    // What fits the transport's window at once says nothing of the peer: its pace is counted from
    // here.
    if let Poll::Ready(result) = poll_once(pin!(sender.write(chunks))).await {
        return result.map_err(Stall::Fault);
    }
    loop {
        let left = chunks.bytes_left();
        let written = Box::pin(tokio::time::timeout(wait_max, sender.write(chunks))).await;
        match written {
            Ok(result) => return result.map_err(Stall::Fault),
            // The transport takes what it has accepted out of the chunks, so that the next write
            // goes on where this one stood.
            Err(_elapsed) if chunks.bytes_left() + bytes_min <= left => {}
            Err(_elapsed) => return Err(Stall::Slow),
        }
    }
}
