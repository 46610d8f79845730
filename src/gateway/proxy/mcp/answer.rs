//! Answers of servers, and failures, for the client.

use super::{
    super::{
        super::{
            connect_error::OUTCOME,
            response::{GatewayResponse, Refusal, ResponseBody, full_response, set_outcome},
        },
        ProxyBody, response_head,
    },
    client::McpClient,
    message_call::{ServerResponse, bad_reply},
    session::add_agent,
};
use crate::{
    call::Target,
    http_call::HttpBody,
    mcp::{
        self, AnswerEvents, AnswerFilter, AskedRequest, ClientMessage, ContentKind, MessageError,
        RpcCode,
    },
    name::CallId,
    status::{Outcome, Status},
};
use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
};

impl McpClient<'_> {
    /// The response to a request without a message.
    pub(super) async fn ask(&self) -> Result<GatewayResponse, Refusal> {
        let answered = self.call_without().await?;
        self.answer(answered, None).await
    }

    /// The response to a request with this message.
    pub(super) async fn answer(
        &self,
        mut answered: ServerResponse,
        message: Option<&ClientMessage>,
    ) -> Result<GatewayResponse, Refusal> {
        if let (Target::Service, Some(agent)) = (&self.route.target, &answered.agent) {
            add_agent(&mut answered.head.headers, agent);
        }
        let asked = message.and_then(AskedRequest::of);
        let is_asked = asked.is_some();
        let filter = self.filter(answered.agent.clone(), asked, self.request.call_id);
        if self.route.path != "/" {
            return Ok(self.passed(answered, None).await?);
        }
        let status = answered.head.status;
        let kind = match ContentKind::of(status, &mut answered.head.headers) {
            Ok(ContentKind::Other) if is_asked && status.is_success() => Err("is not a message"),
            other => other,
        };
        let passed = match kind {
            Ok(ContentKind::Json) => self.json_answer(answered, filter).await,
            Ok(ContentKind::Events) => self.passed(answered, Some(filter)).await,
            Ok(ContentKind::Other) => self.passed(answered, None).await,
            Err(why) => Err(bad_reply(why)),
        };
        match (passed, message) {
            (Err(status), Some(message)) => self.failed(message, status),
            (passed, _) => Ok(passed?),
        }
    }

    async fn json_answer(
        &self,
        answered: ServerResponse,
        filter: AnswerFilter,
    ) -> Result<GatewayResponse, Status> {
        let mut head = response_head::for_client(self.route, answered.head.clone());
        head.headers.remove(header::CONTENT_LENGTH);
        let body = self.collect_json(answered, filter).await?;
        let mut answer = full_response(head.status, "application/json", body);
        *answer.headers_mut() = head.headers;
        Ok(answer)
    }

    /// Passes a response on while it comes.
    async fn passed(
        &self,
        answered: ServerResponse,
        filter: Option<AnswerFilter>,
    ) -> Result<GatewayResponse, Status> {
        let ServerResponse { mut head, body, .. } = answered;
        if filter.is_some() {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let head = response_head::for_client(self.route, head);
        let end = self.state.authentication_end(self.caller.clone());
        let mut body = HttpBody::new(body);
        if head.is_all() {
            // Nobody reads a body, and the call has an end all the same.
            body.collect(0, &self.state.ingress.reply_memory(&self.caller.name)).await?;
        }
        let mut body = ProxyBody::new(body, &head.headers, &self.request.head, end);
        if let Some(filter) = filter {
            let memory = self.state.ingress.reply_memory(&self.caller.name);
            let bytes_max = self.state.ingress.limits().message_bytes_max;
            let is_listening = !filter.is_awaited();
            body = body.with_mcp(AnswerEvents::new(filter, bytes_max, memory));
            if is_listening {
                let [mut drain, _] = self.state.ingress.drain_signals();
                body = body.ending_with(Box::pin(async move { drain.notified().await }));
            }
        }
        let mut answer = Response::new(ResponseBody::Proxied(Box::new(body)));
        *answer.status_mut() = head.status;
        *answer.headers_mut() = head.headers;
        Ok(answer)
    }

    /// What the client gets of a response in JSON.
    async fn collect_json(
        &self,
        answered: ServerResponse,
        mut filter: AnswerFilter,
    ) -> Result<Bytes, Status> {
        let is_awaited = filter.is_awaited() && answered.head.status.is_success();
        let body = self.collect_body(answered).await?;
        match filter.pass(&body).ok().flatten() {
            Some(passed) => Ok(passed),
            None if is_awaited => Err(bad_reply("is not a message that its client may get")),
            None => Ok(mcp::not_a_message(body)),
        }
    }

    async fn collect_body(&self, answered: ServerResponse) -> Result<Bytes, Status> {
        let bytes_max = self.state.ingress.limits().message_bytes_max;
        let memory = self.state.ingress.reply_memory(&self.caller.name);
        HttpBody::new(answered.body).collect(bytes_max, &memory).await
    }

    /// The answer alone to a message of a batch; `None` if it has none.
    pub(super) async fn collect(
        &self,
        answered: ServerResponse,
        message: &ClientMessage,
        call_id: CallId,
    ) -> Result<Option<Bytes>, Status> {
        let asked = AskedRequest::of(message);
        let is_asked = asked.is_some();
        let mut filter = self.filter(answered.agent.clone(), asked, call_id);
        let (http, mut headers) = (answered.head.status, answered.head.headers.clone());
        let kind = ContentKind::of(http, &mut headers).map_err(bad_reply)?;
        let body = self.collect_body(answered).await?;
        if !is_asked {
            return Ok(None);
        }
        if !http.is_success() {
            return Err(bad_reply(&format!("has the HTTP status {http}")));
        }
        let answer = match kind {
            ContentKind::Events => mcp::answer_in_events(&body, &mut filter),
            ContentKind::Other => None,
            ContentKind::Json => filter.pass(&body).ok().flatten().filter(|_| filter.is_answered()),
        };
        answer.map(Some).ok_or_else(|| bad_reply("ended before it had answered"))
    }

    /// The response for a message whose call failed: to a request its answer.
    pub(super) fn failed(
        &self,
        message: &ClientMessage,
        status: Status,
    ) -> Result<GatewayResponse, Refusal> {
        let Some(id) = message.request_id() else { return Err(status.into()) };
        let body = mcp::error_response(Some(id), &status, self.request.call_id);
        let mut answer = full_response(StatusCode::OK, "application/json", body);
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        set_outcome(&mut answer, status.outcome());
        Ok(answer)
    }
}

