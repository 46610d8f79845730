//! Faults of reading a request, and the counts of what was read.

use super::{head::malformed, stall::Stall};
use crate::{
    link::{Frame, FrameReader, ReadFault},
    status::{Code, Outcome, Status},
    wire::{Kind, StreamCode, WireError},
};
use bytes::Bytes;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

/// Counts frames and bytes of a call, so that a stream without activity can be ended.
#[derive(Debug, Default)]
pub(super) struct StreamActivity {
    /// Created at the first count: most calls have no stream.
    stream: OnceLock<Arc<Counts>>,
    /// Bytes of the message of a unary request.
    only_bytes: AtomicU32,
    /// Set when a handler may start.
    is_complete: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) activity: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) initiator_fault: OnceLock<InitiatorFault>,
    /// Set when a handler may start elsewhere, with a message that was passed on.
    is_complete: AtomicBool,
}

impl Counts {
    /// Counts a message that has come in parts, with its end: a handler may start.
    pub(super) fn complete(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.is_complete.store(true, Ordering::Relaxed);
    }

    pub(super) fn add_message(&self, message: &Bytes) {
        self.bytes_in.fetch_add(message.len() as u64, Ordering::Relaxed);
    }
}

impl StreamActivity {
    pub(super) fn counts(&self) -> &Arc<Counts> {
        self.stream.get_or_init(Arc::default)
    }

    /// Counts one frame.
    pub(super) fn add(&self) {
        self.counts().activity.fetch_add(1, Ordering::Relaxed);
    }

    /// Frames so far.
    pub(super) fn count(&self) -> u64 {
        self.counts().activity.load(Ordering::Relaxed)
    }

    /// Bytes received in messages so far.
    pub(super) fn bytes_in(&self) -> u64 {
        let of_stream =
            self.stream.get().map_or(0, |counts| counts.bytes_in.load(Ordering::Relaxed));
        u64::from(self.only_bytes.load(Ordering::Relaxed)) + of_stream
    }

    /// Notes that a handler may start, with a message of these bytes if the request is unary.
    pub(super) fn complete(&self, only_bytes: usize) {
        self.only_bytes.store(u32::try_from(only_bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.is_complete.store(true, Ordering::Relaxed);
    }

    /// True if a handler may have started, here or elsewhere.
    pub(super) fn is_complete(&self) -> bool {
        let elsewhere = || self.stream.get()?.is_complete.load(Ordering::Relaxed).then_some(());
        self.is_complete.load(Ordering::Relaxed) || elsewhere().is_some()
    }

    /// Fault of the initiator that ended a request which a handler or another side was reading.
    pub(super) fn initiator_fault(&self) -> Option<InitiatorFault> {
        self.stream.get()?.initiator_fault.get().copied()
    }
}

/// Fault of the initiator that ended its request. Created only where a request is read, never from
/// a status, which a reply can carry too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitiatorFault {
    Reset,
    /// Violated the protocol or a limit, or sent too slowly, so that this side aborted the call.
    Misbehaved,
}

/// Error of reading a request.
#[derive(Debug)]
pub(super) struct RequestFault {
    pub(super) status: Status,
    /// Set if the initiator is at fault.
    pub(super) requester: Option<InitiatorFault>,
    /// Code for STOP_SENDING, not derived from the status: slow and large requests have the same.
    pub(super) stop: StreamCode,
}

impl RequestFault {
    pub(super) const fn misbehaved(status: Status, stop: StreamCode) -> Self {
        Self { status, requester: Some(InitiatorFault::Misbehaved), stop }
    }

    pub(super) fn malformed(text: &str) -> Self {
        let status = Status::not_executed(Code::InvalidArgument, text);
        Self::misbehaved(status, StreamCode::Malformed)
    }

    /// Not a fault of the initiator, such as a deadline.
    pub(super) const fn nobodys(status: Status) -> Self {
        Self { status, requester: None, stop: StreamCode::Refused }
    }

