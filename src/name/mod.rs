//! The names of parties, services, methods and calls: parsed once at the edge, trusted after.

mod address;
mod glob;
mod method;
mod peer;

pub use address::NodeAddress;
pub use glob::{MethodGlob, NameGlob, ServiceGlob};
pub use method::{MethodName, MethodPath, ServiceName};
pub use peer::{Name, PeerName, Role};

use std::fmt;

/// A text that is no name: what it was meant to be, the text, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} {why}{}", Spelling(spelling.as_deref()))]
pub struct NameError {
    what: &'static str,
    text: String,
    why: &'static str,
    /// How it is written, if that can be guessed.
    spelling: Option<String>,
}

/// The end of a sentence that says how something is written.
struct Spelling<'a>(Option<&'a str>);

impl fmt::Display for Spelling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |spelling| write!(f, "; write {spelling}"))
    }
}

impl NameError {
    /// Long and hostile texts are cut, so that an error stays one readable line.
    pub(crate) fn new(what: &'static str, text: &str, why: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), why, spelling: None }
    }

    /// Adds the first of these spellings of the text that a `T` has. A spelling of a spelling has
    /// to be the spelling itself.
    pub(crate) fn or_write<T: std::str::FromStr>(
        mut self,
        text: &str,
        spellings: impl IntoIterator<Item = String>,
    ) -> Self {
        let others = spellings.into_iter().filter(|spelling| spelling != text);
        self.spelling = others.into_iter().find(|spelling| spelling.parse::<T>().is_ok());
        self
    }

    /// A text that is no socket address.
    pub(crate) fn of_listen(text: &str) -> Self {
        Self::new("address", text, "is not written IP:PORT, as [::]:4433 or 127.0.0.1:4433")
    }

    /// Says what is wrong, without the text itself.
    pub fn why(&self) -> &'static str {
        self.why
    }
}

/// A text of a person, as names of parties are spelled: `Ware_House ` is `ware-house`.
fn as_name(text: &str) -> String {
    text.trim().to_ascii_lowercase().replace(['_', ' '], "-")
}

/// Names one call in logs and on the wire: 16 bytes, unique among the calls of all parties.
///
/// Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId([u8; 16]);

impl CallId {
    /// Takes the 16 bytes as they stand.
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
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Counts ids up from a start drawn by chance: unique within a process by the count,
/// between processes by the start, and cheap enough to stand on every call.
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

    /// The next id.
    pub(crate) fn next_id(&self) -> CallId {
        let low = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        CallId((u128::from(self.prefix) << 64 | u128::from(low)).to_be_bytes())
    }
}