/// A response without a body.
fn empty(status: StatusCode) -> GatewayResponse {
    full_response(status, "text/plain", "")
}

/// The response to a body that cannot be passed on.
pub(super) fn fault_response(fault: &MessageError, call_id: CallId) -> GatewayResponse {
    // Clients show the error of a request only with 200, or take it for the end of their session.
    let http = match (&fault.id, fault.code) {
        (None, _) | (_, RpcCode::HeaderMismatch) => StatusCode::BAD_REQUEST,
        (Some(_), _) => StatusCode::OK,
    };
    let mut answer = full_response(http, "application/json", fault.response(call_id));
    answer.headers_mut().insert(OUTCOME, HeaderValue::from_static(Outcome::NotExecuted.as_str()));
    answer
}

/// The response to a request that is refused before its message is read, or has none: clients show
/// a text only in this form.
pub(in super::super) fn refusal_response(refusal: Refusal, call_id: CallId) -> GatewayResponse {
    let (http, status, headers) = refusal.into_parts();
    let body = mcp::error_response(None, &status, call_id);
    let mut answer = full_response(http, "application/json", body);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().extend(headers);
    set_outcome(&mut answer, status.outcome());
    answer
}

/// The answers to the messages of a batch.
#[derive(Default)]
pub(super) struct BatchAnswer(Vec<Bytes>);

impl BatchAnswer {
    pub(super) fn add(
        &mut self,
        message: &ClientMessage,
        call_id: CallId,
        answered: Result<Option<Bytes>, Status>,
    ) {
        match (answered, message.request_id()) {
            (Ok(Some(answer)), _) => self.0.push(answer),
            (Err(status), Some(id)) => {
                self.0.push(mcp::error_response(Some(id), &status, call_id));
            }
            (Ok(None) | Err(_), _) => {}
        }
    }

    pub(super) fn into_response(self) -> GatewayResponse {
        match self.0.as_slice() {
            [] => empty(StatusCode::ACCEPTED),
            answers => full_response(StatusCode::OK, "application/json", mcp::batch(answers)),
        }
    }
}
