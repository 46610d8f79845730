//! The HTTP/2 connection to an upstream, which its requests share.

use super::{
    body::UpstreamBody,
    connection::{Outgoing, Unreachable, UpstreamStream},
};
use crate::{
    drain::Tasks,
    limits::{
        FORWARD_HEAD_BYTES_MAX, FORWARD_HTTP2_IDLE_MAX, FORWARD_HTTP2_WINDOW_BYTES,
        HTTP2_STREAM_WINDOW_BYTES,
    },
};
use hyper::{
    Response,
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use std::{
    error::Error,
    sync::{Mutex, PoisonError},
};
use tokio::time::Instant;

/// A connection that any number of requests share. Cloning is cheap; it closes after the last one.
#[derive(Clone)]
pub(super) struct Http2Connection(SendRequest<UpstreamBody>);

impl Http2Connection {
    pub(super) async fn over(
        stream: Box<dyn UpstreamStream>,
        tasks: &Tasks,
    ) -> Result<Self, Unreachable> {
        let handshake = Builder::new(BodyTasks(tasks.clone()))
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            // Bounded by that of each stream: those that nobody reads do not hold up the others.
            .initial_connection_window_size(FORWARD_HTTP2_WINDOW_BYTES)
            .max_header_list_size(FORWARD_HEAD_BYTES_MAX as u32)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(Unreachable::Http)?;
        tasks.spawn_until_stopped(async move { drop(connection.await) });
        Ok(Self(sender))
    }

    /// Sends a request and awaits the head of its reply. Dropping the future resets its stream.
    pub(super) async fn send(
        mut self,
        request: Outgoing,
    ) -> Result<Response<Incoming>, Http2Fault> {
        if self.0.ready().await.is_err() {
            return Err(Http2Fault::Unsent);
        }
        let answered = self.0.try_send_request(request).await;
        answered.map_err(|mut fault| match fault.take_message() {
            Some(_) => Http2Fault::Unsent,
            None if is_refused(fault.error()) => Http2Fault::Unsent,
            None => Http2Fault::Sent(fault.into_error()),
        })
    }
}

pub(super) enum Http2Fault {
    /// No byte was written, or the upstream says that it has not looked at the request.
    Unsent,
    /// Some bytes may have been written.
    Sent(hyper::Error),
}

/// Runs the tasks of a connection that send bodies.
#[derive(Clone)]
struct BodyTasks(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for BodyTasks {
    fn execute(&self, work: F) {
        self.0.spawn_until_stopped(work);
    }
}

/// True if the upstream says that it has not processed the request (RFC 9113 section 8.7).
fn is_refused(fault: &hyper::Error) -> bool {
    let fault = fault.source().and_then(|source| source.downcast_ref::<h2::Error>());
    fault.is_some_and(|fault| match fault.reason() {
        Some(h2::Reason::REFUSED_STREAM) => fault.is_remote(),
        // Of a stream above the last one that the upstream has looked at.
        Some(h2::Reason::NO_ERROR) => fault.is_go_away() && fault.is_remote(),
        _ => false,
    })
}

/// The connection in use, if there is one.
#[derive(Default)]
pub(super) struct SharedHttp2(Mutex<Option<(Http2Connection, Instant)>>);

impl SharedHttp2 {
    /// The connection, unless it was closed or not used for long.
    pub(super) fn get(&self, now: Instant) -> Option<Http2Connection> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.take_if(|(connection, used_at)| {
            connection.0.is_closed() || *used_at + FORWARD_HTTP2_IDLE_MAX <= now
        });
        let (connection, used_at) = current.as_mut()?;
        *used_at = now;
        Some(connection.clone())
    }

    pub(super) fn set(&self, connection: Http2Connection, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((connection, now));
    }

    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
