//! The seam below a link: sockets, the runtime that drives them, names, the wall clock and
//! randomness.
//!
//! The builders of nodes, agents and callers take a [`Net`]; the system's is the default. Nothing
//! of it is asked on the path of a call. Keys and tokens do not come from here but from the
//! cryptography.

#[cfg(test)]
pub(crate) mod memory;
mod probe;
mod runtime;
mod suspend;
mod system;

pub(crate) use suspend::{Entered, Suspend};
pub(crate) use system::system;

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

/// What a [`Net`] needs time for.
pub(crate) type NetFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One network, and the clocks and the randomness of whoever is on it.
pub(crate) trait Net: fmt::Debug + Send + Sync {
    /// The runtime that drives one endpoint.
    ///
    /// # Errors
    /// No tokio runtime is running.
    fn runtime(&self) -> io::Result<Arc<dyn Runtime>>;

    /// Binds a UDP socket, driven by this runtime. `[::]` takes IPv4 and IPv6 together.
    ///
    /// # Errors
    /// Those of the system: the address is in use or is not of this machine.
    fn bind(
        &self,
        address: SocketAddr,
        runtime: &dyn Runtime,
    ) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Looks up all addresses of a name, the preferred one first. The caller bounds the time.
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> NetFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// The local address from which packets to this address would be sent. Sends nothing.
    fn source_address(&self, to: SocketAddr) -> io::Result<IpAddr>;

    /// Resolves to the error that the network reports for an address, and never if there is none.
    fn probe(&self, to: SocketAddr) -> NetFuture<'_, io::Error>;

    /// The wall clock, by which certificates expire.
    fn now(&self) -> SystemTime;

    /// Fills these bytes at random.
    fn random(&self, bytes: &mut [u8]);

    /// Detects that this process stood still.
    fn suspend(&self) -> &Suspend;
}

/// A [`Net`] that many share.
pub(crate) type SharedNet = Arc<dyn Net>;

impl dyn Net {
    /// Random bytes.
    pub(crate) fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random(&mut bytes);
        bytes
    }

    /// A random number from 0 to 1, both included.
    pub(crate) fn chance(&self) -> f64 {
        f64::from(u32::from_be_bytes(self.random_bytes())) / f64::from(u32::MAX)
    }
}
