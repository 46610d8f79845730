//! The dialling side of a link: resolves the name each time, races its addresses, and sends HELLO.

use super::{
    connection::{Link, LinkEnd},
    control::ControlStream,
    endpoint::{self, BindError, DiallingConfig, DiallingEndpoints},
    fault::LinkFault,
    link_socket::LinkSocket,
    peer_chain,
    trust::TrustedLinks,
    windows::StreamWindows,
};
use crate::{
    limits::{
        DIAL_WAIT_MAX, HELLO_WAIT_MAX, Limits, PROBE_AFTER, RACE_ADDRESSES_MAX, RACE_STAGGER,
    },
    name::NodeAddress,
    net::{Net, SharedNet},
    race::{self, Tried},
    shared_value::SharedValue,
    tls::Credentials,
    wire::{CloseCode, Control, Hello, PROTOCOL_VERSION, Welcome},
};
use serde_bytes::ByteArray;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// The close text of a dial that only looked for a newer certificate.
const LOOKED: &str = "a look for a newer certificate";

/// A connection whose handshake succeeded, and its socket.
pub(super) type Connected = (quinn::Connection, LinkSocket);

/// The part of HELLO that depends on the role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HelloInfo {
    /// One run of this process.
    pub(crate) instance: [u8; 16],
    /// Calls that it answers at once.
    pub(crate) calls_in_flight_max: usize,
}

/// Makes links to nodes, each with a socket of its own. Cloning shares what they have in common.
#[derive(Clone)]
pub(crate) struct Dialler {
    endpoints: Arc<DiallingEndpoints>,
    trust: Arc<TrustedLinks>,
    settings: Arc<SharedValue<DialSettings>>,
    #[cfg(feature = "tunnel")]
    pub(super) path_selection: Arc<super::path_selection::PathSelection>,
    /// By node, the addresses that were tried since its last link.
    tried: Arc<Mutex<BTreeMap<NodeAddress, Tried>>>,
}

struct DialSettings {
    config: DiallingConfig,
    hello: HelloInfo,
    limits: Arc<Limits>,
}

impl DialSettings {
    fn new(
        credentials: &Credentials,
        hello: HelloInfo,
        limits: Arc<Limits>,
    ) -> Result<Self, BindError> {
        let config = endpoint::dialling_config(credentials, &limits, hello.calls_in_flight_max)?;
        Ok(Self { config, hello, limits })
    }

    /// Opens the control stream and sends HELLO. The node has verified the certificate of this side
    /// once WELCOME is here, not before.
    async fn hello(
        &self,
        connection: &quinn::Connection,
    ) -> Result<(ControlStream, Welcome), LinkFault> {
        let (send, recv) = connection.open_bi().await.map_err(LinkFault::lost)?;
        let mut control = ControlStream::new(send, recv);
        control.reserve(connection.clone(), &self.limits);
        control.send(&Control::Hello(self.hello_frame())).await?;
        match control.first().await? {
            Control::Welcome(welcome) if welcome.protocol == PROTOCOL_VERSION => {
                let initiated = usize::try_from(welcome.calls_in_flight_max).unwrap_or(usize::MAX);
                let window = endpoint::window_for(self.hello.calls_in_flight_max, initiated);
                connection.set_receive_window(window.into());
                control.grant(StreamWindows::new(connection, window));
                control.start_heartbeat(self.limits.heartbeat_lost);
                Ok((control, welcome))
            }
            Control::Welcome(welcome) => Err(LinkFault::Broken(format!(
                "the node chose protocol version {}, which we did not offer",
                welcome.protocol
            ))),
            _ => Err(LinkFault::Broken("the first answer was not WELCOME".into())),
        }
    }

    fn hello_frame(&self) -> Hello {
        Hello {
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            features: Vec::new(),
            instance: ByteArray::new(self.hello.instance),
            software: concat!("dialback ", env!("CARGO_PKG_VERSION")).into(),
            calls_in_flight_max: u32::try_from(self.hello.calls_in_flight_max).unwrap_or(u32::MAX),
            heartbeat_ms: u64::try_from(self.limits.heartbeat_every.as_millis())
                .unwrap_or(u64::MAX),
            message_bytes_max: self.limits.message_bytes_max as u64,
        }
    }
}

impl Dialler {
    /// Prepares to dial; sockets are made at the first dial.
    pub(crate) fn new(
        net: &SharedNet,
        credentials: &Credentials,
        hello: HelloInfo,
        limits: Arc<Limits>,
    ) -> Result<Self, BindError> {
        Ok(Self {
            endpoints: Arc::new(DiallingEndpoints::new(net.clone())),
            trust: Arc::new(TrustedLinks::new(net.clone(), credentials.clone())),
            settings: Arc::new(SharedValue::new(DialSettings::new(credentials, hello, limits)?)),
            #[cfg(feature = "tunnel")]
            path_selection: Arc::default(),
            tried: Arc::default(),
        })
    }

