//! The accepting side of links: its endpoint, and the connections that come.

use super::{
    endpoint::{self, AcceptingConfig, BindError, IncomingConnection},
    greet::{self, Greeted, NotGreeted},
    remotes::Remotes,
    resets::ResetKeys,
    trust::TrustedLinks,
};
#[cfg(feature = "tunnel")]
use crate::path::Tunnels;
use crate::{
    limits::Limits, name::Role, net::SharedNet, shared_value::SharedValue, tls::Credentials,
    wire::CloseCode,
};
use quinn::VarInt;
use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub(crate) struct LinkListener {
    endpoint: quinn::Endpoint,
    /// The configuration of the endpoint. Each handshake takes a copy with a verifier of its own.
    config: SharedValue<AcceptingConfig>,
    trust: Arc<TrustedLinks>,
    remotes: Remotes,
}

impl LinkListener {
    /// Listens. Needs a tokio runtime. Without earlier keys, peers notice a restart by silence.
    pub(crate) fn bind(
        net: &SharedNet,
        address: SocketAddr,
        credentials: &Credentials,
        limits: &Limits,
        keys: Option<&ResetKeys>,
    ) -> Result<Self, BindError> {
        let config = endpoint::server_config(credentials, limits)?;
        let accepting = endpoint::accepting_endpoint(keys)?;
        let (endpoint, remotes) =
            endpoint::open_accepting(&**net, address, accepting, config.server.clone())?;
        let trust = Arc::new(TrustedLinks::new(net.clone(), credentials.clone()));
        Ok(Self { endpoint, config: SharedValue::new(config), trust, remotes })
    }

    /// Accepts with these from now on. Links that are up stay until they are verified again.
    pub(crate) fn replace(
        &self,
        credentials: &Credentials,
        limits: &Limits,
    ) -> Result<(), BindError> {
        // In this order: a link made meanwhile counts as made before, and is verified again.
        let config = endpoint::server_config(credentials, limits)?;
        self.endpoint.set_server_config(Some(config.server.clone()));
        self.config.set(config);
        self.trust.replace(credentials.clone());
        Ok(())
    }

    pub(crate) fn trust(&self) -> &Arc<TrustedLinks> {
        &self.trust
    }

    /// The tunnels whose datagrams this listener receives.
    #[cfg(feature = "tunnel")]
    pub(crate) fn tunnels(&self) -> Option<Arc<Tunnels>> {
        self.remotes.tunnels()
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap_or_else(|_| (Ipv6Addr::UNSPECIFIED, 0).into())
    }

    /// Returns the next incoming connection; `None` once the endpoint is closed.
    pub(crate) async fn next_incoming(&self) -> Option<IncomingLink> {
        let incoming = self.endpoint.accept().await?;
        let settings = (self.config.get(), self.trust.clone());
        Some(IncomingLink { incoming, remotes: self.remotes.clone(), settings })
    }

    /// Closes all links, of callers before those of agents: the endpoint closes them one by one,
    /// and a caller would get the loss of the agent's link for the reason.
    pub(crate) fn close(&self, code: CloseCode, text: &str) {
        let mut links = self.trust.up();
        links.sort_by_key(|link| link.peer().role != Role::Caller);
        links.iter().for_each(|link| link.close(code, text));
        self.endpoint.close(VarInt::from_u32(code.number() as u32), text.as_bytes());
    }

    /// Waits until what closes the links has left through the tunnels, which end with the tasks of
    /// the owner: until the peers know, `wait_max` at most. Without a tunnel it does not wait.
    pub(crate) async fn leave_tunnels(&self, wait_max: Duration) {
        if self.remotes.has_tunnels() {
            self.wait_idle(wait_max).await;
        }
    }

    /// Waits until the peers know that their links were closed, `wait_max` at most.
    pub(crate) async fn wait_idle(&self, wait_max: Duration) {
        drop(tokio::time::timeout(wait_max, self.endpoint.wait_idle()).await);
    }
}

pub(crate) type IncomingLink = IncomingConnection<(Arc<AcceptingConfig>, Arc<TrustedLinks>)>;

impl IncomingLink {
    /// Does the handshake and reads HELLO, each within its time.
    pub(crate) async fn greet(self) -> Result<Box<Greeted>, NotGreeted> {
        let (config, trust) = self.settings;
        greet::greet((self.incoming, self.remotes), &config, trust).await
    }
}
