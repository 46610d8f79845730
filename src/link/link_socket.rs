//! The socket of a dialled link, and the path of its datagrams.

#[cfg(feature = "tunnel")]
use super::remotes::canonical;
use super::{
    endpoint::{self, BindError, endpoint_config},
    path_change::LinkPath,
};
use crate::net::Net;
#[cfg(feature = "tunnel")]
use crate::{
    limits::UDP_SILENT_REMEMBERED,
    path::{CurrentPath, DiallingSocket, OldTunnel, PathPolicy},
};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
#[cfg(feature = "tunnel")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool};
#[cfg(feature = "tunnel")]
use tokio::time::Instant;

/// The endpoint of one dialled link. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct LinkSocket {
    pub(super) endpoint: quinn::Endpoint,
    #[cfg(not(feature = "tunnel"))]
    wildcard: SocketAddr,
    #[cfg(feature = "tunnel")]
    pub(super) path: Arc<PathState>,
}

/// The path of one link, and the state of the decision about it.
#[cfg(feature = "tunnel")]
#[derive(Debug)]
pub(super) struct PathState {
    pub(super) current: Arc<CurrentPath>,
    socket: Mutex<Arc<DiallingSocket>>,
    /// Set once the link is up.
    policy: Mutex<Option<PathPolicy>>,
    /// A tunnel is being opened.
    pub(super) is_opening: AtomicBool,
    /// UDP is being probed.
    pub(super) is_probing: AtomicBool,
    /// Held while the path or the socket changes: several tasks change them.
    changing: Mutex<()>,
    /// An address of UDP that answered a probe and then not the link, until this time.
    rejected: Mutex<Option<(SocketAddr, Instant)>>,
}

#[cfg(feature = "tunnel")]
impl PathState {
    pub(super) fn policy(&self) -> MutexGuard<'_, Option<PathPolicy>> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state of the decision, if the link is up.
    pub(super) fn with_policy<T: Default>(&self, change: impl FnOnce(&mut PathPolicy) -> T) -> T {
        self.policy().as_mut().map(change).unwrap_or_default()
    }

    /// Lets nobody else change the path or the socket meanwhile.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does not return to the present address of UDP for some time if the link has just come there
    /// and QUIC knows another: a node answers a link from the address to which the link was
    /// dialled, and a NAT or a firewall in between may drop that.
    pub(super) fn reject_address_on_trial(&self, known: SocketAddr, now: Instant) {
        let present = self.current.udp_address();
        if present != known && self.with_policy(|policy| policy.is_on_trial(now)) {
            let until = now + UDP_SILENT_REMEMBERED;
            *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = Some((present, until));
        }
    }

    /// Returns true if the link does not return to this address of UDP now.
    pub(super) fn is_rejected(&self, address: SocketAddr, now: Instant) -> bool {
        let rejected = *self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        rejected.is_some_and(|(one, until)| one == address && now < until)
    }

    fn socket(&self) -> MutexGuard<'_, Arc<DiallingSocket>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkSocket {
    /// Opens an endpoint with a socket of the family of this address. One for both families would
    /// do, but the system's IPv6 code would then see each IPv4 packet first.
    pub(super) fn open(net: &dyn Net, to: SocketAddr) -> Result<Self, BindError> {
        let wildcard = wildcard_for(to);
        #[cfg(feature = "tunnel")]
        {
            let current = CurrentPath::udp(to);
            let mut made = None;
            let wrap = |udp| {
                let socket = current.socket(udp);
                made = Some(socket.clone());
                socket as _
            };
            let endpoint = endpoint::open(net, wildcard, endpoint_config(), None, wrap)?;
            let socket = made.ok_or_else(|| BindError::Socket {
                address: wildcard,
                source: std::io::Error::other("no socket was made"),
            })?;
            let [is_opening, is_probing] = [false; 2].map(AtomicBool::new);
            let socket = Mutex::new(socket);
            let path = Arc::new(PathState {
                current,
                socket,
                policy: Mutex::default(),
                is_opening,
                is_probing,
                changing: Mutex::default(),
                rejected: Mutex::default(),
            });
            Ok(Self { endpoint, path })
        }
        #[cfg(not(feature = "tunnel"))]
        Ok(Self {
            endpoint: endpoint::open(net, wildcard, endpoint_config(), None, |udp| udp)?,
            wildcard,
        })
    }

