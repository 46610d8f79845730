//! An MCP server over HTTP ("streamable HTTP").

use super::{
    super::{
        http::{Fault, UpstreamAddress, UpstreamBody, UpstreamClient, UpstreamResponse},
        identity::add_identity,
        proxy::{IdleLimits, UpstreamReply, bad_response, head, outgoing, stamp},
    },
    events_reply::EventsReply,
    exchange::{Asked, Exchange, SESSION, response, whole},
    refusals::Refusals,
    session_owners::SessionOwners,
    until_drain::UntilDrain,
};
use crate::{
    call::{Messages, Reply, Requester},
    convert::Text,
    drain::{Signal, Tasks},
    http_call::{HttpBody, HttpRequest, HttpResponse},
    limits::MCP_REFUSAL_WAIT_MAX,
    mcp::{self, AnswerEvents, ContentKind},
    name::{CallId, MethodPath},
    printable::printable,
    rate_limit::LogLimits,
    status::{Code, Status},
    tls::UpstreamTls,
    trace::Span,
};
use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use std::sync::Arc;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

pub(super) struct HttpServer {
    path: MethodPath,
    client: UpstreamClient,
    host: String,
    idle: IdleLimits,
    message_bytes_max: usize,
    owners: Arc<SessionOwners>,
    drain: Arc<Signal>,
    /// Limits the log lines about a failing server.
    faults: LogLimits<()>,
}

impl HttpServer {
    pub(super) fn new(
        path: MethodPath,
        (address, tls): (UpstreamAddress, Option<UpstreamTls>),
        host: Option<String>,
        idle: IdleLimits,
        message_bytes_max: usize,
        (drain, owners): (Arc<Signal>, Arc<SessionOwners>),
    ) -> Arc<Self> {
        let host = host.unwrap_or_else(|| address.authority.clone());
        let client = UpstreamClient::new(address, tls, Tasks::default(), true);
        let faults = LogLimits::default();
        Arc::new(Self { path, client, host, idle, message_bytes_max, owners, drain, faults })
    }

    pub(super) const fn address(&self) -> &UpstreamAddress {
        self.client.address()
    }

    pub(super) async fn answer(
        self: &Arc<Self>,
        exchange: Exchange,
        span: &mut Span,
    ) -> Result<Reply, Status> {
        if let Some(session) = exchange.session()
            && !self.owners.is_open_to(session, exchange.caller())
        {
            return exchange.no_session();
        }
        let answered = self.send(&exchange).await?;
        let UpstreamResponse { response: answer, connection } = answered;
        span.http_status(answer.status().as_u16());
        let (parts, body) = answer.into_parts();
        let answer = head(parts).map_err(|why| bad_response(&why))?;
        if answer.status.is_redirection() {
            return Err(self.redirected(&answer));
        }
        if answer.status.is_success() {
            let begun = answer.headers.get(SESSION).and_then(|session| session.to_str().ok());
            if let Some(session) = begun.or_else(|| exchange.session()) {
                self.owners.remember(session, exchange.caller());
            }
        }
        let body = UpstreamReply::of_sent(body, connection, self.idle.stream);
        self.reply(&exchange, answer, body).await
    }

    /// Sends the request and waits for the head of the response.
    async fn send(&self, exchange: &Exchange) -> Result<UpstreamResponse, Status> {
        let mut head = exchange.head.clone();
        // Agent and node read the response.
        head.headers.remove(header::ACCEPT_ENCODING);
        let endpoint = self.client.address().path.as_str();
        let (verb, path, body) = match &exchange.asked {
            Asked::Post(message) => ("POST", endpoint, message.raw().clone()),
            Asked::Get => ("GET", endpoint, Bytes::new()),
            Asked::Delete => ("DELETE", endpoint, Bytes::new()),
            Asked::Metadata(path) => ("GET", path.as_str(), Bytes::new()),
        };
        let whose = (exchange.call_id, &exchange.requester);
        let sent = self.send_with((verb, path), head, body, whose, exchange.deadline);
        let answered = tokio::select! {
            answered = sent => answered?,
            () = tokio::time::sleep(self.idle.head) => return Err(self.idle()),
        };
        answered.map_err(|fault| self.failed(&fault))
    }

