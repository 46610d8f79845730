//! Test fixtures: pairs of links on an in-memory network, on paused time.

use super::{ControlStream, Dialler, Greeted, HelloInfo, Link, LinkListener};
use crate::{
    certs::{Ca, LeafProfile},
    limits::Limits,
    name::{NodeAddress, PeerName, Role},
    net::{SharedNet, memory::MemoryNet},
    tls::{CredentialPem, Credentials},
    wire::{Control, PROTOCOL_VERSION, Welcome},
};
use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;
pub(super) const HELLO: HelloInfo = HelloInfo { instance: [1; 16], calls_in_flight_max: 0 };

pub(crate) fn new_ca() -> Ca {
    Ca::generate("dialback.local", SystemTime::now()).expect("a CA")
}

/// New credentials of a peer, whose certificate this CA has signed and which trusts this CA.
pub(crate) fn credentials(ca: &Ca, peer: &str) -> Credentials {
    let peer: PeerName = peer.parse().expect("a peer");
    let hosts: &[&str] =
        if peer.role == Role::Node { &["edge", "192.0.2.1", "127.0.0.1"] } else { &[] };
    let profile = LeafProfile::new(ca.trust_domain(), &peer, hosts, SystemTime::now());
    let leaf = ca.leaf(&profile).expect("a leaf");
    let pem = CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: ca.pem().as_bytes(),
        ..CredentialPem::default()
    };
    Credentials::from_pem(&pem).expect("credentials")
}

/// A listener and a dialler that trust each other.
pub(crate) struct Ends {
    pub(super) ca: Ca,
    pub(super) limits: Arc<Limits>,
    pub(super) listener: LinkListener,
    pub(super) dialler: Dialler,
    /// Calls that the accepting side answers at once.
    pub(super) calls_max: usize,
}

impl Ends {
    pub(crate) fn new() -> Self {
        Self::on(&MemoryNet::new(1))
    }

    pub(crate) fn on(net: &MemoryNet) -> Self {
        Self::at(&net.shared(), ([192, 0, 2, 1], 0).into())
    }

    /// Listens at this address of a network.
    pub(super) fn at(net: &SharedNet, address: SocketAddr) -> Self {
        let (ca, limits) = (new_ca(), Arc::new(Limits::default()));
        let of_node = credentials(&ca, "node/edge-1");
        let listener =
            LinkListener::bind(net, address, &of_node, &limits, None).expect("a listener");
        let dialler = Dialler::new(net, &credentials(&ca, "agent/a"), HELLO, limits.clone());
        Self { ca, limits, listener, dialler: dialler.expect("a dialler"), calls_max: 0 }
    }

    pub(crate) fn address(&self) -> NodeAddress {
        self.listener.local_addr().to_string().parse().expect("an address")
    }

    /// Dials until WELCOME.
    pub(crate) async fn dialled(&self) -> (Link, ControlStream) {
        let dialled = self.dialler.dial(&self.address(), None).await;
        let (link, control, _welcome) = dialled.expect("a welcome");
        (link, control)
    }

    /// Accepts the next peer up to HELLO.
    pub(crate) async fn greeted(&self) -> Box<Greeted> {
        let incoming = self.listener.next_incoming().await.expect("the listener is open");
        incoming.greet().await.unwrap_or_else(|refused| unreachable!("{}", refused.fault))
    }

    /// Answers HELLO with WELCOME.
    pub(crate) async fn welcomed(&self, greeted: Box<Greeted>) -> (Link, ControlStream) {
        let welcome = Welcome {
            protocol: PROTOCOL_VERSION,
            node: "edge-1".into(),
            admission: 1,
            calls_in_flight_max: self.calls_max as u32,
            message_bytes_max: MESSAGE_BYTES_MAX as u64,
            view_version: 0,
        };
        let (link, mut control) = greeted.into_link(self.calls_max, &self.limits);
        // A link that was revalidated and closed meanwhile gets no WELCOME.
        drop(control.send(&Control::Welcome(welcome)).await);
        (link, control)
    }

    /// Both ends of a new link, the dialled one first.
    pub(crate) async fn linked(&self) -> [(Link, ControlStream); 2] {
        let accepted = async { self.welcomed(self.greeted().await).await };
        let (dialled, accepted) = soon(async { tokio::join!(self.dialled(), accepted) }).await;
        [dialled, accepted]
    }
}

pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(45), future).await.expect("it ends in time")
}
