//! One request of a client, checked, and the answers to it.

use super::rules::CallerRules;
use crate::{
    call::{Messages, Next, Reply, Requester},
    convert::Text,
    http_call::{BodySource, HttpRequest, HttpResponse},
    mcp::{self, AnswerFilter, AskedRequest, ClientMessage, Needs},
    memory::MemoryAccount,
    name::{CallId, PeerName},
    status::{Code, Status},
};
use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use tokio::time::Instant;

pub(super) const SESSION: HeaderName = HeaderName::from_static(mcp::SESSION);

/// What a client asks of a server.
pub(super) enum Asked {
    /// A message.
    Post(ClientMessage),
    /// The stream of messages of a session.
    Get,
    /// The end of a session.
    Delete,
    /// A document about the server, at this path.
    Metadata(String),
}

/// One request of a client.
pub(super) struct Exchange {
    pub(super) call_id: CallId,
    pub(super) deadline: Instant,
    pub(super) requester: Requester,
    pub(super) head: HttpRequest,
    pub(super) rules: CallerRules,
    pub(super) asked: Asked,
    /// Counts what is held for the caller.
    pub(super) memory: MemoryAccount,
}

impl Exchange {
    pub(super) fn caller(&self) -> &PeerName {
        self.requester.peer()
    }

    /// The session that the client names.
    pub(super) fn session(&self) -> Option<&str> {
        self.head.headers.get(SESSION)?.to_str().ok()
    }

    /// The request in its message.
    pub(super) fn request(&self) -> Option<AskedRequest> {
        match &self.asked {
            Asked::Post(message) => AskedRequest::of(message),
            _ => None,
        }
    }

    /// Decides on the answers of the server.
    pub(super) fn filter(&self) -> AnswerFilter {
        let rules = self.rules.clone();
        let may = Box::new(move |needs: &Needs| rules.allow(needs));
        AnswerFilter::new(&self.rules.server, self.request(), self.call_id, may)
    }

    /// The answer for a session that there is not: clients begin a new one.
    pub(super) fn no_session(&self) -> Result<Reply, Status> {
        let status = Status::not_executed(Code::NotFound, "there is no such session (any more)");
        let request = self.request();
        let body = mcp::error_response(request.as_ref().map(|it| &it.id), &status, self.call_id);
        let outcome = HeaderValue::from_static(status.outcome().as_str());
        let headers = [(HeaderName::from_static("dialback-outcome"), outcome)];
        json(StatusCode::NOT_FOUND, headers.into_iter().collect(), body)
    }
}

/// A response in JSON.
pub(super) fn json(
    status: StatusCode,
    mut headers: HeaderMap,
    body: Bytes,
) -> Result<Reply, Status> {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    whole(HttpResponse { status, headers, upgrade: None }, body)
}

/// A response with a body that is there.
pub(super) fn whole(mut head: HttpResponse, body: Bytes) -> Result<Reply, Status> {
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    response(&head, Messages::new(BodySource::new(Text::complete(body))))
}

/// A response with these messages as its body.
pub(super) fn response(head: &HttpResponse, body: Messages) -> Result<Reply, Status> {
    let head = head.encode().map_err(|fault| super::super::proxy::bad_response(&fault))?;
    Ok(Reply::stream(body.starting_with(Next::Message(head))))
}
