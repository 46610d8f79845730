//! UDP sockets and transport settings of links.

use super::{
    congestion,
    fault::LinkFault,
    remotes::{Remotes, canonical},
    resets::ResetKeys,
};
use crate::{
    handshake_limiter::Incoming,
    limits::{self, Congestion, Limits},
    net::{Net, SharedNet},
    system,
    tls::{ClaimSlot, Credentials, CredentialsError, MacKey},
    wire::{ALPN, ALPN_WITH_WINDOWS, CloseCode},
};
use quinn::{
    AsyncUdpSocket, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
    crypto::{CryptoError, HmacKey},
};
use quinn_proto::HashedConnectionIdGenerator;
use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Error of creating an endpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("cannot listen on UDP {address}: {source}{}", hint(.source))]
    Socket {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The credentials do not make a TLS configuration.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there, stop it or choose another address with --listen"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        _ => system::remedy(error),
    }
}

/// Opens an endpoint over a UDP socket, which `wrap` may wrap.
pub(super) fn open(
    net: &dyn Net,
    address: SocketAddr,
    config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
    wrap: impl FnOnce(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket>,
) -> Result<quinn::Endpoint, BindError> {
    let open = || {
        let runtime = net.runtime()?;
        let socket = wrap(net.bind(address, &*runtime)?);
        quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)
    };
    open().map_err(|source| BindError::Socket { address, source })
}

/// Opens an endpoint that accepts connections by UDP, and by the tunnels that it also returns.
pub(super) fn open_accepting(
    net: &dyn Net,
    address: SocketAddr,
    config: EndpointConfig,
    server: quinn::ServerConfig,
) -> Result<(quinn::Endpoint, Remotes), BindError> {
    let mut remotes = Remotes::default();
    let wrap = |udp| {
        let (socket, joined) = Remotes::join(udp);
        remotes = joined;
        socket
    };
    let endpoint = open(net, address, config, Some(server), wrap)?;
    Ok((endpoint, remotes))
}

/// The settings of both sides. The peer may use `streams` and `window` from the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct TransportSettings {
    streams: u32,
    window: u32,
    send_window: u64,
    congestion: Congestion,
    idle_max: Duration,
    /// Interval of QUIC's PING frames; links have their own heartbeats.
    pings_every: Option<Duration>,
    /// Bytes of the largest UDP payload that is tried.
    tried_bytes_max: u16,
}

impl TransportSettings {
    pub(super) fn new(limits: &Limits, streams: u32, window: u32) -> Self {
        let &Limits { congestion, idle_max, .. } = limits;
        let send_window = call_window(limits);
        let (pings_every, tried_bytes_max) = (None, limits::DATAGRAM_BYTES_MAX);
        Self { streams, window, send_window, congestion, idle_max, pings_every, tried_bytes_max }
    }

    /// Returns the settings for a path whose first interface carries these UDP payloads. Larger
    /// ones than each path carries are sent once a probe of their size was acknowledged.
    pub(super) fn on_path(self, datagram_bytes_max: u16) -> TransportConfig {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(datagram_bytes_max.min(self.tried_bytes_max));
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(self.streams.into())
            .max_concurrent_uni_streams(0u8.into())
            .datagram_receive_buffer_size(None)
            .stream_receive_window(varint(with_eighth(limits::STREAM_WINDOW_BYTES_MAX.into())))
            .receive_window(self.window.into())
            .send_window(self.send_window)
            .keep_alive_interval(self.pings_every)
            .mtu_discovery_config(Some(mtu))
            .congestion_controller_factory(congestion::factory(self.congestion))
            // Only a value over 2^62 ms does not convert.
            .max_idle_timeout(IdleTimeout::try_from(self.idle_max).ok());
        transport
    }

    /// Returns them for one connection, which has a qlog file if that was asked for.
    fn of_one_on_path(self, datagram_bytes_max: u16) -> Arc<TransportConfig> {
        let transport = self.on_path(datagram_bytes_max);
        #[cfg(feature = "qlog")]
        let transport = {
            let mut transport = transport;
            super::qlog::attach(&mut transport);
            transport
        };
        Arc::new(transport)
    }
}

