//! Response of the upstream as the reply of a call.

use super::{super::http::HeldConnection, Sending};
use crate::{
    call::{Messages, Next, Source},
    http_call::{
        BodySource, HttpResponse, RelayEnd, relay, remove_connection_headers, remove_headers,
    },
    limits::STREAM_MESSAGES_AHEAD,
    status::{Code, Status},
};
use hyper::{
    body::Incoming,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE},
    http::response::Parts,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// Head of a response without the headers of its connection, and without those that only dialback
/// writes.
///
/// # Errors
/// The end of the response is stated in more ways than one, or in a way that is not known.
pub(in crate::agent::forward) fn head(head: Parts) -> Result<HttpResponse, &'static str> {
    let Parts { status, mut headers, .. } = head;
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(coding) = headers.get(TRANSFER_ENCODING) {
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("has a transfer-encoding that is not `chunked` alone");
        }
        // Chunks have an end of their own (RFC 9112 section 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    let lengths: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().cloned().collect();
    match lengths.as_slice() {
        [] | [_] => {}
        [first, others @ ..] if others.iter().all(|other| other == first) => {
            headers.insert(CONTENT_LENGTH, first.clone());
        }
        _ => return Err("has two lengths (content-length)"),
    }
    remove_connection_headers(&mut headers);
    // It says nothing in a response, and some servers send it.
    headers.remove(HOST);
    remove_headers(&mut headers, |name| name.starts_with("dialback-"));
    Ok(HttpResponse { status, headers, upgrade })
}

/// Status of a request whose response cannot be passed on.
pub(in crate::agent::forward) fn bad_response(why: &dyn fmt::Display) -> Status {
    Status::unknown(Code::Internal, format!("the response of the upstream {why}"))
}

/// The body of a response. Not polling it delays the upstream; dropping it ends the request.
pub(in crate::agent::forward) struct UpstreamReply {
    body: BodySource<Incoming>,
    /// Taken at the end.
    connection: Option<HeldConnection>,
    /// Ends the body of the request when it is dropped.
    sending: Sending,
    idle_max: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl UpstreamReply {
    pub(super) fn new(
        body: Incoming,
        connection: HeldConnection,
        sending: Sending,
        idle_max: Duration,
    ) -> Self {
        Self {
            body: BodySource::new(body),
            connection: Some(connection),
            sending,
            idle_max,
            last: Instant::now(),
            timer: Box::pin(tokio::time::sleep(idle_max)),
        }
    }

    /// The same, of a request that was sent as a whole.
    pub(in crate::agent::forward) fn of_sent(
        body: Incoming,
        connection: HeldConnection,
        idle_max: Duration,
    ) -> Self {
        Self::new(body, connection, Sending::Nothing, idle_max)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if let Sending::Body(progress) = &self.sending {
                self.last = self.last.max(progress.moved_at());
            }
            if self.last + self.idle_max <= Instant::now() {
                let text =
                    format!("no byte moved in either direction for {:?} (idle)", self.idle_max);
                return Poll::Ready(Status::unknown(Code::DeadlineExceeded, text));
            }
            self.timer.as_mut().reset(self.last + self.idle_max);
        }
        Poll::Pending
    }
}

impl Source for UpstreamReply {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let next = self.body.poll_message(cx, |fault| {
            let text = format!("the upstream broke off its response: {fault}");
            Status::unknown(Code::Unavailable, text)
        });
        match &next {
            Poll::Pending => return self.poll_idle(cx).map(Next::Failed),
            Poll::Ready(Next::End(_)) => {
                if let Some(connection) = self.connection.take() {
                    connection.keep();
                }
            }
            Poll::Ready(_) => self.last = Instant::now(),
        }
        next
    }
}

/// The bytes of a connection that has changed to another protocol.
pub(super) fn upgraded(
    upgraded: OnUpgrade,
    connection: HeldConnection,
    requests: Messages,
    idle_max: Duration,
) -> Messages {
    let (replies, messages) = Messages::channel(STREAM_MESSAGES_AHEAD);
    connection.tasks().spawn(async move {
        let relayed = async {
            let stream = upgraded.await.map_err(|fault| {
                Status::unknown(Code::Unavailable, format!("the upstream is gone: {fault}"))
            })?;
            drop(connection);
            let halves = tokio::io::split(TokioIo::new(stream));
            relay(RelayEnd::Responder, halves, requests, replies.clone(), Some(idle_max)).await
        };
        if let Err(status) = relayed.await {
            drop(replies.fail(status).await);
        }
    });
    messages
}
