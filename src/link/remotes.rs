//! The addresses of peers, as QUIC knows them and as they are: each tunnel has one of its own.

use super::path_change::LinkPath;
#[cfg(feature = "tunnel")]
use crate::path::{AcceptingSocket, TunnelUse, Tunnels, is_tunnel};
use quinn::AsyncUdpSocket;
use std::{net::SocketAddr, sync::Arc};

/// Returns an IPv4 address as such, and not in the IPv6 form of a dual-stack socket.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The tunnels of one accepting side, if it has any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remotes {
    #[cfg(feature = "tunnel")]
    tunnels: Option<Arc<Tunnels>>,
}

impl Remotes {
    /// Joins the tunnels of an accepting side with its UDP socket.
    pub(super) fn join(udp: Arc<dyn AsyncUdpSocket>) -> (Arc<dyn AsyncUdpSocket>, Self) {
        #[cfg(feature = "tunnel")]
        {
            let (socket, tunnels) = AcceptingSocket::new(udp);
            (socket, Self { tunnels: Some(tunnels) })
        }
        #[cfg(not(feature = "tunnel"))]
        (udp, Self::default())
    }

    /// The tunnels whose datagrams the endpoint receives.
    #[cfg(feature = "tunnel")]
    pub(super) fn tunnels(&self) -> Option<Arc<Tunnels>> {
        self.tunnels.clone()
    }

    /// Returns the address of the peer that QUIC knows by this one; `None` if its tunnel has ended.
    pub(super) fn real(&self, address: SocketAddr) -> Option<SocketAddr> {
        #[cfg(feature = "tunnel")]
        if is_tunnel(address) {
            return self.tunnels.as_ref()?.peer_of(address).map(canonical);
        }
        Some(canonical(address))
    }

    /// Returns true if this is a tunnel's address: TCP has shown that the peer's own is not forged.
    pub(super) fn is_tunnel(&self, address: SocketAddr) -> bool {
        #[cfg(feature = "tunnel")]
        return is_tunnel(address);
        #[cfg(not(feature = "tunnel"))]
        {
            let _ = address;
            false
        }
    }

    /// Returns the path of packets from the peer that QUIC knows by this address.
    pub(super) fn path(&self, address: SocketAddr) -> LinkPath {
        if self.is_tunnel(address) { LinkPath::Tunnel } else { LinkPath::Udp }
    }

    /// Returns true if any tunnel is open.
    pub(super) fn has_tunnels(&self) -> bool {
        #[cfg(feature = "tunnel")]
        return self.tunnels.as_ref().is_some_and(|tunnels| tunnels.is_any_open());
        #[cfg(not(feature = "tunnel"))]
        false
    }

    /// Records that a link uses the tunnel with this address, if it is one.
    #[cfg(feature = "tunnel")]
    pub(super) fn used_at(&self, address: SocketAddr) -> Option<TunnelUse> {
        self.tunnels.as_ref()?.used_at(address)
    }
}
