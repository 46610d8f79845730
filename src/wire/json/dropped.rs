//! Set of map entries of a CBOR message that its JSON omits.

/// Entries that are omitted, one bit per byte of the message. Empty if there are none.
#[derive(Debug, Clone, Default)]
pub(super) struct Dropped(Vec<u64>);

impl Dropped {
    pub(super) fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Marks the entry that begins at this offset of a message of `message_bytes`.
    pub(super) fn add(&mut self, at: usize, message_bytes: usize) {
        if self.0.is_empty() {
            self.0 = vec![0; message_bytes.div_ceil(64)];
        }
        self.0[at / 64] |= 1 << (at % 64);
    }
}
