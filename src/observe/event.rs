//! Events of links, calls and credentials: one variant each, with its fields.

use crate::{
    link::{LinkFault, LinkMove, LinkPath, PathChange},
    name::{MethodPath, Name, PeerName},
    status::Code,
    tls::{Claim, Identity},
};
use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// An event of a node or an agent, reported once to an [`Observer`](super::Observer).
pub(crate) enum Event<'a> {
    /// Handshakes were ignored because too many waited.
    HandshakesIgnored { last: SocketAddr, count: u64, per_second: usize },
    /// The handshake of an unauthenticated client failed, or its first frames did.
    HandshakeRefused {
        address: SocketAddr,
        /// Set if its certificate was verified.
        peer: Option<&'a Identity>,
        /// Content of a certificate that TLS refused.
        claim: Option<&'a Claim>,
        reason: &'a LinkFault,
    },
    /// A node refused the link of an authenticated peer.
    LinkRefused { peer: &'a Identity, address: SocketAddr, reason: &'a str },
    /// An agent's node refused it, or it refused the node.
    DialRefused { address: &'a dyn Display, reason: &'a LinkFault },
    /// A link is up.
    LinkUp { peer: &'a Identity, address: SocketAddr, path: LinkPath },
    /// The peer of a node's link has another address or path.
    LinkMoved { peer: &'a Identity, moved: LinkMove },
    /// A link has ended.
    LinkDown { peer: &'a Identity, address: SocketAddr, lasted: Duration, reason: &'a LinkFault },
    /// A node closed a link because its peer has too many; `limit` names the setting.
    LinkEvicted { peer: &'a PeerName, address: SocketAddr, limit: &'static str },
    /// A node closed the link of a caller that reset too many calls.
    ResetsExceeded { peer: &'a PeerName, resets_max: usize },
    /// An agent registered its services on a link.
    AgentRegistered {
        agent: &'a Name,
        address: SocketAddr,
        path: LinkPath,
        services: usize,
        /// True if it had no link before.
        is_new: bool,
        /// True if this link was registered before.
        is_again: bool,
        /// Links of the instance that this one superseded, oldest first.
        superseded: &'a [SocketAddr],
    },
    /// An agent's certificate is used by two instances, and this one was refused.
    AgentHeldBack {
        agent: &'a Name,
        address: SocketAddr,
        other: SocketAddr,
        /// True if the instance was not held back before.
        is_first: bool,
    },
    /// An agent takes no more calls on a link.
    AgentDraining { agent: &'a Name, address: SocketAddr, has_other_link: bool, reason: &'a str },
    /// The last link of an agent has ended.
    AgentDetached { agent: &'a Name, reason: &'a LinkFault },
    /// An agent is registered with a node.
    Registered { node: &'a Name, address: &'a dyn Display, remote: SocketAddr, path: LinkPath },
    /// A link of an agent has changed its path.
    PathChanged(&'a PathChange),
    /// A node takes no more calls of an agent.
    NodeDraining { node: &'a Name },
    /// An agent's link to a node has ended, and no other replaced it.
    NodeLost { node: &'a Name, reason: &'a LinkFault },
    /// A policy, a quota or an owner's rule refused a call.
    CallRefused {
        caller: &'a PeerName,
        /// `None` for a call that names only the service.
        target: Option<&'a PeerName>,
        /// On an agent, the node that forwarded the call.
        via: Option<&'a Name>,
        method: &'a MethodPath,
        code: Code,
        reason: &'a dyn Display,
    },
    /// The gateway refused a request or a connection of an unauthenticated client.
    #[cfg_attr(not(feature = "gateway"), expect(dead_code, reason = "made by the gateway"))]
    HttpRefused { address: IpAddr, claim: Option<&'a Claim>, reason: &'a dyn Display },
    /// Calls in flight were aborted at the end of a graceful close.
    CallsAborted { after: Duration },
    /// A certificate or a revocation list is about to end, or has ended.
    CredentialsWarning { text: &'a str },
    /// A configuration was applied to the running process.
    ConfigApplied { config_version: u64, changed: &'a dyn Display, closed: usize },
}
