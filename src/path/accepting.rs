//! The socket of the accepting side: UDP, and all tunnels of its peers.

use super::{
    inbox::Inbox,
    tunnels::{Tunnels, datagrams, is_tunnel, number_of},
};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// A UDP socket joined with tunnels, which have addresses of their own.
#[derive(Debug)]
pub(crate) struct AcceptingSocket {
    udp: Arc<dyn AsyncUdpSocket>,
    tunnels: Arc<Tunnels>,
    inbox: Inbox,
}

impl AcceptingSocket {
    pub(crate) fn new(udp: Arc<dyn AsyncUdpSocket>) -> (Arc<Self>, Arc<Tunnels>) {
        let (delivery, inbox) = Inbox::new();
        let tunnels = Arc::new(Tunnels::new(delivery));
        (Arc::new(Self { udp, tunnels: tunnels.clone(), inbox }), tunnels)
    }
}

/// Returns the source address for a datagram, if the system can send from it. A link that came by a
/// tunnel keeps the address to which the TCP connection was made: that of a proxy's way in,
/// perhaps.
fn usable_source(source: Option<IpAddr>, to: SocketAddr) -> Option<IpAddr> {
    let kind = |ip: IpAddr| (ip.to_canonical().is_ipv4(), ip.to_canonical().is_loopback());
    source.filter(|source| kind(*source) == kind(to.ip()))
}

impl AsyncUdpSocket for AcceptingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.udp.clone().create_io_poller()
    }

    /// Sends by UDP or by a tunnel. A tunnel takes everything, and drops what it has no room for:
    /// an error would end the connection, and a wait would hold up all others.
    fn try_send(&self, batch: &Transmit<'_>) -> io::Result<()> {
        match number_of(batch.destination) {
            None => {
                let src_ip = usable_source(batch.src_ip, batch.destination);
                self.udp.try_send(&Transmit { src_ip, ..*batch })
            }
            Some(number) => {
                self.tunnels.send(number, datagrams(batch));
                Ok(())
            }
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        received: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inbox.poll_with(context, buffers, received, |context, buffers, received| {
            let polled = self.udp.poll_recv(context, buffers, received);
            if let Poll::Ready(Ok(count)) = polled {
                // QUIC's answers would go into the tunnel whose address they claim.
                let forged = received[..count].iter_mut().filter(|meta| is_tunnel(meta.addr));
                forged.for_each(|meta| meta.len = 0);
            }
            polled
        })
    }

    super::as_its_udp_socket!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_used_only_where_packets_can_leave_from_it() {
        for (source, to, expected) in [
            ("192.0.2.1", "198.51.100.1:9", true),
            ("192.0.2.1", "[::ffff:198.51.100.1]:9", true),
            ("::ffff:192.0.2.1", "198.51.100.1:9", true),
            ("2001:db8::1", "[2001:db8::2]:9", true),
            ("127.0.0.1", "127.0.0.1:9", true),
            ("127.0.0.1", "198.51.100.1:9", false),
            ("192.0.2.1", "127.0.0.1:9", false),
            ("2001:db8::1", "[::ffff:198.51.100.1]:9", false),
            ("192.0.2.1", "[2001:db8::2]:9", false),
        ] {
            let source: IpAddr = source.parse().expect("an address");
            let used = usable_source(Some(source), to.parse().expect("an address"));
            assert_eq!(used.is_some(), expected, "{source} to {to}");
        }
    }
}