/// Returns the part of the send buffer for calls. The control stream raises it while it writes.
pub(super) fn call_window(limits: &Limits) -> u64 {
    let all = limits.send_buffer_bytes as u64;
    all.saturating_sub(limits::CONTROL_RESERVE_BYTES).max(limits::CONTROL_RESERVE_BYTES)
}

/// Adds an eighth to a number of streams or bytes that the peer may use: quinn tells it of ended
/// streams and of bytes that were read only once they are an eighth of all.
const fn with_eighth(count: u64) -> u64 {
    count + count.div_ceil(7)
}

/// Returns the number of streams for a peer that may have `calls` in flight.
pub(super) fn streams_for(calls: usize) -> u32 {
    let streams = bounded(calls) + limits::STREAMS_SPARE;
    with_eighth(streams.into()) as u32 + 1
}

/// Lets the peer of a connection send this many bytes ahead of all readers.
pub(super) fn set_receive_window(connection: &quinn::Connection, bytes: u64) {
    connection.set_receive_window(varint(with_eighth(bytes)));
}

fn varint(bytes: u64) -> VarInt {
    VarInt::try_from(bytes).unwrap_or(VarInt::MAX)
}

/// Returns the receive window of a connection with this many calls in flight in each direction.
/// When all of them fill the windows of their streams, the rest keeps the control stream going.
pub(super) fn window_for(answered: usize, initiated: usize) -> u32 {
    let calls = bounded(answered) + bounded(initiated);
    let streams = limits::STREAM_WINDOW_BYTES.saturating_mul(calls);
    limits::CONNECTION_WINDOW_BASE_BYTES.saturating_add(streams).min(1 << 30)
}

fn bounded(calls: usize) -> u32 {
    u32::try_from(calls).unwrap_or(u32::MAX).min(1 << 16)
}

/// The TLS configuration does not fit QUIC: only if a provider without AES-128-GCM was chosen.
fn no_quic_suite<E>(_: E) -> BindError {
    BindError::Socket {
        address: (Ipv6Addr::UNSPECIFIED, 0).into(),
        source: io::Error::other("the TLS provider has no cipher suite for QUIC"),
    }
}

/// Configures an endpoint that receives the largest datagrams that a link tries.
pub(super) fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    // It fails only for sizes that are no UDP payload.
    drop(config.max_udp_payload_size(limits::DATAGRAM_BYTES_MAX));
    config
}

/// Configures the stateless resets that the accepting side sends for packets of unknown links, and
/// their rate. Peers of an earlier run accept them if its keys are given.
pub(super) fn accepting_endpoint(keys: Option<&ResetKeys>) -> Result<EndpointConfig, BindError> {
    let mut config = endpoint_config();
    config.min_reset_interval(limits::RESET_EVERY_MIN);
    if let Some(keys) = keys {
        let ids = keys.connection_id_key();
        config
            .reset_key(Arc::new(ResetMac(keys.reset_key().ok_or(()).map_err(no_quic_suite)?)))
            .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    }
    Ok(config)
}

struct ResetMac(MacKey);

impl HmacKey for ResetMac {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(&self.0.sign(data));
    }

    fn signature_len(&self) -> usize {
        MacKey::TAG_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if self.0.verify(data, signature) { Ok(()) } else { Err(CryptoError) }
    }
}

/// Adds the protocol with WINDOW frames before the one that all peers know.
fn offer_windows(protocols: &mut Vec<Vec<u8>>) {
    protocols.insert(0, ALPN_WITH_WINDOWS.to_vec());
}

/// Configures the accepting side for unauthenticated clients.
pub(super) fn server_config(
    credentials: &Credentials,
    limits: &Limits,
) -> Result<AcceptingConfig, BindError> {
    let (streams, window) = (limits::UNAUTHENTICATED_STREAMS, limits::UNAUTHENTICATED_WINDOW_BYTES);
    let transport = TransportSettings::new(limits, streams, window);
    let mut tls = credentials.accepting_config(ALPN)?;
    offer_windows(&mut tls.alpn_protocols);
    let server = accepting(tls, transport)?;
    Ok(AcceptingConfig { server, transport })
}

