//! The path of the first packets to a node: UDP first, then a tunnel as well.

use super::{
    connector::{self, Connected, Connector},
    endpoint::DiallingConfig,
    fault::LinkFault,
    link_socket::LinkSocket,
    path_change::LinkPath,
};
use crate::{
    limits::{DATAGRAM_BYTES_MIN, TUNNEL_HEAD_START, UDP_SILENT_REMEMBERED},
    name::NodeAddress,
    path::{PathChoice, PathSettings, Tunnel, TunnelFault},
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// Time for a name to resolve once the tunnel is open. A link that does not know an address of UDP
/// stays in its tunnel, under an address that nobody has (RFC 1112 section 4).
const RESOLVE_GRACE: Duration = Duration::from_millis(250);

/// The settings of paths, and what is known of the network.
#[derive(Debug)]
pub(super) struct PathSelection {
    settings: PathSettings,
    /// Nodes that were reached by a tunnel and not by UDP, with the time until which that is
    /// remembered.
    udp_silent: Mutex<BTreeMap<NodeAddress, Instant>>,
}

impl Default for PathSelection {
    fn default() -> Self {
        Self::new(PathSettings::udp())
    }
}

impl PathSelection {
    pub(super) fn new(settings: PathSettings) -> Self {
        Self { settings, udp_silent: Mutex::default() }
    }

    pub(super) const fn settings(&self) -> &PathSettings {
        &self.settings
    }

    fn udp_silent(&self) -> MutexGuard<'_, BTreeMap<NodeAddress, Instant>> {
        self.udp_silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time that UDP has for itself at the next dial.
    fn head_start(&self, address: &NodeAddress) -> Duration {
        let until = self.udp_silent().get(address).copied();
        match until {
            Some(until) if Instant::now() < until => Duration::ZERO,
            _ => TUNNEL_HEAD_START,
        }
    }

    /// Records whether UDP led to a node.
    pub(super) fn note(&self, address: &NodeAddress, is_udp: bool) {
        let mut udp_silent = self.udp_silent();
        if is_udp {
            udp_silent.remove(address);
        } else {
            udp_silent.insert(address.clone(), Instant::now() + UDP_SILENT_REMEMBERED);
        }
    }
}

impl Connector {
    /// Takes these paths.
    pub(super) fn with_paths(mut self, settings: PathSettings) -> Self {
        self.path_selection = PathSelection::new(settings).into();
        self
    }

    /// Connects to a node by UDP or by a tunnel, whichever the settings allow and answers first.
    pub(super) async fn connect(
        &self,
        address: &NodeAddress,
        config: &DiallingConfig,
    ) -> Result<Connected, LinkFault> {
        match self.path_selection.settings.choice {
            PathChoice::Udp => self.race(address, config).await,
            PathChoice::Tunnel => self.by_tunnel(address, config).await,
            PathChoice::Auto => self.by_either(address, config).await,
        }
    }

    /// Tries UDP, and a tunnel too after the head start, or once UDP has failed. A refusal of the
    /// node counts at once by UDP, and by a tunnel once UDP has failed: the outer TLS does not show
    /// whose tunnel it is.
    async fn by_either(
        &self,
        address: &NodeAddress,
        config: &DiallingConfig,
    ) -> Result<Connected, LinkFault> {
        let mut udp = pin!(self.race(address, config));
        let mut no_udp = None;
        match timeout(self.path_selection.head_start(address), udp.as_mut()).await {
            Ok(Ok(connected)) => return Ok(self.linked_by(address, connected, None)),
            Ok(Err(fault)) if fault.is_refusal() => return Err(fault),
            Ok(Err(fault)) => no_udp = Some(fault),
            Err(_elapsed) => {}
        }
        let mut tunnel = pin!(self.by_tunnel(address, config));
        let mut no_tunnel = None;
        loop {
            tokio::select! {
                biased;
                by_udp = udp.as_mut(), if no_udp.is_none() => match by_udp {
                    Ok(connected) => return Ok(self.linked_by(address, connected, None)),
                    Err(fault) if fault.is_refusal() => return Err(fault),
                    Err(fault) => no_udp = Some(fault),
                },
                by_tunnel = tunnel.as_mut(), if no_tunnel.is_none() => match by_tunnel {
                    Ok(connected) => {
                        return Ok(self.linked_by(address, connected, no_udp.as_ref()));
                    }
                    Err(fault) if fault.is_refusal() && no_udp.is_some() => return Err(fault),
                    Err(fault) => no_tunnel = Some(fault),
                },
                else => break,
            }
        }
        let silent = || LinkFault::NoAnswer { address: address.clone() };
        let udp = Box::new(no_udp.unwrap_or_else(silent));
        Err(match no_tunnel.unwrap_or_else(silent) {
            LinkFault::Tunnel(tunnel) => LinkFault::NoPath { udp, tunnel },
            fault if fault.is_refusal() => fault,
            fault => {
                LinkFault::NoPath { udp, tunnel: TunnelFault::Local(fault.to_string()).into() }
            }
        })
    }

    fn linked_by(
        &self,
        address: &NodeAddress,
        connected: Connected,
        no_udp: Option<&LinkFault>,
    ) -> Connected {
        let is_tunnel = connected.1.is_tunnel();
        self.path_selection.note(address, !is_tunnel);
        if is_tunnel {
            let why = no_udp.map(|fault| format!(": {fault}")).unwrap_or_default();
            tracing::info!(
                %address,
                path = %LinkPath::Tunnel,
                reason = no_udp.map(tracing::field::display),
                "{address} answers through a tunnel over TCP, and has not answered by UDP until then{why}"
            );
        }
        connected
    }

    async fn by_tunnel(
        &self,
        address: &NodeAddress,
        config: &DiallingConfig,
    ) -> Result<Connected, LinkFault> {
        let (tunnel, to) = self.open_tunnel(address).await?;
        self.handshake_inside(tunnel, to, address, config).await
    }

    /// Opens a tunnel to a node, and returns it with the first address of the node by UDP; `None`
    /// if its name does not resolve here.
    pub(super) async fn open_tunnel(
        &self,
        address: &NodeAddress,
    ) -> Result<(Tunnel, Option<SocketAddr>), LinkFault> {
        let (mut opening, mut resolving) =
            (pin!(self.path_selection.settings.open(address)), pin!(self.address_of(address)));
        let mut found = None;
        let opened = loop {
            tokio::select! {
                biased;
                to = resolving.as_mut(), if found.is_none() => found = Some(to),
                opened = opening.as_mut() => break opened,
            }
        };
        let tunnel = opened.map_err(|fault| LinkFault::Tunnel(fault.into()))?;
        let to = match found {
            Some(to) => to,
            None => timeout(RESOLVE_GRACE, resolving).await.unwrap_or(None),
        };
        Ok((tunnel, to))
    }

    /// Performs the handshake with a node inside a tunnel.
    pub(super) async fn handshake_inside(
        &self,
        tunnel: Tunnel,
        to: Option<SocketAddr>,
        address: &NodeAddress,
        config: &DiallingConfig,
    ) -> Result<Connected, LinkFault> {
        let (to, socket) = self.socket_for(to, address)?;
        drop(socket.path.current.take_tunnel(tunnel, DATAGRAM_BYTES_MIN.into()));
        let config = config.on_path(self.net().datagram_bytes_max(to));
        let connected = connector::handshake(&socket, to, address, config).await;
        let connection = connected.map_err(|fault| match fault {
            // Another service of dialback has another ALPN.
            LinkFault::NoAnswer { .. } | LinkFault::Handshake { is_identity: false, .. } => {
                let url = self.path_selection.settings.url_of(address).to_string();
                LinkFault::Tunnel(TunnelFault::NoNode { url }.into())
            }
            fault => fault,
        })?;
        self.endpoints().keep(&socket.endpoint);
        Ok((connection, socket))
    }

    /// Opens a socket for a link to this address. A family without sockets here, or a name that
    /// only a proxy resolves, does not stop a tunnel.
    fn socket_for(
        &self,
        to: Option<SocketAddr>,
        address: &NodeAddress,
    ) -> Result<(SocketAddr, LinkSocket), LinkFault> {
        let net = &**self.net();
        let open = |to| LinkSocket::open(net, to).map(|socket| (to, socket));
        let unknown = (Ipv4Addr::new(240, 0, 0, 1), address.port()).into();
        let opened = to.map(open).and_then(Result::ok).map_or_else(|| open(unknown), Ok);
        opened.map_err(|error| connector::unsendable(address, &error))
    }

    /// Returns the first address of the node by UDP, to which a link in a tunnel may move; `None`
    /// if its name does not resolve here.
    async fn address_of(&self, address: &NodeAddress) -> Option<SocketAddr> {
        connector::resolve(&**self.net(), address).await.ok()?.into_iter().next()
    }
}