    async fn send_with(
        &self,
        target: (&str, &str),
        mut head: HttpRequest,
        body: Bytes,
        (call_id, requester): (CallId, &Requester),
        deadline: Instant,
    ) -> Result<Result<UpstreamResponse, Fault>, Status> {
        head.headers.remove(header::CONTENT_LENGTH);
        head.has_body = !body.is_empty();
        head.headers.remove(header::CONTENT_ENCODING);
        if head.has_body {
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let body = UpstreamBody::from(Text::complete(body));
        let mut request = outgoing(target, head, &self.host, body)?;
        add_identity(request.headers_mut(), call_id, requester)?;
        Ok(self.client.send(request, deadline, &stamp, false).await)
    }

    async fn reply(
        self: &Arc<Self>,
        exchange: &Exchange,
        mut answer: HttpResponse,
        body: UpstreamReply,
    ) -> Result<Reply, Status> {
        if matches!(exchange.asked, Asked::Metadata(_)) {
            return response(&answer, Messages::new(body));
        }
        let is_asked = exchange.request().is_some();
        let is_awaited = is_asked && answer.status.is_success();
        let kind = ContentKind::of(answer.status, &mut answer.headers);
        match kind.map_err(|why| bad_response(&why))? {
            ContentKind::Other if is_awaited => Err(bad_response(&"is not a message")),
            ContentKind::Other if is_asked && is_unexpected(answer.status, exchange) => {
                Err(self.misplaced(answer.status))
            }
            ContentKind::Other => response(&answer, Messages::new(body)),
            ContentKind::Json => {
                let mut body = HttpBody::new(Messages::new(body));
                let body = body.collect(self.message_bytes_max, &exchange.memory).await?;
                let passed = self.pass_json(exchange, is_awaited, body)?;
                whole(answer, passed)
            }
            ContentKind::Events => {
                answer.headers.remove(header::CONTENT_LENGTH);
                let (bytes_max, memory) = (self.message_bytes_max, exchange.memory.clone());
                let events = AnswerEvents::new(exchange.filter(), bytes_max, memory);
                let events = EventsReply::new(body, events, is_awaited, self.refusals(exchange));
                response(&answer, self.until_drain(exchange, events))
            }
        }
    }

    /// A stream on which a client only listens ends when the agent drains.
    fn until_drain(&self, exchange: &Exchange, events: EventsReply<UpstreamReply>) -> Messages {
        match exchange.asked {
            Asked::Get => Messages::new(UntilDrain::new(events, &self.drain)),
            _ => Messages::new(events),
        }
    }

    /// What the client gets of a body in JSON.
    fn pass_json(
        self: &Arc<Self>,
        exchange: &Exchange,
        is_awaited: bool,
        body: Bytes,
    ) -> Result<Bytes, Status> {
        let mut filter = exchange.filter();
        let passed = filter.pass(&body).ok().flatten();
        let refused = filter.take_refused();
        if !refused.is_empty() {
            self.refusals(exchange).send(refused)?;
        }
        match passed {
            Some(passed) if filter.is_answered() || !is_awaited => Ok(passed),
            _ if is_awaited => Err(bad_response(&"is not the answer to the request")),
            Some(_) | None => Ok(mcp::not_a_message(body)),
        }
    }

    /// Answers requests of the server that its client does not get: the server waits for that.
    fn refusals(self: &Arc<Self>, exchange: &Exchange) -> Refusals {
        let mut head = exchange.head.clone();
        for name in [mcp::METHOD, mcp::NAME, "last-event-id"] {
            head.headers.remove(name);
        }
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (call_id, requester) = (exchange.call_id, exchange.requester.clone());
        let (server, tasks) = (self.clone(), self.client.tasks().clone());
        Refusals::new(exchange.rules.server.clone(), move |mut bodies: mpsc::Receiver<Bytes>| {
            tasks.spawn(async move {
                while let Some(body) = bodies.recv().await {
                    server.send_refusal(&head, (call_id, &requester), body).await;
                }
            });
        })
    }

    async fn send_refusal(&self, head: &HttpRequest, whose: (CallId, &Requester), body: Bytes) {
        let (path, deadline) = (&self.client.address().path, Instant::now() + MCP_REFUSAL_WAIT_MAX);
        let sent = self.send_with(("POST", path), head.clone(), body, whose, deadline);
        let why = match timeout_at(deadline, sent).await {
            Ok(Ok(Err(fault))) => printable(&fault.to_string()),
            Ok(_) => return,
            Err(_elapsed) => "did not answer".into(),
        };
        let call_id = whose.0;
        tracing::debug!("call {call_id}: {} was not told of a refusal: it {why}", self.path);
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

    /// Status of a request that the server sends elsewhere, where its client cannot follow.
    fn redirected(&self, answer: &HttpResponse) -> Status {
        if let Some(suppressed) = self.faults.admit((), Instant::now()) {
            let to = answer.headers.get(header::LOCATION).map(HeaderValue::as_bytes);
            let to = printable(&String::from_utf8_lossy(to.unwrap_or_default()));
            let (address, path) = (self.client.address(), &self.path);
            tracing::warn!(
                method = %path,
                %address,
                "the upstream {address} of {path} redirects to {to}: write that URL as the upstream{suppressed}"
            );
        }
        bad_response(
            &"is a redirection; the upstream of the agent has to be the whole URL of the server",
        )
    }

    /// Status of a request to which the server has no such answer as MCP knows.
    fn misplaced(&self, status: StatusCode) -> Status {
        let (address, path) = (self.client.address(), &self.path);
        if let Some(suppressed) = self.faults.admit((), Instant::now()) {
            tracing::warn!(
                method = %path,
                %address,
                status = status.as_u16(),
                "the upstream {address} of {path} answered {status} without a message: is it the whole URL of an MCP server?{suppressed}"
            );
        }
        let text = format!("the upstream of {path} answered HTTP {status} without a message");
        Status::unknown(Code::Unavailable, text)
    }

    fn idle(&self) -> Status {
        let text =
            format!("the upstream of {} sent nothing for {:?} (idle)", self.path, self.idle.head);
        Status::unknown(Code::DeadlineExceeded, text)
    }
}

/// True for a refusal that neither asks for a credential nor ends a session.
fn is_unexpected(status: StatusCode, exchange: &Exchange) -> bool {
    let ends_session = status == StatusCode::NOT_FOUND && exchange.session().is_some();
    !ends_session && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
