//! Abstraction of the network for links: sockets, runtime, DNS, clock, randomness.

#[cfg(test)]
pub(crate) mod memory;
mod network;
mod probe;
mod runtime;
mod socket;
mod suspend;
mod system;

pub(crate) use network::{Net, SharedNet};
pub(crate) use suspend::{Entered, Suspend};
pub(crate) use system::system;
#[cfg(feature = "cli")]
pub(crate) use system::{buffers_remedy, udp_buffers};
