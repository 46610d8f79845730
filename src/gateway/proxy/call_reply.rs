//! Messages of a call: those of the request that is sent, and the head of the response.

use super::super::response::Refusal;
use crate::{
    call::{Body, MessageSender, Messages, Next, Reply},
    http_call::{BodySource, HttpRequest, HttpResponse},
    httpd::RequestBody,
    limits::STREAM_MESSAGES_AHEAD,
    status::{Code, Status},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;

/// The request as messages, and where the bytes of another protocol go if it asks for one. Without
/// a body it is one message, which may be sent again.
pub(super) fn messages(
    head: &HttpRequest,
    is_upgrade: bool,
    body: &RequestBody,
) -> Result<(Body, Option<MessageSender>), Refusal> {
    let message = encoded(head)?;
    let first = Next::Message(message.clone());
    Ok(if is_upgrade {
        let (sender, messages) = Messages::channel(STREAM_MESSAGES_AHEAD);
        (Body::Messages(messages.starting_with(first)), Some(sender))
    } else if head.has_body {
        let messages = Messages::new(BodySource::new(body.clone()));
        (Body::Messages(messages.starting_with(first)), None)
    } else {
        (Body::Message(message), None)
    })
}

/// A request with a body that is there as messages.
pub(super) fn whole(head: &HttpRequest, body: Bytes) -> Result<Body, Refusal> {
    let message = encoded(head)?;
    if !head.has_body {
        return Ok(Body::Message(message));
    }
    let messages = Messages::new(BodySource::new(Full::new(body)));
    Ok(Body::Messages(messages.starting_with(Next::Message(message))))
}

fn encoded(head: &HttpRequest) -> Result<Bytes, Refusal> {
    head.encode().map_err(|fault| {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Refusal::with(status, Code::ResourceExhausted, fault.to_string())
    })
}

/// The head of a reply, and the messages after it.
pub(super) async fn response(reply: Reply) -> Result<(HttpResponse, Messages), Status> {
    let Body::Messages(mut messages) = reply.body else {
        return Err(malformed("is one message"));
    };
    loop {
        match messages.next_event().await {
            Next::Head(_) => {}
            Next::Message(head) => {
                let head = HttpResponse::decode(&head);
                let head = head.map_err(|fault| malformed(&format!("has a bad head: {fault}")))?;
                messages.http_status(head.status.as_u16());
                return Ok((head, messages));
            }
            Next::End(_) => return Err(malformed("has no head")),
            Next::Failed(status) => return Err(status),
        }
    }
}

fn malformed(why: &str) -> Status {
    Status::unknown(Code::Internal, format!("the response of the agent {why}"))
}
