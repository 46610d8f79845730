//! The network of the operating system.

use super::{
    network::{Net, NetFuture, SharedNet},
    probe,
    runtime::{BatchingRuntime, expect_tokio},
    suspend::Suspend,
};
use crate::{limits::UDP_RECEIVE_BUFFER_BYTES, race, tls};
use quinn::{AsyncUdpSocket, Runtime};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, LazyLock},
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
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        socket.connect(&to.into())?;
        let from = socket.local_addr()?.as_socket();
        from.map(|from| from.ip()).ok_or_else(|| io::Error::other("not an address of IP"))
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

/// Binds a UDP socket with a large receive buffer. Packets that arrive while it is full are lost:
/// first packets of a crowd are sent again a second later, and a peer that sends a burst repeats it
/// and then sends less. On Linux the system gives twice the usual size without any setting.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if socket.recv_buffer_size()? < UDP_RECEIVE_BUFFER_BYTES {
        drop(socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER_BYTES));
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
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
    fn a_missing_runtime_is_reported() {
        let error = system().runtime().expect_err("no runtime").to_string();
        assert!(error.contains("no tokio runtime is running"), "{error}");
    }
}
