//! Configures and starts a node.

use super::{
    accept::{Handshakes, accept_loop},
    running::Node,
    snapshot,
    state::{NodeParts, NodeState},
    state_dir,
};
use crate::{
    audit::Audit,
    limits::Limits,
    link::LinkListener,
    name::{NameError, Role},
    net::{self, SharedNet},
    observe::Event,
    policy::NodePolicy,
    serve::{Service, Services},
    start_error::StartError,
    tls::Credentials,
    trace::Traces,
};
#[cfg(feature = "tunnel")]
use crate::{
    tls::ServerCertificate,
    tunnel::{self, TunnelListen},
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

impl Node {
    /// Returns a builder for a node with this certificate.
    pub fn builder(credentials: Credentials) -> NodeBuilder {
        NodeBuilder {
            credentials,
            listen: Ok((std::net::Ipv6Addr::UNSPECIFIED, 4433).into()),
            policy: NodePolicy::default(),
            limits: Limits::default(),
            services: Vec::new(),
            state_dir: None,
            audit: Audit::default(),
            net: net::system(),
            #[cfg(feature = "tunnel")]
            tunnel: None,
            traces: None,
        }
    }
}

/// Configures a node. Created by [`Node::builder`].
#[must_use = "a node listens once it is started"]
pub struct NodeBuilder {
    credentials: Credentials,
    listen: Result<SocketAddr, String>,
    policy: NodePolicy,
    limits: Limits,
    services: Vec<Service>,
    state_dir: Option<PathBuf>,
    audit: Audit,
    net: SharedNet,
    #[cfg(feature = "tunnel")]
    tunnel: Option<TunnelListen>,
    traces: Option<Traces>,
}

impl NodeBuilder {
    /// Sets the UDP address to listen on, as `"[::]:4433"` (the default: IPv4 and IPv6) or
    /// `"127.0.0.1:0"` (any free port).
    pub fn listen(mut self, address: impl ToString) -> Self {
        let text = address.to_string();
        self.listen = text.parse().map_err(|_| text);
        self
    }

    /// Sets the rules for calls of peers. Default: nothing is allowed.
    pub fn policy(mut self, policy: NodePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the limits. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Adds a service that the node itself hosts. The policy names it `agent = "node/NAME"`.
    pub fn serve(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Sets this node's own directory for state across restarts, created if missing. Default: none.
    ///
    /// It holds the keys of stateless resets: peers of a node that was killed and restarted notice
    /// it at their next packet (within a heartbeat, 5 s) and not by silence (12 s).
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(dir.into());
        self
    }

    /// Sets the audit log of links, refusals and, with [`Audit::with_calls`], calls. Default: none.
    pub fn audit(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }

    /// Exports spans of calls to a collector. Default: traces are off.
    #[cfg(feature = "otel")]
    pub fn traces(mut self, traces: Traces) -> Self {
        self.traces = Some(traces);
        self
    }

    /// Listens for tunnels too: links over TCP, where UDP does not pass. Default: no.
    #[cfg(feature = "tunnel")]
    pub fn tunnel(mut self, tunnel: TunnelListen) -> Self {
        self.tunnel = Some(tunnel);
        self
    }

    /// Sets the network. Default: the operating system's.
    #[cfg(test)]
    pub(crate) fn net(mut self, net: SharedNet) -> Self {
        self.net = net;
        self
    }

    /// Starts to listen. Must be called in a tokio runtime; returns once the socket is bound.
    ///
    /// # Errors
    /// A certificate that is not a node's, an address in use, an invalid service name, or an
    /// unusable state directory.
    pub async fn start(self) -> Result<Node, StartError> {
        self.credentials.expect_role(Role::Node)?;
        let address = self.listen.map_err(|text| NameError::of_listen(&text))?;
        let services = Services::new(self.services)?;
        let keys = self.state_dir.as_deref().map(state_dir::reset_keys).transpose()?;
        let listener =
            LinkListener::bind(&self.net, address, &self.credentials, &self.limits, keys.as_ref())?;
        let listener = Arc::new(listener);
        #[cfg(feature = "tunnel")]
        let tunnel = self.tunnel;
        let Self { policy, limits, audit, net, .. } = self;
        let peer = self.credentials.peer_name().clone();
        let tracer = self.traces.map(|traces| traces.start(&peer)).unwrap_or_default();
        let parts = NodeParts { policy, limits, services, audit, tracer };
        let shared = Arc::new(NodeState::new(peer, net, parts));
        let directory = Services::with_reserved(vec![snapshot::directory(&shared)])?;
        drop(shared.directory.set(directory));
        #[cfg(feature = "tunnel")]
        let tunnel = match (tunnel, listener.tunnels()) {
            (Some(settings), Some(tunnels)) => {
                let trust = listener.trust().clone();
                let to = (tunnels, listener.local_addr().port());
                let own = Box::new(move || ServerCertificate::of_peer(&trust.credentials()));
                Some(tunnel::listen(settings, to, own, &shared.links).await?)
            }
            _ => None,
        };
        let handshakes = Handshakes { shared: shared.clone(), listener: listener.clone() };
        shared.links.spawn_until_stopped(accept_loop(handshakes));
        let net = shared.net.clone();
        shared.links.spawn_until_stopped(async move { net.suspend().tick().await });
        let trust = listener.trust().clone();
        let watching = shared.clone();
        shared.links.spawn_until_stopped(async move {
            let warn = |text: &str| watching.observer.report(Event::CredentialsWarning { text });
            trust.watch_expiry(warn).await;
        });
        let (node, address) = (&shared.name, listener.local_addr());
        tracing::info!(%node, %address, "node {node} listens on {address}");
        #[cfg(feature = "tunnel")]
        tunnel.iter().for_each(tunnel::ListeningTunnels::announce);
        Ok(Node {
            shared,
            listener,
            config_version: Mutex::new(1),
            #[cfg(feature = "tunnel")]
            tunnel,
        })
    }
}
