//! Reads a large message of a stream in parts.

use super::{
    messages::{Next, Source},
    stall::{Stall, StallTimer},
};
use crate::{
    limits::PART_BYTES_MIN,
    link::{Frame, FrameReader, ReadFault},
    memory::HeldBytes,
};
use bytes::{Bytes, BytesMut};
use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

/// Reads what follows the parts of a message, or reports the fault that ended them.
pub(super) type Rest = Pin<Box<dyn Future<Output = Next> + Send>>;

/// Source of the parts of a message whose start has come.
pub(super) struct PartSource<F> {
    /// Taken by the rest.
    reader: Option<FrameReader>,
    missing: usize,
    /// Bytes that are not a part yet.
    part: BytesMut,
    /// Counted until the last part is dropped.
    held: Option<Arc<HeldBytes>>,
    /// Set if a peer that sends too slowly is a fault.
    stall_timer: Option<StallTimer>,
    /// Taken when the parts have ended.
    then: Option<F>,
    rest: Option<Rest>,
}

impl<F> PartSource<F>
where
    F: FnOnce(FrameReader, Result<(), Stall<ReadFault>>) -> Rest + Send,
{
    pub(super) fn new(
        start: &Frame,
        mut reader: FrameReader,
        stall_timer: Option<StallTimer>,
        then: F,
    ) -> Self {
        let held = reader.take_held().map(Arc::new);
        let (missing, part) = (start.missing as usize, BytesMut::from(&start.payload[..]));
        let (reader, then, rest) = (Some(reader), Some(then), None);
        Self { reader, missing, part, held, stall_timer, then, rest }
    }

    /// The next part; `None` after the last.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Stall<ReadFault>>>> {
        let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
        while self.missing > 0 && self.part.len() < PART_BYTES_MIN {
            // The part keeps the bytes when the future is dropped.
            let read = pin!(reader.read_part(self.missing, &mut self.part)).poll(cx);
            match read {
                Poll::Ready(Ok(bytes)) => {
                    self.missing -= bytes;
                    self.stall_timer.iter_mut().for_each(|timer| timer.note_part(reader));
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(Some(Err(Stall::Fault(fault)))),
                Poll::Pending => {
                    // A few bytes do not restart the timer.
                    let Some(timer) = &mut self.stall_timer else { return Poll::Pending };
                    return timer.poll_slow(reader, cx).map(|()| Some(Err(Stall::Slow)));
                }
            }
        }
        let part = self.part.split().freeze();
        Poll::Ready((!part.is_empty()).then(|| {
            Ok(match &self.held {
                Some(held) => HeldBytes::around_part(held, part),
                None => part,
            })
        }))
    }
}

impl<F> Source for PartSource<F>
where
    F: FnOnce(FrameReader, Result<(), Stall<ReadFault>>) -> Rest + Send,
{
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let ended = match ready!(self.poll_part(cx)) {
            Some(Ok(part)) => return Poll::Ready(Next::Message(part)),
            Some(Err(fault)) => Err(fault),
            None => Ok(()),
        };
        if let (Some(reader), Some(then)) = (self.reader.take(), self.then.take()) {
            self.rest = Some(then(reader, ended));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