    /// Dials with these from now on. Links that are up stay until they are verified again.
    pub(crate) fn replace(
        &self,
        credentials: &Credentials,
        hello: HelloInfo,
        limits: Arc<Limits>,
    ) -> Result<(), BindError> {
        // In this order: a link made meanwhile counts as made before, and is verified again.
        self.settings.set(DialSettings::new(credentials, hello, limits)?);
        self.trust.replace(credentials.clone());
        Ok(())
    }

    /// Dials once. Ends with WELCOME or with the most specific reason; dropping it cancels it. The
    /// node's chain must be valid beyond `newer_than`, if given, or the dial ends before HELLO.
    pub(crate) async fn dial(
        &self,
        address: &NodeAddress,
        newer_than: Option<SystemTime>,
    ) -> Result<(Link, ControlStream, Welcome), LinkFault> {
        let credentials = self.trust.credentials();
        let settings = self.settings.get();
        let (connection, socket) = self.connect(address, &settings.config).await?;
        let verified = peer_chain::verified(&connection, &credentials)?;
        if newer_than.is_some_and(|end| verified.1.at() <= end) {
            endpoint::close(&connection, CloseCode::Goodbye, LOOKED);
            return Err(LinkFault::NotNewer);
        }
        match tokio::time::timeout(HELLO_WAIT_MAX, settings.hello(&connection)).await {
            Ok(Ok((mut control, welcome))) => {
                control.start_pings(settings.limits.heartbeat_every, self.net().chance());
                let (net, bytes_max) = (self.net().clone(), welcome.message_bytes_max);
                let shared = (control.pulse(), control.windows());
                socket.link_is_up(net.chance());
                let end = LinkEnd::Dialled { address: address.clone(), socket };
                let link = Link::new(net, connection, verified, end, shared, bytes_max);
                self.trust.add(&link, &credentials);
                Ok((link, control, welcome))
            }
            Ok(Err(fault)) => {
                endpoint::close(&connection, CloseCode::Protocol, &fault.to_string());
                Err(fault)
            }
            Err(_elapsed) => {
                endpoint::close(&connection, CloseCode::Protocol, "no WELCOME came in time");
                Err(LinkFault::Silent("no WELCOME came in time"))
            }
        }
    }

    #[cfg(not(feature = "tunnel"))]
    async fn connect(
        &self,
        address: &NodeAddress,
        config: &DiallingConfig,
    ) -> Result<Connected, LinkFault> {
        self.race(address, config).await
    }

    /// Races the addresses of a node by UDP, from where the last race for it stopped.
    pub(super) async fn race(
        &self,
        address: &NodeAddress,
        config: &DiallingConfig,
    ) -> Result<Connected, LinkFault> {
        let lock = || self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tried = lock().remove(address).unwrap_or_default();
        let raced = race(&self.endpoints, address, config, &mut tried).await;
        if raced.is_err() {
            lock().insert(address.clone(), tried);
        }
        raced
    }

    pub(crate) fn net(&self) -> &SharedNet {
        self.endpoints.net()
    }

    pub(crate) fn trust(&self) -> &Arc<TrustedLinks> {
        &self.trust
    }

    pub(super) fn endpoints(&self) -> &Arc<DiallingEndpoints> {
        &self.endpoints
    }

    #[cfg(feature = "tunnel")]
    pub(super) fn dialling_config(&self) -> DiallingConfig {
        self.settings.get().config.clone()
    }

    pub(super) fn heartbeat_every(&self) -> Duration {
        self.settings.get().limits.heartbeat_every
    }

    /// Sends from new sockets from now on. The links stay; their nodes learn the address at once.
    pub(crate) fn rebind(&self) -> Result<(), BindError> {
        for link in self.trust.up() {
            if let LinkEnd::Dialled { socket, .. } = &link.0.end {
                socket.rebind(&**self.net())?;
            }
            link.want_ping();
        }
        Ok(())
    }

    /// Waits until the nodes know that their links were closed, `wait_max` at most.
    pub(crate) async fn wait_idle(&self, wait_max: Duration) {
        drop(tokio::time::timeout(wait_max, self.endpoints.wait_idle()).await);
    }
}

