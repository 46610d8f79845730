//! Settings and connection pool of one upstream; sends the requests to it.

use super::{
    super::{
        check::UpstreamCheck,
        http::{Fault, Outgoing, UpstreamAddress, UpstreamClient, UpstreamResponse},
        identity::add_identity,
    },
    format::ForwardFormat,
    headers,
};
use crate::{
    call::Request,
    convert::Text,
    drain::Tasks,
    status::{Code, Status},
    tls::UpstreamTls,
};
use hyper::{
    Method,
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

/// Settings of a route.
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
    pub(super) check: Option<UpstreamCheck>,
}

pub(super) struct UpstreamRoute {
    pub(super) settings: Settings,
    client: UpstreamClient,
}

impl UpstreamRoute {
    pub(super) fn new(settings: Settings) -> Self {
        let Settings { address, tls, keep_alive, .. } = settings.clone();
        Self { settings, client: UpstreamClient::new(address, tls, Tasks::default(), keep_alive) }
    }

    /// Checks the upstream as the settings say; by a connection if they do not.
    pub(super) async fn check(&self) -> Result<(), String> {
        match &self.settings.check {
            Some(UpstreamCheck::Get(path)) => self.client.get(path).await,
            Some(UpstreamCheck::Connect) | None => self.client.reach().await,
        }
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
        add_identity(&mut headers, request.meta.call_id, &request.requester)?;
        if let Some(traceparent) = &request.meta.traceparent {
            headers.insert("traceparent", value(traceparent)?);
        }
        let path = format!("{}/{}", self.settings.address.prefix, request.meta.method);
        let mut outgoing = Outgoing::new(message.into());
        *outgoing.method_mut() = Method::POST;
        *outgoing.uri_mut() = path.parse().map_err(|_| unsendable("path"))?;
        *outgoing.headers_mut() = headers;
        Ok(outgoing)
    }

    /// Sends it and waits for the head of the reply.
    pub(super) async fn send(
        &self,
        request: Outgoing,
        deadline: Instant,
    ) -> Result<UpstreamResponse, Fault> {
        let stamp =
            |headers: &mut HeaderMap, left| drop(headers.insert(TIMEOUT, millis(left).into()));
        self.client.send(request, deadline, &stamp, false).await
    }
}

fn millis(left: Duration) -> u64 {
    // The bound fits.
    u64::try_from(left.as_millis().min(TIMEOUT_MS_MAX)).unwrap_or(u64::MAX)
}

fn value(text: &str) -> Result<HeaderValue, Status> {
    headers::value_of(text).ok_or_else(|| unsendable("header"))
}

fn unsendable(what: &str) -> Status {
    let text = format!("a {what} of the forwarded request is none that HTTP knows");
    Status::not_executed(Code::InvalidArgument, text)
}
