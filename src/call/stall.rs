//! Detects peers that stall while they send or read, long before the deadline of the call.

use crate::{
    lazy_timeout::{poll_once, ready_by},
    limits::STALL_WAIT_MAX,
    link::{Frame, FrameReader, FrameSender, ReadFault, SendFault},
    wire::{CallKind, Chunks},
};
use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// Minimum per `STALL_WAIT_MAX` that a peer must send of an unfinished frame, and read: 1 KiB/s.
const STEADY_BYTES_MIN: usize = 1024 * STALL_WAIT_MAX.as_secs() as usize;

/// Policy for a peer that does not read what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StallPolicy {
    /// The call is reset unless the peer keeps reading.
    Reset,
    /// It may stall for this long, as readers of TCP and HTTP do.
    Wait(Duration),
}

impl StallPolicy {
    pub(super) const fn of(kind: CallKind, stream_idle_max: Duration) -> Self {
        match kind {
            CallKind::Http | CallKind::Tcp => Self::Wait(stream_idle_max),
            _ => Self::Reset,
        }
    }
}

/// Error of reading a frame or writing chunks.
#[derive(Debug)]
pub(super) enum Stall<F> {
    Slow,
    Fault(F),
}

fn stall_end() -> Instant {
    Instant::now() + STALL_WAIT_MAX
}

/// Next frame; fails if the peer sends too slowly.
pub(super) async fn read_steadily(reader: &mut FrameReader) -> SteadyRead {
    let mut received = reader.received_bytes();
    loop {
        let read = ready_by(stall_end, pin!(reader.next())).await;
        match read {
            Ok(Ok(frame)) => return Ok(frame),
            Ok(Err(fault)) => return Err(Stall::Fault(fault)),
            Err(_elapsed) if reader.received_bytes() >= received + STEADY_BYTES_MIN => {
                received = reader.received_bytes();
            }
            Err(_elapsed) => return Err(Stall::Slow),
        }
    }
}

/// A frame, or `None` at the end of the stream.
type SteadyRead = Result<Option<Frame>, Stall<ReadFault>>;

/// Detects stalls in a stream of messages: a peer may pause between two messages, not inside one.
#[derive(Debug, Default)]
pub(super) struct StallTimer {
    /// Timer while a frame is incomplete, with the bytes received when it was set.
    stall: Option<(Pin<Box<Sleep>>, usize)>,
}

impl StallTimer {
    /// Next frame. Cancel safe.
    pub(super) async fn next(&mut self, reader: &mut FrameReader) -> SteadyRead {
        std::future::poll_fn(|cx| {
            // The reader keeps received bytes when its future is dropped.
            if let Poll::Ready(read) = pin!(reader.next()).poll(cx) {
                self.stall = None;
                return Poll::Ready(read.map_err(Stall::Fault));
            }
            match reader.is_inside_a_frame() {
                true => self.poll_slow(reader, cx).map(|()| Err(Stall::Slow)),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Stops the timer if enough has come since it was set: the next wait has all of its time.
    pub(super) fn note_part(&mut self, reader: &FrameReader) {
        let received = reader.received_bytes();
        self.stall.take_if(|(_, before)| received >= *before + STEADY_BYTES_MIN);
    }

    /// Ready if the peer sends an incomplete frame too slowly. Called when no more of it has come.
    pub(super) fn poll_slow(&mut self, reader: &FrameReader, cx: &mut Context<'_>) -> Poll<()> {
        let now_received = reader.received_bytes();
        let (stall, received) = self
            .stall
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(STALL_WAIT_MAX)), now_received));
        while stall.as_mut().poll(cx).is_ready() {
            if now_received < *received + STEADY_BYTES_MIN {
                return Poll::Ready(());
            }
            *received = now_received;
            stall.as_mut().reset(stall_end());
        }
        Poll::Pending
    }
}

/// Hands all chunks to the transport under a policy. As [`write_steadily`].
pub(super) async fn write_at(
    stall_policy: StallPolicy,
    sender: &mut FrameSender,
    chunks: &mut Chunks,
) -> Result<(), Stall<SendFault>> {
    match stall_policy {
        StallPolicy::Reset => write_steadily(sender, chunks).await,
        StallPolicy::Wait(wait_max) => write_within(wait_max, 1, sender, chunks).await,
    }
}

/// Hands all chunks to the transport; fails if the peer reads too slowly. The last byte was handed
/// over if and only if it returns `Ok`.
pub(super) async fn write_steadily(
    sender: &mut FrameSender,
    chunks: &mut Chunks,
) -> Result<(), Stall<SendFault>> {
    write_within(STALL_WAIT_MAX, STEADY_BYTES_MIN, sender, chunks).await
}

/// The same for a peer that must read `bytes_min` in each `wait_max`.
async fn write_within(
    wait_max: Duration,
    bytes_min: usize,
    sender: &mut FrameSender,
    chunks: &mut Chunks,
) -> Result<(), Stall<SendFault>> {
    // Bytes that fit the transport's window at once are no sign of the peer: time counts from here.
    if let Poll::Ready(result) = poll_once(pin!(sender.write(chunks))).await {
        return result.map_err(Stall::Fault);
    }
    loop {
        let left = chunks.bytes_left();
        let written = Box::pin(tokio::time::timeout(wait_max, sender.write(chunks))).await;
        match written {
            Ok(result) => return result.map_err(Stall::Fault),
            // The transport removes accepted bytes from the chunks: the next write continues.
            Err(_elapsed) if chunks.bytes_left() + bytes_min <= left => {}
            Err(_elapsed) => return Err(Stall::Slow),
        }
    }
}
