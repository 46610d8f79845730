//! The keys by which a node that was killed and restarted resets the links of its previous run.
//!
//! A peer recognises a stateless reset (RFC 9000 section 10.3) by a token that the node makes of
//! the link's connection id and the reset key. quinn answers only packets whose connection id it
//! may have made itself, so the key of those has to last as well.

use crate::tls::{MacKey, random_bytes};
use zeroize::Zeroizing;

/// Both keys. Wiped when dropped; they have no `Debug` on purpose.
pub(crate) struct ResetKeys(Zeroizing<[u8; Self::BYTES]>);

/// The part of the reset key; the rest is that of connection ids.
const RESET_BYTES: usize = MacKey::KEY_BYTES;

impl ResetKeys {
    /// Bytes of both keys together.
    pub(crate) const BYTES: usize = RESET_BYTES + size_of::<u64>();

    /// Generates random keys.
    pub(crate) fn generate() -> Self {
        Self(Zeroizing::new(random_bytes()))
    }

    /// Restores stored keys.
    pub(crate) const fn from_bytes(bytes: Zeroizing<[u8; Self::BYTES]>) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Returns the key of reset tokens, which also seals the file of both. `None` without SHA-256.
    pub(crate) fn reset_key(&self) -> Option<MacKey> {
        MacKey::new(self.0.first_chunk()?)
    }

    pub(super) fn connection_id_key(&self) -> u64 {
        self.0.last_chunk().copied().map_or(0, u64::from_be_bytes)
    }
}
