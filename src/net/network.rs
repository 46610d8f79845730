//! The trait [`Net`]: the network of a link, its clocks and its randomness.
//!
//! The builders of nodes, agents and callers take a [`Net`]; the system's is the default. No call
//! asks it. Keys and tokens do not come from here but from the cryptography.

use super::suspend::Suspend;
use quinn::{AsyncUdpSocket, Runtime};
use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::SystemTime,
};

pub(crate) type NetFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One network, with the clocks and the randomness of the peers on it.
pub(crate) trait Net: fmt::Debug + Send + Sync {
    /// Returns the runtime that drives one endpoint; an error where no tokio runtime is running.
    fn runtime(&self) -> io::Result<Arc<dyn Runtime>>;

    /// Binds a UDP socket, driven by this runtime. `[::]` binds IPv4 and IPv6 together.
    fn bind(
        &self,
        address: SocketAddr,
        runtime: &dyn Runtime,
    ) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Looks up all addresses of a name, the preferred one first. The caller limits the time.
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> NetFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// Returns the source address of packets to this address. Sends nothing.
    fn source_address(&self, to: SocketAddr) -> io::Result<IpAddr>;

    /// Returns the bytes of the largest UDP payload on the interface towards this address. Routers
    /// behind it may carry less. Sends nothing.
    fn datagram_bytes_max(&self, to: SocketAddr) -> u16;

    /// Resolves to the error that the network reports for an address, and never if there is none.
    fn probe(&self, to: SocketAddr) -> NetFuture<'_, io::Error>;

    /// Returns the time of the wall clock, by which certificates expire.
    fn now(&self) -> SystemTime;

    /// Fills these bytes at random.
    fn random(&self, bytes: &mut [u8]);

    /// Returns the detector of suspends of this process.
    fn suspend(&self) -> &Suspend;
}

pub(crate) type SharedNet = Arc<dyn Net>;

impl dyn Net {
    pub(crate) fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random(&mut bytes);
        bytes
    }

    /// Returns a random number from 0 to 1, both included.
    pub(crate) fn chance(&self) -> f64 {
        f64::from(u32::from_be_bytes(self.random_bytes())) / f64::from(u32::MAX)
    }
}
