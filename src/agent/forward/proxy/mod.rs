//! HTTP forwards: a call becomes a request to a local HTTP server, and its response the reply.
//!
//! The line between `not_executed` and `unknown` is the first byte of the request that is written
//! to the upstream.

mod messages;
mod reply;
mod request;

pub(super) use messages::{expect_end, malformed, read_head};
pub(super) use reply::{UpstreamReply, bad_response, head};
pub(super) use request::{outgoing, stamp};

use super::{
    check::{UpstreamCheck, of_http},
    http::{
        BodyProgress, Fault, StreamedBody, UpstreamAddress, UpstreamBody, UpstreamClient,
        UpstreamError, UpstreamResponse,
    },
    identity::add_identity,
    upstream_span::{set_traceparent, upstream_span},
};
use crate::{
    call::{Body, Handler, Messages, Next, Reply, Request, end_span},
    convert::Text,
    drain::Tasks,
    http_call::HttpBody,
    limits::{HTTP_IDLE_MAX, HTTP_STREAM_IDLE_MAX},
    name::{MethodPath, Name},
    policy::HttpScope,
    printable::printable,
    rate_limit::LogLimits,
    serve::Service,
    status::{Code, Status},
    tls::UpstreamTls,
    wire::CallKind,
};
use bytes::Bytes;
use hyper::StatusCode;
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// An HTTP server, reached through the agent as `http:NAME`. Read from
/// `grafana=http://127.0.0.1:3000`.
///
/// Each call is one request: method, path, headers, body and trailers pass in both directions as
/// they come, and so does a connection that changes to another protocol (WebSocket). A request of
/// which no byte was written to the upstream was not executed; one that fails later is unknown.
/// Dropping the call, and its deadline, cancel the request.
#[derive(Clone)]
#[must_use = "a forward answers once it is hosted"]
pub struct HttpForward {
    name: Name,
    address: UpstreamAddress,
    tls: Option<UpstreamTls>,
    host: Option<String>,
    idle: IdleLimits,
    scope: HttpScope,
    check: Option<UpstreamCheck>,
}

/// Time without a byte in either direction after which a request ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdleLimits {
    /// While the head of the response is awaited.
    pub(super) head: Duration,
    /// After it: event streams and WebSockets may be silent for long.
    pub(super) stream: Duration,
}

impl Default for IdleLimits {
    fn default() -> Self {
        Self { head: HTTP_IDLE_MAX, stream: HTTP_STREAM_IDLE_MAX }
    }
}

impl HttpForward {
    /// Forwards `http:NAME` to an upstream. `https` needs the CAs (PEM) that vouch for it; it may
    /// speak HTTP/2 or HTTP/1.1. The trust store of the system is not used.
    ///
    /// # Errors
    /// `https` without CAs, CAs without `https`, or invalid CAs.
    pub fn new(
        name: Name,
        address: UpstreamAddress,
        ca_pem: Option<&[u8]>,
    ) -> Result<Self, UpstreamError> {
        let tls = address.tls(ca_pem, true)?;
        let (idle, scope) = (IdleLimits::default(), HttpScope::default());
        Ok(Self { name, address, tls, host: None, idle, scope, check: None })
    }

    /// Sets the `Host` that the upstream gets. Default: the one that the client named on a site,
    /// and the address of the upstream otherwise.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets after how long without a byte in either direction a request ends. Default: 5 min while
    /// the response is awaited, and an hour once it has begun.
    pub const fn idle_max(mut self, idle_max: Duration) -> Self {
        self.idle = IdleLimits { head: idle_max, stream: idle_max };
        self
    }

    /// Limits the verbs and paths that are forwarded, whatever rules allow. Default: all.
    pub fn scope(mut self, scope: HttpScope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets the check of the upstream. Default: none but after a failure.
    pub fn check(mut self, check: UpstreamCheck) -> Self {
        self.check = Some(check);
        self
    }

    /// Its name: it is called as `http:NAME`.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    pub(in crate::agent) fn into_service(self) -> Service {
        let kind = CallKind::Http;
        let Self { name, address, tls, host, idle, scope, check } = self;
        let path = MethodPath::http(&name);
        let check = of_http(&address, tls.as_ref(), check);
        let client = UpstreamClient::new(address, tls, Tasks::default(), true);
        let hosted = HostedHttp { path, client, host, idle, scope, faults: LogLimits::default() };
        Service::new(kind.as_str()).raw_method_of(kind, name.to_string(), hosted).checked_by(check)
    }
}

impl fmt::Debug for HttpForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, address, .. } = self;
        let address = address.to_string();
        f.debug_struct("HttpForward")
            .field("name", name)
            .field("to", &address)
            .finish_non_exhaustive()
    }
}

/// A forward while it is hosted.
struct HostedHttp {
    path: MethodPath,
    client: UpstreamClient,
    /// The `Host` that every request gets, if one is set.
    host: Option<String>,
    idle: IdleLimits,
    scope: HttpScope,
    /// Limits the log lines about a failing upstream.
    faults: LogLimits<()>,
}

