//! Services answered by a local HTTP server: each call becomes a POST of the Connect protocol,
//! <https://connectrpc.com/docs/protocol/>.
//!
//! The line between `not_executed` and `unknown` is the first byte of the request that is written
//! to the upstream.

mod errors;
mod format;
mod headers;
mod reply;
mod route;
mod stream;

pub use format::ForwardFormat;

use super::{
    check::UpstreamCheck,
    http::{Fault, UpstreamAddress, UpstreamError},
    upstream_span::upstream_span,
};
use crate::{
    call::{Handler, Reply, Request, end_span},
    convert::Conversions,
    health::{CheckFuture, HealthCheck},
    limits::Limits,
    printable::printable,
    rate_limit::LogLimits,
    serve::Service,
    status::{Code, Outcome, Status},
    wire::CallKind,
};
use route::{Settings, UpstreamRoute};
use std::{
    fmt,
    sync::{Arc, LazyLock},
};
use tokio::time::Instant;

/// A service that a local HTTP server answers: each method is a `POST {url}/{Service}/{Method}`.
///
/// ```no_run
/// use dialback::{Agent, Credentials, Forward};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let agent = Agent::builder(Credentials::from_dir("certs", "agent-warehouse")?)
///     .node("edge-1.example.com:4433")
///     .serve(Forward::to("http://127.0.0.1:9000")?.service("HelloService"))
///     .start()?;
/// # Ok(()) }
/// ```
///
/// Unary calls and server streams are forwarded; the others are `UNIMPLEMENTED`. An upstream that
/// cannot be reached gives `UNAVAILABLE`, not executed; one that fails after a byte of the request
/// was written `UNAVAILABLE`, unknown; its own error is the error of the handler. Dropping the
/// call, and its deadline, close the connection to the upstream.
#[derive(Clone)]
#[must_use = "a forward answers once its service is hosted"]
pub struct Forward {
    settings: Settings,
    methods: Option<Vec<String>>,
}

impl Forward {
    /// To an upstream in plain: `http://HOST:PORT` or `unix:/PATH`, with a path prefix if need be.
    ///
    /// # Errors
    /// An invalid address, or an `https` address, which needs CAs: see [`Forward::to_tls`].
    pub fn to(url: impl AsRef<str>) -> Result<Self, UpstreamError> {
        Self::new(url.as_ref().parse()?, None)
    }

    /// To an upstream that shows a certificate, `https://HOST:PORT`, for that host and by one of
    /// these CAs (PEM). TLS 1.3; the trust store of the system is not used.
    ///
    /// # Errors
    /// An address that is invalid or not `https`, or invalid CAs.
    pub fn to_tls(url: impl AsRef<str>, ca_pem: impl AsRef<[u8]>) -> Result<Self, UpstreamError> {
        Self::new(url.as_ref().parse()?, Some(ca_pem.as_ref()))
    }

    /// Creates either of the two from a parsed address.
    ///
    /// # Errors
    /// `https` without CAs, CAs without `https`, or invalid CAs.
    pub fn new(address: UpstreamAddress, ca_pem: Option<&[u8]>) -> Result<Self, UpstreamError> {
        let tls = address.tls(ca_pem, false)?;
        let message_bytes_max = Limits::default().message_bytes_max;
        let format = ForwardFormat::default();
        let (keep_alive, metadata, check) = (true, None, None);
        let settings =
            Settings { address, tls, format, message_bytes_max, keep_alive, metadata, check };
        Ok(Self { settings, methods: None })
    }

    /// Sets the message format of the upstream. Default: JSON.
    pub fn format(mut self, format: ForwardFormat) -> Self {
        self.settings.format = format;
        self
    }

