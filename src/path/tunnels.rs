//! The tunnels of the accepting side. QUIC knows each by an address that no network routes.

use super::{
    carry::{carry, web_socket_config},
    inbox::InboxSender,
    queue::SendQueue,
};
use crate::{
    limits::{
        TUNNEL_UNUSED_MAX, TUNNELS_UNUSED_PER_HOST_MAX, TUNNELS_UNUSED_PER_NETWORK_MAX,
        TUNNELS_UNUSED_PER_SITE_MAX,
    },
    prefixes::{Prefix, PrefixCounts, PrefixLimits},
};
use quinn::udp::Transmit;
use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

/// The addresses of tunnels are in this prefix, which routers discard (RFC 6666).
const PREFIX: [u16; 4] = [0x0100, 0, 0, 0];

/// The TCP connection of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TunnelPeer {
    /// The address of the peer, or of the client that a trusted proxy names.
    pub(crate) address: SocketAddr,
    /// The local address to which the peer connected.
    pub(crate) local: Option<IpAddr>,
}

/// The open tunnels of one socket.
pub(crate) struct Tunnels {
    delivery: InboxSender,
    open: RwLock<HashMap<u64, Arc<OpenTunnel>>>,
    /// The number of the next tunnel. None is used twice.
    next: AtomicU64,
    /// Tunnels that no link has used yet, by the address of the client.
    unused: Arc<Mutex<PrefixCounts>>,
}

/// A place of a tunnel that no link has used yet.
pub(crate) struct UnusedTunnel {
    counts: Arc<Mutex<PrefixCounts>>,
    client: IpAddr,
}

impl Drop for UnusedTunnel {
    fn drop(&mut self) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(self.client);
    }
}

struct OpenTunnel {
    queue: SendQueue,
    peer: SocketAddr,
    /// Links whose peers were heard over this tunnel last.
    users: watch::Sender<usize>,
}

/// A link whose peer was heard over a tunnel last. Dropping it ends that.
pub(crate) struct TunnelUse(Arc<OpenTunnel>);

impl Drop for TunnelUse {
    fn drop(&mut self) {
        self.0.users.send_modify(|users| *users -= 1);
    }
}

/// Returns the number of the tunnel with this address; `None` for an address of UDP.
pub(super) fn number_of(address: SocketAddr) -> Option<u64> {
    let IpAddr::V6(ip) = address.ip() else { return None };
    let [first @ .., a, b, c, d] = ip.segments();
    (first == PREFIX).then(|| [a, b, c, d].into_iter().fold(0, |n, part| n << 16 | u64::from(part)))
}

/// Returns true if this is the address of a tunnel, open or not.
pub(crate) fn is_tunnel(address: SocketAddr) -> bool {
    number_of(address).is_some()
}

fn address_of(number: u64, port: u16) -> SocketAddr {
    let [a, b, c, d] = PREFIX;
    let part = |shift: u32| (number >> shift) as u16;
    let ip = Ipv6Addr::new(a, b, c, d, part(48), part(32), part(16), part(0));
    // QUIC refuses port 0.
    SocketAddr::new(ip.into(), port.max(1))
}

/// Returns the single datagrams of a batch.
pub(super) fn datagrams<'a>(batch: &Transmit<'a>) -> impl Iterator<Item = &'a [u8]> {
    let size = batch.segment_size.unwrap_or(batch.contents.len());
    batch.contents.chunks(size.max(1))
}

impl Tunnels {
    pub(super) fn new(delivery: InboxSender) -> Self {
        let unused = PrefixCounts::new(PrefixLimits {
            host: TUNNELS_UNUSED_PER_HOST_MAX,
            site: TUNNELS_UNUSED_PER_SITE_MAX,
            network: TUNNELS_UNUSED_PER_NETWORK_MAX,
        });
        let unused = Arc::new(Mutex::new(unused));
        Self { delivery, open: RwLock::default(), next: AtomicU64::new(1), unused }
    }

