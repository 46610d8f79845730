//! Answers the requests of the admin listener.

use super::{
    body::AdminBody,
    drain_request::DrainRequests,
    exposition,
    metrics::{MetricsSource, registry},
    minute::LastMinute,
    observed::Observed,
    status::{self, StatusReport},
};
use crate::{
    drain::SignalListener,
    httpd::{self, Admission, Answers, Framing, Peer, RequestBody},
    limits::RATES_EVERY,
    name::{NameGlob, PeerName, Role},
    tls::{ClientCertificate, HttpTls, random_bytes},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    header::{self, HeaderValue},
};
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::json;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};
use tokio::time::MissedTickBehavior;

pub(super) struct AdminServer {
    observed: Observed,
    registry: Registry,
    minute: LastMinute,
    started_at: SystemTime,
    drains: Arc<DrainRequests>,
    /// Is in the page, and in the requests of its buttons: a page of another site does not know it.
    token: String,
    /// Callers whose certificates are asked for; without any there is no TLS.
    callers: Vec<NameGlob>,
}

type AdminResponse = Response<AdminBody>;

impl AdminServer {
    pub(super) fn new(
        observed: Observed,
        drains: Arc<DrainRequests>,
        callers: Vec<NameGlob>,
    ) -> Self {
        let started_at = SystemTime::now();
        let registry = registry(MetricsSource::new(observed.clone(), started_at));
        let minute = LastMinute::new(observed.counts());
        let token = format!("{:032x}", u128::from_be_bytes(random_bytes()));
        Self { observed, registry, minute, started_at, drains, token, callers }
    }

    /// Keeps the rates of the last minute, for as long as it is polled.
    pub(super) async fn watch(&self) {
        self.minute.watch().await;
    }

    async fn readiness(&self) -> AdminResponse {
        let readiness = self.observed.readiness().await;
        let status = match readiness.ready {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        json(status, &readiness)
    }

    async fn report(&self) -> StatusReport {
        let facts = (self.started_at, self.drains.can_drain());
        status::report(&self.observed, &self.minute, facts).await
    }

    /// Status and charts, every second, for as long as the client may read them.
    fn events(self: &Arc<Self>, peer: &Arc<Peer>) -> AdminResponse {
        let (server, peer) = (self.clone(), peer.clone());
        let mut ticks = tokio::time::interval(RATES_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let body = AdminBody::events(ticks, move || {
            let (server, peer) = (server.clone(), peer.clone());
            async move {
                if server.refused(&peer).is_some() {
                    return None;
                }
                let (status, seconds) = (server.report().await, server.minute.seconds());
                let event = serde_json::to_string(&json!({ "status": status, "seconds": seconds }));
                Some(Bytes::from(format!("data: {}\n\n", event.unwrap_or_default())))
            }
        });
        with_headers(StatusCode::OK, "text/event-stream", body)
    }

    /// Refuses a client without the certificate of a caller that may read.
    fn refused(&self, peer: &Peer) -> Option<AdminResponse> {
        if self.callers.is_empty() {
            return None;
        }
        let credentials = self.observed.credentials();
        let is_valid =
            |shown: &&ClientCertificate| shown.revalidate(&credentials, SystemTime::now()).is_ok();
        let shown = peer.shown.as_ref().filter(is_valid);
        let name = shown.map(|shown| shown.identity().peer_name());
        let may_read = |name: &PeerName| {
            name.role == Role::Caller && self.callers.iter().any(|glob| glob.matches(&name.name))
        };
        if name.is_some_and(may_read) {
            peer.set_known();
            return None;
        }
        let text = "show the certificate of a caller that `callers` of [admin] names\n";
        Some(refusal(StatusCode::FORBIDDEN, text))
    }

    fn page(&self) -> AdminResponse {
        let page = include_str!("page/index.html").replace("TOKEN", &self.token);
        response(StatusCode::OK, "text/html; charset=utf-8", page)
    }

    /// Asks the program to stop gracefully, if it takes such requests.
    fn drain(&self, headers: &HeaderMap) -> AdminResponse {
        let token = headers.get("dialback-token").and_then(|token| token.to_str().ok());
        if token != Some(self.token.as_str()) {
            let text =
                "the token of the page is missing or of an earlier start; load the page again\n";
            return refusal(StatusCode::FORBIDDEN, text);
        }
        if !self.drains.can_drain() {
            let text = "this process takes no request to drain; set drain = true in [admin]\n";
            return refusal(StatusCode::NOT_FOUND, text);
        }
        self.drains.request();
        refusal(StatusCode::ACCEPTED, "draining\n")
    }

    fn metrics(&self, headers: &HeaderMap) -> AdminResponse {
        let is_openmetrics = headers.get_all(header::ACCEPT).iter().any(|accept| {
            accept.to_str().is_ok_and(|accept| accept.contains("application/openmetrics-text"))
        });
        let (encoded, content_type) = match is_openmetrics {
            true => (exposition::openmetrics(&self.registry), exposition::OPENMETRICS),
            false => (exposition::prometheus(&self.registry), exposition::PROMETHEUS),
        };
        match encoded {
            Ok(text) => response(StatusCode::OK, content_type, text),
            Err(_format) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "a metric has no text\n"),
        }
    }
}

impl Answers for AdminServer {
    const NAME: &'static str = "the admin listener";

