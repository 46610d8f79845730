//! The HTTP gateway: calls as HTTP requests in Connect's format. Uses neither QUIC nor links.

mod response;
mod request;
mod body;
mod browser_origin;
mod builder;
mod call;
mod embed;
mod openapi;
mod proxy;
mod site;
mod codec;
mod connect_error;
mod page_bodies;
mod route;
mod schemas;
mod stream;
mod pages;
mod authentication;

pub use authentication::TokenVerifier;
pub use builder::{GatewayBuilder, GatewayError};
pub use openapi::openapi;
pub use page_bodies::{agents_page, services_page};
pub use site::{Site, SiteHost};

#[cfg(feature = "tunnel")]
use crate::tunnel;
use crate::{
    convert::Conversions,
    drain::{SignalListener, Tasks},
    httpd::{
        Admission, Answers, Framing, IpRange, Peer, RequestBody, client_address, names_loopback,
    },
    limits::HTTP_STEP,
    name::{CallId, PeerName},
    node::{GatewayIngress, Node},
    observe::Event,
    shared_value::SharedValue,
    status::{Code, Status},
    tls::{Claim, HostCertificates, HttpTls, RejectedCertificate, ServerCertificate},
};
use authentication::{AuthContext, AuthenticatedCaller, Authenticator};
use body::Unread;
use browser_origin::BrowserOrigin;
use hyper::{
    Method, Request, StatusCode, Version,
    header::{self, HeaderValue},
    http::request::Parts,
};
use proxy::ProxyRoute;
use response::{GatewayResponse, Refusal, ResponseBody, finish, full_response, set_outcome};
use route::RequestRoute;
use site::{Sites, host_certificates};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::Semaphore;

/// A running HTTP gateway of a node. Dropping it closes the gateway; [`Node::shutdown`] lets
/// requests in flight finish if the gateway is not dropped before.
///
/// `docs/http-gateway.md` describes its responses.
///
/// ```no_run
/// use dialback::{Credentials, Gateway, Node, tokens::Tokens};
///
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder(Credentials::from_dir("certs", "node-edge-1")?).start().await?;
/// let tokens = Tokens::read("certs/tokens")?;
/// let gateway = Gateway::builder(&node)
///     .listen("127.0.0.1:0")
///     .tokens(move |token, now| tokens.caller(token, now).cloned().map_err(|why| why.to_string()))
///     .start()
///     .await?;
/// println!("http://{}", gateway.local_addr());
/// # Ok(()) }
/// ```
pub struct Gateway {
    state: Arc<GatewayState>,
    address: SocketAddr,
    tasks: Tasks,
}

impl Gateway {
    /// Returns a builder for a gateway of this node.
    pub fn builder(node: &Node) -> GatewayBuilder {
        GatewayBuilder::new(node)
    }

    /// Address that it listens on, with the actual port.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the token verifier, for calls in flight within seconds. `None`: no token is valid.
    pub fn set_tokens(&self, verifier: Option<TokenVerifier>) {
        self.state.tokens.set(verifier);
    }

    /// Replaces the sites, for later requests, and their certificates, for later connections.
    pub fn set_sites(&self, sites: Vec<Site>) {
        self.state.host_certificates.set(host_certificates(&sites));
        self.state.sites.set(Sites::new(sites));
    }

