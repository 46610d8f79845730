//! The path of a link's datagrams, and the causes of its changes.

use crate::name::{Name, NodeAddress};
use std::fmt;

/// The path of a link's datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkPath {
    /// UDP.
    Udp,
    /// A tunnel over TCP.
    Tunnel,
}

impl LinkPath {
    /// `udp` or `tunnel`, as in the log, the audit log and `dialback agents`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tunnel => "tunnel",
        }
    }
}

impl fmt::Display for LinkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The cause of a change of a link's path. The dialling side decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathChangeCause {
    /// From UDP to a tunnel: the node has acknowledged nothing by UDP for 3 s.
    UdpSilent,
    /// From a tunnel to UDP: a probe of UDP has reached the node.
    UdpAnswers,
    /// To another tunnel: the last one has ended.
    TunnelEnded,
    /// To another tunnel: the node has acknowledged nothing in the last one for 3 s.
    TunnelSilent,
    /// To another tunnel or UDP socket: the network of this machine has changed.
    NetworkChanged,
    /// To another UDP socket: nothing was heard from any node for longer than a heartbeat takes.
    NodesSilent,
}

impl fmt::Display for PathChangeCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UdpSilent => "nothing is acknowledged by UDP any more",
            Self::UdpAnswers => "the node answers by UDP",
            Self::TunnelEnded => "the last tunnel has ended",
            Self::TunnelSilent => "nothing is acknowledged in the last tunnel any more",
            Self::NetworkChanged => "the network has changed",
            Self::NodesSilent => "nothing is heard from any node",
        })
    }
}

/// A link of the dialling side has changed its path.
#[derive(Debug, Clone)]
pub(crate) struct PathChange {
    pub(crate) node: Name,
    /// The address by which the node was dialled.
    pub(crate) address: NodeAddress,
    pub(crate) old: LinkPath,
    /// The same as `old` for another tunnel or socket.
    pub(crate) new: LinkPath,
    pub(crate) cause: PathChangeCause,
    /// Another link has replaced the link, which finishes its calls.
    pub(crate) is_replaced: bool,
}
