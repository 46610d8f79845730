//! The dialling side of a link: resolves the name each time, races its addresses, and sends HELLO.

use super::{
    connection::Link,
    control::ControlStream,
    endpoint::{self, BindError, DiallingConfig, DiallingSockets},
    fault::LinkFault,
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

/// The part of HELLO that depends on the role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HelloInfo {
    /// One run of this process.
    pub(crate) instance: [u8; 16],
    /// Calls that it answers at once.
    pub(crate) calls_in_flight_max: usize,
}

/// Makes links to nodes, with one socket for each address family. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Dialler {
    sockets: Arc<DiallingSockets>,
    trust: Arc<TrustedLinks>,
    settings: Arc<SharedValue<DialSettings>>,
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
            sockets: Arc::new(DiallingSockets::new(net.clone())),
            trust: Arc::new(TrustedLinks::new(net.clone(), credentials.clone())),
            settings: Arc::new(SharedValue::new(DialSettings::new(credentials, hello, limits)?)),
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
        let connection = self.race(address, &settings.config).await?;
        let verified = peer_chain::verified(&connection, &credentials)?;
        if newer_than.is_some_and(|end| verified.1.at() <= end) {
            endpoint::close(&connection, CloseCode::Goodbye, LOOKED);
            return Err(LinkFault::NotNewer);
        }
        match tokio::time::timeout(HELLO_WAIT_MAX, settings.hello(&connection)).await {
            Ok(Ok((mut control, welcome))) => {
                control.start_pings(settings.limits.heartbeat_every, self.net().chance());
                let (host, bytes_max) = (Some(address.host()), welcome.message_bytes_max);
                let net = self.net().clone();
                let shared = (control.pulse(), control.windows());
                let link = Link::new(net, connection, verified, host, shared, bytes_max);
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

    /// Races the addresses of a node, from where the last race for it stopped.
    async fn race(
        &self,
        address: &NodeAddress,
        config: &DiallingConfig,
    ) -> Result<quinn::Connection, LinkFault> {
        let lock = || self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tried = lock().remove(address).unwrap_or_default();
        let raced = race(&self.sockets, address, config, &mut tried).await;
        if raced.is_err() {
            lock().insert(address.clone(), tried);
        }
        raced
    }

    pub(crate) fn net(&self) -> &SharedNet {
        self.sockets.net()
    }

    pub(crate) fn trust(&self) -> &Arc<TrustedLinks> {
        &self.trust
    }

    pub(super) fn heartbeat_every(&self) -> Duration {
        self.settings.get().limits.heartbeat_every
    }

    /// Sends from new sockets from now on. The links stay; their nodes learn the address at once.
    pub(crate) fn rebind(&self) -> Result<(), BindError> {
        self.sockets.rebind()?;
        self.trust.up().iter().for_each(Link::want_ping);
        Ok(())
    }

    /// Waits until the nodes know that their links were closed, `wait_max` at most.
    pub(crate) async fn wait_idle(&self, wait_max: Duration) {
        drop(tokio::time::timeout(wait_max, self.sockets.wait_idle()).await);
    }
}

/// Returns the connection to the first address whose handshake succeeds, as in RFC 8305: the next
/// attempt starts after a short wait, or at once when one has failed. Of more addresses than one
/// race takes, those that `tried` does not hold come first, until each was tried.
pub(super) async fn race(
    sockets: &Arc<DiallingSockets>,
    address: &NodeAddress,
    config: &DiallingConfig,
    tried: &mut Tried,
) -> Result<quinn::Connection, LinkFault> {
    let addresses = resolve(&**sockets.net(), address).await?;
    let mut worst = None;
    for _ in 0..addresses.len().div_ceil(RACE_ADDRESSES_MAX) {
        let attempts = tried.next(addresses.clone()).into_iter().map(|to| {
            let (sockets, config, address) = (sockets.clone(), config.clone(), address.clone());
            attempt(sockets, to, address, config)
        });
        match race::first(attempts, RACE_STAGGER, more_telling).await {
            Ok(connection) => return Ok(connection),
            Err(fault) => worst = worst.into_iter().chain(fault).reduce(more_telling),
        }
    }
    Err(worst.unwrap_or_else(|| LinkFault::NoAnswer { address: address.clone() }))
}

async fn attempt(
    sockets: Arc<DiallingSockets>,
    to: SocketAddr,
    address: NodeAddress,
    config: DiallingConfig,
) -> Result<quinn::Connection, LinkFault> {
    let unsendable = |reason: String| LinkFault::Unsendable { address: address.clone(), reason };
    let endpoint = sockets.for_address(to).map_err(|error| unsendable(error.to_string()))?;
    let config = config.on_path(sockets.net().datagram_bytes_max(to));
    let connecting = endpoint
        .connect_with(config, to, address.host())
        .inspect_err(|error| {
            if *error == quinn::ConnectError::EndpointStopping {
                sockets.discard(to);
            }
        })
        .map_err(|error| unsendable(error.to_string()))?;
    let obstacle = async {
        tokio::time::sleep(PROBE_AFTER).await;
        sockets.net().probe(to).await
    };
    let ended = tokio::select! {
        biased;
        ended = tokio::time::timeout(DIAL_WAIT_MAX, connecting) => ended,
        error = obstacle => return Err(LinkFault::unreachable(address, &error)),
    };
    match ended {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(LinkFault::NoAnswer { address }),
        Ok(Err(error)) => Err(LinkFault::lost(error)),
    }
}

async fn resolve(net: &dyn Net, address: &NodeAddress) -> Result<Vec<SocketAddr>, LinkFault> {
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