/// The configuration of an accepting endpoint, of which each handshake takes a copy.
#[derive(Clone)]
pub(crate) struct AcceptingConfig {
    pub(super) server: quinn::ServerConfig,
    transport: TransportSettings,
}

/// Configures an accepting side with limits on the packets of unauthenticated clients.
pub(super) fn accepting(
    tls: impl TryInto<QuicServerConfig>,
    transport: TransportSettings,
) -> Result<quinn::ServerConfig, BindError> {
    let tls = tls.try_into().map_err(no_quic_suite)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls));
    server
        .transport_config(Arc::new(transport.on_path(limits::DATAGRAM_BYTES_USUAL)))
        .max_incoming(limits::HANDSHAKES_WAITING_MAX * 2)
        .incoming_buffer_size(limits::INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(limits::INCOMING_BYTES_TOTAL_MAX);
    Ok(server)
}

/// The configuration of a dialling side, of which each attempt takes a copy for its path.
#[derive(Clone)]
pub(super) struct DiallingConfig {
    tls: Arc<QuicClientConfig>,
    transport: TransportSettings,
}

impl DiallingConfig {
    pub(super) fn new(
        tls: impl TryInto<QuicClientConfig>,
        transport: TransportSettings,
    ) -> Result<Self, BindError> {
        Ok(Self { tls: Arc::new(tls.try_into().map_err(no_quic_suite)?), transport })
    }

    /// Has QUIC send a PING whenever nothing was received for a short time, and try UDP payloads up
    /// to those of Ethernet: a search among larger ones may take longer than the connection.
    #[cfg(feature = "cli")]
    pub(super) fn for_diagnosis(mut self) -> Self {
        self.transport.pings_every = Some(limits::DIAGNOSTIC_PINGS_EVERY);
        self.transport.tried_bytes_max = limits::DATAGRAM_BYTES_USUAL;
        self
    }

    pub(super) fn on_path(&self, datagram_bytes_max: u16) -> quinn::ClientConfig {
        let mut config = quinn::ClientConfig::new(self.tls.clone());
        config.transport_config(self.transport.of_one_on_path(datagram_bytes_max));
        config
    }
}

impl AcceptingConfig {
    /// Configures one handshake, which stores the claim of a refused certificate in this slot.
    /// Costs some allocations, and about 1 KiB that the connection keeps.
    pub(super) fn of_one(
        &self,
        credentials: &Credentials,
        slot: &ClaimSlot,
        datagram_bytes_max: u16,
    ) -> Result<Arc<quinn::ServerConfig>, BindError> {
        let mut server = self.server.clone();
        let mut tls = credentials.accepting_config_of_one(ALPN, slot)?;
        offer_windows(&mut tls.alpn_protocols);
        server.crypto = Arc::new(QuicServerConfig::try_from(tls).map_err(no_quic_suite)?);
        server.transport_config(self.transport.of_one_on_path(datagram_bytes_max));
        Ok(Arc::new(server))
    }
}

/// The endpoints of the dialling side. Each link has its own, with a socket of its own.
#[derive(Debug)]
pub(super) struct DiallingEndpoints {
    net: SharedNet,
    used: Mutex<Vec<quinn::Endpoint>>,
}

impl DiallingEndpoints {
    pub(super) fn new(net: SharedNet) -> Self {
        Self { net, used: Mutex::default() }
    }

    pub(super) const fn net(&self) -> &SharedNet {
        &self.net
    }

    /// Has [`DiallingEndpoints::wait_idle`] wait for the connection of this endpoint.
    pub(super) fn keep(&self, endpoint: &quinn::Endpoint) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).push(endpoint.clone());
    }

    /// Closes the sockets of links that have ended.
    pub(super) fn drop_idle(&self) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|endpoint| endpoint.open_connections() > 0);
    }

    pub(super) async fn wait_idle(&self) {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        for endpoint in used {
            endpoint.wait_idle().await;
        }
    }
}

