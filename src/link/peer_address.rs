//! The address of a peer, which may change while its link stays.

use super::{
    path_change::LinkPath,
    remotes::{Remotes, canonical},
};
use crate::name::PeerName;
use std::{fmt, net::SocketAddr};

/// The address of the peer of one link, checked whenever a frame comes.
pub(super) struct PeerAddress {
    connection: quinn::Connection,
    peer: PeerName,
    remotes: Remotes,
    last: SocketAddr,
    shown: PeerOrigin,
    #[cfg(feature = "tunnel")]
    used: Option<crate::path::TunnelUse>,
}

/// The address of a peer, and how it comes from there.
struct PeerOrigin {
    address: SocketAddr,
    path: LinkPath,
}

impl fmt::Display for PeerOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path {
            LinkPath::Udp => write!(f, "{}", self.address),
            LinkPath::Tunnel => write!(f, "{} (tunnel)", self.address),
        }
    }
}

impl PeerAddress {
    /// Starts with the present address.
    pub(super) fn of(connection: quinn::Connection, peer: PeerName, remotes: Remotes) -> Self {
        let last = connection.remote_address();
        let shown = origin(&remotes, last);
        #[cfg(feature = "tunnel")]
        let used = remotes.used_at(last);
        Self {
            connection,
            peer,
            remotes,
            last,
            shown,
            #[cfg(feature = "tunnel")]
            used,
        }
    }

    /// Logs it if the peer has moved.
    pub(super) fn look(&mut self) {
        let now = self.connection.remote_address();
        if now != self.last {
            self.last = now;
            #[cfg(feature = "tunnel")]
            {
                self.used = self.remotes.used_at(now);
            }
            let now = origin(&self.remotes, now);
            tracing::info!("{} moved from {} to {now}, on the same link", self.peer, self.shown);
            self.shown = now;
        }
    }
}

fn origin(remotes: &Remotes, address: SocketAddr) -> PeerOrigin {
    PeerOrigin {
        address: remotes.real(address).unwrap_or_else(|| canonical(address)),
        path: remotes.path(address),
    }
}
