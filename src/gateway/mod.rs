//! The HTTP door: calls as HTTP requests, in Connect's shape. It knows callers, calls and replies,
//! and neither QUIC nor links.

mod response;
mod request;
mod body;
mod builder;
mod call;
mod embed;
mod openapi;
mod client_address;
mod codec;
mod connect_error;
mod pages;
mod route;
mod schemas;
mod stream;
mod view;
mod authentication;

pub use authentication::TokenJudge;
pub use builder::{GatewayBuilder, GatewayError};
pub use client_address::{IpRange, IpRangeError};
pub use openapi::openapi;
pub use pages::{agents_page, services_page};

use crate::{
    convert::Conversions,
    drain::{SignalListener, Tasks},
    httpd::{Admission, Answers, Framing, Peer, RequestBody},
    name::{CallId, PeerName},
    node::{GatewayIngress, Node},
    observe::Event,
    shared_value::SharedValue,
    status::{Code, Status},
    tls::{Claim, Credentials, HttpTls, RejectedCertificate, ServerCertificate},
};
use authentication::{Judges, Strangers, Who};
use body::Unread;
use client_address::Page;
use hyper::{
    HeaderMap, Method, Request, StatusCode, Version,
    header::{self, HeaderValue},
};
use response::{Answer, AnswerBody, Refusal, finish, set_outcome, whole};
use route::Route;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};
use tokio::sync::Semaphore;

/// A running HTTP door of a node. Dropping it closes the door; [`Node::shutdown`] lets what is in
/// hand finish first, as long as the door is not dropped before.
///
/// What it answers is written down in `docs/http-door.md`.
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
    inner: Arc<Inner>,
    address: SocketAddr,
    tasks: Tasks,
}

impl Gateway {
    /// Starts to describe a door of this node.
    pub fn builder(node: &Node) -> GatewayBuilder {
        GatewayBuilder::new(node)
    }

    /// Where it listens, with the real port.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Has tokens judged so from now on; calls that go on are judged again within seconds. `None`:
    /// no token is good.
    pub fn set_tokens(&self, judge: Option<TokenJudge>) {
        self.inner.tokens.set(judge);
    }

