//! HTTP client of one upstream: HTTP/1.1 on connections from a pool, HTTP/2 on a shared one.

use super::{
    address::UpstreamAddress,
    connection::{Dialled, Outgoing, SendError, Unreachable, UpstreamConnection, dial_in_time},
    http2::{Http2Connection, Http2Fault, SharedHttp2},
    pool::Pool,
};
use crate::{
    convert::Text,
    drain::Tasks,
    limits::{FORWARD_CONNECT_WAIT_MAX, TIMEOUT_MIN},
    status::{Code, Outcome, Status},
    tls::{UpstreamTls, random_bytes},
};
use bytes::Bytes;
use hyper::{
    HeaderMap, Response, Version,
    body::Incoming,
    header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING},
};
use std::{error::Error, io, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Writes the headers of a request that depend on the time that is left.
pub(in crate::agent::forward) type Stamp<'a> = &'a (dyn Fn(&mut HeaderMap, Duration) + Sync);

pub(in crate::agent::forward) struct UpstreamClient {
    address: UpstreamAddress,
    tls: Option<UpstreamTls>,
    pool: Arc<Pool>,
    http2: SharedHttp2,
    /// Held while a connection is made that others can use.
    dialling: tokio::sync::Mutex<()>,
}

/// Error of a request without the head of a reply.
#[derive(Debug, thiserror::Error)]
pub(in crate::agent::forward) enum Fault {
    /// The request was not written.
    #[error("{0}")]
    Unreachable(Unreachable),
    /// It may have been.
    #[error("closed the connection: {0}")]
    SendError(hyper::Error),
    /// The body of the request broke off, which is not the upstream's fault.
    #[error("got no whole request: {0}")]
    Request(Status),
}

impl Fault {
    /// Status for the caller, without the address of the upstream `of` this name.
    pub(in crate::agent::forward) fn to_status(&self, of: &str) -> Status {
        match self {
            Self::Unreachable(why) => {
                let text = format!("the upstream of {of} {}", why.to_caller());
                let code = match why {
                    Unreachable::Deadline => Code::DeadlineExceeded,
                    _ => Code::Unavailable,
                };
                Status::not_executed(code, text)
            }
            Self::Request(status) => status.clone(),
            Self::SendError(why) if why.is_parse() => {
                let text = "the reply of the upstream is not HTTP/1.1, or its head is over the limits of 64 KiB and 100 headers";
                Status::unknown(Code::Internal, text)
            }
            Self::SendError(why) => {
                let how = if is_reset(why) { "reset" } else { "closed" };
                let text =
                    format!("the upstream of {of} {how} the connection after the request was sent");
                Status::unknown(Code::Unavailable, text)
            }
        }
    }
}

fn is_reset(fault: &hyper::Error) -> bool {
    let source = fault.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|fault| fault.kind() == io::ErrorKind::ConnectionReset)
}

/// The head of a reply, and the connection on which its body comes.
pub(in crate::agent::forward) struct UpstreamResponse {
    pub(in crate::agent::forward) response: Response<Incoming>,
    pub(in crate::agent::forward) connection: HeldConnection,
}

/// The connection of a reply. Dropping it before the end closes it.
pub(in crate::agent::forward) struct HeldConnection {
    /// `None` for HTTP/2, whose connection is shared.
    connection: Option<UpstreamConnection>,
    pool: Arc<Pool>,
}

impl HeldConnection {
    /// Tasks of the connections to this upstream.
    pub(in crate::agent::forward) fn tasks(&self) -> Tasks {
        self.pool.tasks().clone()
    }

    /// The reply has ended: the connection may be used again.
    pub(in crate::agent::forward) fn keep(self) {
        if let Some(connection) = self.connection {
            self.pool.keep(connection);
        }
    }
}

/// A request that came back: no byte of it was written.
type UnsentRequest = Box<Outgoing>;

impl UpstreamClient {
    pub(in crate::agent::forward) fn new(
        address: UpstreamAddress,
        tls: Option<UpstreamTls>,
        tasks: Tasks,
        keep_alive: bool,
    ) -> Self {
        let pool = Pool::new(tasks, keep_alive);
        Self { address, tls, pool, http2: SharedHttp2::default(), dialling: Default::default() }
    }