/// What of a request is still to be sent.
enum Sending {
    Nothing,
    /// A body, which the connection takes.
    Body(BodyProgress),
    /// The bytes of the protocol that the connection may change to.
    Upgrade(Messages),
}

impl Sending {
    /// Completes when nothing of a request was taken for this time.
    async fn idle(&self, idle_max: Duration) {
        match self {
            Self::Body(progress) => progress.idle(idle_max).await,
            Self::Nothing | Self::Upgrade(_) => tokio::time::sleep(idle_max).await,
        }
    }
}

impl Handler for HostedHttp {
    async fn call(&self, request: Request) -> Result<Reply, Status> {
        let Request { mut meta, requester, body } = request;
        let Some(target) = meta.http.take() else {
            return Err(malformed("it has no verb and path"));
        };
        if !self.scope.allows(&target) {
            let text = format!("{} forwards {} only", self.path, self.scope);
            return Err(Status::not_executed(Code::PermissionDenied, text));
        }
        let Body::Messages(mut messages) = body else {
            return Err(malformed("it is one message"));
        };
        let head = read_head(&mut messages).await?;
        let (body, sending) = if head.upgrade.is_some() {
            (empty_body(), Sending::Upgrade(messages))
        } else if head.has_body {
            let body = StreamedBody::new(HttpBody::new(messages));
            let sending = Sending::Body(body.progress());
            (UpstreamBody::Stream(body), sending)
        } else {
            expect_end(&mut messages).await?;
            (empty_body(), Sending::Nothing)
        };
        let is_upgrade = head.upgrade.is_some();
        let path = request::path_at(self.client.address(), &target);
        let host = self.host_of(head.authority.as_deref());
        let mut outgoing = outgoing((target.verb(), &path), head, &host, body)?;
        add_identity(outgoing.headers_mut(), meta.call_id, &requester)?;
        let mut span = upstream_span(&mut meta, target.verb(), self.client.address());
        span.text("url.path", &path);
        set_traceparent(outgoing.headers_mut(), meta.traceparent.as_deref());
        let replied = async {
            let sent = self.client.send(outgoing, meta.deadline, &stamp, is_upgrade);
            let answered = tokio::select! {
                answered = sent => answered,
                () = sending.idle(self.idle.head) => return Err(self.idle()),
            };
            let answered = answered.map_err(|fault| self.failed(&fault))?;
            span.http_status(answered.response.status().as_u16());
            self.reply(answered, sending).await
        };
        let replied = replied.await;
        end_span(span, replied)
    }
}

impl HostedHttp {
    /// The `Host` for the upstream, of a request that names this one.
    fn host_of(&self, authority: Option<&str>) -> String {
        let host = self.host.as_deref().or(authority);
        host.unwrap_or(&self.client.address().authority).to_owned()
    }

    async fn reply(&self, answered: UpstreamResponse, sending: Sending) -> Result<Reply, Status> {
        let UpstreamResponse { mut response, connection } = answered;
        let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upgraded = is_upgraded.then(|| hyper::upgrade::on(&mut response));
        let (head, body) = response.into_parts();
        let head = reply::head(head).map_err(|why| bad_response(&why))?;
        let head = head.encode().map_err(|fault| bad_response(&fault))?;
        let messages = match (upgraded, sending) {
            (None, sending) => {
                let idle_max = self.idle.stream;
                Messages::new(UpstreamReply::new(body, connection, sending, idle_max))
            }
            (Some(upgraded), Sending::Upgrade(requests)) => {
                reply::upgraded(upgraded, connection, requests, self.idle.stream)
            }
            (Some(_), _) => {
                let text = "the upstream changed to another protocol, which was not asked for";
                return Err(Status::unknown(Code::Internal, text));
            }
        };
        Ok(Reply::stream(messages.starting_with(Next::Message(head))))
    }

    /// Status of a request without a response. Details for the operator go to the log only.
    fn failed(&self, fault: &Fault) -> Status {
        let status = fault.to_status(self.path.as_str());
        let is_own = matches!(fault, Fault::Request(_)) || status.code() == Code::DeadlineExceeded;
        if !is_own && let Some(suppressed) = self.faults.admit((), Instant::now()) {
            let (address, why) = (self.client.address(), printable(&fault.to_string()));
            let method = &self.path;
            tracing::warn!(
                %method,
                %address,
                reason = why,
                "the upstream {address} of {method} {why}{suppressed}"
            );
        }
        status
    }

    fn idle(&self) -> Status {
        let text =
            format!("the upstream of {} sent nothing for {:?} (idle)", self.path, self.idle.head);
        Status::unknown(Code::DeadlineExceeded, text)
    }
}

fn empty_body() -> UpstreamBody {
    Text::complete(Bytes::new()).into()
}