    /// Shows another certificate to those who connect from now on. `None`: the node's own. Without
    /// effect on a door without TLS.
    pub fn set_certificate(&self, certificate: Option<ServerCertificate>) {
        if self.inner.tls.get().is_some() {
            self.inner.tls.set(Some(Arc::new(HttpTls::new(certificate))));
        }
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

/// What the requests share.
struct Inner {
    ingress: GatewayIngress,
    tokens: SharedValue<Option<TokenJudge>>,
    tls: SharedValue<Option<Arc<HttpTls>>>,
    anonymous: Option<PeerName>,
    proxies: Vec<IpRange>,
    origins: Vec<String>,
    strangers: Strangers,
    /// Turns at putting pages together.
    views: Arc<Semaphore>,
    conversions: Conversions,
}

/// One request, but for its body.
struct Asking {
    uri: hyper::Uri,
    method: Method,
    headers: HeaderMap,
    framing: Framing,
    peer: Arc<Peer>,
    call_id: CallId,
}

impl Answers for Inner {
    type Body = AnswerBody;

    fn admits(&self, from: IpAddr) -> Admission {
        let is_proxy = self.proxies.iter().any(|range| range.contains(from));
        match (is_proxy, self.tls.get().is_some() || self.proxies.is_empty()) {
            (true, _) => Admission::Many,
            (false, true) => Admission::One,
            (false, false) => {
                let reason = "it is not in trusted_proxy, and only those may come in plain";
                self.refused(from, None, &reason);
                Admission::Refused
            }
        }
    }

    fn tls(&self) -> Option<(Arc<HttpTls>, Credentials)> {
        let tls = self.tls.get();
        tls.as_ref().as_ref().map(|tls| (tls.clone(), self.ingress.credentials()))
    }

    fn handshake_failed(&self, from: SocketAddr, fault: &std::io::Error) {
        let why = format_args!("the TLS handshake failed: {fault}");
        let refused = fault.get_ref().and_then(|inner| inner.downcast_ref::<RejectedCertificate>());
        let claim = refused.map(|refused| &refused.claim);
        self.refused(from.ip(), claim, &why);
    }

    fn leaving(&self) -> Option<[SignalListener; 2]> {
        (!self.ingress.is_leaving()).then(|| self.ingress.leaving())
    }

    async fn answer(self: Arc<Self>, request: Request<RequestBody>, peer: Arc<Peer>) -> Answer {
        let call_id = self.ingress.next_call_id();
        let (head, body) = request.into_parts();
        let is_http_1 = head.version < Version::HTTP_2;
        let framing = head.extensions.get().copied().unwrap_or(Framing::Plain);
        let asking = Asking {
            uri: head.uri,
            method: head.method,
            headers: head.headers,
            framing,
            peer,
            call_id,
        };
        let page = client_address::page(&asking.headers, &self.origins);
        let body = Unread::new(body);
        let mut answer = match self.respond(&asking, &body, page).await {
            Ok(answer) => answer,
            Err(refusal) => {
                if let Some(wait) = refusal.held_back {
                    tokio::time::sleep(wait).await;
                    asking.peer.be_done();
                }
                refusal.into_answer()
            }
        };
        finish(&mut answer, call_id);
        if page == Page::Allowed {
            client_address::let_page_read(&asking.headers, answer.headers_mut());
        }
        // HTTP/2 has other words for it.
        if !is_http_1 {
            answer.headers_mut().remove(header::CONNECTION);
        } else if framing != Framing::Plain || self.ingress.is_leaving() {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

impl Inner {
    async fn respond(
        self: &Arc<Self>,
        asking: &Asking,
        body: &Unread,
        page: Page,
    ) -> Result<Answer, Refusal> {
        if let Framing::Bad(fault) = asking.framing {
            return Err(invalid(fault).closing());
        }
        let route = Route::of(&asking.uri)?;
        if page == Page::Foreign {
            let text = "pages of this origin may not ask; cors_origins would have to name it";
            return Err(Status::not_executed(Code::PermissionDenied, text).into());
        }
        if page == Page::Allowed && asking.method == Method::OPTIONS {
            let mut answer = whole(StatusCode::NO_CONTENT, "text/plain", "");
            set_outcome(&mut answer, crate::status::Outcome::NotExecuted);
            client_address::let_page_ask(&asking.headers, answer.headers_mut());
            return Ok(answer);
        }
        let verb = route.verb();
        if asking.method != verb {
            let text = format!("{} is not done here; {verb} is", asking.method);
            let allowed =
                HeaderValue::from_str(verb.as_str()).unwrap_or(HeaderValue::from_static("POST"));
            let refusal = Refusal::with(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, text);
            return Err(refusal.header(header::ALLOW, allowed));
        }
        let who = self.who(asking)?;
        asking.peer.set_known();
        match route {
            Route::View(view) => self.view(who, view).await,
            Route::Call { agent, method } => self.call(asking, who, agent, method, body).await,
        }
    }

    fn who(&self, asking: &Asking) -> Result<Who, Refusal> {
        let (tokens, credentials) = (self.tokens.get(), self.ingress.credentials());
        let is_local = client_address::names_this_machine(&asking.uri, &asking.headers);
        let judges = Judges {
            tokens: tokens.as_ref().as_ref(),
            credentials: &credentials,
            anonymous: self.anonymous.as_ref(),
            is_local,
        };
        let from =
            client_address::requester(&asking.headers, asking.peer.address.ip(), &self.proxies);
        let seen = (&asking.peer, from.to_canonical());
        self.strangers.who(&asking.headers, seen, &judges, self.ingress.observer())
    }

    fn refused(&self, address: IpAddr, claim: Option<&Claim>, reason: &dyn fmt::Display) {
        self.ingress.observer().report(Event::HttpRefused { address, claim, reason });
    }

    /// Whether whoever asks may still.
    fn still_knows(&self, who: &Who) -> bool {
        let (tokens, credentials) = (self.tokens.get(), self.ingress.credentials());
        let judges = Judges {
            tokens: tokens.as_ref().as_ref(),
            credentials: &credentials,
            anonymous: self.anonymous.as_ref(),
            is_local: true,
        };
        who.still_holds(&judges, SystemTime::now())
    }
}

fn invalid(text: impl Into<String>) -> Refusal {
    Status::not_executed(Code::InvalidArgument, text).into()
}