    pub(in crate::agent::forward) const fn address(&self) -> &UpstreamAddress {
        &self.address
    }

    pub(in crate::agent::forward) fn tasks(&self) -> &Tasks {
        self.pool.tasks()
    }

    /// Sends a request and waits for the head of the reply: on a connection that is open, and on a
    /// new one if that was closed before a byte of the request was written. What may have been
    /// written is not repeated. An upgrade needs HTTP/1.1.
    pub(in crate::agent::forward) async fn send(
        &self,
        request: Outgoing,
        deadline: Instant,
        stamp: Stamp<'_>,
        is_upgrade: bool,
    ) -> Result<UpstreamResponse, Fault> {
        let source = request.body().source();
        let sent = self.send_whole(request, deadline, stamp, is_upgrade).await;
        sent.map_err(|fault| {
            let Some(status) = source.and_then(|source| source.failure()) else { return fault };
            let outcome = match fault {
                Fault::Unreachable(_) => Outcome::NotExecuted,
                Fault::SendError(_) | Fault::Request(_) => Outcome::Unknown,
            };
            Fault::Request(Status::with_outcome(status.code(), outcome, status.message()))
        })
    }

    /// Connects to the upstream, and closes the connection.
    ///
    /// # Errors
    /// The reason why it cannot be reached, for the operator.
    pub(in crate::agent::forward) async fn reach(&self) -> Result<(), String> {
        let (deadline, tls) = (Instant::now() + FORWARD_CONNECT_WAIT_MAX, self.tls.as_ref());
        let may_be_http2 = self.may_be_http2();
        let dialled = dial_in_time(&self.address.destination, tls, may_be_http2, deadline).await;
        dialled.map(drop).map_err(|fault| fault.to_string())
    }

    /// Sends a GET of a path below the prefix of the upstream.
    ///
    /// # Errors
    /// It cannot be reached, or answers with a status from 400 on.
    pub(in crate::agent::forward) async fn get(&self, path: &str) -> Result<(), String> {
        let mut request = Outgoing::new(Text::complete(Bytes::new()).into());
        let target = format!("{}{path}", self.address.prefix);
        *request.uri_mut() = target.parse().map_err(|_| format!("{target} is not a path"))?;
        let host = HeaderValue::from_str(&self.address.authority);
        request.headers_mut().extend(host.ok().map(|host| (HOST, host)));
        let deadline = Instant::now() + FORWARD_CONNECT_WAIT_MAX;
        let answered = self.send(request, deadline, &|_, _| {}, false).await;
        let status = answered.map_err(|fault| fault.to_string())?.response.status();
        if status.as_u16() < 400 {
            return Ok(());
        }
        Err(format!("GET {path} was answered with {}", status.as_u16()))
    }

    async fn send_whole(
        &self,
        mut request: Outgoing,
        deadline: Instant,
        stamp: Stamp<'_>,
        is_upgrade: bool,
    ) -> Result<UpstreamResponse, Fault> {
        if !is_upgrade && let Some(connection) = self.http2.get(Instant::now()) {
            match self.send_on_http2(connection, request, deadline, stamp).await? {
                Ok(answered) => return Ok(answered),
                Err(unsent) => {
                    self.http2.forget();
                    request = *unsent;
                }
            }
        } else if let Some((connection, since)) = self.pool.take(deadline).await {
            let (answers, idle_for) = (connection.answers(), since.elapsed());
            let sent = self.send_on(connection, request, deadline, stamp).await;
            match &sent {
                Ok(Err(_unsent)) => self.pool.was_closed(answers, idle_for),
                // However long it was idle, the upstream no longer read from it.
                Err(Fault::SendError(_)) => self.pool.was_closed(answers, Duration::ZERO),
                _ => {}
            }
            match sent? {
                Ok(answered) => return Ok(answered),
                Err(unsent) => request = *unsent,
            }
        }
        let answered = self.send_on_new(request, deadline, stamp, is_upgrade).await?;
        answered.map_err(|_unsent| Fault::Unreachable(Unreachable::Closed))
    }

