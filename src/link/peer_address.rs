//! The address and path of a peer, which may change while its link stays.

use super::{
    path_change::LinkPath,
    remotes::{Remotes, canonical},
};
use crate::{
    limits::{LOG_LINES_PER_CAUSE_BURST, LOG_LINES_PER_CAUSE_EVERY},
    rate_limit::RateLimit,
};
use std::{fmt, net::SocketAddr};
use tokio::time::Instant;

/// The address of the peer of one link, checked whenever a frame comes.
pub(super) struct PeerAddress {
    connection: quinn::Connection,
    remotes: Remotes,
    last: SocketAddr,
    now: PeerOrigin,
    reported: ReportedOrigin,
    #[cfg(feature = "tunnel")]
    used: Option<crate::path::TunnelUse>,
}

/// The address of a peer, and the path by which its packets come from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerOrigin {
    pub(crate) address: SocketAddr,
    pub(crate) path: LinkPath,
}

impl fmt::Display for PeerOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path {
            LinkPath::Udp => write!(f, "{}", self.address),
            LinkPath::Tunnel => write!(f, "{} (tunnel)", self.address),
        }
    }
}

/// The peer of an accepted link has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkMove {
    pub(crate) old: PeerOrigin,
    pub(crate) new: PeerOrigin,
}

impl PeerAddress {
    /// Starts with the present address.
    pub(super) fn of(connection: quinn::Connection, remotes: Remotes) -> Self {
        let last = connection.remote_address();
        let now = origin(&remotes, last);
        #[cfg(feature = "tunnel")]
        let used = remotes.used_at(last);
        Self {
            connection,
            remotes,
            last,
            now,
            reported: ReportedOrigin { origin: now, full_at: None },
            #[cfg(feature = "tunnel")]
            used,
        }
    }

    /// Reads the present address.
    pub(super) fn look(&mut self) {
        let now = self.connection.remote_address();
        if now != self.last {
            self.last = now;
            #[cfg(feature = "tunnel")]
            {
                self.used = self.remotes.used_at(now);
            }
            // A tunnel that has ended already is not known any more.
            if let Some(address) = self.remotes.real(now) {
                self.now = PeerOrigin { address, path: self.remotes.path(now) };
            }
        }
    }

    /// Returns the move of the peer since the last one that was returned, if it is due now.
    pub(super) fn take_move(&mut self) -> Option<LinkMove> {
        if self.now == self.reported.origin {
            return None;
        }
        self.reported.take(self.now, Instant::now())
    }
}

fn origin(remotes: &Remotes, address: SocketAddr) -> PeerOrigin {
    PeerOrigin {
        address: remotes.real(address).unwrap_or_else(|| canonical(address)),
        path: remotes.path(address),
    }
}

/// The address of the last report. The peer decides how often it moves, so reports are limited, and
/// moves that are not reported join the next one.
struct ReportedOrigin {
    origin: PeerOrigin,
    full_at: Option<Instant>,
}

impl ReportedOrigin {
    fn take(&mut self, new: PeerOrigin, at: Instant) -> Option<LinkMove> {
        let limit = RateLimit::new(LOG_LINES_PER_CAUSE_BURST, LOG_LINES_PER_CAUSE_EVERY);
        self.full_at = Some(limit.take(self.full_at, at).ok()?);
        Some(LinkMove { old: std::mem::replace(&mut self.origin, new), new })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(port: u16) -> PeerOrigin {
        PeerOrigin { address: ([192, 0, 2, 7], port).into(), path: LinkPath::Udp }
    }

    #[test]
    fn moves_over_the_limit_are_reported_as_one_that_ends_where_the_peer_is() {
        let (burst, start) = (LOG_LINES_PER_CAUSE_BURST as u16, Instant::now());
        let mut reported = ReportedOrigin { origin: udp(0), full_at: None };
        for port in 1..=burst {
            let moved = LinkMove { old: udp(port - 1), new: udp(port) };
            assert_eq!(reported.take(udp(port), start), Some(moved));
        }
        for port in burst + 1..burst + 9 {
            assert_eq!(reported.take(udp(port), start), None);
        }
        let moved = LinkMove { old: udp(burst), new: udp(burst + 9) };
        let later = start + LOG_LINES_PER_CAUSE_EVERY;
        assert_eq!(reported.take(udp(burst + 9), later), Some(moved));
    }
}
