//! Requests that are passed on as they are, to an HTTP forward of an agent: by the host name of a
//! site, or by a path below `/v1/agents/AGENT/http/NAME/`.

mod body;
mod credential;
mod grpc;
mod refusal;
mod request_head;
mod response_head;
mod route;

pub(super) use body::ProxyBody;
pub(super) use route::ProxyRoute;

use super::{
    GatewayRequest, GatewayState,
    authentication::AuthenticatedCaller,
    browser_origin::{self, BrowserOrigin},
    connect_error::CALL_ID,
    response::{GatewayResponse, Refusal, ResponseBody, full_response},
    site::authority,
    stream::no_longer_authenticated,
};
use crate::{
    call::{Body, CallMeta, MessageSender, Messages, Next, Reply, driven},
    http_call::{BodySource, HttpBody, HttpRequest, HttpResponse, RelayEnd, relay},
    httpd::{Framing, RequestBody, UpgradedStream},
    limits::STREAM_MESSAGES_AHEAD,
    name::{HttpTarget, HttpTargetError, MethodPath},
    node::GatewayCall,
    status::{Code, Status},
    wire::CallKind,
};
use http_body::Body as _;
use hyper::{
    Method, Response, StatusCode, Version,
    header::{self, HeaderValue},
    http::request::Parts,
};
use std::{io::Cursor, sync::Arc};
use tokio::io::AsyncReadExt;

/// A refusal of the gateway itself as a gRPC client reads it; the same refusal for other clients.
pub(super) fn grpc_refusal(refusal: Refusal, head: &Parts) -> Result<GatewayResponse, Refusal> {
    // gRPC has no form in HTTP/1.1.
    if head.version < Version::HTTP_2 || !grpc::is_grpc(&head.headers) {
        return Err(refusal);
    }
    let refusal = match (refusal.http_status(), authority(head)) {
        (StatusCode::NOT_FOUND, Some(host)) => {
            let text = format!("no site has the host {host}");
            Status::not_executed(Code::Unimplemented, text).into()
        }
        _ => refusal,
    };
    Ok(refusal::response(refusal, head))
}

impl GatewayState {
    /// Passes a request on, or refuses it in the format of its client.
    pub(super) async fn pass_on(
        self: &Arc<Self>,
        route: Result<ProxyRoute, Refusal>,
        request: &GatewayRequest,
        body: RequestBody,
    ) -> GatewayResponse {
        let passed = match route {
            Ok(route) => self.passed(&route, request, body).await,
            Err(refusal) => Err(refusal),
        };
        let mut answer = match passed {
            Ok(answer) => answer,
            Err(refusal) => {
                if let Some(wait) = refusal.held_back {
                    tokio::time::sleep(wait).await;
                    request.peer.be_done();
                }
                refusal::response(refusal, &request.head)
            }
        };
        if let Ok(call_id) = HeaderValue::try_from(request.call_id.to_string()) {
            answer.headers_mut().insert(CALL_ID, call_id);
        }
        answer
    }

