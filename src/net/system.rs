//! The network of the operating system.

use super::{
    network::{Net, NetFuture, SharedNet},
    probe,
    runtime::{BatchingRuntime, expect_tokio},
    suspend::Suspend,
};
use crate::{
    limits::{
        DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_USUAL, UDP_RECEIVE_BUFFER_BYTES,
        UDP_SEND_BUFFER_BYTES,
    },
    race, tls,
};
use quinn::{AsyncUdpSocket, Runtime};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, LazyLock, Once},
    time::SystemTime,
};

/// Returns the network of this process. All share it, because a suspend concerns all of them.
pub(crate) fn system() -> SharedNet {
    static SYSTEM: LazyLock<Arc<System>> = LazyLock::new(Arc::default);
    SYSTEM.clone()
}

#[derive(Debug, Default)]
struct System {
    suspend: Suspend,
}

impl Net for System {
    fn runtime(&self) -> io::Result<Arc<dyn Runtime>> {
        expect_tokio()?;
        Ok(Arc::new(BatchingRuntime::default()))
    }

    fn bind(
        &self,
        address: SocketAddr,
        runtime: &dyn Runtime,
    ) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        runtime.wrap_udp_socket(bind(address)?)
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> NetFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(race::resolve(host, port))
    }

    fn source_address(&self, to: SocketAddr) -> io::Result<IpAddr> {
        let from = routed(to)?.local_addr()?.as_socket();
        from.map(|from| from.ip()).ok_or_else(|| io::Error::other("not an address of IP"))
    }

    fn datagram_bytes_max(&self, to: SocketAddr) -> u16 {
        route_mtu(to).map_or(DATAGRAM_BYTES_USUAL, |mtu| datagram_bytes(to, mtu))
    }

    fn probe(&self, to: SocketAddr) -> NetFuture<'_, io::Error> {
        Box::pin(probe::obstacle(to))
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&self, bytes: &mut [u8]) {
        tls::fill_random(bytes);
    }

    fn suspend(&self) -> &Suspend {
        &self.suspend
    }
}

/// Returns a socket that has a route to this address. Sends nothing.
fn routed(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&to.into())?;
    Ok(socket)
}

/// Returns the MTU of the route to this address; on Linux only.
#[cfg(target_os = "linux")]
fn route_mtu(to: SocketAddr) -> Option<usize> {
    use nix::sys::socket::{getsockopt, sockopt::IpMtu};
    usize::try_from(getsockopt(&routed(to).ok()?, IpMtu).ok()?).ok()
}

#[cfg(not(target_os = "linux"))]
fn route_mtu(_: SocketAddr) -> Option<usize> {
    None
}

/// Returns the bytes of the largest payload to try on a route with this MTU.
fn datagram_bytes(to: SocketAddr, mtu: usize) -> u16 {
    let headers = if to.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let payload = u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
    payload.clamp(DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_MAX)
}

/// Returns the bytes of a socket's buffers for received data and for data to send.
fn buffer_bytes(socket: &Socket) -> io::Result<[usize; 2]> {
    // Linux reports twice what it gives to data.
    let factor = if cfg!(target_os = "linux") { 2 } else { 1 };
    Ok([socket.recv_buffer_size()?, socket.send_buffer_size()?].map(|bytes| bytes / factor))
}

/// Binds a UDP socket as a link or a node does, and returns the bytes of its buffers for received
/// data and for data to send.
#[cfg(feature = "cli")]
pub(crate) fn udp_buffers(address: SocketAddr) -> io::Result<[usize; 2]> {
    buffer_bytes(&open(address)?)
}

/// The setting that lets the system give the buffers that are asked for.
pub(crate) fn buffers_remedy() -> String {
    format!(
        "as root, run sysctl -w net.core.rmem_max={UDP_RECEIVE_BUFFER_BYTES} net.core.wmem_max={UDP_SEND_BUFFER_BYTES}"
    )
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(address)?;
    if address.port() > 0 {
        let [receive_bytes, _] = buffer_bytes(&socket)?;
        tell_of_small_buffers(receive_bytes);
    }
    Ok(socket.into())
}

/// Binds a UDP socket with large buffers. Packets that arrive while it is full are lost:
/// first packets of a crowd are sent again a second later, and a peer that sends a burst repeats it
/// and then sends less. On Linux the system gives twice the usual size without any setting.
fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if socket.recv_buffer_size()? < UDP_RECEIVE_BUFFER_BYTES {
        drop(socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER_BYTES));
    }
    if socket.send_buffer_size()? < UDP_SEND_BUFFER_BYTES {
        drop(socket.set_send_buffer_size(UDP_SEND_BUFFER_BYTES));
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Logs once that the system gives a listening socket less than was asked for.
fn tell_of_small_buffers(receive_bytes: usize) {
    static TOLD: Once = Once::new();
    if receive_bytes < UDP_RECEIVE_BUFFER_BYTES {
        TOLD.call_once(|| {
            tracing::info!(
                bytes = receive_bytes,
                "UDP sockets have receive buffers of {} KiB, where {} KiB are asked for; under load packets may be lost: {}",
                receive_bytes / 1024,
                UDP_RECEIVE_BUFFER_BYTES / 1024,
                buffers_remedy(),
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_has_larger_buffers_than_the_system_default() {
        let size =
            |socket: UdpSocket| socket2::SockRef::from(&socket).recv_buffer_size().expect("a size");
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let usual = size(UdpSocket::bind(at).expect("a socket"));
        let ours = size(bind(at).expect("a socket"));
        assert!(ours > usual || usual >= UDP_RECEIVE_BUFFER_BYTES, "{ours} and {usual}");
    }

    #[test]
    fn the_local_path_is_found_without_a_packet() {
        let from = system().source_address(([127, 0, 0, 1], 9).into()).expect("a way");
        assert!(from.is_loopback(), "{from}");
    }

    #[test]
    fn the_largest_datagram_fits_the_interface_with_its_headers() {
        let (v4, v6) = (SocketAddr::from(([192, 0, 2, 1], 9)), SocketAddr::from(([1u8; 16], 9)));
        let sizes = [(1_500, 1_472, 1_452), (1_420, 1_392, 1_372), (9_000, 8_952, 8_952)];
        for (mtu, over_v4, over_v6) in sizes {
            assert_eq!((datagram_bytes(v4, mtu), datagram_bytes(v6, mtu)), (over_v4, over_v6));
        }
        assert_eq!([datagram_bytes(v4, 65_536), datagram_bytes(v4, 576)], [8_952, 1_200]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_loopback_interface_carries_large_datagrams() {
        for to in ["127.0.0.1:9", "[::1]:9"] {
            let to: SocketAddr = to.parse().expect("an address");
            // A machine may have no IPv6.
            if to.is_ipv4() || routed(to).is_ok() {
                assert_eq!(system().datagram_bytes_max(to), DATAGRAM_BYTES_MAX, "{to}");
            }
        }
        // Without a route: the socket may not send to a broadcast address.
        let nowhere = ([255; 4], 9).into();
        assert_eq!(system().datagram_bytes_max(nowhere), DATAGRAM_BYTES_USUAL);
    }

    #[test]
    fn a_missing_runtime_is_reported() {
        let error = system().runtime().expect_err("no runtime").to_string();
        assert!(error.contains("no tokio runtime is running"), "{error}");
    }
}
