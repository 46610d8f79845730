//! Probes an address for errors that the system or ICMP reports, when a handshake is not answered.

use crate::limits::PROBE_BYTES;
use quinn::udp::UdpSocketState;
use std::{
    convert::Infallible,
    future::pending,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::net::UdpSocket;

/// Sends datagrams to an address until the system reports an error for it, and returns that. The
/// sockets of links are not connected, and the system reports the errors of ICMP to connected ones
/// alone. A peer drops the datagrams: they are zeros, which no QUIC packet is.
pub(super) async fn obstacle(to: SocketAddr) -> io::Error {
    let Ok(socket) = socket(to) else {
        // The error is about this process and not about the address.
        return pending().await;
    };
    let Err(error) = probe(&socket, to).await;
    error
}

/// Makes a socket whose datagrams are not fragmented, like those of links.
fn socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let wildcard: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(wildcard)?;
    socket.set_nonblocking(true)?;
    UdpSocketState::new((&socket).into())?;
    UdpSocket::from_std(socket)
}

async fn probe(socket: &UdpSocket, to: SocketAddr) -> io::Result<Infallible> {
    socket.connect(to).await?;
    // Detects a small MTU. Where it is lost silently, the small one may still be refused.
    socket.send(&[0; PROBE_BYTES]).await?;
    socket.send(&[0]).await?;
    // An answer means that the address is reachable.
    socket.recv(&mut [0]).await?;
    pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that answers to one other address and refuses all others, taken for as long as the
    /// socket lives.
    fn refusing() -> (std::net::UdpSocket, SocketAddr) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect("127.0.0.1:9").expect("a peer");
        let address = socket.local_addr().expect("bound");
        (socket, address)
    }

    #[tokio::test]
    async fn a_closed_port_is_reported_and_a_silent_one_is_not() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let (_refusing, refuses) = refusing();
        let error = tokio::select! {
            biased;
            _ = obstacle(silent.local_addr().expect("bound")) => panic!("silence says nothing"),
            error = obstacle(refuses) => error,
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_unreachable_address_is_reported() {
        let error = obstacle("255.255.255.255:4433".parse().expect("an address")).await;
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
