//! The seam below a link: sockets, the runtime that drives them, names, the wall clock and
//! randomness.

#[cfg(test)]
pub(crate) mod memory;
mod network;
mod probe;
mod runtime;
mod suspend;
mod system;

pub(crate) use network::{Net, SharedNet};
pub(crate) use suspend::{Entered, Suspend};
pub(crate) use system::system;