    /// Takes a place for a tunnel of this client. Fails if the client, or a block of addresses
    /// around it, has too many that no link uses.
    pub(crate) fn admit(&self, client: IpAddr) -> Result<UnusedTunnel, Prefix> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner).add(client)?;
        Ok(UnusedTunnel { counts: self.unused.clone(), client })
    }

    fn find(&self, address: SocketAddr) -> Option<Arc<OpenTunnel>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&number_of(address)?).cloned()
    }

    pub(crate) fn is_any_open(&self) -> bool {
        !self.open.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Returns the address of the peer at the other end of an open tunnel.
    pub(crate) fn peer_of(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.find(address).map(|tunnel| tunnel.peer)
    }

    /// Records that a link uses the tunnel with this address, if it is open.
    pub(crate) fn used_at(&self, address: SocketAddr) -> Option<TunnelUse> {
        let tunnel = self.find(address)?;
        tunnel.users.send_modify(|users| *users += 1);
        Some(TunnelUse(tunnel))
    }

    /// Queues datagrams for a tunnel, or drops them if it is not open.
    pub(super) fn send<'a>(&self, number: u64, datagrams: impl Iterator<Item = &'a [u8]>) {
        let tunnel = {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            open.get(&number).cloned()
        };
        if let Some(tunnel) = tunnel {
            datagrams.for_each(|datagram| tunnel.queue.push(datagram));
        }
    }

    /// Carries the datagrams of an accepted WebSocket, of which `first` was read, until it ends, or
    /// no link uses it for ten seconds. Calls `known` once a link uses it. Dropping the future
    /// closes the tunnel.
    pub(crate) async fn run<S>(
        &self,
        (stream, first): (S, Vec<u8>),
        peer: TunnelPeer,
        known: impl FnOnce(),
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let open = self.add(peer.address);
        let tunnel = &open.tunnel;
        let from = address_of(open.number, peer.address.port());
        let config = Some(web_socket_config());
        let socket =
            WebSocketStream::from_partially_read(stream, first, Role::Server, config).await;
        let carried = carry(
            socket,
            &tunnel.queue,
            &self.delivery,
            (from, peer.local.map(|local| local.to_canonical())),
        );
        tokio::select! {
            ended = carried => tracing::debug!("a tunnel of {} ended: {ended}", peer.address),
            () = unused(&tunnel.users, known) => {
                tracing::debug!("closed a tunnel of {}: no link uses it", peer.address);
            }
        }
    }

    fn add(&self, peer: SocketAddr) -> TunnelEntry<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let users = watch::Sender::new(0);
        let tunnel = Arc::new(OpenTunnel { queue: SendQueue::default(), peer, users });
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, tunnel.clone());
        TunnelEntry { tunnels: self, number, tunnel }
    }
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnels")
    }
}

/// An entry of the open tunnels. Dropping it removes that.
struct TunnelEntry<'a> {
    tunnels: &'a Tunnels,
    number: u64,
    tunnel: Arc<OpenTunnel>,
}

impl Drop for TunnelEntry<'_> {
    fn drop(&mut self) {
        let mut open = self.tunnels.open.write().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.number);
    }
}

/// Resolves when no link has used the tunnel for too long. Calls `known` at the first use.
async fn unused(users: &watch::Sender<usize>, known: impl FnOnce()) {
    let (mut users, mut known) = (users.subscribe(), Some(known));
    let is_used = |users: &usize| *users > 0;
    while timeout(TUNNEL_UNUSED_MAX, users.wait_for(is_used)).await.is_ok_and(|one| one.is_ok()) {
        if let Some(known) = known.take() {
            known();
        }
        // The sender is alive.
        drop(users.wait_for(|users| *users == 0).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::inbox::Inbox;
    use std::{cell::Cell, time::Duration};
    use tokio::time::Instant;

    fn peer() -> TunnelPeer {
        TunnelPeer { address: ([192, 0, 2, 7], 4_000).into(), local: None }
    }

    #[test]
    fn each_tunnel_has_an_address_of_its_own_and_udp_peers_have_none() {
        for number in [1, 0xffff, 1 << 40, u64::MAX] {
            assert_eq!(number_of(address_of(number, 0)), Some(number));
            assert_ne!(address_of(number, 0).port(), 0);
        }
        for udp in ["192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1", "[100:0:0:1::]:1"] {
            assert_eq!(number_of(udp.parse().expect("an address")), None, "{udp}");
        }
    }

    #[test]
    fn one_address_has_a_bounded_number_of_unused_tunnels() {
        let tunnels = Tunnels::new(Inbox::new().0);
        let (client, other) = ([192, 0, 2, 7].into(), [198, 51, 100, 7].into());
        let admitted: Result<Vec<_>, _> =
            (0..TUNNELS_UNUSED_PER_HOST_MAX).map(|_| tunnels.admit(client)).collect();
        let admitted = admitted.expect("places");
        assert!(tunnels.admit(client).is_err() && tunnels.admit(other).is_ok());
        drop(admitted);
        assert!(tunnels.admit(client).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_no_link_uses_is_closed_and_a_used_one_is_not() {
        let tunnels = Tunnels::new(Inbox::new().0);
        let (near, _far) = tokio::io::duplex(64);
        let (began, is_known) = (Instant::now(), Cell::new(false));
        let address = address_of(1, 4_000);
        let used = async {
            tokio::time::sleep(TUNNEL_UNUSED_MAX / 2).await;
            let used = tunnels.used_at(address).expect("it is open");
            assert_eq!(tunnels.peer_of(address), Some(peer().address));
            tokio::time::sleep(Duration::from_secs(25)).await;
            drop(used);
        };
        let run = tunnels.run((near, Vec::new()), peer(), || is_known.set(true));
        tokio::join!(run, used);
        let lasted = TUNNEL_UNUSED_MAX / 2 + Duration::from_secs(25) + TUNNEL_UNUSED_MAX;
        assert_eq!(began.elapsed(), lasted);
        assert!(is_known.get() && tunnels.used_at(address).is_none());
        let (near, _far) = tokio::io::duplex(64);
        let began = Instant::now();
        tunnels.run((near, Vec::new()), peer(), || unreachable!("no link used it")).await;
        assert_eq!(began.elapsed(), TUNNEL_UNUSED_MAX);
    }
}
