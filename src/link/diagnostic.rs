//! Diagnostic connections: they show whether a node can be reached, and how well. They end before
//! HELLO, so that the node registers nothing: a running agent or caller keeps its link.

use super::{
    connector::{self, Connected, Connector},
    endpoint::{self, DiallingConfig},
    fault::LinkFault,
    link_socket::LinkSocket,
    peer_chain,
};
use crate::{
    limits::{
        DIAGNOSTIC_CLOSE_WAIT_MAX, DIAGNOSTIC_MEASURE, DIAGNOSTIC_MEASURE_MAX,
        DIAGNOSTIC_PINGS_EVERY, Limits,
    },
    name::{NodeAddress, PeerName},
    net,
    path::PathSettings,
    tls::{ChainBound, Credentials},
    wire::CloseCode,
};
use quinn::crypto::rustls::HandshakeData;
use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, sleep, timeout};

/// The close text of a diagnostic connection.
const DIAGNOSED: &str = "a diagnosis";

/// The shortest time without a probe of a larger datagram after which no other follows.
const MTU_SETTLED_AFTER: Duration = Duration::from_millis(300);

/// Makes diagnostic connections, over the paths that a link would take.
pub struct DiagnosticDialler {
    connector: Connector,
    paths: PathSettings,
}

impl DiagnosticDialler {
    /// Dials with these settings of paths. Makes no socket yet.
    pub fn new(paths: PathSettings) -> Self {
        Self { connector: Connector::new(net::system()).with_paths(paths.clone()), paths }
    }

    /// Looks up the addresses of a node.
    ///
    /// # Errors
    /// The name does not resolve.
    pub async fn resolve(&self, node: &NodeAddress) -> Result<Vec<SocketAddr>, LinkFault> {
        connector::resolve(&**self.connector.net(), node).await
    }

    /// Returns the address from which this machine sends to an address of a node. Sends nothing.
    ///
    /// # Errors
    /// The system has no route there.
    pub fn source_address(&self, node: &NodeAddress, to: SocketAddr) -> Result<IpAddr, LinkFault> {
        let source = self.connector.net().source_address(to);
        source.map_err(|error| LinkFault::unreachable(node.clone(), &error))
    }

    /// Returns the bytes of the largest UDP payload that the interface towards an address carries.
    pub fn datagram_bytes_max(&self, to: SocketAddr) -> u16 {
        self.connector.net().datagram_bytes_max(to)
    }

    /// Connects to one address of a node by UDP. Ends within seconds.
    ///
    /// # Errors
    /// The fault for which a link could not be made.
    pub async fn by_udp(
        &self,
        credentials: &Credentials,
        node: &NodeAddress,
        to: SocketAddr,
    ) -> Result<DiagnosticConnection, LinkFault> {
        let config = config(credentials, node)?;
        let connected = self.connector.connect_to(to, node, config).await?;
        DiagnosticConnection::new(connected, credentials, None)
    }

    /// Returns the URL of a node's tunnel, and the proxy through which it goes.
    pub fn tunnel_of(&self, node: &NodeAddress) -> (String, Option<String>) {
        let proxy = self.paths.proxy_of(node).map(ToString::to_string);
        (self.paths.url_of(node).to_string(), proxy)
    }

    /// Connects to a node by a tunnel; without credentials it only opens the tunnel. Ends within
    /// seconds.
    ///
    /// # Errors
    /// The fault for which a link could not be made.
    pub async fn by_tunnel(
        &self,
        credentials: Option<&Credentials>,
        node: &NodeAddress,
    ) -> Result<Option<DiagnosticConnection>, LinkFault> {
        let (tunnel, to) = self.connector.open_tunnel(node).await?;
        let server_time = tunnel.server_time.map(|time| (time, self.connector.net().now()));
        let Some(credentials) = credentials else { return Ok(None) };
        let config = config(credentials, node)?;
        let connected = self.connector.handshake_inside(tunnel, to, node, &config).await?;
        DiagnosticConnection::new(connected, credentials, server_time).map(Some)
    }
}

fn config(credentials: &Credentials, node: &NodeAddress) -> Result<DiallingConfig, LinkFault> {
    let config = endpoint::dialling_config(credentials, &Limits::default(), 0);
    let config = config.map_err(|error| connector::unsendable(node, &error))?;
    Ok(config.for_diagnosis())
}

