//! JSON text of a message, written in pieces on demand.

use super::{
    checked::check,
    dropped::Dropped,
    to_text::{JsonEvent, Walk},
};
use bytes::Bytes;

/// JSON is written by pieces of this size, and a little more.
const PIECE_BYTES: usize = 32 * 1024;

/// Maximum number of CBOR bytes passed at one time in a message with many omitted entries.
const PASSED_BYTES_MAX: usize = 256 * 1024;

/// The JSON of a message that was checked, written as it is asked for. Holds the message, and one
/// bit for each of its bytes if some of it is left out.
#[derive(Debug, Clone)]
pub(crate) struct JsonText {
    cbor: Bytes,
    dropped: Dropped,
    walk: Walk,
    left: usize,
}

impl JsonText {
    /// Checks a message. Memory: eight bytes for each key of the maps that are open at one time.
    pub(crate) fn new(cbor: Bytes) -> Result<Self, String> {
        let (dropped, left) = check(&cbor)?;
        Ok(Self { cbor, dropped, walk: Walk::again(), left })
    }

    pub(crate) const fn left(&self) -> usize {
        self.left
    }

    /// The next piece, which is empty now and then; `None` after the last.
    pub(crate) fn next_piece(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let mut out = Vec::with_capacity(self.left.min(PIECE_BYTES + PIECE_BYTES / 2));
        let from = self.walk.at();
        while out.len() < PIECE_BYTES && self.walk.at() - from < PASSED_BYTES_MAX {
            // It was checked: the end is the only thing that can stop it.
            match self.walk.step(&self.cbor, &self.dropped, &mut out) {
                Ok(JsonEvent::End) | Err(_) => {
                    self.left = out.len();
                    break;
                }
                Ok(_) => {}
            }
        }
        self.left = self.left.saturating_sub(out.len());
        Some(out.into())
    }
}
