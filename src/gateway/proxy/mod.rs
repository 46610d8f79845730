//! Requests that are passed on as they are, to an HTTP forward of an agent: by the host name of a
//! site, or by a path below `/v1/agents/AGENT/http/NAME/`.

mod body;
mod call_reply;
mod credential;
mod grpc;
mod mcp;
mod refusal;
mod request_head;
mod response_head;
mod route;
mod websocket;

pub(super) use body::ProxyBody;
pub(super) use route::ProxyRoute;

use self::websocket::{PingSource, WithoutPongs};
use super::{
    GatewayRequest, GatewayState,
    authentication::AuthenticatedCaller,
    browser_origin::{self, BrowserOrigin},
    connect_error::CALL_ID,
    response::{GatewayResponse, Refusal, ResponseBody, full_response},
    site::{ForwardKind, authority},
    stream::no_longer_authenticated,
};
use crate::{
    call::{CallMeta, MessageSender, Messages, driven},
    http_call::{HttpBody, HttpResponse, RelayEnd, relay},
    httpd::{Framing, RequestBody, UpgradedStream},
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
        let (passed, kind) = match route {
            Ok(route) => (self.passed(&route, request, body).await, route.forward.kind),
            Err(refusal) => (Err(refusal), ForwardKind::Http),
        };
        let mut answer = match passed {
            Ok(answer) => answer,
            Err(refusal) => {
                if let Some(wait) = refusal.held_back {
                    tokio::time::sleep(wait).await;
                    request.peer.be_done();
                }
                match kind {
                    ForwardKind::Http => refusal::response(refusal, &request.head),
                    ForwardKind::Mcp => mcp::refusal_response(refusal, request.call_id),
                }
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
        request_head::check(head)?;
        if (route.site.is_none() || route.forward.kind == ForwardKind::Mcp)
            && browser_origin::browser_origin(&head.headers, &self.origins)
                == BrowserOrigin::Foreign
        {
            let text = "requests from pages of this origin are not allowed; add the origin to cors_origins";
            return Err(Status::not_executed(Code::PermissionDenied, text).into());
        }
        let (caller, uses_authorization) = self.authenticate_for(route, request)?;
        peer.set_known();
        if route.forward.kind == ForwardKind::Mcp {
            return self.pass_mcp(route, request, (caller, uses_authorization), body).await;
        }
        let target = target(route, &head.method)?;
        if !route.has_slash && matches!(head.method, Method::GET | Method::HEAD) {
            return Ok(redirect(&route.with_slash(head.uri.query())));
        }
        let (has_body, is_upgrade) = (!body.is_end_stream(), request_head::is_upgrade(head));
        let mut upstream_head =
            request_head::for_upstream(self, route, request, uses_authorization);
        upstream_head.has_body = has_body;
        if has_body || !is_upgrade {
            upstream_head.upgrade = None;
        }
        let upgrade = upstream_head.upgrade.clone();
        let (sent, sender) = call_reply::messages(&upstream_head, upgrade.is_some(), &body)?;
        let method = MethodPath::http(&route.forward.name);
        let timeout = request_head::timeout(&head.headers)?;
        let meta =
            self.ingress.next_call(*call_id, method, CallKind::Http, route.target.clone(), timeout);
        let traceparent = request_head::traceparent(&head.headers);
        let meta = CallMeta { http: Some(target), traceparent, ..meta };
        let call = GatewayCall { caller: caller.name.clone(), meta, bytes_min: 0 };
        let reply = tokio::select! {
            biased;
            answered = self.ingress.call(call, async { Ok(sent) }) => answered?.reply,
            () = self.authentication_end(caller.clone()) => {
                return Err(no_longer_authenticated().into());
            }
        };
        let (response, messages) = call_reply::response(reply).await?;
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
        mut messages: Messages,
        sender: MessageSender,
    ) -> GatewayResponse {
        let protocol = response.upgrade.clone().unwrap_or_default();
        let head = response_head::for_client(route, response);
        let is_websocket = head.headers.contains_key(header::SEC_WEBSOCKET_ACCEPT);
        if is_websocket {
            messages.wrap(PingSource::new);
        }
        let (authentication_end, call_id) = (self.authentication_end(caller), request.call_id);
        request.peer.upgrade(move |(mut stream, read): UpgradedStream| async move {
            // The other protocol may know the end of something by that of the connection.
            stream.reset_on_drop(true);
            let (rest, mut write) = tokio::io::split(stream);
            let mut read = WithoutPongs::new(Cursor::new(read).chain(rest), is_websocket);
            let halves = (&mut read, &mut write);
            let relayed = tokio::select! {
                relayed = relay(RelayEnd::Initiator, halves, messages, sender, None) => relayed,
                () = authentication_end => Err(no_longer_authenticated()),
            };
            match relayed {
                Ok(()) => read.into_inner().into_inner().1.unsplit(write).reset_on_drop(false),
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

fn redirect(location: &str) -> GatewayResponse {
    let mut answer = full_response(StatusCode::PERMANENT_REDIRECT, "text/plain", "");
    if let Ok(location) = HeaderValue::try_from(location) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}