/// Configures the dialling side. The handshake verifies the peer, which may have streams at once.
pub(super) fn dialling_config(
    credentials: &Credentials,
    limits: &Limits,
    calls: usize,
) -> Result<DiallingConfig, BindError> {
    // The number of calls to the node is known with WELCOME.
    let window = with_eighth(window_for(calls, 0).into()) as u32;
    let transport = TransportSettings::new(limits, streams_for(calls), window);
    let mut tls = credentials.dialling_config(ALPN)?;
    offer_windows(&mut tls.alpn_protocols);
    DiallingConfig::new(tls, transport)
}

/// Closes a connection with one of our codes. A connection that has ended keeps its own reason,
/// which quinn would replace for streams that have not seen it yet.
pub(super) fn close(connection: &quinn::Connection, code: CloseCode, text: &str) {
    if connection.close_reason().is_some() {
        return;
    }
    connection.close(VarInt::from_u32(code.number() as u32), text.as_bytes());
}

/// Closes a connection because its peer breaks the protocol or is too slow.
pub(super) fn refuse(connection: &quinn::Connection, fault: &LinkFault) {
    close(connection, CloseCode::Protocol, &fault.to_string());
}

/// Waits for a step of the peer. `silence` describes its absence.
pub(super) async fn within<T>(
    wait_max: Duration,
    step: impl Future<Output = Result<T, LinkFault>>,
    silence: &'static str,
) -> Result<T, LinkFault> {
    tokio::time::timeout(wait_max, step).await.unwrap_or(Err(LinkFault::Silent(silence)))
}

/// An incoming connection, only its first packet read, and what its endpoint accepts it with.
pub(crate) struct IncomingConnection<S> {
    pub(super) incoming: quinn::Incoming,
    pub(super) remotes: Remotes,
    pub(super) settings: S,
}

impl<S> Incoming for IncomingConnection<S> {
    fn remote_address(&self) -> SocketAddr {
        let address = self.incoming.remote_address();
        self.remotes.real(address).unwrap_or_else(|| canonical(address))
    }

    fn is_validated(&self) -> bool {
        let address = self.incoming.remote_address();
        self.incoming.remote_address_validated() || self.remotes.is_tunnel(address)
    }

    fn retry(self) {
        drop(self.incoming.retry());
    }

    fn ignore(self) {
        self.incoming.ignore();
    }
}

/// Waits for the end of a handshake that was accepted.
pub(super) async fn handshake(
    connecting: quinn::Connecting,
) -> Result<quinn::Connection, LinkFault> {
    let handshake = async { connecting.await.map_err(LinkFault::lost) };
    within(limits::HANDSHAKE_WAIT_MAX, handshake, "the handshake did not end in time").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn too_many_open_files_is_reported_with_its_remedy() {
        let source = io::Error::from_raw_os_error(24);
        let text = BindError::Socket { address: ([0; 4], 0).into(), source }.to_string();
        assert!(text.contains("Too many open files") && text.contains("LimitNOFILE"), "{text}");
    }

    #[test]
    fn with_an_eighth_held_back_every_permitted_call_still_has_its_stream() {
        for calls in (0..2_000).chain([1 << 16]) {
            let streams = streams_for(calls);
            let in_sight = streams - streams / 8;
            assert!(in_sight as usize >= calls + limits::STREAMS_SPARE as usize, "{calls} calls");
        }
    }

    #[test]
    fn calls_that_stall_in_both_directions_leave_room_for_the_control_stream() {
        for (answered, initiated) in [(0, 128), (256, 32), (32, 256), (0, 0)] {
            let stalled = (answered + initiated) * limits::STREAM_WINDOW_BYTES as usize;
            let left = window_for(answered, initiated) as usize - stalled;
            assert_eq!(left, limits::CONNECTION_WINDOW_BASE_BYTES as usize);
        }
        assert_eq!(window_for(usize::MAX, usize::MAX), 1 << 30);
    }
}
