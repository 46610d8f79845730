//! An MCP server that speaks on the standard input and output of its process.
//!
//! Source: "stdio" in <https://modelcontextprotocol.io/specification/2025-11-25/basic/transports>

mod process;
mod process_group;
mod routes;
mod session;
mod sessions;
mod reply;

use super::{
    exchange::{Asked, Exchange, SESSION, json, response, whole},
    until_drain::UntilDrain,
};
use crate::{
    call::{Messages, Reply},
    drain::{Signal, Tasks},
    http_call::HttpResponse,
    mcp::{ClientMessage, RequestId},
    name::MethodPath,
    status::{Code, Status},
};
use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
};
use process::{Written, line};
use reply::ProcessReply;
use routes::NoRoute;
use session::{ProcessSettings, Session};
use sessions::Sessions;
use std::{future::poll_fn, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// A session, and the messages for one client of it.
type Routed = (Arc<Session>, mpsc::Receiver<Bytes>);

/// A server of which each session has a process, and the requests of a caller without a session
/// share one.
pub(super) struct StdioServer {
    sessions: Sessions,
}

impl StdioServer {
    pub(super) fn new(
        path: MethodPath,
        command: Vec<String>,
        idle_max: Duration,
        message_bytes_max: usize,
        (tasks, drain): (Tasks, Arc<Signal>),
    ) -> Arc<Self> {
        let settings = ProcessSettings { path, command, idle_max, message_bytes_max, tasks, drain };
        Arc::new(Self { sessions: Sessions::new(settings) })
    }

    pub(super) async fn answer(&self, exchange: Exchange) -> Result<Reply, Status> {
        match &exchange.asked {
            Asked::Post(message) => match message.request_id() {
                Some(id) => self.request(&exchange, message, id).await,
                None => self.tell(&exchange, message).await,
            },
            Asked::Get => self.listen(&exchange),
            Asked::Delete => {
                let Some(session) = self.named(&exchange) else { return exchange.no_session() };
                session.close();
                empty(StatusCode::NO_CONTENT)
            }
            Asked::Metadata(_) => empty(StatusCode::NOT_FOUND),
        }
    }

    /// The session that a request names.
    fn named(&self, exchange: &Exchange) -> Option<Arc<Session>> {
        self.sessions.find(exchange.session()?, exchange.caller())
    }

    /// The session of a request, and the route of its answer.
    fn route(
        &self,
        exchange: &Exchange,
        message: &ClientMessage,
        id: &RequestId,
    ) -> Result<Option<Routed>, Status> {
        let session = if message.method() == Some("initialize") {
            self.sessions.begin(exchange.caller(), exchange.memory.clone())?
        } else if exchange.session().is_some() {
            let Some(session) = self.named(exchange) else { return Ok(None) };
            session
        } else {
            return self.sessions.share(exchange.caller(), exchange.memory.clone(), id).map(Some);
        };
        match session.routes.add(id) {
            Ok(route) => Ok(Some((session, route))),
            Err(NoRoute::Ended(_)) => Ok(None),
            Err(NoRoute::Taken) => {
                let text = "another request of the session has this id, and no answer yet";
                Err(Status::not_executed(Code::InvalidArgument, text))
            }
        }
    }

    async fn request(
        &self,
        exchange: &Exchange,
        message: &ClientMessage,
        id: &RequestId,
    ) -> Result<Reply, Status> {
        let Some((session, route)) = self.route(exchange, message, id)? else {
            return exchange.no_session();
        };
        let begins = message.method() == Some("initialize");
        let mut pending = UnwrittenRequest { session: &session, id: Some(id), begins };
        let written = session.input.write(line(message.raw())).await;
        if written != Written::Yes {
            return Err(self.sessions.unwritten(written, &session));
        }
        pending.id = None;
        let headers = session_header(&session);
        let mut reply =
            ProcessReply::new(session.clone(), exchange.filter(), route, Some(id.clone()), begins);
        if takes_events(&exchange.head.headers) {
            return response(&events(headers), Messages::new(reply));
        }
        // Everything before the answer is left out: a client without events could not have it.
        let mut answer = Bytes::new();
        while let Some(message) = poll_fn(|cx| reply.poll_message(cx)).await {
            answer = message?;
        }
        json(StatusCode::OK, headers, answer)
    }

    /// Passes a notification or a response on.
    async fn tell(&self, exchange: &Exchange, message: &ClientMessage) -> Result<Reply, Status> {
        let session = match exchange.session() {
            Some(_) => self.named(exchange),
            None => self.sessions.shared(exchange.caller()),
        };
        let Some(session) = session else { return exchange.no_session() };
        match session.input.write(line(message.raw())).await {
            Written::Yes => empty(StatusCode::ACCEPTED),
            written => Err(self.sessions.unwritten(written, &session)),
        }
    }

    /// The stream of messages that belong to no request.
    fn listen(&self, exchange: &Exchange) -> Result<Reply, Status> {
        if exchange.session().is_none() {
            return empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        let Some(session) = self.named(exchange) else { return exchange.no_session() };
        match session.routes.listen() {
            Ok(route) => {
                let headers = session_header(&session);
                let reply = ProcessReply::new(session, exchange.filter(), route, None, false);
                let reply = UntilDrain::new(reply, self.sessions.drain());
                response(&events(headers), Messages::new(reply))
            }
            Err(NoRoute::Taken) => empty(StatusCode::CONFLICT),
            Err(NoRoute::Ended(_)) => exchange.no_session(),
        }
    }
}

/// A request while it is written. Dropping it then cancels the request.
struct UnwrittenRequest<'a> {
    session: &'a Session,
    id: Option<&'a RequestId>,
    begins: bool,
}

impl Drop for UnwrittenRequest<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.session.give_up(id, self.begins);
        }
    }
}

fn session_header(session: &Session) -> HeaderMap {
    let id = session.id.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
    id.map(|id| (SESSION, id)).into_iter().collect()
}

fn events(mut headers: HeaderMap) -> HttpResponse {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    HttpResponse { status: StatusCode::OK, headers, upgrade: None }
}

fn takes_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(','));
    kinds.any(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("text/event-stream") || kind == "*/*" || kind == "text/*"
    })
}

fn empty(status: StatusCode) -> Result<Reply, Status> {
    whole(HttpResponse { status, headers: HeaderMap::new(), upgrade: None }, Bytes::new())
}
