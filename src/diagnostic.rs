//! Measurements for `dialback doctor`: connections to nodes that end before HELLO, and the UDP
//! sockets of this machine.

pub use crate::link::{DiagnosticConnection, DiagnosticDialler, PathMeasurement};
use crate::{
    link::BindError,
    net::{buffers_remedy, udp_buffers},
};
use std::net::{Ipv4Addr, SocketAddr};

/// Bytes of a UDP socket's buffers, as far as they are for data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpBuffers {
    /// Bytes that may wait to be received. Asked for are
    /// [`UDP_RECEIVE_BUFFER_BYTES`](crate::limits::UDP_RECEIVE_BUFFER_BYTES).
    pub receive_bytes: usize,
    /// Bytes that may wait to be sent. Asked for are
    /// [`UDP_SEND_BUFFER_BYTES`](crate::limits::UDP_SEND_BUFFER_BYTES).
    pub send_bytes: usize,
}

/// Binds the UDP address of a node for a moment, and returns the sizes of the socket's buffers.
///
/// # Errors
/// The address cannot be listened on: a node runs there, for example.
pub fn listen_udp(address: SocketAddr) -> Result<UdpBuffers, BindError> {
    let bytes = udp_buffers(address).map_err(|source| BindError::Socket { address, source });
    let [receive_bytes, send_bytes] = bytes?;
    Ok(UdpBuffers { receive_bytes, send_bytes })
}

/// Returns the sizes of the buffers of a UDP socket as links have it.
///
/// # Errors
/// No UDP socket can be made.
pub fn link_buffers() -> Result<UdpBuffers, BindError> {
    listen_udp((Ipv4Addr::UNSPECIFIED, 0).into())
}

/// Returns the command that lets the system give UDP sockets the buffers that are asked for.
pub fn larger_buffers() -> String {
    buffers_remedy()
}
