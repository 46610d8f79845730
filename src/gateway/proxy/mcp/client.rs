//! The client of one request.

use super::{
    super::{
        super::{
            GatewayRequest, GatewayState, authentication::AuthenticatedCaller, request::one,
            response::Refusal,
        },
        ProxyRoute,
    },
    session::find_agent,
};
use crate::{
    call::Target,
    http_call::HttpRequest,
    mcp::{AnswerFilter, AskedRequest, MayPass, Needs, SERVES_CLIENT, SESSION},
    name::{CallId, MethodPath, Name},
    status::Code,
};
use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use std::sync::Arc;

/// The client of one request, authenticated, and the head of the request for the server.
pub(super) struct McpClient<'a> {
    pub(super) state: &'a Arc<GatewayState>,
    pub(super) route: &'a ProxyRoute,
    pub(super) request: &'a GatewayRequest,
    pub(super) caller: AuthenticatedCaller,
    pub(super) target: Target,
    pub(super) head: HttpRequest,
}

impl<'a> McpClient<'a> {
    pub(super) fn new(
        state: &'a Arc<GatewayState>,
        route: &'a ProxyRoute,
        request: &'a GatewayRequest,
        caller: AuthenticatedCaller,
        mut head: HttpRequest,
    ) -> Result<Self, Refusal> {
        one(&head.headers, &HeaderName::from_static(SESSION))?;
        let server = MethodPath::mcp_server(&route.forward.name);
        let may_host = |agent: &Name| state.ingress.may_host(agent, &server);
        let target = find_agent(&route.target, &mut head.headers, may_host).ok_or_else(|| {
            let text = "there is no such session (any more)";
            Refusal::with(StatusCode::NOT_FOUND, Code::NotFound, text)
        })?;
        let method = MethodPath::mcp_client(&route.forward.name);
        if state.ingress.allows(&caller.name, &target, &method) {
            head.headers.insert(SERVES_CLIENT, HeaderValue::from_static("1"));
        }
        // Agent and node read the response.
        head.headers.remove(header::ACCEPT_ENCODING);
        head.headers.remove(header::CONTENT_LENGTH);
        head.upgrade = None;
        Ok(Self { state, route, request, caller, target, head })
    }

    /// What a rule has to allow.
    pub(super) fn path(&self, needs: &Needs) -> MethodPath {
        needs.path(&self.route.forward.name)
    }

    /// Decides on the answers of a server on this agent.
    pub(super) fn filter(
        &self,
        agent: Option<Name>,
        asked: Option<AskedRequest>,
        call_id: CallId,
    ) -> AnswerFilter {
        let (state, caller) = (self.state.clone(), self.caller.name.clone());
        let (name, server) = (&self.route.forward.name, self.route.forward.name.clone());
        let target = agent.map_or_else(|| self.target.clone(), Target::Agent);
        let may: MayPass =
            Box::new(move |needs| state.ingress.allows(&caller, &target, &needs.path(&server)));
        AnswerFilter::new(name, asked, call_id, may)
    }
}