    /// Stops the request, notes the fault of its initiator, and returns the status of the call.
    pub(super) fn end(
        self,
        reader: &mut FrameReader,
        initiator_fault: &OnceLock<InitiatorFault>,
        has_own_bound: bool,
    ) -> Status {
        reader.stop(self.stop);
        if let Some(requester) = self.counted(has_own_bound) {
            initiator_fault.get_or_init(|| requester);
        }
        self.status
    }

    /// Fault to count against the initiator; not for the method's own limit, which it cannot know.
    pub(super) fn counted(&self, has_own_bound: bool) -> Option<InitiatorFault> {
        let is_own_bound = has_own_bound && self.stop == StreamCode::TooLarge;
        self.requester.filter(|_| !is_own_bound)
    }
}

/// Message of a frame, or `None` for END.
pub(super) fn message_or_end(frame: Option<Frame>) -> Result<Option<Frame>, RequestFault> {
    match frame {
        Some(frame) if frame.kind == Kind::Message => Ok(Some(frame)),
        Some(Frame { kind: Kind::End, .. }) => Ok(None),
        Some(_) => Err(RequestFault::malformed("a frame out of place in a request")),
        None => Err(RequestFault::malformed("the request ended without END")),
    }
}

pub(super) fn expect_end<F>(frame: Option<F>) -> Result<(), RequestFault> {
    match frame {
        Some(_) => Err(RequestFault::malformed("the request continues after END")),
        None => Ok(()),
    }
}

pub(super) fn stalled(stall: Stall<ReadFault>, reader: &mut FrameReader) -> RequestFault {
    match stall {
        Stall::Fault(fault) => read_failed(fault),
        Stall::Slow => {
            reader.stop(StreamCode::Slow);
            let text = "the request came too slowly (less than 1 KiB/s)";
            let status = Status::not_executed(Code::ResourceExhausted, text);
            RequestFault::misbehaved(status, StreamCode::Slow)
        }
    }
}

pub(super) fn read_failed(fault: ReadFault) -> RequestFault {
    match fault {
        ReadFault::Wire(fault @ WireError::TooLarge { .. }) => {
            RequestFault::misbehaved(malformed(&fault), StreamCode::TooLarge)
        }
        ReadFault::Wire(fault) => {
            RequestFault::misbehaved(malformed(&fault), StreamCode::Malformed)
        }
        ReadFault::Exhausted(why) => RequestFault {
            status: why.into_status(Outcome::NotExecuted),
            requester: None,
            stop: StreamCode::Overloaded,
        },
        ReadFault::Truncated => RequestFault::malformed("the request ended inside a frame"),
        ReadFault::Reset(_) => RequestFault {
            status: Status::not_executed(Code::Cancelled, "the initiator reset the request"),
            requester: Some(InitiatorFault::Reset),
            stop: StreamCode::Cancelled,
        },
        ReadFault::Lost(fault) => {
            RequestFault::nobodys(Status::not_executed(Code::Unavailable, fault.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_over_the_calls_own_bound_is_not_counted_and_a_slow_or_malformed_one_is() {
        let status = || Status::not_executed(Code::ResourceExhausted, "x");
        let misbehaved = Some(InitiatorFault::Misbehaved);
        for (stop, has_own_bound, counted) in [
            (StreamCode::TooLarge, true, None),
            (StreamCode::TooLarge, false, misbehaved),
            // The same status as a request that is too large.
            (StreamCode::Slow, true, misbehaved),
            (StreamCode::Malformed, true, misbehaved),
        ] {
            let fault = RequestFault::misbehaved(status(), stop);
            assert_eq!(fault.counted(has_own_bound), counted, "{stop}, {has_own_bound}");
        }
        assert_eq!(RequestFault::nobodys(status()).counted(false), None);
        let too_large = WireError::TooLarge { kind: "Message", bytes: 2, limit: 1 };
        assert_eq!(read_failed(ReadFault::Wire(too_large)).stop, StreamCode::TooLarge);
        assert_eq!(read_failed(ReadFault::Truncated).stop, StreamCode::Malformed);
    }
}