    type Body = AdminBody;

    fn admits(&self, _from: IpAddr) -> Admission {
        Admission::One
    }

    fn tls(&self) -> Option<HttpTls> {
        let credentials = || self.observed.credentials();
        let has_tls = !self.callers.is_empty();
        has_tls.then(|| HttpTls::with_clients(None, Arc::default(), credentials()))
    }

    fn handshake_failed(&self, from: SocketAddr, fault: &std::io::Error) {
        tracing::debug!(address = %from, "a TLS handshake with the admin listener failed: {fault}");
    }

    /// It tells of the drain, so it answers until the end.
    fn draining(&self) -> Option<[SignalListener; 2]> {
        Some(<[SignalListener; 2]>::default())
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> AdminResponse {
        let (head, _body) = request.into_parts();
        match head.extensions.get() {
            None | Some(Framing::Plain) => {}
            Some(framing) => {
                peer.be_done();
                let why = match framing {
                    Framing::Bad(why) => why,
                    _ => "a request to this listener has no body in chunks",
                };
                return response(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n"));
            }
        }
        if let Some(refused) = self.refused(&peer) {
            return refused;
        }
        // A page of another site can let its own name resolve to this machine.
        if self.callers.is_empty() && !httpd::names_loopback(&head.uri, &head.headers) {
            let text = "the host of the request is not this machine: use localhost or 127.0.0.1\n";
            return refusal(StatusCode::FORBIDDEN, text);
        }
        let path = head.uri.path();
        let allowed = if path == "/api/v1/drain" { "POST" } else { "GET, HEAD" };
        if !allowed.split(", ").any(|method| head.method == method) {
            let text = format!("use {allowed}\n");
            let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            return refused;
        }
        match path {
            "/" => self.page(),
            "/page.css" => response(StatusCode::OK, "text/css", include_str!("page/page.css")),
            "/page.js" => response(StatusCode::OK, "text/javascript", include_str!("page/page.js")),
            "/metrics" => self.metrics(&head.headers),
            "/healthz" => refusal(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness().await,
            "/api/v1/status" => json(StatusCode::OK, &self.report().await),
            "/api/v1/events" => self.events(&peer),
            "/api/v1/drain" => self.drain(&head.headers),
            _ => refusal(
                StatusCode::NOT_FOUND,
                "there are /, /metrics, /healthz, /readyz and /api/v1/status\n",
            ),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn refusal(status: StatusCode, text: &'static str) -> AdminResponse {
    response(status, TEXT, text)
}

fn json(status: StatusCode, value: &impl Serialize) -> AdminResponse {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            response(status, "application/json", text)
        }
        Err(_fault) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the answer is not JSON\n"),
    }
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> AdminResponse {
    with_headers(status, content_type, AdminBody::Text(Full::new(body.into())))
}

fn with_headers(status: StatusCode, content_type: &'static str, body: AdminBody) -> AdminResponse {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The page loads from this listener alone, and no other page shows it in a frame.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
