//! A forward while it is hosted: reads requests and checks what they need.

use super::{
    super::{
        proxy::{expect_end, malformed, read_head},
        upstream_span::{set_traceparent, upstream_span},
    },
    exchange::{Asked, Exchange},
    http_server::HttpServer,
    rules::CallerRules,
    stdio::StdioServer,
};
use crate::{
    call::{Body, Handler, Messages, Reply, Request, Requester, end_span},
    http_call::{HttpBody, HttpRequest},
    mcp::{self, ClientBody, ClientMessage},
    memory::{MemoryAccount, MessageMemory},
    name::{HttpTarget, MethodPath, Name, PeerName},
    policy::AgentPolicy,
    rate_limit::LogLimits,
    shared_value::SharedValue,
    status::{Code, Status},
};
use bytes::Bytes;
use hyper::HeaderMap;
use std::sync::Arc;

pub(super) struct HostedMcp {
    pub(super) name: Name,
    pub(super) policy: Arc<SharedValue<AgentPolicy>>,
    pub(super) message_bytes_max: usize,
    pub(super) memory: MessageMemory,
    pub(super) server: McpServer,
    pub(super) refusals: Arc<LogLimits<PeerName>>,
}

pub(super) enum McpServer {
    Http(Arc<HttpServer>),
    Stdio(Arc<StdioServer>),
}

impl Handler for HostedMcp {
    async fn call(&self, request: Request) -> Result<Reply, Status> {
        let Request { mut meta, requester, body } = request;
        let Some(target) = meta.http.take() else {
            return Err(malformed("it has no verb and path"));
        };
        let Body::Messages(mut messages) = body else {
            return Err(malformed("it is one message"));
        };
        let mut head = read_head(&mut messages).await?;
        if head.headers.get_all(mcp::SESSION).iter().count() > 1 {
            return Err(malformed("it names two sessions"));
        }
        let memory = self.memory.account(requester.peer());
        let rules = self.rules(&requester, &head.headers)?;
        let asked = self.asked(&target, &head, messages, &memory).await?;
        self.check_needs(&asked, &meta.method, &rules)?;
        let mut span = match &self.server {
            McpServer::Http(server) => upstream_span(&mut meta, target.verb(), server.address()),
            McpServer::Stdio(_) => meta.forward_span("stdio"),
        };
        span.text("rpc.method", &meta.method);
        set_traceparent(&mut head.headers, meta.traceparent.as_deref());
        let (call_id, deadline) = (meta.call_id, meta.deadline);
        let exchange = Exchange { call_id, deadline, requester, head, rules, asked, memory };
        let replied = match &self.server {
            McpServer::Http(server) => server.answer(exchange, &mut span).await,
            McpServer::Stdio(server) => server.answer(exchange).await,
        };
        end_span(span, replied)
    }
}

impl HostedMcp {
    fn rules(&self, requester: &Requester, headers: &HeaderMap) -> Result<CallerRules, Status> {
        let Requester::AssertedBy { node, peer } = requester else {
            return Err(malformed("it did not come from a node"));
        };
        Ok(CallerRules {
            policy: self.policy.clone(),
            node: node.clone(),
            caller: peer.clone(),
            server: self.name.clone(),
            serves_client: headers.contains_key(mcp::SERVES_CLIENT),
            refusals: self.refusals.clone(),
        })
    }

    async fn asked(
        &self,
        target: &HttpTarget,
        head: &HttpRequest,
        mut messages: Messages,
        memory: &MemoryAccount,
    ) -> Result<Asked, Status> {
        let (verb, path) = (target.verb(), target.path());
        if (verb, path) == ("POST", "/") {
            let mut body = HttpBody::new(messages);
            let body = body.collect(self.message_bytes_max, memory).await;
            let unread = |status: Status| Status::not_executed(status.code(), status.message());
            return message(&body.map_err(unread)?, &head.headers).map(Asked::Post);
        }
        if head.has_body || head.upgrade.is_some() {
            return Err(malformed("only a POST has a body"));
        }
        expect_end(&mut messages).await?;
        match (verb, path) {
            ("GET", "/") => Ok(Asked::Get),
            ("DELETE", "/") => Ok(Asked::Delete),
            ("GET", path) if path.starts_with(mcp::METADATA_PATH) => {
                Ok(Asked::Metadata(path.to_owned()))
            }
            _ => Err(malformed("MCP has no such verb and path")),
        }
    }

    /// The call was admitted for its method. Checks that this is what the message is about, and
    /// what else it needs.
    fn check_needs(
        &self,
        asked: &Asked,
        method: &MethodPath,
        rules: &CallerRules,
    ) -> Result<(), Status> {
        let needs = match asked {
            Asked::Post(message) => message.needs(),
            Asked::Get | Asked::Delete | Asked::Metadata(_) => &[],
        };
        let subject = needs
            .first()
            .map_or_else(|| MethodPath::mcp_server(&self.name), |first| first.path(&self.name));
        if subject != *method {
            let text = format!("the call is of {method}, and its message needs {subject}");
            return Err(Status::not_executed(Code::InvalidArgument, text));
        }
        match needs.iter().find(|needs| !rules.allow(needs)) {
            None => Ok(()),
            Some(refused) => {
                let (caller, path) = (&rules.caller, refused.path(&self.name));
                let text = format!(
                    "{caller} may not call {path} on this agent, which the message needs too; rules of node and agent would have to say so"
                );
                Err(Status::not_executed(Code::PermissionDenied, text))
            }
        }
    }
}

/// The one message of a POST.
fn message(body: &Bytes, headers: &HeaderMap) -> Result<ClientMessage, Status> {
    let parsed = ClientBody::parse(body).map_err(|fault| fault.status())?;
    parsed.check_headers(headers).map_err(|fault| fault.status())?;
    match <[ClientMessage; 1]>::try_from(parsed.messages) {
        Ok([message]) if !parsed.is_batch => Ok(message),
        _ => Err(malformed("a call carries one message, and no batch")),
    }
}
