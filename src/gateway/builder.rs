//! Configures and starts a gateway.

use super::{
    Gateway, GatewayState,
    authentication::{Authenticator, TokenVerifier},
    site::{Site, Sites, host_certificates},
};
use crate::{
    convert::Conversions,
    drain::Tasks,
    httpd::{self, IpRange},
    limits::{CLOSE_WAIT_MAX, HTTP_PAGES_AT_ONCE_MAX},
    name::{Name, NameError, PeerName, Role},
    node::{GatewayIngress, Node},
    shared_value::SharedValue,
    system,
    tls::ServerCertificate,
};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};
use tokio::{net::TcpListener, sync::Semaphore};

/// Error of starting a gateway.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The address is invalid.
    #[error(transparent)]
    Address(#[from] NameError),
    /// The address cannot be listened on.
    #[error("cannot listen on TCP {address}: {source}{}", system::listen_remedy(.source, "--gateway"))]
    Socket {
        /// The address.
        address: SocketAddr,
        /// Error of the system.
        source: io::Error,
    },
    /// Plain HTTP would be accepted from other machines.
    #[error(
        "the gateway on {address} would take plain HTTP from other machines; listen on loopback (127.0.0.1), or set [gateway.tls], or name in trusted_proxy who stands in front"
    )]
    PlainOutside {
        /// The address.
        address: SocketAddr,
    },
    /// Anonymous requests would be accepted from other machines.
    #[error(
        "anonymous would let every client of the gateway on {address} call as caller/{name}; it is allowed on loopback only, and not behind a trusted_proxy: use tokens or certificates"
    )]
    AnonymousOutside {
        /// The address.
        address: SocketAddr,
        /// The caller of anonymous requests.
        name: Name,
    },
    /// No authentication is configured.
    #[error(
        "no client could call through the gateway on {address}: set tokens, [gateway.tls] for callers with certificates, or on loopback anonymous"
    )]
    NobodyMayAsk {
        /// The address.
        address: SocketAddr,
    },
}

async fn end_with(node: Tasks, own: Tasks) {
    tokio::select! {
        () = node.stopped() => own.stop(),
        () = own.stopped() => {}
    }
    own.wait(CLOSE_WAIT_MAX).await;
}

/// Configures a gateway. Created by [`Gateway::builder`].
#[must_use = "the gateway listens once it is started"]
pub struct GatewayBuilder {
    ingress: GatewayIngress,
    listen: Result<SocketAddr, String>,
    tokens: Option<TokenVerifier>,
    anonymous: Option<Name>,
    proxies: Vec<IpRange>,
    origins: Vec<String>,
    sites: Vec<Site>,
    has_tls: bool,
    certificate: Option<ServerCertificate>,
    #[cfg(feature = "tunnel")]
    tunnel_path: Option<String>,
}

impl GatewayBuilder {
    pub(super) fn new(node: &Node) -> Self {
        Self {
            ingress: node.gateway_ingress(),
            listen: Ok((Ipv4Addr::LOCALHOST, 8080).into()),
            tokens: None,
            anonymous: None,
            proxies: Vec::new(),
            origins: Vec::new(),
            sites: Vec::new(),
            has_tls: false,
            certificate: None,
            #[cfg(feature = "tunnel")]
            tunnel_path: None,
        }
    }

    /// Sets the TCP address to listen on, as `"127.0.0.1:8080"` (the default) or `"127.0.0.1:0"`
    /// (any free port). Without TLS it must be loopback, unless a trusted proxy is set.
    pub fn listen(mut self, address: impl ToString) -> Self {
        let text = address.to_string();
        self.listen = text.parse().map_err(|_| text);
        self
    }

    /// Accepts bearer tokens (`Authorization: Bearer ...`). The verifier returns the caller of a
    /// token, or why it is invalid, which is logged. It is called for every request, and every
    /// other second during a call, so it must be fast.
    pub fn tokens(
        mut self,
        verifier: impl Fn(&str, SystemTime) -> Result<PeerName, String> + Send + Sync + 'static,
    ) -> Self {
        self.tokens = Some(Arc::new(verifier));
        self
    }

    /// Sets or removes the token verifier, as [`GatewayBuilder::tokens`].
    pub fn shared_tokens(mut self, verifier: Option<TokenVerifier>) -> Self {
        self.tokens = verifier;
        self
    }

    /// Accepts requests without a credential as this caller. On loopback only, and only for
    /// requests that name this machine (`localhost`).
    pub fn anonymous(mut self, caller: Name) -> Self {
        self.anonymous = Some(caller);
        self
    }

