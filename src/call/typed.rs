//! Handlers made of typed functions: decode the request, run the function, encode its replies.

use super::{
    DynHandler, ReplyFuture, SharedHandler,
    body::Body,
    codec::encode_reply,
    ends::{Inbound, Outbound, Side},
    message::{CancelGuard, Context, Reply, ReplyPairs, Request},
    messages::{Messages, Next, Source},
    panics::log_panic,
};
use crate::{
    limits::STREAM_MESSAGES_AHEAD,
    metadata::Metadata,
    status::{Code, Status},
};
use serde::Serialize;
use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

pub(crate) struct TypedHandler<F> {
    pub(crate) function: F,
    /// Decodes a request, runs the function and encodes its replies.
    answer: fn(Arc<Self>, Request) -> ReplyFuture,
}

impl<F: Send + Sync + 'static> DynHandler for TypedHandler<F> {
    fn call_boxed(self: Arc<Self>, request: Request) -> ReplyFuture {
        let answer = self.answer;
        answer(self, request)
    }
}

pub(crate) fn typed_handler<F: Send + Sync + 'static>(
    function: F,
    answer: fn(Arc<TypedHandler<F>>, Request) -> ReplyFuture,
) -> SharedHandler {
    Arc::new(TypedHandler { function, answer })
}

/// Decodes the body of a request as a stream. One message in hand is a stream of one.
pub(crate) fn inbound<T>(body: Body) -> Result<Inbound<T>, Status> {
    let messages = match body {
        Body::Messages(messages) => messages,
        body => {
            let message = body.only("request")?.clone();
            Messages::new(Once).starting_with(Next::Message(message))
        }
    };
    Ok(Inbound::new(messages, Side::Responder))
}

/// The end of a stream whose only message was given before.
struct Once;

impl Source for Once {
    fn poll_next(&mut self, _: &mut task::Context<'_>) -> Poll<Next> {
        Poll::Ready(Next::End(Metadata::default()))
    }
}

/// Answers a request with the value of a function, whose error is always the handler's own answer
/// (outcome `app_error`), even a status that it got from elsewhere.
pub(crate) async fn answer_once<T, R: Serialize, Fut: Future<Output = Result<R, Status>>>(
    request: Request,
    decode: impl FnOnce(Body) -> Result<T, Status>,
    run: impl FnOnce(T, Context) -> Fut,
) -> Result<Reply, Status> {
    let (context, body, guard) = Context::split(request);
    let value = decode(body)?;
    let result = run(value, context.clone()).await;
    guard.disarm();
    let body = Body::Message(encode_reply(&result.map_err(Status::into_app_error)?)?);
    let ReplyPairs { metadata, trailing } = context.reply_pairs();
    Ok(Reply { body, metadata, trailing })
}

/// Answers a request with the stream of values that a function sends, when the first has come: the
/// metadata that travels before the replies is known only then.
pub(crate) async fn answer_with_stream<T, R, Fut>(
    request: Request,
    decode: impl FnOnce(Body) -> Result<T, Status>,
    run: impl FnOnce(T, Outbound<R>, Context) -> Fut,
) -> Result<Reply, Status>
where
    Fut: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (context, body, guard) = Context::split(request);
    let (sender, replies) = Messages::channel(STREAM_MESSAGES_AHEAD);
    let work: Work = Box::pin(run(decode(body)?, Outbound::new(sender), context.clone()));
    let (work, guard, result) = (Some(work), Some(guard), Ok(()));
    let mut running = RunningHandler { work, guard, result, replies, context: context.clone() };
    let first = std::future::poll_fn(|cx| running.poll_next(cx)).await;
    if let Next::Failed(status) = first {
        return Err(status);
    }
    let messages = Messages::new(running).starting_with(first);
    Ok(Reply { metadata: context.reply_pairs().metadata, ..Reply::stream(messages) })
}

type Work = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// A running handler with a stream of replies: polling them drives it, dropping them drops it.
struct RunningHandler {
    /// `None` once it has returned.
    work: Option<Work>,
    guard: Option<CancelGuard>,
    /// Result of the handler, as it is sent.
    result: Result<(), Status>,
    /// Replies that were sent and not yet received.
    replies: Messages,
    context: Context,
}

impl RunningHandler {
    fn poll_work(&mut self, cx: &mut task::Context<'_>) {
        let Some(work) = &mut self.work else { return };
        // Here, so that what it has sent before it panicked still arrives before the failure.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        let result = match polled {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(result)) => result.map_err(Status::into_app_error),
            Err(panic) => {
                log_panic(&*panic, self.context.call_id(), self.context.method());
                Err(Status::unknown(Code::Internal, "the handler panicked"))
            }
        };
        self.result = result;
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
        self.work = None;
    }
}

impl Source for RunningHandler {
    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Next> {
        self.poll_work(cx);
        match self.replies.poll_event(cx) {
            Poll::Ready(Next::Message(message)) => return Poll::Ready(Next::Message(message)),
            // A handler that has finished or dropped its way out may still be at work.
            Poll::Ready(_) | Poll::Pending => {}
        }
        if self.work.is_some() {
            return Poll::Pending;
        }
        Poll::Ready(match std::mem::replace(&mut self.result, Ok(())) {
            Ok(()) => Next::End(self.context.reply_pairs().trailing),
            Err(status) => Next::Failed(status),
        })
    }

    fn poll_background(&mut self, cx: &mut task::Context<'_>) -> Poll<Status> {
        self.poll_work(cx);
        Poll::Pending
    }
}