    async fn passed(
        self: &Arc<Self>,
        route: &ProxyRoute,
        request: &GatewayRequest,
        body: RequestBody,
    ) -> Result<GatewayResponse, Refusal> {
        let GatewayRequest { head, framing, peer, call_id } = request;
        if let Framing::Bad(fault) = framing {
            return Err(Refusal::invalid(*fault).closing());
        }
        let target = target(route, &head.method)?;
        request_head::check(head)?;
        if route.site.is_none()
            && browser_origin::browser_origin(&head.headers, &self.origins)
                == BrowserOrigin::Foreign
        {
            let text = "requests from pages of this origin are not allowed; add the origin to cors_origins";
            return Err(Status::not_executed(Code::PermissionDenied, text).into());
        }
        let (caller, uses_authorization) = self.authenticate_for(route, request)?;
        peer.set_known();
        if !route.has_slash && matches!(head.method, Method::GET | Method::HEAD) {
            return Ok(redirect(&route.with_slash(head.uri.query())));
        }
        let (has_body, is_upgrade) = (!body.is_end_stream(), request_head::is_upgrade(head));
        let mut upstream_head = request_head::for_upstream(self, route, request);
        if uses_authorization {
            upstream_head.headers.remove(header::AUTHORIZATION);
        }
        upstream_head.has_body = has_body;
        if has_body || !is_upgrade {
            upstream_head.upgrade = None;
        }
        let upgrade = upstream_head.upgrade.clone();
        let (sent, sender) = messages(&upstream_head, upgrade.is_some(), &body)?;
        let method = MethodPath::http(&route.forward);
        let timeout = request_head::timeout(&head.headers)?;
        let meta =
            self.ingress.next_call(*call_id, method, CallKind::Http, route.target.clone(), timeout);
        let traceparent = request_head::traceparent(&head.headers);
        let meta = CallMeta { http: Some(target), traceparent, ..meta };
        let call = GatewayCall { caller: caller.name.clone(), meta, bytes_min: 0 };
        let reply = tokio::select! {
            biased;
            reply = self.ingress.call(call, async { Ok(sent) }) => reply?,
            () = self.authentication_end(caller.clone()) => {
                return Err(no_longer_authenticated().into());
            }
        };
        let (response, messages) = response(reply).await?;
        match (response.status, sender) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(sender)) => {
                Ok(self.upgraded(route, request, caller, response, messages, sender))
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                let text = "the upstream changed to another protocol, which was not asked for";
                Err(Status::unknown(Code::Internal, text).into())
            }
            (_, sender) => {
                if let Some(sender) = sender {
                    // Fails only if the call has ended.
                    drop(sender.finish().await);
                }
                let messages = match has_body && !body.is_end_stream() {
                    true => driven(messages, &self.ingress.tasks()),
                    false => messages,
                };
                self.answered(route, request, caller, response, messages).await
            }
        }
    }

    async fn answered(
        self: &Arc<Self>,
        route: &ProxyRoute,
        request: &GatewayRequest,
        caller: AuthenticatedCaller,
        response: HttpResponse,
        messages: Messages,
    ) -> Result<GatewayResponse, Refusal> {
        let head = response_head::for_client(route, response);
        let mut body = HttpBody::new(messages);
        if request.head.method == Method::HEAD || head.is_all() {
            // Nobody reads a body, and the call has an end all the same.
            while let Some(frame) = std::future::poll_fn(|cx| body.poll_next(cx)).await {
                drop(frame?);
            }
        }
        let body =
            ProxyBody::new(body, &head.headers, &request.head, self.authentication_end(caller));
        let mut answer = Response::new(ResponseBody::Proxied(Box::new(body)));
        *answer.status_mut() = head.status;
        *answer.headers_mut() = head.headers;
        Ok(answer)
    }

    /// Relays the connection once the client has received this response.
    fn upgraded(
        self: &Arc<Self>,
        route: &ProxyRoute,
        request: &GatewayRequest,
        caller: AuthenticatedCaller,
        response: HttpResponse,
        messages: Messages,
        sender: MessageSender,
    ) -> GatewayResponse {
        let protocol = response.upgrade.clone().unwrap_or_default();
        let head = response_head::for_client(route, response);
        let (authentication_end, call_id) = (self.authentication_end(caller), request.call_id);
        request.peer.upgrade(move |(mut stream, read): UpgradedStream| async move {
            // The other protocol may know the end of something by that of the connection.
            stream.reset_on_drop(true);
            let (rest, mut write) = tokio::io::split(stream);
            let mut read = Cursor::new(read).chain(rest);
            let halves = (&mut read, &mut write);
            let relayed = tokio::select! {
                relayed = relay(RelayEnd::Initiator, halves, messages, sender, None) => relayed,
                () = authentication_end => Err(no_longer_authenticated()),
            };
            match relayed {
                Ok(()) => read.into_inner().1.unsplit(write).reset_on_drop(false),
                Err(status) => tracing::debug!("call {call_id}: its connection ended: {status}"),
            }
        });
        let mut answer = full_response(head.status, "text/plain", "");
        *answer.headers_mut() = head.headers;
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Ok(protocol) = HeaderValue::try_from(protocol) {
            headers.insert(header::UPGRADE, protocol);
        }
        answer
    }
}

/// Verb and path as the upstream gets them.
fn target(route: &ProxyRoute, verb: &Method) -> Result<HttpTarget, Refusal> {
    HttpTarget::new(verb.as_str(), &route.path).map_err(|fault| match fault {
        HttpTargetError::ForbiddenVerb(_) => {
            Refusal::with(StatusCode::NOT_IMPLEMENTED, Code::Unimplemented, fault.to_string())
        }
        HttpTargetError::PathTooLong => {
            Refusal::with(StatusCode::URI_TOO_LONG, Code::InvalidArgument, fault.to_string())
        }
        _ => Refusal::invalid(fault.to_string()),
    })
}

/// The request as messages, and where the bytes of another protocol go if it asks for one. Without
/// a body it is one message, which may be sent again.
fn messages(
    head: &HttpRequest,
    is_upgrade: bool,
    body: &RequestBody,
) -> Result<(Body, Option<MessageSender>), Refusal> {
    let message = head.encode().map_err(|fault| {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Refusal::with(status, Code::ResourceExhausted, fault.to_string())
    })?;
    let first = Next::Message(message.clone());
    Ok(if is_upgrade {
        let (sender, messages) = Messages::channel(STREAM_MESSAGES_AHEAD);
        (Body::Messages(messages.starting_with(first)), Some(sender))
    } else if head.has_body {
        let messages = Messages::new(BodySource::new(body.clone()));
        (Body::Messages(messages.starting_with(first)), None)
    } else {
        (Body::Message(message), None)
    })
}

/// The head of a reply, and the messages after it.
async fn response(reply: Reply) -> Result<(HttpResponse, Messages), Status> {
    let Body::Messages(mut messages) = reply.body else {
        return Err(malformed("is one message"));
    };
    loop {
        match messages.next_event().await {
            Next::Head(_) => {}
            Next::Message(head) => {
                let head = HttpResponse::decode(&head);
                let head = head.map_err(|fault| malformed(&format!("has a bad head: {fault}")))?;
                return Ok((head, messages));
            }
            Next::End(_) => return Err(malformed("has no head")),
            Next::Failed(status) => return Err(status),
        }
    }
}

fn malformed(why: &str) -> Status {
    Status::unknown(Code::Internal, format!("the response of the agent {why}"))
}

fn redirect(location: &str) -> GatewayResponse {
    let mut answer = full_response(StatusCode::PERMANENT_REDIRECT, "text/plain", "");
    if let Ok(location) = HeaderValue::try_from(location) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}
