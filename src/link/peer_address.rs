//! The address of a peer, which may change while its link stays.

use super::endpoint::canonical;
use crate::name::PeerName;
use std::net::SocketAddr;

/// The address of the peer of one link, checked whenever a frame comes.
pub(super) struct PeerAddress {
    connection: quinn::Connection,
    peer: PeerName,
    last: SocketAddr,
}

impl PeerAddress {
    /// Starts with the present address.
    pub(super) fn of(connection: quinn::Connection, peer: PeerName) -> Self {
        let last = connection.remote_address();
        Self { connection, peer, last }
    }

    /// Logs it if the peer has moved.
    pub(super) fn look(&mut self) {
        let now = self.connection.remote_address();
        if now != self.last {
            let before = canonical(std::mem::replace(&mut self.last, now));
            let now = canonical(now);
            tracing::info!("{} moved from {before} to {now}, on the same link", self.peer);
        }
    }
}