    /// Adds trusted proxies. Without TLS only they may connect; their `X-Forwarded-For` is used.
    pub fn trusted_proxy(mut self, range: IpRange) -> Self {
        self.proxies.push(range);
        self
    }

    /// Adds an origin whose pages may send requests, as `"https://app.example.com"`. Default: none,
    /// and requests from pages are refused.
    pub fn cors_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Adds a site: a host name whose requests an HTTP forward of an agent answers.
    pub fn site(mut self, site: Site) -> Self {
        self.sites.push(site);
        self
    }

    /// Enables TLS 1.3 with the node's certificate. A client certificate is verified as on links.
    pub fn tls(mut self) -> Self {
        self.has_tls = true;
        self
    }

    /// Enables TLS 1.3 with another certificate, for clients that do not trust the node's CA.
    /// Client certificates are verified as with [`GatewayBuilder::tls`].
    pub fn certificate(mut self, certificate: ServerCertificate) -> Self {
        self.has_tls = true;
        self.certificate = Some(certificate);
        self
    }

    /// Accepts tunnels of agents and callers at this path ([`crate::TUNNEL_PATH`]), without any
    /// credential of HTTP: the links inside authenticate both ends. Default: no.
    #[cfg(feature = "tunnel")]
    pub fn tunnel(mut self, path: impl Into<String>) -> Self {
        self.tunnel_path = Some(path.into());
        self
    }

    /// Starts to listen. Must be called in a tokio runtime; returns once the socket is bound.
    ///
    /// # Errors
    /// The address cannot be listened on, or no caller, or any client, would be admitted.
    pub async fn start(self) -> Result<Gateway, GatewayError> {
        let address = self.listen.as_ref().map_err(|text| NameError::of_listen(text))?;
        let address = *address;
        self.check(address)?;
        let fault = |source| GatewayError::Socket { address, source };
        let listener = TcpListener::bind(address).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let scheme = if self.has_tls { "https" } else { "http" };
        let (node_tasks, tasks) = (self.ingress.tasks(), Tasks::default());
        let state = Arc::new(GatewayState {
            ingress: self.ingress,
            tokens: SharedValue::new(self.tokens),
            has_tls: self.has_tls,
            certificate: SharedValue::new(self.certificate),
            host_certificates: SharedValue::new(host_certificates(&self.sites)),
            anonymous: self.anonymous.map(|name| PeerName::new(Role::Caller, name)),
            proxies: self.proxies,
            #[cfg(feature = "tunnel")]
            tunnel_path: self.tunnel_path,
            origins: self.origins,
            sites: SharedValue::new(Sites::new(self.sites)),
            authenticator: Authenticator::default(),
            page_turns: Arc::new(Semaphore::new(HTTP_PAGES_AT_ONCE_MAX)),
            conversions: Conversions::default(),
        });
        let serve = httpd::serve(listener, state.clone(), tasks.clone());
        tasks.spawn_until_stopped(serve);
        node_tasks.clone().spawn(end_with(node_tasks, tasks.clone()));
        tracing::info!(%address, "the gateway listens on {scheme}://{address}");
        state.sites.get().iter().for_each(|site| site.announce(scheme, address.port()));
        #[cfg(feature = "tunnel")]
        if let Some(path) = &state.tunnel_path {
            let scheme = if self.has_tls { "wss" } else { "ws" };
            tracing::info!(%address, "tunnels are accepted at {scheme}://{address}{path}");
        }
        Ok(Gateway { state, address, tasks })
    }

    fn has_public_site(&self) -> bool {
        self.sites.iter().any(|site| site.public.is_some())
    }

    fn check(&self, address: SocketAddr) -> Result<(), GatewayError> {
        let is_loopback = address.ip().to_canonical().is_loopback();
        if !(self.has_tls || is_loopback || !self.proxies.is_empty()) {
            return Err(GatewayError::PlainOutside { address });
        }
        match &self.anonymous {
            Some(name) if !is_loopback || !self.proxies.is_empty() => {
                Err(GatewayError::AnonymousOutside { address, name: name.clone() })
            }
            None if self.tokens.is_none() && !self.has_tls && !self.has_public_site() => {
                Err(GatewayError::NobodyMayAsk { address })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn too_many_open_files_is_reported_with_its_remedy() {
        let source = io::Error::from_raw_os_error(24);
        let text = GatewayError::Socket { address: ([0; 4], 0).into(), source }.to_string();
        assert!(text.contains("Too many open files") && text.contains("LimitNOFILE"), "{text}");
    }
}