/// A connection to a node whose certificate was verified. Dropping it abandons it; the node then
/// waits for its idle time.
pub struct DiagnosticConnection {
    connection: quinn::Connection,
    socket: LinkSocket,
    peer: PeerName,
    ends: ChainBound,
    server_time: Option<(SystemTime, SystemTime)>,
}

/// Measurements of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMeasurement {
    /// Round-trip time, smoothed.
    pub rtt: Duration,
    /// Packets that were sent, without probes of larger ones.
    pub sent_packets: u64,
    /// Those of them that the node did not receive.
    pub lost_packets: u64,
    /// Bytes of the largest UDP payload that has reached the node; at most
    /// [`DATAGRAM_BYTES_USUAL`](crate::limits::DATAGRAM_BYTES_USUAL), larger ones are not tried.
    pub datagram_bytes: u16,
    /// True if larger payloads were tried and lost, or need not be tried.
    pub is_mtu_known: bool,
}

impl DiagnosticConnection {
    fn new(
        (connection, socket): Connected,
        credentials: &Credentials,
        server_time: Option<(SystemTime, SystemTime)>,
    ) -> Result<Self, LinkFault> {
        let (identity, ends) = peer_chain::verified(&connection, credentials)
            .inspect_err(|fault| endpoint::refuse(&connection, fault))?;
        let peer = identity.peer_name().clone();
        Ok(Self { connection, socket, peer, ends, server_time })
    }

    /// Role and name in the node's certificate.
    pub fn peer(&self) -> &PeerName {
        &self.peer
    }

    /// End of the node's certificate, or of its chain.
    pub fn ends(&self) -> &ChainBound {
        &self.ends
    }

    /// The protocol that both sides have agreed on (ALPN): `dialback/1`.
    pub fn protocol(&self) -> String {
        let data = self.connection.handshake_data().and_then(|any| any.downcast().ok());
        let protocol = data.and_then(|data: Box<HandshakeData>| data.protocol);
        String::from_utf8_lossy(&protocol.unwrap_or_default()).into_owned()
    }

    /// The clock of the HTTP server that opened the tunnel, and this machine's at that time.
    pub fn server_time(&self) -> Option<(SystemTime, SystemTime)> {
        self.server_time
    }

    /// Exchanges PING frames of QUIC with the node for about two seconds, and for up to four while
    /// the size of datagrams is still being found out.
    ///
    /// # Errors
    /// The node has refused the certificate of this side, or was lost.
    pub async fn measure(&self) -> Result<PathMeasurement, LinkFault> {
        let began = Instant::now();
        let (mut probes, mut probed_at) = (0, began);
        loop {
            tokio::select! {
                error = self.connection.closed() => return Err(LinkFault::lost(error)),
                () = sleep(DIAGNOSTIC_PINGS_EVERY) => {}
            }
            let stats = self.connection.stats();
            if stats.path.sent_plpmtud_probes != probes {
                (probes, probed_at) = (stats.path.sent_plpmtud_probes, Instant::now());
            }
            let quiet = MTU_SETTLED_AFTER.max(4 * stats.path.rtt);
            let is_mtu_known = self.socket.is_tunnel() || probed_at.elapsed() > quiet;
            let is_confirmed = stats.frame_rx.handshake_done > 0;
            let is_over = began.elapsed() > DIAGNOSTIC_MEASURE_MAX;
            if is_over && !is_confirmed {
                return Err(LinkFault::Silent("the node has not confirmed the handshake"));
            }
            if is_over || began.elapsed() > DIAGNOSTIC_MEASURE && is_confirmed && is_mtu_known {
                return Ok(PathMeasurement {
                    rtt: stats.path.rtt,
                    sent_packets: stats.path.sent_packets.saturating_sub(probes),
                    lost_packets: stats.path.lost_packets,
                    datagram_bytes: stats.path.current_mtu,
                    is_mtu_known,
                });
            }
        }
    }

    /// Closes the connection, and waits a moment until the node may know it.
    pub async fn close(self) {
        endpoint::close(&self.connection, CloseCode::Goodbye, DIAGNOSED);
        drop(timeout(DIAGNOSTIC_CLOSE_WAIT_MAX, self.socket.endpoint.wait_idle()).await);
    }
}