    /// Names the methods that are forwarded; others are `UNIMPLEMENTED`. Default: every method.
    pub fn methods<M: Into<String>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        self.methods = Some(methods.into_iter().map(Into::into).collect());
        self
    }

    /// Bounds one reply, as the upstream sends it, in bytes. Default 4 MiB; the agent's own limit
    /// on messages applies as well.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.message_bytes_max = bytes;
        self
    }

    /// Limits the metadata of callers that becomes headers to these names, case-insensitive.
    /// Default: all names. Reserved ones ([`Forward::never_travels`]) are dropped in any case.
    pub fn metadata<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.settings.metadata = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the check of the upstream. Default: none but after a failure.
    pub fn check(mut self, check: UpstreamCheck) -> Self {
        self.settings.check = Some(check);
        self
    }

    /// Returns `true` if metadata of this name never becomes a header, because the agent writes it
    /// itself, or because servers trust it as written by a proxy.
    pub fn never_travels(name: &str) -> bool {
        headers::never_travels(name)
    }

    /// Sets whether connections to the upstream are used for further calls. Default: true, each for
    /// 10 to 20 s at most. Without, each call makes its own connection, with `connection: close`.
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.settings.keep_alive = keep_alive;
        self
    }

    /// The service, to be hosted under this name. Nothing else can be hosted under it.
    pub fn service(self, name: impl Into<String>) -> Service {
        let (service, is_active) = (name.into(), self.settings.check.is_some());
        let route = Arc::new(UpstreamRoute::new(self.settings));
        let checked = route.clone();
        let run = move || -> CheckFuture {
            let route = checked.clone();
            Box::pin(async move { route.check().await })
        };
        let check = HealthCheck { run: Box::new(run), is_active };
        let kinds = [CallKind::Unary, CallKind::ServerStream];
        let (name, faults) = (service.clone(), LogLimits::default());
        let forwarder = Forwarder { service, route, faults };
        Service::fallback(name, kinds, self.methods, forwarder).checked_by(check)
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings: Settings { address, format, .. }, methods } = self;
        let address = address.to_string();
        f.debug_struct("Forward")
            .field("to", &address)
            .field("format", format)
            .field("methods", methods)
            .finish_non_exhaustive()
    }
}

/// Turns for converting large messages, shared by all services of the process.
static CONVERSIONS: LazyLock<Conversions> = LazyLock::new(Conversions::default);

struct Forwarder {
    service: String,
    route: Arc<UpstreamRoute>,
    /// Limits the log lines about a failing upstream.
    faults: LogLimits<()>,
}

impl Handler for Forwarder {
    async fn call(&self, mut request: Request) -> Result<Reply, Status> {
        let (route, is_stream) = (&self.route, request.meta.kind == CallKind::ServerStream);
        if request.meta.kind != CallKind::Unary && !is_stream {
            let text = format!("{} calls are not forwarded", request.meta.kind);
            return Err(Status::not_executed(Code::Unimplemented, text));
        }
        let converter = CONVERSIONS.of(request.requester.peer());
        let message = route.settings.format.encode(&converter, request.message()?.clone()).await;
        let message = message.map_err(|fault| {
            let what = "the message is not CBOR that can be forwarded";
            fault.into_status(Outcome::NotExecuted, Code::InvalidArgument, what)
        })?;
        let message = if is_stream { stream::envelope(message)? } else { message };
        let mut span = upstream_span(&mut request.meta, "POST", &route.settings.address);
        let replied = async {
            let outgoing = route.request(&request, message, is_stream)?;
            let answered = route.send(outgoing, request.meta.deadline).await;
            let answered = answered.map_err(|fault| self.failed(fault))?;
            span.http_status(answered.response.status().as_u16());
            if is_stream {
                stream::server_stream(route, answered, converter).await
            } else {
                reply::unary(route, answered, &converter).await
            }
        };
        let replied = replied.await;
        end_span(span, replied)
    }
}

impl Forwarder {
    /// Status of a call without a reply. Details for the operator go to the log only.
    fn failed(&self, fault: Fault) -> Status {
        let service = &self.service;
        let status = fault.to_status(service);
        if matches!(fault, Fault::Request(_)) || status.code() == Code::DeadlineExceeded {
            return status;
        }
        if let Some(suppressed) = self.faults.admit((), Instant::now()) {
            let (address, why) = (&self.route.settings.address, printable(&fault.to_string()));
            tracing::warn!(
                %service,
                %address,
                reason = why,
                "the upstream {address} of {service} {why}{suppressed}"
            );
        }
        status
    }
}
