//! A request that is a call: its body becomes a message, and what comes of it an answer.

use super::{
    Asking, Inner,
    authentication::Who,
    body::{BodyFault, Unread},
    codec::{self, Codec, PREFIX_BYTES},
    connect_error::METADATA,
    request::{Form, Words},
    response::{
        Answer, AnswerBody, Refusal, add_metadata, of_type, set_content_type, set_outcome, whole,
    },
    stream::{Lapse, StreamBody, Wording, ending, lapsed, no_stream},
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
use hyper::{Response, StatusCode};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the body leaves how it failed, which a call's status does not say in full.
type LeftFault = Arc<Mutex<Option<BodyFault>>>;

impl Inner {
    pub(super) async fn call(
        self: &Arc<Self>,
        asking: &Asking,
        who: Who,
        agent: Option<Name>,
        method: MethodPath,
        body: &Unread,
    ) -> Result<Answer, Refusal> {
        let form = Form::of(&asking.headers)?;
        let Words { timeout, traceparent, metadata } = Words::of(&asking.headers)?;
        let kind = match form {
            Form::Unary(_) => CallKind::Unary,
            Form::Connect(_) | Form::Events(_) => CallKind::ServerStream,
        };
        let target = agent.map_or(Target::Service, Target::Agent);
        let meta = self.ingress.next_call(asking.call_id, method, kind, target, timeout);
        let asked = GatewayCall {
            caller: who.caller.clone(),
            meta: CallMeta { traceparent, metadata, ..meta },
            bytes_min: form.message_bytes_min(body.bytes_min()),
        };
        let (call, fault) = self.started(asked, form, body);
        match form {
            Form::Unary(codec) => {
                self.one(call, who, codec).await.map_err(|status| refused(status, &fault))
            }
            Form::Connect(codec) => {
                let wording = Wording::Connect(codec);
                let streamed = self.streamed(call, who, wording).await;
                Ok(streamed.unwrap_or_else(|status| ended(wording, &status)))
            }
            Form::Events(_) => {
                let streamed = self.streamed(call, who, Wording::Events).await;
                streamed.map_err(|status| refused(status, &fault))
            }
        }
    }

    /// The call, not yet begun. It owns all that it needs, so that it can go on in the body of its
    /// answer.
    fn started(
        self: &Arc<Self>,
        asked: GatewayCall,
        form: Form,
        body: &Unread,
    ) -> (ReplyFuture, LeftFault) {
        let (inner, left, body) = (self.clone(), LeftFault::default(), body.clone());
        let converter = self.conversions.of(&asked.caller);
        let fault = left.clone();
        let call = Box::pin(async move {
            let most = inner.ingress.limits().message_bytes_max;
            let memory = inner.ingress.memory(&asked.caller);
            let message = async {
                let (codec, extra) = match form {
                    Form::Unary(codec) | Form::Events(codec) => (codec, 0),
                    Form::Connect(codec) => (codec, PREFIX_BYTES),
                };
                let (whole, held) = body.read(most + extra, &memory).await.map_err(|found| {
                    let status = found.status();
                    *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                    status
                })?;
                let whole = if extra > 0 { codec::opened(whole)? } else { whole };
                let message = codec.decode(&converter, whole).await?;
                held.become_message(message).map_err(|why| why.into_status(Outcome::NotExecuted))
            };
            inner.ingress.call(asked, message).await
        });
        (call, left)
    }

    async fn one(
        self: &Arc<Self>,
        call: ReplyFuture,
        who: Who,
        codec: Codec,
    ) -> Result<Answer, Status> {
        let converter = self.conversions.of(&who.caller);
        let reply = tokio::select! {
            biased;
            reply = call => reply?,
            () = self.lapse(who) => return Err(lapsed()),
        };
        let Reply { body: Body::Message(message), metadata, trailing } = reply else {
            return Err(reply.message().err().unwrap_or_else(no_stream));
        };
        let content_type = match codec {
            Codec::Json => "application/json",
            Codec::Cbor => "application/cbor",
        };
        let text = codec.encode(&converter, message).await?;
        let mut answer = of_type(StatusCode::OK, content_type, AnswerBody::Text(text));
        set_outcome(&mut answer, Outcome::Ok);
        add_metadata(answer.headers_mut(), METADATA, &metadata);
        add_metadata(answer.headers_mut(), &format!("trailer-{METADATA}"), &trailing);
        Ok(answer)
    }

    /// The head of the answer waits a moment for the call: what is refused at once has a status of
    /// its own.
    async fn streamed(
        self: &Arc<Self>,
        mut call: ReplyFuture,
        who: Who,
        wording: Wording,
    ) -> Result<Answer, Status> {
        let asking = (self.conversions.of(&who.caller), self.lapse(who));
        let early = tokio::time::timeout(HTTP_STREAM_HEAD_WAIT_MAX, &mut call).await;
        let (body, metadata) = match early {
            Ok(reply) => {
                let Reply { body, metadata, .. } = reply?;
                let Body::Messages(messages) = body else { return Err(no_stream()) };
                (StreamBody::answering(wording, messages, asking), metadata)
            }
            Err(_elapsed) => (StreamBody::calling(wording, call, asking), Metadata::default()),
        };
        let mut answer = Response::new(AnswerBody::Stream(Box::new(body)));
        set_content_type(&mut answer, stream_type(wording));
        // What becomes of it is not known before its end, which says so.
        set_outcome(&mut answer, Outcome::Unknown);
        add_metadata(answer.headers_mut(), METADATA, &metadata);
        Ok(answer)
    }

    /// Ends when whoever asks may not ask any more.
    fn lapse(self: &Arc<Self>, who: Who) -> Lapse {
        if !who.can_lapse() {
            return Box::pin(std::future::pending());
        }
        let inner = self.clone();
        Box::pin(async move {
            loop {
                tokio::time::sleep(HTTP_CALLER_CHECK_EVERY).await;
                if !inner.still_knows(&who) {
                    return;
                }
            }
        })
    }
}

const fn stream_type(wording: Wording) -> &'static str {
    match wording {
        Wording::Events => "text/event-stream",
        Wording::Connect(Codec::Json) => "application/connect+json",
        Wording::Connect(Codec::Cbor) => "application/connect+cbor",
    }
}

/// A stream that has failed before its first message, in Connect's words: the status of HTTP is 200
/// whatever happened.
fn ended(wording: Wording, status: &Status) -> Answer {
    let end = ending(wording, Err(status.clone()), &Metadata::default());
    let mut answer = whole(StatusCode::OK, stream_type(wording), end);
    set_outcome(&mut answer, status.outcome());
    answer
}

fn refused(status: Status, fault: &LeftFault) -> Refusal {
    let fault = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
    fault.map_or_else(|| status.into(), Refusal::from)
}