    /// Begins to decide about the path of a link that is up.
    pub(super) fn link_is_up(&self, chance: f64) {
        #[cfg(feature = "tunnel")]
        {
            let policy = PathPolicy::new(Instant::now(), self.is_tunnel(), chance);
            *self.path.policy() = Some(policy);
        }
        #[cfg(not(feature = "tunnel"))]
        let _ = chance;
    }

    /// Sends UDP from a new socket from now on. quinn reads the old one until the peer answers on
    /// the new one.
    pub(super) fn rebind(&self, net: &dyn Net) -> Result<(), BindError> {
        #[cfg(feature = "tunnel")]
        let _changing = self.path.changing();
        let wildcard = self.wildcard();
        let rebind = || {
            let udp = net.bind(wildcard, &*net.runtime()?)?;
            #[cfg(feature = "tunnel")]
            {
                // Held until QUIC has it: `announce` may run in another task.
                let mut socket = self.path.socket();
                *socket = self.path.current.socket(udp);
                self.endpoint.rebind_abstract(socket.clone())
            }
            #[cfg(not(feature = "tunnel"))]
            self.endpoint.rebind_abstract(udp)
        };
        #[cfg(feature = "tunnel")]
        self.path.with_policy(PathPolicy::renew_tunnel);
        rebind().map_err(|source| BindError::Socket { address: wildcard, source })
    }

    /// Returns the address of the node by UDP, which QUIC knows by the given one.
    pub(super) fn remote_address(&self, known: SocketAddr) -> SocketAddr {
        #[cfg(feature = "tunnel")]
        let known = {
            let _ = known;
            canonical(self.path.current.udp_address())
        };
        known
    }

    fn wildcard(&self) -> SocketAddr {
        #[cfg(feature = "tunnel")]
        return wildcard_for(self.path.current.udp_address());
        #[cfg(not(feature = "tunnel"))]
        self.wildcard
    }

    /// Sends by UDP to this address of the node from now on, perhaps of another family, and tells
    /// the peer. The tunnel is read until what this returns is dropped. Needs
    /// [`PathState::changing`].
    #[cfg(feature = "tunnel")]
    pub(super) fn take_udp(&self, net: &dyn Net, to: SocketAddr) -> std::io::Result<OldTunnel> {
        let wildcard = wildcard_for(to);
        let bind = || net.bind(wildcard, &*net.runtime()?);
        let udp = (wildcard != self.wildcard()).then(bind).transpose()?;
        let left = self.path.current.take_udp(to);
        if let Some(udp) = udp {
            *self.path.socket() = self.path.current.socket(udp);
        }
        self.announce();
        Ok(left)
    }

    /// Tells the peer of a new path at once: sends the last datagrams once more on it, and has QUIC
    /// send a new one.
    #[cfg(feature = "tunnel")]
    pub(super) fn announce(&self) {
        let socket = self.path.socket();
        socket.replay();
        // Fails only without a local address, which it had before.
        drop(self.endpoint.rebind_abstract(socket.clone()));
    }

    /// Returns the path on which datagrams are sent now.
    pub(super) fn path(&self) -> LinkPath {
        if self.is_tunnel() { LinkPath::Tunnel } else { LinkPath::Udp }
    }

    pub(super) fn is_tunnel(&self) -> bool {
        #[cfg(feature = "tunnel")]
        return self.path.current.is_tunnel();
        #[cfg(not(feature = "tunnel"))]
        false
    }
}

/// Returns the address for a socket that sends to this one.
fn wildcard_for(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