    /// Replaces the TLS certificate for later connections. `None`: the node's own. No effect on a
    /// gateway without TLS.
    pub fn set_certificate(&self, certificate: Option<ServerCertificate>) {
        self.state.certificate.set(certificate);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

struct GatewayState {
    ingress: GatewayIngress,
    tokens: SharedValue<Option<TokenVerifier>>,
    has_tls: bool,
    /// The certificate that TLS shows instead of the node's own.
    certificate: SharedValue<Option<ServerCertificate>>,
    /// The certificates that TLS shows to clients that name these hosts.
    host_certificates: SharedValue<HostCertificates>,
    anonymous: Option<PeerName>,
    proxies: Vec<IpRange>,
    #[cfg(feature = "tunnel")]
    tunnel_path: Option<String>,
    origins: Vec<String>,
    sites: SharedValue<Sites>,
    authenticator: Authenticator,
    /// Permits for building pages.
    page_turns: Arc<Semaphore>,
    conversions: Conversions,
}

struct GatewayRequest {
    head: Parts,
    framing: Framing,
    peer: Arc<Peer>,
    call_id: CallId,
}

impl Answers for GatewayState {
    const NAME: &'static str = "the HTTP gateway";

    type Body = ResponseBody;

    fn admits(&self, from: IpAddr) -> Admission {
        let admission = Admission::of(from, &self.proxies, self.has_tls);
        if admission == Admission::Refused {
            self.refused(from, None, &Admission::NOT_A_PROXY);
        }
        admission
    }

    fn tls(&self) -> Option<HttpTls> {
        let (own, by_host) = (self.certificate.get(), self.host_certificates.get());
        let own = own.as_ref().as_ref();
        self.has_tls.then(|| HttpTls::with_clients(own, by_host, self.ingress.credentials()))
    }

    fn handshake_failed(&self, from: SocketAddr, fault: &std::io::Error) {
        let why = format_args!("the TLS handshake failed: {fault}");
        let refused = fault.get_ref().and_then(|inner| inner.downcast_ref::<RejectedCertificate>());
        let claim = refused.map(|refused| &refused.claim);
        self.refused(from.ip(), claim, &why);
    }

    fn stall_max(&self, response: &GatewayResponse) -> Duration {
        match response.body() {
            // As long as a link lets its readers stall.
            ResponseBody::Proxied(_) => self.ingress.limits().stream_idle_max,
            _ => HTTP_STEP,
        }
    }

    fn draining(&self) -> Option<[SignalListener; 2]> {
        (!self.ingress.is_draining()).then(|| self.ingress.drain_signals())
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> GatewayResponse {
        let (head, body) = request.into_parts();
        let call_id = self.ingress.next_call_id();
        let framing = head.extensions.get().copied().unwrap_or(Framing::Plain);
        let site = self.sites.get().of(&head);
        let proxied = match site {
            Some(site) => Some(ProxyRoute::of_site(site, &head)),
            None => ProxyRoute::of_path(&head),
        };
        if let Some(route) = proxied {
            let request = GatewayRequest { head, framing, peer, call_id };
            let mut answer = self.pass_on(route, &request, body).await;
            self.end_connection(&request, &mut answer);
            return answer;
        }
        #[cfg(feature = "tunnel")]
        if framing == Framing::Plain
            && let Some(answer) = self.tunnel(&head, &peer)
        {
            return answer;
        }
        let request = GatewayRequest { head, framing, peer, call_id };
        let browser_origin = browser_origin::browser_origin(&request.head.headers, &self.origins);
        let body = Unread::new(body);
        let mut answer = match self.respond(&request, &body, browser_origin).await {
            Ok(answer) => answer,
            Err(refusal) => {
                if let Some(wait) = refusal.held_back {
                    tokio::time::sleep(wait).await;
                    request.peer.be_done();
                }
                proxy::grpc_refusal(refusal, &request.head).unwrap_or_else(Refusal::into_response)
            }
        };
        finish(&mut answer, call_id);
        if browser_origin == BrowserOrigin::Allowed {
            browser_origin::add_cors_headers(&request.head.headers, answer.headers_mut());
        }
        self.end_connection(&request, &mut answer);
        answer
    }
}

impl GatewayState {
    /// Ends the connection after a response where nothing may follow it.
    fn end_connection(&self, request: &GatewayRequest, answer: &mut GatewayResponse) {
        let headers = answer.headers_mut();
        // HTTP/2 has no `Connection` header.
        if request.head.version >= Version::HTTP_2 {
            headers.remove(header::CONNECTION);
        } else if request.framing != Framing::Plain || self.ingress.is_draining() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    async fn respond(
        self: &Arc<Self>,
        request: &GatewayRequest,
        body: &Unread,
        browser_origin: BrowserOrigin,
    ) -> Result<GatewayResponse, Refusal> {
        if let Framing::Bad(fault) = request.framing {
            return Err(Refusal::invalid(fault).closing());
        }
        let route = RequestRoute::of(&request.head.uri)?;
        if browser_origin == BrowserOrigin::Foreign {
            let text = "requests from pages of this origin are not allowed; add the origin to cors_origins";
            return Err(Status::not_executed(Code::PermissionDenied, text).into());
        }
        if browser_origin == BrowserOrigin::Allowed && request.head.method == Method::OPTIONS {
            let mut answer = full_response(StatusCode::NO_CONTENT, "text/plain", "");
            set_outcome(&mut answer, crate::status::Outcome::NotExecuted);
            browser_origin::add_preflight_headers(&request.head.headers, answer.headers_mut());
            return Ok(answer);
        }
        let verb = route.verb();
        if request.head.method != verb {
            let text = format!("method {} is not allowed; use {verb}", request.head.method);
            let allowed =
                HeaderValue::from_str(verb.as_str()).unwrap_or(HeaderValue::from_static("POST"));
            let refusal = Refusal::with(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, text);
            return Err(refusal.header(header::ALLOW, allowed));
        }
        let caller = self.authenticate(request)?;
        request.peer.set_known();
        match route {
            RequestRoute::GatewayPage(page) => self.page(caller, page).await,
            RequestRoute::Call { agent, method } => {
                self.call(request, caller, agent, method, body).await
            }
        }
    }

    /// Answers a request for a tunnel, if this is one.
    #[cfg(feature = "tunnel")]
    fn tunnel(&self, head: &Parts, peer: &Arc<Peer>) -> Option<GatewayResponse> {
        self.tunnel_path.as_deref().filter(|path| *path == head.uri.path())?;
        let from = peer.address.ip().to_canonical();
        let client = client_address(&head.headers, from, &self.proxies);
        let client = SocketAddr::new(client, peer.address.port());
        let answer = tunnel::answer(head, peer, client, self.ingress.tunnels()?);
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            self.refused(client.ip(), None, &tunnel::TOO_MANY_UNUSED.trim_end());
        }
        Some(answer.map(|text| ResponseBody::Whole(text.into())))
    }

    fn authenticate(&self, request: &GatewayRequest) -> Result<AuthenticatedCaller, Refusal> {
        let (uri, headers) = (&request.head.uri, &request.head.headers);
        let context = self.auth_context(names_loopback(uri, headers));
        let from = request.peer.address.ip();
        let from = client_address(headers, from, &self.proxies);
        let peer = (&request.peer, from.to_canonical());
        self.authenticator.authenticate(headers, peer, &context, self.ingress.observer())
    }

    fn auth_context(&self, is_local: bool) -> AuthContext<'_> {
        let (tokens, credentials) = (self.tokens.get(), self.ingress.credentials());
        AuthContext { tokens, credentials, anonymous: self.anonymous.as_ref(), is_local }
    }

    fn refused(&self, address: IpAddr, claim: Option<&Claim>, reason: &dyn fmt::Display) {
        self.ingress.observer().report(Event::HttpRefused { address, claim, reason });
    }

    fn is_still_authenticated(&self, caller: &AuthenticatedCaller) -> bool {
        caller.is_still_valid(&self.auth_context(true), SystemTime::now())
    }
}
