//! The path of a link's datagrams.

use std::fmt;

/// The path of a link's datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkPath {
    /// UDP.
    Udp,
    /// A tunnel over TCP.
    Tunnel,
}

impl LinkPath {
    /// `udp` or `tunnel`, as in the log, the audit log and `dialback agents`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tunnel => "tunnel",
        }
    }
}

impl fmt::Display for LinkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
