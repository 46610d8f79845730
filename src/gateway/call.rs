//! Calls over HTTP: converts the body of a request to a message, and the reply to a response.

use super::{
    GatewayRequest, GatewayState,
    authentication::AuthenticatedCaller,
    body::Unread,
    codec::{self, Codec, PREFIX_BYTES},
    connect_error::METADATA,
    request::{CallHeaders, Form},
    response::{
        GatewayResponse, Refusal, ResponseBody, add_metadata, full_response, of_type, set_outcome,
    },
    stream::{
        AuthenticationEnd, StreamBody, StreamFormat, StreamState, ending, no_longer_authenticated,
        no_stream,
    },
};
use crate::{
    call::{Body, CallMeta, Reply, ReplyFuture, Target},
    limits::{HTTP_CALLER_CHECK_EVERY, HTTP_STREAM_HEAD_WAIT_MAX},
    metadata::Metadata,
    name::{MethodPath, Name},
    node::GatewayCall,
    status::{Outcome, Status},
    wire::CallKind,
};
use hyper::StatusCode;
use std::sync::{Arc, Mutex, PoisonError};

/// Cell for the refusal of a body, which a call's status does not express completely.
type BodyRefusal = Arc<Mutex<Option<Refusal>>>;

impl GatewayState {
    pub(super) async fn call(
        self: &Arc<Self>,
        request: &GatewayRequest,
        caller: AuthenticatedCaller,
        agent: Option<Name>,
        method: MethodPath,
        body: &Unread,
    ) -> Result<GatewayResponse, Refusal> {
        let form = Form::of(&request.head.headers)?;
        let CallHeaders { timeout, traceparent, metadata } =
            CallHeaders::of(&request.head.headers)?;
        let kind = match form {
            Form::Unary(_) => CallKind::Unary,
            Form::Connect(_) | Form::Events(_) => CallKind::ServerStream,
        };
        let target = agent.map_or(Target::Service, Target::Agent);
        let meta = self.ingress.next_call(request.call_id, method, kind, target, timeout);
        let call_head = GatewayCall {
            caller: caller.name.clone(),
            meta: CallMeta { traceparent, metadata, ..meta },
            bytes_min: form.message_bytes_min(body.bytes_min()),
        };
        let (call, fault) = self.started(call_head, form, body);
        match form {
            Form::Unary(codec) => {
                self.unary(call, caller, codec).await.map_err(|status| refused(status, &fault))
            }
            Form::Connect(codec) => {
                let format = StreamFormat::Connect(codec);
                let streaming = self.streaming(call, caller, format).await;
                Ok(streaming.unwrap_or_else(|status| error_stream(format, &status)))
            }
            Form::Events(_) => {
                let streaming = self.streaming(call, caller, StreamFormat::Events).await;
                streaming.map_err(|status| refused(status, &fault))
            }
        }
    }

    /// Creates the future of a call. It owns all it needs, to continue in the response's body.
    fn started(
        self: &Arc<Self>,
        call_head: GatewayCall,
        form: Form,
        body: &Unread,
    ) -> (ReplyFuture, BodyRefusal) {
        let (state, shared, body) = (self.clone(), BodyRefusal::default(), body.clone());
        let converter = self.conversions.of(&call_head.caller);
        let fault = shared.clone();
        let call = Box::pin(async move {
            let most = state.ingress.limits().message_bytes_max;
            let memory = state.ingress.memory(&call_head.caller);
            let message = async {
                let (codec, extra) = match form {
                    Form::Unary(codec) | Form::Events(codec) => (codec, 0),
                    Form::Connect(codec) => (codec, PREFIX_BYTES),
                };
                let (bytes, held) = body.read(most + extra, &memory).await.map_err(|found| {
                    let status = found.status.clone();
                    *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                    status
                })?;
                let bytes = if extra > 0 { codec::opened(bytes)? } else { bytes };
                let message = codec.decode(&converter, bytes).await?;
                let message = held.become_message(message);
                let message = message.map_err(|why| why.into_status(Outcome::NotExecuted))?;
                Ok(Body::Message(message))
            };
            state.ingress.call(call_head, message).await.map(|answered| answered.reply)
        });
        (call, shared)
    }

