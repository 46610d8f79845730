//! A request that has no response yet: completes the head of the response, and watches its body.

use super::{
    answers::{Answers, Peer},
    persistence::Persistence,
    request_body::KeptBody,
    watched::{ResponseGuard, WatchedBody},
};
use crate::drain::Tasks;
use hyper::{Response, StatusCode, Version, http::request::Parts};
use std::sync::Arc;

pub(super) struct PendingRequest {
    persistence: Option<Persistence>,
    body: KeptBody,
    guard: ResponseGuard,
    peer: Arc<Peer>,
    tasks: Tasks,
}

impl PendingRequest {
    pub(super) fn new(
        head: &Parts,
        (body, guard): (KeptBody, ResponseGuard),
        peer: Arc<Peer>,
        tasks: Tasks,
    ) -> Self {
        let persistence = (head.version < Version::HTTP_2).then(|| Persistence::of(head));
        Self { persistence, body, guard, peer, tasks }
    }

    /// Adds to the response what HTTP needs. Discards the rest of the request after it.
    pub(super) fn answered<A: Answers>(
        self,
        mut response: Response<A::Body>,
    ) -> Response<WatchedBody<A::Body>> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            drop(self.peer.take_upgrade());
            if let Some(persistence) = self.persistence {
                persistence.write(response.headers_mut(), self.body.is_kept_back());
            }
        }
        let Self { body, guard, tasks, .. } = self;
        response.map(|answer| {
            let watched = WatchedBody::new(answer, guard);
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
}
