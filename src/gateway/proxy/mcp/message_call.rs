//! The call that carries one message.

use super::{
    super::{
        super::{response::Refusal, stream::no_longer_authenticated},
        call_reply, request_head,
    },
    client::McpClient,
};
use crate::{
    call::{CallMeta, Messages},
    http_call::{HttpRequest, HttpResponse},
    mcp::{ClientMessage, Needs},
    name::{CallId, HttpTarget, Name},
    node::GatewayCall,
    status::{Code, Status},
    wire::CallKind,
};
use bytes::Bytes;
use hyper::StatusCode;

/// The response of a server.
pub(super) struct ServerResponse {
    pub(super) head: HttpResponse,
    pub(super) body: Messages,
    /// The agent that has the server.
    pub(super) agent: Option<Name>,
}

impl McpClient<'_> {
    /// Calls the server with a message.
    pub(super) async fn call_with(
        &self,
        message: &ClientMessage,
        call_id: CallId,
    ) -> Result<ServerResponse, Status> {
        let (subject, others) = match message.needs() {
            [subject, others @ ..] => (subject, others),
            [] => (&Needs::AnyTool, &[][..]),
        };
        for needs in others {
            let path = self.path(needs);
            self.state.ingress.authorise(&self.caller.name, &self.target, &path)?;
        }
        let head = HttpRequest { has_body: true, ..self.head.clone() };
        self.call(subject, head, message.raw().clone(), call_id).await
    }

    /// Calls the server without a message.
    pub(super) async fn call_without(&self) -> Result<ServerResponse, Status> {
        let call_id = self.request.call_id;
        self.call(&Needs::AnyTool, self.head.clone(), Bytes::new(), call_id).await
    }

    async fn call(
        &self,
        subject: &Needs,
        head: HttpRequest,
        body: Bytes,
        call_id: CallId,
    ) -> Result<ServerResponse, Status> {
        let ingress = &self.state.ingress;
        let verb = self.request.head.method.as_str();
        let http = HttpTarget::new(verb, &self.route.path)
            .map_err(|fault| Status::not_executed(Code::InvalidArgument, fault.to_string()))?;
        let (method, target) = (self.path(subject), self.target.clone());
        let meta = ingress.next_call(call_id, method, CallKind::Http, target, None);
        let traceparent = request_head::traceparent(&self.request.head.headers);
        let meta = CallMeta { http: Some(http), traceparent, ..meta };
        let bytes_min = body.len();
        let sent = call_reply::whole(&head, body).map_err(|Refusal { status, .. }| status)?;
        let call = GatewayCall { caller: self.caller.name.clone(), meta, bytes_min };
        let answered = tokio::select! {
            biased;
            answered = ingress.call(call, async { Ok(sent) }) => answered?,
            () = self.state.authentication_end(self.caller.clone()) => {
                return Err(no_longer_authenticated());
            }
        };
        let (head, body) = call_reply::response(answered.reply).await?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(bad_reply("changes to another protocol"));
        }
        Ok(ServerResponse { head, body, agent: answered.agent })
    }
}

/// Status of a reply that the gateway does not understand.
pub(super) fn bad_reply(why: &str) -> Status {
    Status::unknown(Code::Internal, format!("the response of the server {why}"))
}