    async fn send_on_new(
        &self,
        request: Outgoing,
        deadline: Instant,
        stamp: Stamp<'_>,
        is_upgrade: bool,
    ) -> Result<Result<UpstreamResponse, UnsentRequest>, Fault> {
        let may_be_http2 = !is_upgrade && self.may_be_http2();
        // Requests that begin together share the connection of the first.
        let dialling = if may_be_http2 { Some(self.dialling.lock().await) } else { None };
        if may_be_http2 && let Some(connection) = self.http2.get(Instant::now()) {
            drop(dialling);
            return self.send_on_http2(connection, request, deadline, stamp).await;
        }
        let UpstreamAddress { destination, .. } = &self.address;
        let dialled = dial_in_time(destination, self.tls.as_ref(), may_be_http2, deadline).await;
        let dialled = dialled.map_err(Fault::Unreachable)?;
        if may_be_http2 && (dialled.is_http2 || self.address.is_http2) {
            let connection = Http2Connection::over(dialled.stream, self.tasks()).await;
            let connection = connection.map_err(Fault::Unreachable)?;
            self.http2.set(connection.clone(), Instant::now());
            drop(dialling);
            return self.send_on_http2(connection, request, deadline, stamp).await;
        }
        drop(dialling);
        let Dialled { stream, exchange, .. } = dialled;
        let connection = UpstreamConnection::over(stream, exchange, self.tasks(), chance()).await;
        let connection = connection.map_err(Fault::Unreachable)?;
        self.send_on(connection, request, deadline, stamp).await
    }

    fn may_be_http2(&self) -> bool {
        let has_alpn = self.tls.as_ref().is_some_and(UpstreamTls::offers_http2);
        self.address.is_http2 || has_alpn
    }

    async fn send_on(
        &self,
        mut connection: UpstreamConnection,
        mut request: Outgoing,
        deadline: Instant,
        stamp: Stamp<'_>,
    ) -> Result<Result<UpstreamResponse, UnsentRequest>, Fault> {
        stamp(request.headers_mut(), time_left(deadline)?);
        match connection.send(request).await {
            Ok(response) => Ok(Ok(self.answered(response, Some(connection)))),
            Err(SendError::Unsent(request)) => Ok(Err(request)),
            Err(SendError::Sent(fault)) => Err(Fault::SendError(fault)),
        }
    }

    async fn send_on_http2(
        &self,
        connection: Http2Connection,
        mut request: Outgoing,
        deadline: Instant,
        stamp: Stamp<'_>,
    ) -> Result<Result<UpstreamResponse, UnsentRequest>, Fault> {
        stamp(request.headers_mut(), time_left(deadline)?);
        let copy = request.clone();
        self.make_http2(&mut request);
        match connection.send(request).await {
            Ok(response) => Ok(Ok(self.answered(response, None))),
            Err(Http2Fault::Unsent) => Ok(Err(Box::new(copy))),
            Err(Http2Fault::Sent(fault)) => Err(Fault::SendError(fault)),
        }
    }

    fn answered(
        &self,
        response: Response<Incoming>,
        connection: Option<UpstreamConnection>,
    ) -> UpstreamResponse {
        let connection = HeldConnection { connection, pool: self.pool.clone() };
        UpstreamResponse { response, connection }
    }

    /// Writes the head as HTTP/2 has it: scheme and authority instead of `Host`, and no headers of
    /// a connection. hyper would remove `TE` with the `Connection` that names it.
    fn make_http2(&self, request: &mut Outgoing) {
        let headers = request.headers_mut();
        headers.remove(CONNECTION);
        headers.remove(TRANSFER_ENCODING);
        let host = headers.remove(HOST);
        let authority = host.as_ref().and_then(|host| host.to_str().ok());
        let scheme = if self.address.is_tls() { "https" } else { "http" };
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = scheme.parse().ok();
        parts.authority = authority.and_then(|text| text.parse().ok());
        *request.uri_mut() = hyper::Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
    }
}

fn time_left(deadline: Instant) -> Result<Duration, Fault> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left < TIMEOUT_MIN { Err(Fault::Unreachable(Unreachable::Deadline)) } else { Ok(left) }
}

fn chance() -> f64 {
    f64::from(u32::from_be_bytes(random_bytes())) / f64::from(u32::MAX)
}
