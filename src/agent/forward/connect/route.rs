//! Settings and connection pool of one upstream; sends the requests to it.

use super::{
    super::http::{Outgoing, Pool, SendError, Unreachable, UpstreamAddress, UpstreamConnection},
    format::ForwardFormat,
    headers,
};
use crate::{
    call::Request,
    convert::Text,
    drain::Tasks,
    limits::TIMEOUT_MIN,
    status::{Code, Status},
    tls::{UpstreamTls, random_bytes},
};
use hyper::{
    Method, Response,
    body::Incoming,
    header::{
        ACCEPT, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
/// Connect has ten digits for it.
const TIMEOUT_MS_MAX: u128 = 9_999_999_999;

/// Settings of a route, which can be replaced while the agent runs.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) address: UpstreamAddress,
    pub(super) tls: Option<UpstreamTls>,
    pub(super) format: ForwardFormat,
    pub(super) message_bytes_max: usize,
    /// True if connections are used again.
    pub(super) keep_alive: bool,
    /// The names of metadata that become headers; `None` is all that may.
    pub(super) metadata: Option<Arc<[String]>>,
}

pub(super) struct UpstreamRoute {
    pub(super) settings: Settings,
    pub(super) pool: Arc<Pool>,
}

/// Error of a request without the head of a reply, for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The request was not written.
    #[error("{0}")]
    Unreachable(Unreachable),
    /// It may have been.
    #[error("closed the connection: {0}")]
    SendError(hyper::Error),
}

/// The head of a reply, and the connection on which its body comes.
pub(super) struct UpstreamResponse {
    pub(super) response: Response<Incoming>,
    pub(super) connection: UpstreamConnection,
}

impl UpstreamRoute {
    pub(super) fn new(settings: Settings, tasks: Tasks) -> Self {
        let pool = Pool::new(tasks, settings.keep_alive);
        Self { settings, pool }
    }

    /// A Connect request: the message as a POST's body, in an envelope where the reply is a stream.
    pub(super) fn request(
        &self,
        request: &Request,
        message: Text,
        is_stream: bool,
    ) -> Result<Outgoing, Status> {
        let allowed = self.settings.metadata.as_deref();
        let mut headers = headers::of_metadata(&request.meta.metadata, allowed)?;
        let media_type = HeaderValue::from_static(self.settings.format.media_type(is_stream));
        headers.insert(HOST, value(&self.settings.address.authority)?);
        headers.insert(CONTENT_TYPE, media_type.clone());
        headers.insert(ACCEPT, media_type);
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("dialback/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static("1"));
        if !self.settings.keep_alive {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        add_identity(&mut headers, request)?;
        let path = format!("{}/{}", self.settings.address.prefix, request.meta.method);
        let mut outgoing = Outgoing::new(message);
        *outgoing.method_mut() = Method::POST;
        *outgoing.uri_mut() = path.parse().map_err(|_| unsendable("path"))?;
        *outgoing.headers_mut() = headers;
        Ok(outgoing)
    }

    /// Sends it and waits for the head of the reply: on an idle connection if there is one, and on
    /// a new one if that was closed before a byte of the request was written. What may have been
    /// written is not repeated.
    pub(super) async fn send(
        &self,
        mut request: Outgoing,
        deadline: Instant,
    ) -> Result<UpstreamResponse, Fault> {
        if let Some((connection, since)) = self.pool.take(deadline).await {
            let (answers, idle_for) = (connection.answers(), since.elapsed());
            let sent = send_on(connection, request, deadline).await;
            match &sent {
                Ok(Err(_unsent)) => self.pool.was_closed(answers, idle_for),
                // However long it was idle, the upstream no longer read from it.
                Err(Fault::SendError(_)) => self.pool.was_closed(answers, Duration::ZERO),
                _ => {}
            }
            match sent? {
                Ok(answered) => return Ok(answered),
                Err(unsent) => request = unsent,
            }
        }
        let Settings { address: UpstreamAddress { destination, .. }, tls, .. } = &self.settings;
        let (tls, tasks) = (tls.as_ref(), self.pool.tasks());
        let connection = UpstreamConnection::connect(destination, tls, tasks, deadline, chance());
        let connection = connection.await.map_err(Fault::Unreachable)?;
        let answered = send_on(connection, request, deadline).await?;
        answered.map_err(|_unsent| Fault::Unreachable(Unreachable::Closed))
    }
}

/// The request comes back if no byte of it was written.
async fn send_on(
    mut connection: UpstreamConnection,
    mut request: Outgoing,
    deadline: Instant,
) -> Result<Result<UpstreamResponse, Outgoing>, Fault> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left < TIMEOUT_MIN {
        return Err(Fault::Unreachable(Unreachable::Deadline));
    }
    request.headers_mut().insert(TIMEOUT, millis(left).into());
    match connection.send(request).await {
        Ok(response) => Ok(Ok(UpstreamResponse { response, connection })),
        Err(SendError::Unsent(request)) => Ok(Err(*request)),
        Err(SendError::Sent(fault)) => Err(Fault::SendError(fault)),
    }
}

fn chance() -> f64 {
    f64::from(u32::from_be_bytes(random_bytes())) / f64::from(u32::MAX)
}

fn millis(left: Duration) -> u64 {
    // The bound fits.
    u64::try_from(left.as_millis().min(TIMEOUT_MS_MAX)).unwrap_or(u64::MAX)
}

/// Adds the requester, the node and the call id; the caller's metadata has none of these names.
fn add_identity(headers: &mut HeaderMap, request: &Request) -> Result<(), Status> {
    headers.insert("dialback-caller", value(&request.requester.peer().to_string())?);
    headers.insert("dialback-call-id", value(&request.meta.call_id.to_string())?);
    if let Some(node) = request.requester.via() {
        headers.insert("dialback-node", value(node.as_str())?);
    }
    if let Some(traceparent) = &request.meta.traceparent {
        headers.insert("traceparent", value(traceparent)?);
    }
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue, Status> {
    headers::value_of(text).ok_or_else(|| unsendable("header"))
}

fn unsendable(what: &str) -> Status {
    let text = format!("a {what} of the forwarded request is none that HTTP knows");
    Status::not_executed(Code::InvalidArgument, text)
}