    async fn unary(
        self: &Arc<Self>,
        call: ReplyFuture,
        caller: AuthenticatedCaller,
        codec: Codec,
    ) -> Result<GatewayResponse, Status> {
        let converter = self.conversions.of(&caller.name);
        let reply = tokio::select! {
            biased;
            reply = call => reply?,
            () = self.authentication_end(caller) => return Err(no_longer_authenticated()),
        };
        let Reply { body: Body::Message(message), metadata, trailing } = reply else {
            return Err(reply.message().err().unwrap_or_else(no_stream));
        };
        let content_type = match codec {
            Codec::Json => "application/json",
            Codec::Cbor => "application/cbor",
        };
        let text = codec.encode(&converter, message).await?;
        let mut answer = of_type(StatusCode::OK, content_type, ResponseBody::Text(text));
        set_outcome(&mut answer, Outcome::Ok);
        add_metadata(answer.headers_mut(), METADATA, &metadata);
        add_metadata(answer.headers_mut(), &format!("trailer-{METADATA}"), &trailing);
        Ok(answer)
    }

    /// Waits a moment, so that a refusal has its own HTTP status, then starts the response.
    async fn streaming(
        self: &Arc<Self>,
        mut call: ReplyFuture,
        caller: AuthenticatedCaller,
        format: StreamFormat,
    ) -> Result<GatewayResponse, Status> {
        let context = (self.conversions.of(&caller.name), self.authentication_end(caller));
        let early = tokio::time::timeout(HTTP_STREAM_HEAD_WAIT_MAX, &mut call).await;
        let (state, metadata) = match early {
            Ok(reply) => {
                let Reply { body, metadata, .. } = reply?;
                let Body::Messages(messages) = body else { return Err(no_stream()) };
                (StreamState::Replying(messages), metadata)
            }
            Err(_elapsed) => (StreamState::Calling(call), Metadata::default()),
        };
        let body = ResponseBody::Stream(Box::new(StreamBody::new(format, state, context)));
        let mut answer = of_type(StatusCode::OK, stream_type(format), body);
        // The outcome is not known before the end of the stream, which carries it.
        set_outcome(&mut answer, Outcome::Unknown);
        add_metadata(answer.headers_mut(), METADATA, &metadata);
        Ok(answer)
    }

    pub(super) fn authentication_end(
        self: &Arc<Self>,
        caller: AuthenticatedCaller,
    ) -> AuthenticationEnd {
        if !caller.can_expire() {
            return Box::pin(std::future::pending());
        }
        let state = self.clone();
        Box::pin(async move {
            loop {
                tokio::time::sleep(HTTP_CALLER_CHECK_EVERY).await;
                if !state.is_still_authenticated(&caller) {
                    return;
                }
            }
        })
    }
}

const fn stream_type(format: StreamFormat) -> &'static str {
    match format {
        StreamFormat::Events => "text/event-stream",
        StreamFormat::Connect(Codec::Json) => "application/connect+json",
        StreamFormat::Connect(Codec::Cbor) => "application/connect+cbor",
    }
}

/// Response of a stream that failed before its first message: Connect's HTTP status is always 200.
fn error_stream(format: StreamFormat, status: &Status) -> GatewayResponse {
    let end = ending(format, Err(status.clone()), &Metadata::default());
    let mut answer = full_response(StatusCode::OK, stream_type(format), end);
    set_outcome(&mut answer, status.outcome());
    answer
}

fn refused(status: Status, fault: &BodyRefusal) -> Refusal {
    let fault = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
    fault.unwrap_or_else(|| status.into())
}