/// Returns the connection to the first address whose handshake succeeds, as in RFC 8305: the next
/// attempt starts after a short wait, or at once when one has failed. Of more addresses than one
/// race takes, those that `tried` does not hold come first, until each was tried.
pub(super) async fn race(
    endpoints: &Arc<DiallingEndpoints>,
    address: &NodeAddress,
    config: &DiallingConfig,
    tried: &mut Tried,
) -> Result<Connected, LinkFault> {
    let addresses = resolve(&**endpoints.net(), address).await?;
    let mut worst = None;
    for _ in 0..addresses.len().div_ceil(RACE_ADDRESSES_MAX) {
        let attempts = tried.next(addresses.clone()).into_iter().map(|to| {
            let (endpoints, config) = (endpoints.clone(), config.clone());
            attempt(endpoints, to, address.clone(), config)
        });
        match race::first(attempts, RACE_STAGGER, more_telling).await {
            Ok(connected) => return Ok(connected),
            Err(fault) => worst = worst.into_iter().chain(fault).reduce(more_telling),
        }
    }
    Err(worst.unwrap_or_else(|| LinkFault::NoAnswer { address: address.clone() }))
}

/// Performs the handshake with one address by UDP.
pub(super) async fn attempt(
    endpoints: Arc<DiallingEndpoints>,
    to: SocketAddr,
    address: NodeAddress,
    config: DiallingConfig,
) -> Result<Connected, LinkFault> {
    let net = endpoints.net();
    let unsendable = |error: BindError| unsendable(&address, &error);
    let socket = LinkSocket::open(&**net, to).map_err(unsendable)?;
    let config = config.on_path(net.datagram_bytes_max(to));
    let obstacle = async {
        tokio::time::sleep(PROBE_AFTER).await;
        net.probe(to).await
    };
    let connection = tokio::select! {
        biased;
        ended = handshake(&socket, to, &address, config) => ended?,
        error = obstacle => return Err(LinkFault::unreachable(address, &error)),
    };
    endpoints.keep(&socket.endpoint);
    Ok((connection, socket))
}

/// Performs the handshake with an address that QUIC knows, from this socket.
pub(super) async fn handshake(
    socket: &LinkSocket,
    to: SocketAddr,
    address: &NodeAddress,
    config: quinn::ClientConfig,
) -> Result<quinn::Connection, LinkFault> {
    let connecting = socket.endpoint.connect_with(config, to, address.host());
    let connecting = connecting.map_err(|error| unsendable(address, &error))?;
    let silent = || LinkFault::NoAnswer { address: address.clone() };
    match tokio::time::timeout(DIAL_WAIT_MAX, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(silent()),
        Ok(Err(error)) => Err(LinkFault::lost(error)),
    }
}

pub(super) fn unsendable(address: &NodeAddress, error: &impl ToString) -> LinkFault {
    LinkFault::Unsendable { address: address.clone(), reason: error.to_string() }
}

pub(super) async fn resolve(
    net: &dyn Net,
    address: &NodeAddress,
) -> Result<Vec<SocketAddr>, LinkFault> {
    let host = address.host();
    tokio::time::timeout(DIAL_WAIT_MAX, net.resolve(host, address.port()))
        .await
        .map_err(|_elapsed| LinkFault::Unresolved {
            host: host.into(),
            reason: "the resolver does not answer".into(),
        })?
        .map_err(|error| LinkFault::unresolved(host, &error))
}

/// Returns the more specific fault: a refusal over silence, an answer over a lack of this machine.
fn more_telling(one: LinkFault, other: LinkFault) -> LinkFault {
    let rank = |fault: &LinkFault| match fault {
        LinkFault::Unsendable { .. } => 0,
        LinkFault::NoAnswer { .. } => 1,
        LinkFault::MtuTooSmall { .. } => 2,
        LinkFault::ConnectionRefused { .. } => 3,
        #[cfg(feature = "tunnel")]
        LinkFault::Tunnel(_) | LinkFault::NoPath { .. } => 3,
        fault if !fault.is_refusal() => 4,
        _ => 5,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> NodeAddress {
        "localhost".parse().expect("an address")
    }

    #[test]
    fn connection_refused_outranks_no_answer_and_no_answer_outranks_no_ipv6() {
        let no_ipv6 = || LinkFault::Unsendable { address: address(), reason: "no route".into() };
        let silence = || LinkFault::NoAnswer { address: address() };
        let closed = || LinkFault::ConnectionRefused { address: address() };
        for (one, other) in [(no_ipv6(), silence()), (silence(), no_ipv6())] {
            assert!(matches!(more_telling(one, other), LinkFault::NoAnswer { .. }));
        }
        for (one, other) in [(closed(), silence()), (silence(), closed()), (no_ipv6(), closed())] {
            assert!(matches!(more_telling(one, other), LinkFault::ConnectionRefused { .. }));
        }
    }

    #[test]
    fn a_refusal_outranks_no_answer() {
        let silence = || LinkFault::NoAnswer { address: address() };
        let refusal = || LinkFault::Handshake {
            is_identity: true,
            is_not_valid_yet: false,
            reason: "r".into(),
            remedy: "m".into(),
        };
        assert!(more_telling(refusal(), silence()).is_refusal());
        assert!(more_telling(silence(), refusal()).is_refusal());
        assert!(!more_telling(silence(), silence()).is_refusal());
    }
}
