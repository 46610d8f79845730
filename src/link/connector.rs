//! Connects to the addresses of a node or an enroller: resolves the name each time, and races what
//! it finds.

use super::{
    endpoint::{BindError, DiallingConfig, DiallingEndpoints},
    fault::LinkFault,
    link_socket::LinkSocket,
};
use crate::{
    limits::{DIAL_WAIT_MAX, PROBE_AFTER, RACE_ADDRESSES_MAX, RACE_STAGGER},
    name::NodeAddress,
    net::{Net, SharedNet},
    race::{self, Tried},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// A connection whose handshake succeeded, and its socket.
pub(super) type Connected = (quinn::Connection, LinkSocket);

/// Makes connections, each from a socket of its own. Cloning shares what they have in common.
#[derive(Clone)]
pub(super) struct Connector {
    endpoints: Arc<DiallingEndpoints>,
    #[cfg(feature = "tunnel")]
    pub(super) path_selection: Arc<super::path_selection::PathSelection>,
    /// By node, the addresses that were tried since its last connection.
    tried: Arc<Mutex<BTreeMap<NodeAddress, Tried>>>,
}

impl Connector {
    /// Connects by UDP only. Sockets are made at the first connection.
    pub(super) fn new(net: SharedNet) -> Self {
        Self {
            endpoints: Arc::new(DiallingEndpoints::new(net)),
            #[cfg(feature = "tunnel")]
            path_selection: Arc::default(),
            tried: Arc::default(),
        }
    }

    pub(super) fn net(&self) -> &SharedNet {
        self.endpoints.net()
    }

    pub(super) fn endpoints(&self) -> &DiallingEndpoints {
        &self.endpoints
    }

    #[cfg(not(feature = "tunnel"))]
    pub(super) async fn connect(
        &self,
        address: &NodeAddress,
        config: &DiallingConfig,
    ) -> Result<Connected, LinkFault> {
        self.race(address, config).await
    }

    /// Connects to one address of a node by UDP.
    #[cfg(feature = "cli")]
    pub(super) async fn connect_to(
        &self,
        to: SocketAddr,
        address: &NodeAddress,
        config: DiallingConfig,
    ) -> Result<Connected, LinkFault> {
        attempt(self.endpoints.clone(), to, address.clone(), config).await
    }

    /// Returns the connection by UDP to the first address whose handshake succeeds, as in RFC 8305:
    /// the next attempt starts after a short wait, or at once when one has failed. Of more
    /// addresses than one race takes, those that were not tried since the last success come first.
    pub(super) async fn race(
        &self,
        address: &NodeAddress,
        config: &DiallingConfig,
    ) -> Result<Connected, LinkFault> {
        let lock = || self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tried = lock().remove(address).unwrap_or_default();
        let raced = self.race_from(address, config, &mut tried).await;
        if raced.is_err() {
            lock().insert(address.clone(), tried);
        }
        raced
    }

    async fn race_from(
        &self,
        address: &NodeAddress,
        config: &DiallingConfig,
        tried: &mut Tried,
    ) -> Result<Connected, LinkFault> {
        let addresses = resolve(&**self.net(), address).await?;
        let mut worst = None;
        for _ in 0..addresses.len().div_ceil(RACE_ADDRESSES_MAX) {
            let attempts = tried.next(addresses.clone()).into_iter().map(|to| {
                let (endpoints, config) = (self.endpoints.clone(), config.clone());
                attempt(endpoints, to, address.clone(), config)
            });
            match race::first(attempts, RACE_STAGGER, more_telling).await {
                Ok(connected) => return Ok(connected),
                Err(fault) => worst = worst.into_iter().chain(fault).reduce(more_telling),
            }
        }
        Err(worst.unwrap_or_else(|| LinkFault::NoAnswer { address: address.clone() }))
    }
}

/// Performs the handshake with one address by UDP.
async fn attempt(
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
