//! Ids of calls.

use std::fmt;

/// Names one call in logs and on the wire: 16 bytes, shown in hexadecimal, unique among all peers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId([u8; 16]);

impl CallId {
    /// Makes an id of 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes as they travel.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Counts up from a random start: unique within a process and between processes, and cheap.
#[derive(Debug)]
pub(crate) struct CallIds {
    prefix: u64,
    next: std::sync::atomic::AtomicU64,
}

impl CallIds {
    /// Starts from 16 bytes of chance.
    pub(crate) fn new(seed: [u8; 16]) -> Self {
        let value = u128::from_be_bytes(seed);
        Self { prefix: (value >> 64) as u64, next: (value as u64).into() }
    }

    pub(crate) fn next_id(&self) -> CallId {
        let low = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        CallId((u128::from(self.prefix) << 64 | u128::from(low)).to_be_bytes())
    }
}
