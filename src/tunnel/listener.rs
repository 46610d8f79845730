//! The TCP listener of the tunnels of a node or an enroller.

use super::{error::TunnelListenError, request};
use crate::{
    drain::{SignalListener, Tasks},
    httpd::{self, Admission, Answers, Framing, IpRange, Peer, RequestBody, client_address},
    limits::IGNORED_HANDSHAKES_LOG_EVERY,
    name::NameError,
    path::{TUNNEL_PATH, Tunnels},
    rate_limit::{LogLimiter, RateLimit},
    shared_value::SharedValue,
    tls::{HttpTls, ServerCertificate},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpListener, time::Instant};

/// The settings of a tunnel listener, of a node or an enroller.
#[derive(Debug, Clone)]
#[must_use]
pub struct TunnelListen {
    pub(crate) listen: Result<SocketAddr, String>,
    path: String,
    certificate: Option<ServerCertificate>,
    has_tls: bool,
    proxies: Vec<IpRange>,
}

impl TunnelListen {
    /// A listener at this TCP address, as `"[::]:443"`, with TLS and its owner's certificate. Port
    /// 0 is the number of its owner's UDP port if that is free for TCP, or else any.
    pub fn at(address: impl ToString) -> Self {
        let text = address.to_string();
        Self {
            listen: text.parse().map_err(|_| text),
            path: TUNNEL_PATH.into(),
            certificate: None,
            has_tls: true,
            proxies: Vec::new(),
        }
    }

    /// Sets the path. Default: [`TUNNEL_PATH`].
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Shows another certificate, as proxies that inspect TLS want it: of a CA that they trust.
    pub fn certificate(mut self, certificate: ServerCertificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Takes plain HTTP, from a proxy in front that ends TLS: only from trusted proxies, or on
    /// loopback.
    pub fn plain(mut self) -> Self {
        self.has_tls = false;
        self
    }

    /// Trusts `X-Forwarded-For` of proxies at these addresses.
    pub fn trusted_proxy(mut self, range: IpRange) -> Self {
        self.proxies.push(range);
        self
    }
}

/// A running tunnel listener.
pub(crate) struct ListeningTunnels {
    state: Arc<TunnelServer>,
    pub(crate) address: SocketAddr,
}

impl ListeningTunnels {
    /// Logs the URL.
    pub(crate) fn announce(&self) {
        let scheme = if self.state.has_tls { "wss" } else { "ws" };
        let (address, path) = (self.address, &self.state.path);
        tracing::info!(%address, "tunnels are accepted at {scheme}://{address}{path}");
    }

    /// Shows this certificate to later connections; `None`: the owner's own.
    pub(crate) fn set_certificate(&self, certificate: Option<ServerCertificate>) {
        self.state.certificate.set(certificate);
    }
}

/// Returns the certificate that a listener shows unless it has one of its own.
pub(crate) type OwnCertificate = Box<dyn Fn() -> ServerCertificate + Send + Sync>;

struct TunnelServer {
    tunnels: Arc<Tunnels>,
    /// Returns the present certificate of the owner.
    own: OwnCertificate,
    path: String,
    has_tls: bool,
    /// The certificate that TLS shows instead.
    certificate: SharedValue<Option<ServerCertificate>>,
    proxies: Vec<IpRange>,
    failed: Mutex<LogLimiter>,
}

/// Starts to listen. The tunnels end with these tasks.
pub(crate) async fn listen(
    settings: TunnelListen,
    (tunnels, udp_port): (Arc<Tunnels>, u16),
    own: OwnCertificate,
    tasks: &Tasks,
) -> Result<ListeningTunnels, TunnelListenError> {
    let address = settings.listen.map_err(|text| NameError::of_listen(&text))?;
    let is_loopback = address.ip().to_canonical().is_loopback();
    if !(settings.has_tls || is_loopback || !settings.proxies.is_empty()) {
        return Err(TunnelListenError::Plain { address });
    }
    let fault = |source| TunnelListenError::Socket { address, source };
    let listener = bind(address, udp_port).await.map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    let state = Arc::new(TunnelServer {
        tunnels,
        own,
        path: settings.path,
        has_tls: settings.has_tls,
        certificate: SharedValue::new(settings.certificate),
        proxies: settings.proxies,
        failed: Mutex::new(LogLimiter::new(RateLimit::new(1, IGNORED_HANDSHAKES_LOG_EVERY))),
    });
    tasks.spawn_until_stopped(httpd::serve(listener, state.clone(), tasks.clone()));
    Ok(ListeningTunnels { state, address })
}

async fn bind(address: SocketAddr, udp_port: u16) -> io::Result<TcpListener> {
    if address.port() == 0 {
        let same = SocketAddr::new(address.ip(), udp_port);
        if let Ok(listener) = TcpListener::bind(same).await {
            return Ok(listener);
        }
    }
    TcpListener::bind(address).await
}

impl TunnelServer {
    fn log(&self, from: IpAddr, why: &dyn std::fmt::Display) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = failed.admit(Instant::now()) {
            tracing::warn!(address = %from, reason = %why, "refused a tunnel of {from}: {why}{suppressed}");
        }
    }
}

impl Answers for TunnelServer {
    const NAME: &'static str = "the tunnel listener";

    type Body = Full<Bytes>;

    fn admits(&self, from: IpAddr) -> Admission {
        let admission = Admission::of(from, &self.proxies, self.has_tls);
        if admission == Admission::Refused {
            self.log(from, &Admission::NOT_A_PROXY);
        }
        admission
    }

    fn tls(&self) -> Option<HttpTls> {
        let shown = || self.certificate.get().as_ref().clone().unwrap_or_else(|| (self.own)());
        self.has_tls.then(|| HttpTls::of_tunnels(&shown()))
    }

    fn handshake_failed(&self, from: SocketAddr, fault: &io::Error) {
        self.log(from.ip().to_canonical(), &format_args!("the TLS handshake failed: {fault}"));
    }

    /// A drain ends links, and their end the tunnels.
    fn draining(&self) -> Option<[SignalListener; 2]> {
        Some(<[SignalListener; 2]>::default())
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> Response<Full<Bytes>> {
        let (head, _body) = request.into_parts();
        let from = peer.address.ip().to_canonical();
        let client = client_address(&head.headers, from, &self.proxies);
        let client = SocketAddr::new(client, peer.address.port());
        let framing = head.extensions.get().copied().unwrap_or(Framing::Plain);
        let response = if framing != Framing::Plain {
            peer.be_done();
            request::refusal(StatusCode::BAD_REQUEST, "a tunnel's request has no body\n")
        } else if head.uri.path() == self.path {
            let response = request::answer(&head, &peer, client, &self.tunnels);
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                self.log(client.ip(), &request::TOO_MANY_UNUSED.trim_end());
            }
            response
        } else {
            request::refusal(StatusCode::NOT_FOUND, "there is nothing here\n")
        };
        response.map(Full::from)
    }
}
