//! The dialling side of a link: connects to a node, and sends HELLO.

use super::{
    connection::{Link, LinkEnd},
    connector::Connector,
    control::ControlStream,
    endpoint::{self, BindError, DiallingConfig},
    fault::LinkFault,
    peer_chain,
    trust::TrustedLinks,
    windows::StreamWindows,
};
#[cfg(feature = "tunnel")]
use crate::path::PathSettings;
use crate::{
    limits::{HELLO_WAIT_MAX, Limits},
    name::NodeAddress,
    net::SharedNet,
    shared_value::SharedValue,
    tls::Credentials,
    wire::{CloseCode, Control, Hello, PROTOCOL_VERSION, Welcome},
};
use serde_bytes::ByteArray;
use std::{
    sync::Arc,
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

/// Makes links to nodes, each with a socket of its own. Cloning shares what they have in common.
#[derive(Clone)]
pub(crate) struct Dialler {
    connector: Connector,
    trust: Arc<TrustedLinks>,
    settings: Arc<SharedValue<DialSettings>>,
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
                endpoint::set_receive_window(connection, window.into());
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
            connector: Connector::new(net.clone()),
            trust: Arc::new(TrustedLinks::new(net.clone(), credentials.clone())),
            settings: Arc::new(SharedValue::new(DialSettings::new(credentials, hello, limits)?)),
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
        let (connection, socket) = self.connector.connect(address, &settings.config).await?;
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

    pub(crate) fn net(&self) -> &SharedNet {
        self.connector.net()
    }

    pub(crate) fn trust(&self) -> &Arc<TrustedLinks> {
        &self.trust
    }

    pub(super) const fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Dials with these settings of paths.
    #[cfg(feature = "tunnel")]
    pub(crate) fn with_paths(mut self, settings: PathSettings) -> Self {
        self.connector = self.connector.with_paths(settings);
        self
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
        drop(tokio::time::timeout(wait_max, self.connector.endpoints().wait_idle()).await);
    }
}
