//! A request without a response: completes the head of the response, and watches its body.

use super::{
    answers::{Answers, Peer},
    persistence::Persistence,
    request_body::KeptBody,
    watched::{ResponseGuard, WatchedBody},
};
use crate::drain::Tasks;
use http_body::Body;
use hyper::{
    Method, Response, StatusCode, Version,
    header::{self, HeaderValue},
    http::request::Parts,
};
use std::sync::Arc;

pub(super) struct UnansweredRequest {
    method: Method,
    version: Version,
    persistence: Option<Persistence>,
    body: KeptBody,
    guard: ResponseGuard,
    peer: Arc<Peer>,
    tasks: Tasks,
}

impl UnansweredRequest {
    pub(super) fn new(
        head: &Parts,
        (body, guard): (KeptBody, ResponseGuard),
        peer: Arc<Peer>,
        tasks: Tasks,
    ) -> Self {
        let (method, version) = (head.method.clone(), head.version);
        let persistence = (version < Version::HTTP_2).then(|| Persistence::of(head));
        Self { method, version, persistence, body, guard, peer, tasks }
    }

    /// Adds to the response what HTTP needs. Discards the rest of the request after it.
    pub(super) fn answered<A: Answers>(
        self,
        answers: &A,
        mut response: Response<A::Body>,
    ) -> Response<WatchedBody<A::Body>> {
        let has_content = self.has_content(response.status());
        if !has_content {
            self.correct_length(&mut response);
        }
        let ends_by_close = has_content && self.is_ended_by_close(&response);
        if ends_by_close {
            self.guard.ends_by_close();
        }
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            drop(self.peer.take_upgrade());
            let closes = ends_by_close || self.body.is_kept_back();
            if let Some(persistence) = self.persistence {
                persistence.write(response.headers_mut(), closes);
            }
        }
        // As the client says it, or hyper would add `keep-alive` to `close` for HTTP/1.0.
        *response.version_mut() = self.version;
        let Self { body, guard, tasks, .. } = self;
        guard.may_stall(answers.stall_max(&response));
        response.map(|answer| {
            let watched = match has_content {
                true => WatchedBody::new(answer, guard),
                false => WatchedBody::without_content(answer, guard),
            };
            if !body.has_rest() {
                return watched;
            }
            watched.then(move |guard| {
                tasks.spawn_until_stopped(async move {
                    body.discard().await;
                    drop(guard);
                });
            })
        })
    }

    /// Returns `true` if a response with this status may have a body (RFC 9110 section 6.4.1).
    fn has_content(&self, status: StatusCode) -> bool {
        let is_without = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.method != Method::HEAD && !is_without
    }

    /// The length of a response without its body is that of the response to GET (RFC 9110 section
    /// 8.6), and 204 has none.
    fn correct_length(&self, response: &mut Response<impl Body>) {
        if response.status() == StatusCode::NO_CONTENT {
            response.headers_mut().remove(header::CONTENT_LENGTH);
        } else if self.method == Method::HEAD
            && let Some(bytes) = response.body().size_hint().exact().filter(|bytes| *bytes > 0)
        {
            let length = HeaderValue::from(bytes);
            response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length);
        }
    }

    /// Returns `true` if only the end of the connection ends the response: HTTP/1.0 has no chunks.
    fn is_ended_by_close(&self, response: &Response<impl Body>) -> bool {
        let body = response.body();
        self.version < Version::HTTP_11
            && !response.headers().contains_key(header::CONTENT_LENGTH)
            && !body.is_end_stream()
            && body.size_hint().exact().is_none()
    }
}
