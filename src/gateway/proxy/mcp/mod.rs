//! Requests to MCP servers: each message becomes a call of its own, whose method names the tool.

mod client;
mod message_call;
mod answer;
mod session;

use super::{
    super::{
        GatewayRequest, GatewayState,
        authentication::AuthenticatedCaller,
        body::Unread,
        response::{GatewayResponse, Refusal},
    },
    ProxyRoute, request_head,
};
use crate::{
    httpd::RequestBody,
    mcp::{ClientBody, ClientMessage, METADATA_PATH, check_request_type},
    status::Code,
};
pub(super) use answer::refusal_response;
use answer::{BatchAnswer, fault_response};
use bytes::Bytes;
use client::McpClient;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderValue},
};
use std::sync::Arc;

impl GatewayState {
    /// Passes a request on to an MCP server.
    pub(super) async fn pass_mcp(
        self: &Arc<Self>,
        route: &ProxyRoute,
        request: &GatewayRequest,
        (caller, uses_authorization): (AuthenticatedCaller, bool),
        body: RequestBody,
    ) -> Result<GatewayResponse, Refusal> {
        if route.path != "/" && !is_metadata(&route.path) {
            let text = "the site is an MCP server; its path is /mcp";
            return Err(Refusal::with(StatusCode::NOT_FOUND, Code::Unimplemented, text));
        }
        let mut head = request_head::for_upstream(self, route, request, uses_authorization);
        if request.head.method == Method::POST {
            // Those of the client: `Connection` may have removed one of them since.
            head.headers.insert(header::CONTENT_TYPE, checked_type(&request.head.headers)?);
        }
        let client = McpClient::new(self, route, request, caller, head)?;
        match (&request.head.method, route.path.as_str()) {
            (&Method::POST, "/") => {
                let bytes_max = self.ingress.limits().message_bytes_max;
                let memory = self.ingress.memory(&client.caller.name);
                let (bytes, held) = Unread::new(body).read(bytes_max, &memory).await?;
                client.post(held.around(bytes)).await
            }
            (&Method::GET, _) | (&Method::DELETE, "/") => client.ask().await,
            (_, path) => {
                let allowed = if path == "/" { "GET, POST, DELETE" } else { "GET" };
                let text = format!("this URL of an MCP server takes {allowed}");
                let refusal =
                    Refusal::with(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, text);
                Err(refusal.header(header::ALLOW, HeaderValue::from_static(allowed)))
            }
        }
    }
}

impl McpClient<'_> {
    /// Passes the messages of a POST on.
    async fn post(&self, bytes: Bytes) -> Result<GatewayResponse, Refusal> {
        let parsed = ClientBody::parse(&bytes).and_then(|body| {
            body.check_headers(&self.request.head.headers)?;
            Ok(body)
        });
        match parsed {
            Err(fault) => Ok(fault_response(&fault, self.request.call_id)),
            Ok(body) if body.is_batch => Ok(self.post_batch(&body.messages).await),
            Ok(body) => match body.messages.first() {
                Some(message) => self.post_one(message).await,
                None => Err(Refusal::invalid("the body has no message")),
            },
        }
    }

    /// Passes one message on. What a request gets of a failure is an error of JSON-RPC.
    async fn post_one(&self, message: &ClientMessage) -> Result<GatewayResponse, Refusal> {
        let call_id = self.request.call_id;
        match self.call_with(message, call_id).await {
            Ok(answered) => self.answer(answered, Some(message)).await,
            Err(status) => self.failed(message, status),
        }
    }

    /// Passes the messages of a batch on, one after the other.
    async fn post_batch(&self, messages: &[ClientMessage]) -> GatewayResponse {
        let mut answers = BatchAnswer::default();
        for (at, message) in messages.iter().enumerate() {
            let call_id = match at {
                0 => self.request.call_id,
                _ => self.state.ingress.next_call_id(),
            };
            let answered = match self.call_with(message, call_id).await {
                Ok(answered) => self.collect(answered, message, call_id).await,
                Err(status) => Err(status),
            };
            answers.add(message, call_id, answered);
        }
        answers.into_response()
    }
}

fn is_metadata(path: &str) -> bool {
    path.strip_prefix(METADATA_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The type of the body of a POST. A browser asks before it sends JSON to another origin.
fn checked_type(headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let mut headers = headers.clone();
    check_request_type(&mut headers).map_err(|text| {
        Refusal::with(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, text)
    })?;
    Ok(HeaderValue::from_static("application/json"))
}
