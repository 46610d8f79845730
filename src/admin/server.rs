//! Answers the requests of the admin listener.

use super::{
    exposition,
    metrics::{MetricsSource, registry},
    minute::LastMinute,
    observed::Observed,
    status,
};
use crate::{
    drain::SignalListener,
    httpd::{self, Admission, Answers, Framing, Peer, RequestBody},
    tls::HttpTls,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{self, HeaderValue},
};
use prometheus_client::registry::Registry;
use serde::Serialize;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

pub(super) struct AdminServer {
    observed: Observed,
    registry: Registry,
    minute: LastMinute,
    started_at: SystemTime,
}

type AdminResponse = Response<Full<Bytes>>;

impl AdminServer {
    pub(super) fn new(observed: Observed) -> Self {
        let started_at = SystemTime::now();
        let registry = registry(MetricsSource::new(observed.clone(), started_at));
        let minute = LastMinute::new(observed.counts());
        Self { observed, registry, minute, started_at }
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

    async fn status(&self) -> AdminResponse {
        let report = status::report(&self.observed, &self.minute, self.started_at).await;
        json(StatusCode::OK, &report)
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

    type Body = Full<Bytes>;

    fn admits(&self, _from: IpAddr) -> Admission {
        Admission::One
    }

    fn tls(&self) -> Option<HttpTls> {
        None
    }

    fn handshake_failed(&self, _from: SocketAddr, _fault: &std::io::Error) {}

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
        if head.extensions.get().is_some_and(|framing: &Framing| *framing != Framing::Plain) {
            peer.be_done();
            return refusal(StatusCode::BAD_REQUEST, "a request to this listener has no body\n");
        }
        // A page of another site can let its own name resolve to this machine.
        if !httpd::names_loopback(&head.uri, &head.headers) {
            let text = "the host of the request is not this machine: use localhost or 127.0.0.1\n";
            return refusal(StatusCode::FORBIDDEN, text);
        }
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let mut refused = refusal(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match head.uri.path() {
            "/metrics" => self.metrics(&head.headers),
            "/healthz" => refusal(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness().await,
            "/api/v1/status" => self.status().await,
            _ => refusal(
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz, /readyz and /api/v1/status\n",
            ),
        }
    }
}

fn refusal(status: StatusCode, text: &'static str) -> AdminResponse {
    response(status, "text/plain; charset=utf-8", text)
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
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
