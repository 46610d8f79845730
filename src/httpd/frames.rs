//! Limits HTTP/2 frames that do not advance a request, such as PING and SETTINGS. They cost the
//! client nothing, and without a limit one connection could keep a core busy.

use crate::limits::{
    HTTP2_FRAMES_EARNED_MAX, HTTP2_FRAMES_PER_CHECK, HTTP2_FRAMES_PER_READ, HTTP2_FRAMES_PER_STEP,
    HTTP2_FRAMES_UNASKED_MAX,
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The client preface (RFC 9113 section 3.4).
const PREFACE_BYTES: u32 = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;

/// GOAWAY with this code (RFC 9113 section 7), for a client that floods. Names no last stream.
pub(super) const ENHANCE_YOUR_CALM: [u8; 17] =
    [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0x0b];

/// Number of such frames that a client may still send. Time and progress increase it.
#[derive(Debug)]
pub(super) struct Allowance(AtomicUsize);

impl Default for Allowance {
    fn default() -> Self {
        Self(AtomicUsize::new(HTTP2_FRAMES_UNASKED_MAX))
    }
}

impl Allowance {
    /// A request has begun or moved on: the client may send more, such as WINDOW_UPDATE.
    pub(super) fn moved(&self) {
        self.give(HTTP2_FRAMES_PER_STEP, HTTP2_FRAMES_EARNED_MAX);
    }

    pub(super) fn read(&self) {
        self.give(HTTP2_FRAMES_PER_READ, HTTP2_FRAMES_EARNED_MAX);
    }

    /// [`crate::limits::HTTP_CHECK_EVERY`] has passed.
    pub(super) fn waited(&self) {
        self.give(HTTP2_FRAMES_PER_CHECK, HTTP2_FRAMES_UNASKED_MAX);
    }

    fn give(&self, frames: usize, most: usize) {
        self.change(|left| Some(left.saturating_add(frames).min(most).max(left)));
    }

    fn take(&self) -> bool {
        self.change(|left| left.checked_sub(1))
    }

    fn change(&self, change: impl FnMut(usize) -> Option<usize>) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

/// Follows the bytes of a connection from frame to frame.
#[derive(Debug)]
pub(super) struct Frames {
    allowance: Arc<Allowance>,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Of the preface or of a payload, what is still to come.
    skip: u32,
}

impl Frames {
    pub(super) const fn new(allowance: Arc<Allowance>) -> Self {
        Self { allowance, head: [0; HEAD_BYTES], head_bytes: 0, skip: PREFACE_BYTES }
    }

    /// Counts the frames of received bytes. Returns `false` if the client may not send that many.
    pub(super) fn look(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip -= u32::try_from(step).unwrap_or(self.skip);
                bytes = &bytes[step..];
                continue;
            }
            let step = (HEAD_BYTES - self.head_bytes).min(bytes.len());
            self.head[self.head_bytes..][..step].copy_from_slice(&bytes[..step]);
            (self.head_bytes, bytes) = (self.head_bytes + step, &bytes[step..]);
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]);
                if is_counted(kind, flags, self.skip) && !self.allowance.take() {
                    return false;
                }
            }
        }
        true
    }
}

/// All but DATA that brings some bytes or is the last. A padded frame may contain only padding.
const fn is_counted(kind: u8, flags: u8, bytes: u32) -> bool {
    kind != DATA || (flags & END_STREAM == 0 && (bytes == 0 || flags & PADDED != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &[0; 4], payload].concat()
    }

    /// Number of frames that pass of this many, in steps of this size.
    fn passing(allowance: &Arc<Allowance>, frame: &[u8], count: usize, step: usize) -> usize {
        let mut frames = Frames::new(allowance.clone());
        assert!(frames.look(&[b'P'; PREFACE_BYTES as usize]));
        (0..count).take_while(|_| frame.chunks(step).all(|bytes| frames.look(bytes))).count()
    }

    #[test]
    fn frames_that_carry_nothing_are_bounded_and_bodies_are_not() {
        let most = HTTP2_FRAMES_UNASKED_MAX;
        for (kind, flags, payload, expected) in [
            (6, 0, &[0; 8][..], most),
            (4, 0, &[], most),
            (4, 1, &[], most),
            (8, 0, &[0, 0, 0, 1], most),
            (2, 0, &[0; 5], most),
            (3, 0, &[0; 4], most),
            (1, 4, &[7; 40], most),
            (9, 0, &[7; 40], most),
            (200, 0, &[], most),
            (DATA, 0, &[], most),
            (DATA, PADDED, &[3, 0, 0, 0], most),
            (DATA, 0, &[7], most * 3),
            (DATA, END_STREAM, &[], most * 3),
            (DATA, END_STREAM | PADDED, &[0], most * 3),
        ] {
            for step in [1, 5, 1_000] {
                let frame = frame(kind, flags, payload);
                let passing = passing(&Arc::default(), &frame, most * 3, step);
                assert_eq!(passing, expected, "kind {kind}, flags {flags}, in steps of {step}");
            }
        }
    }

    #[test]
    fn frames_earned_by_progress_do_not_expire() {
        let (allowance, update) = (Arc::<Allowance>::default(), frame(8, 0, &[0, 0, 0, 1]));
        (0..1_000).for_each(|_| allowance.moved());
        allowance.waited();
        let earned = HTTP2_FRAMES_UNASKED_MAX + 1_000 * HTTP2_FRAMES_PER_STEP;
        assert_eq!(passing(&allowance, &update, usize::MAX, 1_000), earned);
        (0..HTTP2_FRAMES_EARNED_MAX).for_each(|_| allowance.moved());
        assert_eq!(passing(&allowance, &update, usize::MAX, 1_000), HTTP2_FRAMES_EARNED_MAX);
    }

    #[test]
    fn time_and_progress_allow_more_frames_and_time_only_up_to_the_limit() {
        let (allowance, ping) = (Arc::<Allowance>::default(), frame(6, 0, &[0; 8]));
        let passing = || passing(&allowance, &ping, usize::MAX, 1_000);
        assert_eq!((passing(), passing()), (HTTP2_FRAMES_UNASKED_MAX, 0));
        allowance.moved();
        assert_eq!(passing(), HTTP2_FRAMES_PER_STEP);
        allowance.read();
        assert_eq!(passing(), HTTP2_FRAMES_PER_READ);
        allowance.waited();
        assert_eq!(passing(), HTTP2_FRAMES_PER_CHECK);
        (0..HTTP2_FRAMES_UNASKED_MAX).for_each(|_| allowance.waited());
        assert_eq!(passing(), HTTP2_FRAMES_UNASKED_MAX);
    }
}
